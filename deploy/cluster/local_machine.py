"""What a local Ray can never have, said before it starts: it has this machine alone."""

import os
from math import ceil, floor
from pathlib import Path

import torch

from common.config.recipe import Recipe
from common.config.reward import RewardActorsSection
from common.errors import ClusterError

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def require_local(recipe: Recipe, *, with_learner: bool = True) -> None:
    """Raise ClusterError where no cluster is given (RAY_ADDRESS) and this machine lacks what the recipe asks for.

    It may have fewer CPUs: processes share cores, but neither memory nor GPUs.
    """
    if not os.environ.get("RAY_ADDRESS"):
        for problem in problems(recipe, with_learner, torch.cuda.device_count(), memory_bytes()):
            raise ClusterError(problem)


def problems(recipe: Recipe, with_learner: bool, num_gpus: int, num_bytes: int) -> list[str]:
    """One sentence for each thing that a machine with so many GPUs and bytes of memory cannot give."""
    actors, learner, found = recipe.actors, recipe.learner, []
    elsewhere = "or join a cluster by RAY_ADDRESS"
    store = recipe.ray.object_store_bytes
    if store > num_bytes:
        found.append(
            f"ray.object_store_bytes is {store}, and this machine has {num_bytes} bytes of memory: "
            f"lower it, {elsewhere}"
        )
    ranks = learner.num_ranks if with_learner else 0
    judges = recipe.reward.actors if with_learner else RewardActorsSection()
    needed = _gpus_of(ranks, learner.num_gpus, actors.count, actors.num_gpus)
    needed += _gpus_of(0, 0, judges.count, judges.num_gpus)
    if needed > num_gpus:
        found.append(
            f"actors.count {actors.count} with actors.num_gpus {actors.num_gpus:g}{_of_judges(judges)} and "
            f"learner.num_ranks {ranks} with learner.num_gpus {learner.num_gpus:g} take {needed:g} GPUs, and this "
            f"machine has {num_gpus}: lower them, {elsewhere}"
        )
    if recipe.compute.device == "cuda" and not found:
        without = ["actors.num_gpus"] if not actors.num_gpus else []
        without += ["reward.actors.num_gpus"] if judges.count and not judges.num_gpus else []
        without += ["learner.num_gpus"] if with_learner and not learner.num_gpus else []
        if without:
            found.append(
                f"compute.device is cuda, and {' and '.join(without)} 0: Ray shows a process the GPUs that it "
                "asks for; set them, or compute.device=cpu"
            )
    return found


def _of_judges(judges: RewardActorsSection) -> str:
    if not judges.count:
        return ""
    return f", reward.actors.count {judges.count} with reward.actors.num_gpus {judges.num_gpus:g}"


def memory_bytes() -> int:
    """Of this machine, or of its container where that has less."""
    known = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in map(Path, _LIMITS):
        text = path.read_text().strip() if path.is_file() else ""
        known += [int(text)] if text.isdigit() else []
    return min(known)


def _gpus_of(num_ranks: int, of_rank: float, num_actors: int, of_actor: float) -> int:
    """GPUs for so many processes. A share of one never lies on two; actors take what a rank leaves of its GPU."""
    of_ranks = num_ranks * of_rank
    whole = ceil(of_ranks)
    if not 0 < of_actor < 1:
        return whole + ceil(num_actors * of_actor)
    beside = floor((whole - of_ranks) / of_actor + 1e-9)
    return whole + ceil(max(0, num_actors - beside) / floor(1 / of_actor + 1e-9))
