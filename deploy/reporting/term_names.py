"""The terms of the reward as pages call them, and which of them a run has measured."""

from collections.abc import Mapping, Sequence
from typing import Any

from deploy.reporting.numbers import finite

KNOWN = {"mse": "MSE", "lpips": "LPIPS", "l1": "L1"}
"""Lower is better. A term of somebody's own is called what its recipe calls it, and says itself what is better."""

PREFERENCES = {"clip": "CLIP score", "hps": "HPS v2", "pickscore": "PickScore", "aesthetic": "aesthetic score"}
"""Higher is better."""

PREFIX = "reward_"  # of their keys in metrics.jsonl
_OTHERS = {"reward_mean", "reward_std"}


def title(name: str) -> str:
    return (KNOWN | PREFERENCES).get(name, name)


def direction(name: str, better: Mapping[str, str]) -> str:
    """Whether "higher" or "lower" is better; empty where it is not known."""
    return "lower" if name in KNOWN else "higher" if name in PREFERENCES else better.get(name, "")


def measured_terms(steps: Sequence[dict[str, Any]]) -> list[str]:
    """By name, in the order of the lines of metrics.jsonl that have them.

    Runs of a former version have a 0 in every line for a known term that they left out.
    """
    keys = dict.fromkeys(key for line in steps for key in line if key.startswith(PREFIX) and key not in _OTHERS)
    values = {key.removeprefix(PREFIX): finite(line.get(key) for line in steps) for key in keys}
    return [name for name, found in values.items() if (any(found) if name in KNOWN else found)]
