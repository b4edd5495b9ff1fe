"""A judge behind HTTP, and what the terms of the reward need of the rest of a recipe."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from common.config.base import Section

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


def reward_problems(recipe: "Recipe") -> Iterator[str]:
    """A sentence each, with what to change."""
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
