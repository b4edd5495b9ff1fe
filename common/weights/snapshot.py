"""A policy's weights as numpy arrays, for sending to actors, and their digest."""

from collections.abc import Mapping
from hashlib import sha256

import numpy as np
import torch
from torch import nn

from common.types import WeightSnapshot


def take_snapshot(policy: nn.Module, version: int) -> WeightSnapshot:
    """Copies of the policy's weights. numpy has no bfloat16, so it travels as its int16 bits."""
    tensors = {name: tensor.detach().cpu() for name, tensor in policy.state_dict().items()}
    return snapshot_of(tensors, version)


def snapshot_of(tensors: Mapping[str, torch.Tensor], version: int) -> WeightSnapshot:
    """Copies of weights that are already on the CPU."""
    arrays, bfloat16_names = {}, set()
    for name, tensor in tensors.items():
        if tensor.dtype == torch.bfloat16:
            bfloat16_names.add(name)
            tensor = tensor.view(torch.int16)
        arrays[name] = np.array(tensor.numpy())
    return WeightSnapshot(version, arrays, frozenset(bfloat16_names))


def load_snapshot(policy: nn.Module, snapshot: WeightSnapshot) -> None:
    """Copy the snapshot's weights into the policy in place. Names must match exactly."""
    own = policy.state_dict()
    if own.keys() != snapshot.arrays.keys():
        raise ValueError(f"snapshot and policy differ in {sorted(own.keys() ^ snapshot.arrays.keys())[:3]}")
    with torch.no_grad():
        for name, parameter in own.items():
            tensor = torch.from_numpy(np.array(snapshot.arrays[name]))  # the store's arrays are read-only
            if name in snapshot.bfloat16_names:
                tensor = tensor.view(torch.bfloat16)
            parameter.copy_(tensor)


def weights_sha256(snapshot: WeightSnapshot) -> str:
    """Hex digest of names, types, shapes and bytes, in the order of the names."""
    digest = sha256()
    for name in sorted(snapshot.arrays):
        array = np.ascontiguousarray(snapshot.arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
