"""Names of checkpoint folders, for those who look at a run without PyTorch."""

import re


def step_of(name: str) -> int:
    """The step in a checkpoint's folder name; -1 for other names."""
    match = re.fullmatch(r"step-(\d{6,})", name)
    return int(match[1]) if match else -1
