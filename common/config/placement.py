"""What `placement` cannot be combined with, a sentence each, with what to change."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from common.config.recipe import Recipe


def placement_problems(recipe: "Recipe") -> Iterator[str]:
    if recipe.placement == "split":
        if recipe.actors.count < 1:
            yield (
                "actors.count is 0, and with placement split nobody else rolls out: set actors.count to at least "
                "1, or placement=colocated"
            )
        return
    if recipe.buffer.max_staleness:
        yield (
            f"placement is colocated and buffer.max_staleness {recipe.buffer.max_staleness}: a rank rolls out "
            "with the policy that it has, which is never old; set buffer.max_staleness=0, or placement=split"
        )
    if recipe.actors.autoscale is not None:
        yield (
            "placement is colocated and actors.autoscale set, which goes by a learner that waits for actors: set "
            "actors.autoscale=null, or placement=split"
        )
    if recipe.profile == "published":
        yield (
            "placement is colocated and profile published, whose dropout would be in the samples as well: set "
            "placement=split, or profile=corrected"
        )
