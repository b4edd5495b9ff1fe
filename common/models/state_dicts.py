"""Which tensors a weights file holds, under the model's own names.

Training scripts store a state dict under a key of its own, and what wraps a model writes itself into every name:
DDP (`module.`), torch.compile (`_orig_mod.`), FSDP, activation checkpointing, or a module with no other part.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

NESTED_UNDER = ("model", "module", "state_dict", "ema", "model_ema", "ema_model", "params", "weights")
"""Keys that a state dict may stand under, also one below another; the first that is there is taken."""
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}


def state_dict_of(content: Any) -> dict[str, Tensor] | None:
    """The tensors by name in what a pickle holds, without numbers beside them; None if there are none."""
    if not isinstance(content, Mapping):
        return None
    for key in NESTED_UNDER:
        found = state_dict_of(content.get(key))
        if found:
            return found
    if any(isinstance(value, Mapping) for value in content.values()):
        return None
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    return tensors or None


def plain_names(names: Iterable[str]) -> dict[str, str]:
    """The model's own name for each stored one: without wrappers, or a first part that all names share."""
    parts = {name: [part for part in name.split(".") if part not in _WRAPPERS] for name in names}
    while parts and all(len(each) > 1 for each in parts.values()):
        first = {each[0] for each in parts.values()}
        if len(first) > 1 or first.pop().isdigit():  # a number is a place in a list of the model's own
            break
        parts = {name: each[1:] for name, each in parts.items()}
    return {name: ".".join(each) for name, each in parts.items()}


def prefixes_of(needed: Iterable[str], stored: Iterable[str]) -> list[str]:
    """What stands before the needed names in a file that has each of them under it, such as "ema."."""
    needed, stored = list(needed), set(stored)
    ending = f".{needed[0]}"
    found = [name.removesuffix(needed[0]) for name in sorted(stored) if name.endswith(ending)]
    return [prefix for prefix in found if all(prefix + name in stored for name in needed)]
