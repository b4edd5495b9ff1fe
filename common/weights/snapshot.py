"""A policy's weights on their way to the actors: one flat buffer and the places in it; and their digest."""

import math
import warnings
from collections.abc import Collection, Mapping
from dataclasses import replace
from hashlib import sha256

import numpy as np
import torch
from torch import Tensor, nn

from common.models.lora import trained_tensors
from common.types import WeightEntry, WeightSnapshot

ALIGNMENT = 64  # bytes, of each tensor in the buffer


class WeightsBuffer:
    """Memory for a model's weights that is kept from version to version; pinned where they come from a GPU."""

    def __init__(self, tensors: Mapping[str, Tensor], narrow: Collection[str] = ()):
        """For `tensors` of these names, types and shapes; those named in `narrow` are kept as bfloat16."""
        entries, end = [], 0
        for name, tensor in tensors.items():
            dtype = torch.bfloat16 if name in narrow else tensor.dtype
            start = math.ceil(end / ALIGNMENT) * ALIGNMENT
            entries.append(WeightEntry(name, str(dtype).removeprefix("torch."), tuple(tensor.shape), start))
            end = start + tensor.numel() * dtype.itemsize
        is_pinned = any(tensor.is_cuda for tensor in tensors.values())
        buffer = torch.empty(end, dtype=torch.uint8, pin_memory=is_pinned)
        self._empty = WeightSnapshot(-1, tuple(entries), buffer.numpy())
        self._tensors = tensors_of(self._empty)

    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy their values, and wait until they are here."""
        with torch.no_grad():
            for name, tensor in tensors.items():
                self._tensors[name].copy_(tensor, non_blocking=True)
        if any(tensor.is_cuda for tensor in tensors.values()):
            torch.cuda.synchronize()

    def snapshot(self, version: int) -> WeightSnapshot:
        """What the buffer holds, as policy `version`: the buffer itself, which the next `fill` changes."""
        return replace(self._empty, version=version)


def take_snapshot(policy: nn.Module, version: int, narrow: Collection[str] = ()) -> WeightSnapshot:
    """A copy of the policy's weights, or of its adapters; those named in `narrow` become bfloat16."""
    return snapshot_of(trained_tensors(policy), version, narrow)


def snapshot_of(tensors: Mapping[str, Tensor], version: int, narrow: Collection[str] = ()) -> WeightSnapshot:
    """The same of tensors by name."""
    buffer = WeightsBuffer(tensors, narrow)
    buffer.fill(tensors)
    return buffer.snapshot(version)


def tensors_of(snapshot: WeightSnapshot) -> dict[str, Tensor]:
    """The tensors of a snapshot, in its own memory: only to be read where that is the object store's."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        buffer = torch.from_numpy(snapshot.buffer)
    found = {}
    for entry in snapshot.entries:
        dtype = getattr(torch, entry.dtype)
        end = entry.start + math.prod(entry.shape) * dtype.itemsize
        found[entry.name] = buffer[entry.start : end].view(dtype).view(entry.shape)
    return found


def load_snapshot(policy: nn.Module, snapshot: WeightSnapshot) -> None:
    """Copy the snapshot's weights into the policy, or into its adapters, in place.

    Raises ValueError where the names do not match.
    """
    own, given = trained_tensors(policy), tensors_of(snapshot)
    if own.keys() != given.keys():
        raise ValueError(f"snapshot and policy differ in {sorted(own.keys() ^ given.keys())[:3]}")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(given[name], non_blocking=True)


def linear_parameters(policy: nn.Module) -> frozenset[str]:
    """Names of the parameters that linear layers alone use: under autocast they are cast before each use."""
    linear, others = {}, set()
    for prefix, module in policy.named_modules():
        for name, parameter in module.named_parameters(prefix, recurse=False):
            if isinstance(module, nn.Linear):
                linear[name] = parameter
            else:
                others.add(parameter)
    return frozenset(name for name, parameter in linear.items() if parameter not in others)


def make_bfloat16(policy: nn.Module, names: Collection[str]) -> None:
    """Let these parameters be bfloat16, in place."""
    for name, parameter in policy.named_parameters():
        if name in names:
            parameter.data = parameter.data.bfloat16()


def weights_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Hex digest of names, types, shapes and bytes, in the order of the names."""
    digest = sha256()
    for name in sorted(tensors):
        array = np.ascontiguousarray(as_array(tensors[name]))
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()


def as_array(tensor: Tensor) -> np.ndarray:
    """Its values, copied only from a GPU. bfloat16, which numpy does not have, becomes its int16 bits."""
    tensor = tensor.detach().cpu()
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
