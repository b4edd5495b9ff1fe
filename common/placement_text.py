"""What a process asks of the cluster, in words."""

from collections.abc import Mapping


def needs_text(num_cpus: float, num_gpus: float, labels: Mapping[str, str], free: Mapping[str, float]) -> str:
    """What it needs, and what is `free` of Ray's resources."""
    listed = ", ".join(f"{key} = {value}" for key, value in labels.items())
    node = f" on a node with the label {listed}" if listed else ""
    return (
        f"{num_cpus:g} CPU and {num_gpus:g} GPU{node}, and the cluster has {free.get('CPU', 0):g} CPU and "
        f"{free.get('GPU', 0):g} GPU free"
    )
