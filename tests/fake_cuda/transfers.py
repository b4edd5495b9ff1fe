"""Copies between memory and a GPU. Those that nobody waits for happen late, as they may on a real one.

A copy off the device into pinned memory, `non_blocking`, brings its numbers when somebody waits for the GPU. One
to the device must find its pinned memory unchanged until then.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from tests.fake_cuda.counts import Counts, place


class Transfers:
    """Takes the CPU tensors that GPU tensors hold."""

    def __init__(self, counts: Counts):
        self._counts = counts
        self._pinned: dict[int, Tensor] = {}  # by address; kept, so that no other tensor gets the address
        self._underway: list[Callable[[], None]] = []

    def pinned(self, tensor: Tensor) -> Tensor:
        self._pinned[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    def up(self, source: Tensor, target: Tensor, non_blocking: bool) -> None:
        """Count the copy of `source` on the CPU to `target`, which has been made."""
        dtype = source.dtype if non_blocking else target.dtype  # one that is waited for is cast on the CPU
        self._counts.to_device_bytes[place()] += target.numel() * dtype.itemsize
        if non_blocking and self._is_pinned(source):
            as_it_was, where = source.clone(), place()

            def check() -> None:
                if not torch.equal(as_it_was, source):
                    raise RuntimeError(
                        f"{where}: pinned memory was changed before its copy to the GPU was waited for"
                    )

            self._underway.append(check)

    def down(self, source: Tensor, target: Tensor, non_blocking: bool) -> None:
        """Copy `source` on the GPU to `target`, or begin to."""
        dtype = target.dtype if non_blocking else source.dtype
        self._counts.off_device_bytes[place()] += target.numel() * dtype.itemsize
        if non_blocking and self._is_pinned(target):
            as_it_was = source.clone()

            def arrive() -> None:
                target.copy_(as_it_was)

            self._underway.append(arrive)
        else:
            self._counts.syncs[place()] += 1
            target.copy_(source)
            self.settle()

    def settle(self) -> None:
        underway, self._underway = self._underway, []
        for finish in underway:
            finish()

    def _is_pinned(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage().data_ptr() in self._pinned
