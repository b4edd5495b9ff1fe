"""What the processes of a run need of one another, a sentence each, with what to change."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from common.config.placement import placement_problems

if TYPE_CHECKING:
    from common.config.recipe import Recipe


def service_problems(recipe: "Recipe") -> Iterator[str]:
    learner, per_ticket = recipe.learner, recipe.actors.images_per_ticket
    if learner.images_per_step % per_ticket:
        yield (
            f"learner.images_per_step is {learner.images_per_step} and actors.images_per_ticket is {per_ticket}: "
            "the first must be a multiple of the second"
        )
    yield from placement_problems(recipe)
    autoscale = recipe.actors.autoscale
    if autoscale is not None and not autoscale.min <= recipe.actors.count <= autoscale.max:
        yield (
            f"actors.count is {recipe.actors.count} and actors.autoscale goes from {autoscale.min} to "
            f"{autoscale.max}: start with a count between the two"
        )
    if learner.num_ranks > learner.images_per_step:
        yield (
            f"learner.num_ranks is {learner.num_ranks}, more than learner.images_per_step "
            f"({learner.images_per_step}): every rank needs an image a step"
        )
    if learner.num_ranks > 1 and 0 < learner.num_gpus < 1:
        yield (
            f"learner.num_ranks is {learner.num_ranks} and learner.num_gpus {learner.num_gpus:g}: two ranks on "
            "one GPU hang in NCCL; set learner.num_gpus=1, or learner.num_ranks=1"
        )
    need = recipe.buffer_capacity * recipe.group_bytes
    if recipe.buffer.max_bytes < need:
        yield (
            f"buffer.max_bytes is {recipe.buffer.max_bytes}, but max_staleness {recipe.buffer.max_staleness} "
            f"with {learner.images_per_step} images a step keeps {recipe.buffer_capacity} groups of "
            f"{recipe.group_bytes} bytes: raise buffer.max_bytes to at least {need}, or lower buffer.max_staleness"
        )
    if recipe.evaluation.enabled and (problem := recipe.evaluation.problem(recipe.policy.conditioning)):
        yield f"{problem}, or set evaluation.enabled=false"
