"""How groups are made, and what a kind of rollout cannot be combined with."""

from collections.abc import Iterator
from math import floor
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from common.config.base import Section

if TYPE_CHECKING:
    from common.config.recipe import Recipe

Kind = Literal["teacher_forced", "free_running"]
Share = Annotated[float, Field(ge=0, le=1)]


class RolloutSection(Section):
    """How groups are made."""

    kind: Kind = "teacher_forced"
    """teacher_forced: all samples of a group share the image's own codes, noisy, as their context. free_running:
    each sample is drawn from the generator's own tokens, for a class or a caption alone; no picture is compared
    with, so that the reward needs terms that judge a picture by itself."""
    teacher_forced: Share | None = None
    """Both kinds in one step: the share of teacher-forced groups, as in {teacher_forced: 0.5, free_running: 0.5}.
    Terms of the reward that compare with the image are for these alone, all others for free-running groups."""
    free_running: Share | None = None
    """The share of free-running groups; the two add up to 1."""
    guidance_scale: float = Field(default=1.0, ge=0)
    """For free-running samples: the scale of classifier-free guidance, 1 for none. Both sides of the ratio and the
    KL prior are of the guided distribution, which doubles the learner's work; under profile published they are
    of the unguided one."""

    @model_validator(mode="after")
    def _shares_agree(self) -> Self:
        shares = (self.teacher_forced, self.free_running)
        if shares == (None, None):
            return self
        if None in shares or abs(sum(share or 0 for share in shares) - 1) > 1e-9:
            raise ValueError(
                f"rollout.teacher_forced is {shares[0]} and rollout.free_running {shares[1]}: the two shares must "
                "add up to 1; for one kind alone set rollout.kind and leave both out"
            )
        if self.kind != "teacher_forced":
            raise ValueError(
                f"rollout.kind is {self.kind} and rollout.teacher_forced a share: set one or the other"
            )
        return self

    @property
    def shares(self) -> dict[Kind, float]:
        """Of each kind that there is, in the order in which a step has them."""
        if self.teacher_forced is None or self.free_running is None:
            return {self.kind: 1.0}
        shares: dict[Kind, float] = {"teacher_forced": self.teacher_forced, "free_running": self.free_running}
        return {kind: share for kind, share in shares.items() if share}

    def kind_of(self, ticket: int) -> Kind:
        """Of the ticket at this place of a step, in which the kinds take turns."""
        free = self.shares.get("free_running", 0.0)
        is_free = floor((ticket + 1) * free + _ROUNDING) > floor(ticket * free + _ROUNDING)
        return "free_running" if is_free else "teacher_forced"


_ROUNDING = 1e-6


def rollout_problems(recipe: "Recipe") -> Iterator[str]:
    """A sentence each, with what to change."""
    shares = recipe.rollout.shares
    if "free_running" not in shares:
        if recipe.rollout.guidance_scale != 1:
            yield (
                f"rollout.guidance_scale is {recipe.rollout.guidance_scale:g} and no group is free-running: set "
                "rollout.kind=free_running, or leave it out"
            )
    elif len(shares) > 1:
        yield from _of_both(recipe)
    else:
        yield from _of_free_running(recipe)
    if "teacher_forced" in shares and not recipe.source.has_pictures:
        yield (
            f"source.kind is {recipe.source.kind}, which has no pictures, and teacher-forced groups are made of "
            "them: set rollout.kind=free_running, or another source"
        )
    if recipe.evaluation.enabled and not recipe.source.has_pictures:
        yield (
            f"source.kind is {recipe.source.kind}, which has no pictures to compare with: set "
            "evaluation.enabled=false, or another source"
        )


def _of_both(recipe: "Recipe") -> Iterator[str]:
    tickets, shares = recipe.tickets_per_step, recipe.rollout.shares
    if any(abs(share * tickets - round(share * tickets)) > 1e-6 for share in shares.values()):
        yield (
            f"rollout.free_running is {shares['free_running']:g} and a step has {tickets} tickets "
            "(learner.images_per_step / actors.images_per_ticket), which are of one kind each: the share of "
            "either kind must be a whole number of tickets"
        )
    if recipe.profile == "published":
        yield (
            "profile is published and the step has groups of both kinds, which no released script has: set "
            "profile=corrected, or one rollout.kind"
        )
    if recipe.record.groups:
        yield (
            "record.groups is true, and a step with groups of both kinds cannot be replayed: set "
            "record.groups=false, or one rollout.kind"
        )
    yield from _without_judge(recipe)


def _of_free_running(recipe: "Recipe") -> Iterator[str]:
    for name in recipe.reward.comparing_weights:
        yield (
            f"reward.{name} is {recipe.reward.comparing_weights[name]:g} and rollout.kind is free_running, whose "
            f"samples have no image to be compared with: set reward.{name}=0"
        )
    yield from _without_judge(recipe)
    if recipe.advantage.credit != "sample":
        yield (
            f"advantage.credit is {recipe.advantage.credit} and rollout.kind is free_running, whose samples share "
            "no places: set advantage.credit=sample"
        )
    if recipe.learner.prior == "ce" and recipe.learner.ce_weight:
        yield (
            "learner.prior is ce, the cross-entropy on an image's codes, and rollout.kind is free_running, whose "
            "groups have none: set learner.prior=kl, or learner.ce_weight=0"
        )
    for key in ("noise", "noise_end", "condition_drop"):
        if value := getattr(recipe.context, key):
            yield (
                f"context.{key} is {value:g}, which is for teacher-forced groups, and rollout.kind is "
                f"free_running: leave context.{key} out"
            )


def _without_judge(recipe: "Recipe") -> Iterator[str]:
    if not recipe.of_kind("free_running").reward.weights:
        yield (
            "there are free-running groups, and no term of the reward judges a picture by itself: give "
            "reward.classifier or reward.python a weight"
        )
