"""Counts arithmetic and memory of models without building them: fake tensors have shapes but no numbers.

PyTorch's `FlopCounterMode` counts the multiply-adds of matrix products, convolutions and attention as 2 each; the
rest (norms, softmax, rotations) is not counted. Our own dispatch mode tracks live bytes.
"""

import gc
import weakref
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from common.clock import StageClock

_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_ATTENTION_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Attention of shapes [B, H, S, d] in full: both products over every pair of positions, masked or not.

    PyTorch's table lacks the CPU's fused kernel, which would otherwise count as zero.
    """
    batch, heads, num_queries, dim = query
    return 2 * batch * heads * num_queries * key[2] * (dim + value[3])


def attention_backward_flops(_gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Twice the forward, as for every product; a fused kernel's recomputation is not counted."""
    return 2 * attention_flops(query, key, value)


class LiveBytes(TorchDispatchMode):
    """Bytes of live tensors created inside: the current number `now`, and the largest number `peak`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: weakref.WeakSet = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in _tensors(args):  # what is not made here, such as weights, is not counted by its views
            self._known.add(tensor.untyped_storage())
        made = func(*args, **(kwargs or {}))
        for tensor in _tensors(made):
            self._follow(tensor.untyped_storage())
        return made

    def _follow(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, size)

    def _forget(self, size: int) -> None:
        self.now -= size


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)


class WorkMeter(StageClock):
    """Replaces a StageClock, and counts by stage: summed FLOPs and the largest `peak_bytes`.

    Bytes are those of tensors made since the meter was entered; existing weights are not included.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops: dict[str, int] = defaultdict(int)
        self.peak_bytes: dict[str, int] = defaultdict(int)
        self._live = LiveBytes()
        self._modes = ExitStack()

    def __enter__(self) -> Self:
        if gc.isenabled():  # what is alive must not depend on when it last ran
            gc.disable()
            self._modes.callback(gc.enable)
        self._modes.enter_context(self._live)
        return self

    def __exit__(self, *_: object) -> None:
        self._modes.close()

    @property
    def live_bytes(self) -> int:
        """Bytes of the tensors alive now."""
        return self._live.now

    @property
    def last_peak_bytes(self) -> int:
        """The most bytes alive at once since the last stage began, or since the meter was entered."""
        return self._live.peak

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        formulas = {_ATTENTION: attention_flops, _ATTENTION_BACKWARD: attention_backward_flops}
        self._live.peak = self._live.now
        with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
            yield
        self.flops[stage] += counter.get_total_flops()
        self.peak_bytes[stage] = max(self.peak_bytes[stage], self._live.peak)
