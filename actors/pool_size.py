"""How many reward actors there can be, and how many are asked for at a time."""

from collections.abc import Mapping

from common.config.reward import AnyActorsSection
from common.errors import ClusterError

WAVE = 32  # actors that load at a time; from then on as many as are ready
FAR = 4  # times what the cluster holds: nodes may be on their way
FEW = 16  # may be asked for of any cluster
EVER = 10_000
LEAST_BYTES = 256 << 20  # of an actor: Python and PyTorch alone


class TooManyActorsError(ClusterError):
    """More than the cluster will ever hold."""


def room_for(section: AnyActorsSection, most: Mapping[str, float]) -> int:
    """Actors that a cluster of these resources holds."""
    needs = {"CPU": section.num_cpus, "GPU": section.num_gpus, "memory": LEAST_BYTES if "memory" in most else 0}
    return min([EVER, *(int(min(EVER, most.get(name, 0) / need)) for name, need in needs.items() if need)])


def most_actors(section: AnyActorsSection, most: Mapping[str, float]) -> int:
    """Actors that can be asked for, of a cluster of these resources."""
    return min(EVER, max(FEW, FAR * room_for(section, most)))


def require_possible(
    count: int, section: AnyActorsSection, most: Mapping[str, float], noun: str = "reward actor"
) -> None:
    """TooManyActorsError where `count` actors are far more than such a cluster holds."""
    limit = most_actors(section, most)
    if count > limit:
        raise TooManyActorsError(
            f"{count} {noun}s are far beyond this cluster, which holds {room_for(section, most)} (each "
            f"needs {section.num_cpus:g} CPU, {section.num_gpus:g} GPU and {LEAST_BYTES >> 20} MiB): ask for at "
            f"most {limit}, or add nodes first"
        )


def next_wave(wanted: int, ready: int, loading: int) -> int:
    """How many more to ask for now: they come in waves, the more the more are ready."""
    return max(0, min(wanted - ready - loading, max(WAVE, ready) - loading))
