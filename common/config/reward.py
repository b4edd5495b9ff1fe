"""A judge behind HTTP, and what the terms of the reward need of the rest of a recipe."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from common.config.base import Section
from common.config.service import ActorsSection, AutoscaleSection

if TYPE_CHECKING:
    from common.config.recipe import Recipe


class HttpJudge(Section):
    """A service of your own that judges pictures. It is sent {"images": […], "prompts": […]}, PNGs in base64, and
    answers {"scores": […]}: a number per picture, higher is better, or null for one that it cannot judge."""

    url: Annotated[str, Field(pattern=r"^https?://[^/]")]
    """Where it listens, the same for all actors."""
    weight: float = Field(default=1.0, gt=0)
    """Weight of the score."""
    batch_size: int = Field(default=8, gt=0)
    """Pictures in a request."""
    concurrency: int = Field(default=4, gt=0)
    """Requests that an actor has under way at once."""
    timeout_seconds: float = Field(default=30.0, gt=0)
    """How long an answer may take, to its last byte."""
    retries: int = Field(default=2, ge=0)
    """How often a request is made again that got no answer, status 408, 429 or 5xx, or the wrong number of scores;
    each time after a longer pause."""
    on_failure: Literal["drop", "stop"] = "drop"
    """drop: a sample without a score is counted and teaches nothing, and so is a group with fewer than two scores.
    stop: the run ends."""


class RewardActorsSection(Section):
    """Judge actors: they measure clip, hps, pickscore, aesthetic, classifier, http, python and evaluation.scores
    apart from the reward actors, which load none of these and go on with their next ticket meanwhile. mse, lpips
    and l1 stay where samples are decoded. The results are the same."""

    count: int = Field(default=0, ge=0)
    """Number of judge actors; 0 has the reward actors measure these terms as well."""
    autoscale: AutoscaleSection | None = None
    """Let the driver change `count` between a minimum and a maximum; null leaves it to you."""
    tickets_in_flight: int = Field(default=2, gt=0)
    """Tickets, or chunks of an evaluation, that a judge actor holds: it judges one, and the others wait so that it
    never idles."""
    num_cpus: float = Field(default=1, ge=0)
    """CPUs a judge actor reserves in Ray."""
    num_gpus: float = Field(default=0, ge=0)
    """GPUs, or a fraction of one, that a judge actor reserves in Ray."""
    label_selector: dict[str, str] = Field(default={})
    """Node labels that a judge actor's node must have, such as {ray.io/accelerator-type: L4}."""
    max_restarts: int = Field(default=10, ge=0)
    """Number of dead judge actors to replace before the run gives up."""
    ticket_timeout_seconds: float = Field(default=600.0, gt=0)
    """A judge actor that takes longer over a ticket, or a chunk of an evaluation, loses it and is replaced."""


AnyActorsSection = ActorsSection | RewardActorsSection


def reward_problems(recipe: "Recipe") -> Iterator[str]:
    """A sentence each, with what to change."""
    judges = recipe.reward.actors.count
    if judges and (recipe.is_scored_in_learner or not recipe.reward.judged_weights):
        yield (
            f"reward.actors.count is {judges}, and no term of the reward can be measured apart: give reward.clip, "
            "hps, pickscore, aesthetic, classifier, http or python a weight, or set reward.actors.count=0"
        )
    yield from _autoscale_problems(recipe.reward.actors)
    if not recipe.reward.classifier:
        return
    if recipe.policy.conditioning == "text":
        yield (
            "reward.classifier has a weight, but policy.conditioning is text, and captions have no classes: set "
            "reward.classifier=0"
        )
    if not (recipe.reward.classifier_checkpoint or recipe.evaluation.classifier):
        yield (
            "reward.classifier has a weight and no weights file: set reward.classifier_checkpoint, or "
            "evaluation.classifier"
        )
    dropped = recipe.context.condition_drop
    if dropped and list(recipe.rollout.shares) == ["teacher_forced"]:
        yield (
            f"context.condition_drop is {dropped:g}, and reward.classifier needs the class of each group: set "
            "context.condition_drop=0"
        )


def num_handed_over(recipe: "Recipe") -> float:
    """Pictures of a group, and the image that they are compared with, on their way to judge actors; of both kinds
    of groups the mean. 0 without judge actors."""
    if not recipe.reward.actors.count:
        return 0.0
    G = recipe.group.size
    sizes = {"teacher_forced": G + 1, "free_running": G}  # to the latter an image is a condition alone
    judged = {kind for kind in recipe.rollout.shares if recipe.of_kind(kind).reward.judged_weights}
    return sum(share * sizes[kind] for kind, share in recipe.rollout.shares.items() if kind in judged)


def _autoscale_problems(section: RewardActorsSection) -> Iterator[str]:
    autoscale, count = section.autoscale, section.count
    if autoscale is not None and not count:
        yield (
            "reward.actors.autoscale is set and reward.actors.count is 0, so there are no judge actors: set "
            "reward.actors.autoscale=null, or a count between its min and max"
        )
    elif autoscale is not None and not autoscale.min <= count <= autoscale.max:
        yield (
            f"reward.actors.count is {count} and reward.actors.autoscale goes from {autoscale.min} to "
            f"{autoscale.max}: start with a count between the two"
        )
