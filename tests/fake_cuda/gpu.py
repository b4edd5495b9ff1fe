"""A GPU that is not there.

    with fake_cuda() as counts:
        ...  # torch.cuda.is_available() is true, and torch.device("cuda") works
    print(counts.syncs.most_common())

The numbers are real: made by CPU kernels, under the rules of CUDA (`tensor.py`). Not simulated: streams and what
runs at the same time, TF32, the numerics and the choice of CUDA's kernels, NCCL, limits of memory, torch.compile,
and files of tensors on the GPU (torch.save).
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from importlib import import_module
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.fake_cuda.backward import backward, grad
from tests.fake_cuda.counts import Counts, place
from tests.fake_cuda.tensor import CudaTensor, Device

SEED_OFFSET = 1  # of the GPU's random numbers from the CPU's under one seed


@contextmanager
def fake_cuda() -> Iterator[Counts]:
    """A process with one GPU, until the end of the block; tensors on it must not be used afterwards."""
    counts = Counts()
    device = Device(counts)
    torch._C._ensureCUDADeviceGuardSet()
    with ExitStack() as stack:

        def replace(target: Any, **values: Any) -> None:
            for name, value in values.items():
                stack.enter_context(mock.patch.object(target, name, value))

        replace(torch.cuda, **_what_cuda_says(device, counts))
        replace(torch.Tensor, backward=backward)
        replace(torch.autograd, grad=grad)
        replace(F, scaled_dot_product_attention=_attention(F.scaled_dot_product_attention))
        replace(torch, mm=_product(torch.mm))
        known = [torch.Tensor, torch.nn.Parameter, CudaTensor]  # to optimizers that take many tensors at once
        replace(import_module("torch.optim.optimizer"), _foreach_supported_types=known)
        replace(torch.utils._foreach_utils, _foreach_supported_types=known)
        stack.callback(torch._C._set_only_lift_cpu_tensors, torch._C._only_lift_cpu_tensors())
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(…, device="cuda") begins on the CPU
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))  # its operations have no kernels on a CPU
        replace(Device, current=device)
        stack.enter_context(device)
        yield counts
        device.settle()


def _what_cuda_says(device: Device, counts: Counts) -> dict[str, Any]:
    def synchronize(*_: Any) -> None:
        counts.synchronizes[place()] += 1
        device.settle()

    def manual_seed(seed: int) -> None:
        device.random_state = torch.Generator().manual_seed(seed + SEED_OFFSET).get_state()

    def set_rng_state(state: Tensor, *_: Any) -> None:
        device.random_state = state

    return {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "_initialized": True,
        "_lazy_init": lambda: None,
        "_is_in_bad_fork": lambda: False,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "device": nullcontext,
        "is_bf16_supported": lambda *_, **__: True,
        "max_memory_allocated": lambda *_: 0,
        "empty_cache": lambda: None,
        "synchronize": synchronize,
        "manual_seed": manual_seed,
        "manual_seed_all": manual_seed,
        "get_rng_state": lambda *_: device.random_state,
        "set_rng_state": set_rng_state,
    }


def _product(real: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`torch.mm`, whose `out_dtype` has no kernel on a CPU."""

    def mm(a: Tensor, b: Tensor, out_dtype: torch.dtype | None = None) -> Tensor:
        if out_dtype is None:
            return real(a, b)
        assert a.is_cuda, "out_dtype is CUDA's alone"
        return real(a.to(out_dtype), b.to(out_dtype))

    return mm


def _attention(real: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The real function asks the driver which kernel to take: its mathematics, with CUDA's demands."""

    def attention(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        **others: Any,
    ) -> Tensor:
        if not q.is_cuda:
            options = {"dropout_p": dropout_p, "is_causal": is_causal, "scale": scale}
            return real(q, k, v, attn_mask=attn_mask, **options, **others)
        assert not any(others.values()), f"not in the fake: {others}"
        if torch.is_autocast_enabled("cuda"):
            q, k, v = (each.to(torch.get_autocast_dtype("cuda")) for each in (q, k, v))
        if not q.dtype == k.dtype == v.dtype:
            raise RuntimeError(
                f"Expected query, key, and value to have the same dtype: {q.dtype}, {k.dtype}, {v.dtype}"
            )
        with torch.autocast("cuda", enabled=False):
            scores = q.float() @ k.float().mT * (q.shape[-1] ** -0.5 if scale is None else scale)
            if is_causal:
                attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
            if attn_mask is not None and attn_mask.dtype == torch.bool:
                scores = scores.masked_fill(~attn_mask, float("-inf"))
            elif attn_mask is not None:
                scores = scores + attn_mask
            shares = F.dropout(scores.softmax(dim=-1), dropout_p, training=dropout_p > 0)
            return (shares @ v.float()).to(q.dtype)

    return attention
