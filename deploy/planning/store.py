"""What goes through Ray's object store, and whether the recipe's store has room."""

from dataclasses import dataclass

from common.config.recipe import Recipe
from deploy.planning.gpus import GIGA

VERSIONS_ALIVE = 2  # of the weights: the published one, and the next while it is published


@dataclass(frozen=True)
class StoreBytes:
    groups_a_step: int  # written once by actors, read once by learner ranks
    weights_a_version: int  # written once a step by learner rank 0, read once by each node with reward actors
    at_most: int  # held at once: the buffer, full, and the weights


def store_bytes(recipe: Recipe, policy_bytes: int) -> StoreBytes:
    return StoreBytes(
        groups_a_step=recipe.learner.images_per_step * recipe.group_bytes,
        weights_a_version=policy_bytes,
        at_most=recipe.buffer_capacity * recipe.group_bytes + VERSIONS_ALIVE * policy_bytes,
    )


def store_problem(recipe: Recipe, store: StoreBytes) -> str | None:
    """Where a local Ray's store is too small; on a cluster its size is the cluster's own."""
    if store.at_most <= recipe.ray.object_store_bytes:
        return None
    needed = -(-store.at_most * 11 // 10 // GIGA) * GIGA
    return (
        f"a local Ray's object store has {recipe.ray.object_store_bytes / GIGA:.1f} GB and must hold "
        f"{store.at_most / GIGA:.1f} GB: set ray.object_store_bytes={needed} (on a cluster, for every node)"
    )
