"""Tensors that say cuda:0 and hold a CPU tensor, and the rules of a device that work on them.

PyTorch's dispatcher sees a CUDA tensor, so that autocast takes CUDA's lists and an optimizer CUDA's way. Every
kernel then runs on the CPU tensor inside. What CUDA refuses is refused here, in its words, and what it waits for
is counted.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.fake_cuda.counts import Counts, place
from tests.fake_cuda.transfers import Transfers

aten = torch.ops.aten
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)

_INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
_WAITING = {  # the CPU needs a number, or a size that depends on numbers
    aten._local_scalar_dense.default,
    aten.equal.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.repeat_interleave.Tensor,
}
_NO_KERNEL = (
    "aten::empty",
    "aten::new_empty",
    "aten::_unsafe_view",
    "aten::_local_scalar_dense",
    "aten::lift_fresh",
)


class CudaTensor(Tensor):
    held: Tensor  # on the CPU

    @staticmethod
    def __new__(cls, held: Tensor) -> "CudaTensor":
        strides, offset = held.stride(), held.storage_offset()
        tensor = Tensor._make_wrapper_subclass(
            cls, held.size(), strides=strides, storage_offset=offset, dtype=held.dtype, device=CUDA
        )
        tensor.held = held
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert Device.current is not None, "a tensor of a fake GPU outlived it"
        return Device.current.run(func, args, kwargs or {})

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        """So that a module which moves to the GPU keeps its parameters, as it does on a real one."""
        return ["held"], None

    @classmethod
    def __tensor_unflatten__(cls, inner: Mapping[str, Tensor], *_: Any) -> "CudaTensor":
        return cls(inner["held"])

    @property
    def data(self) -> Tensor:
        return self.detach()

    @data.setter
    def data(self, value: "CudaTensor") -> None:
        Tensor.data.__set__(self, value)
        self.held = value.held

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError(
            "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory "
            "first."
        )

    def __repr__(self, **_: Any) -> str:
        return f"CudaTensor({tuple(self.shape)}, {self.dtype})"


class Device(TorchDispatchMode):
    """Runs whatever concerns the GPU; CPU work passes through."""

    current: "Device | None" = None

    def __init__(self, counts: Counts):
        super().__init__()
        self._counts = counts
        self._transfers = Transfers(counts)
        self.random_state = torch.Generator().manual_seed(0).get_state()  # of draws without a generator

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.run(func, args, kwargs or {})

    def run(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        if func is aten._pin_memory.default:
            return self._transfers.pinned(args[0].clone())
        if kwargs.get("pin_memory"):
            return self._transfers.pinned(func(*args, **{**kwargs, "pin_memory": False}))
        tensors = list(_tensors((*args, *kwargs.values())))
        has_gpu = any(isinstance(tensor, CudaTensor) for tensor in tensors)
        asked = kwargs.get("device")
        makes_gpu = has_gpu if asked is None else torch.device(asked).type == "cuda"
        if not has_gpu and not makes_gpu:
            return func(*args, **kwargs)
        if func is aten._to_copy.default:
            return self._to_copy(*args, **kwargs)
        if func is aten.copy_.default:
            return self._copy_(*args, **kwargs)
        if has_gpu:
            self._check_devices(func, args, tensors)
        self._check_generator(func, kwargs, makes_gpu)
        self._count(func, args)
        out = self._on_cpu(func, args, kwargs)
        if not makes_gpu:
            return out
        own = {id(tensor.held): tensor for tensor in tensors if isinstance(tensor, CudaTensor)}  # written in place
        return _mapped(out, lambda x: own[id(x)] if id(x) in own else CudaTensor(x))

    def _on_cpu(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        if torch.Tag.inplace_view in func.tags:  # the wrapper's shape changes, too
            with no_dispatch():
                func(*args, **kwargs)
        args, kwargs = _mapped(args, held), {name: _mapped(value, held) for name, value in kwargs.items()}
        if kwargs.get("device") is not None:
            kwargs["device"] = CPU
        if torch.Tag.nondeterministic_seeded not in func.tags or kwargs.get("generator") is not None:
            return func(*args, **kwargs)
        with torch.random.fork_rng(devices=[]):  # a GPU draws numbers of its own
            torch.set_rng_state(self.random_state)
            out = func(*args, **kwargs)
            self.random_state = torch.get_rng_state()
        return out

    def _check_devices(self, func: Any, args: Any, tensors: Iterable[Tensor]) -> None:
        """A CPU tensor may come along as an index into a GPU tensor, and as a number that is only read."""
        allowed: list[Tensor] = []
        if func in _INDEXING and isinstance(args[0], CudaTensor):
            allowed = [index for index in args[1] if index is not None and not isinstance(index, CudaTensor)]
            for index in allowed:
                self._counts.to_device_bytes[place()] += index.nbytes
        allowed += [
            each for each in args[func._schema.is_mutable :] if isinstance(each, Tensor) and each.dim() == 0
        ]
        for tensor in tensors:
            if not isinstance(tensor, CudaTensor) and all(tensor is not each for each in allowed):
                raise RuntimeError(
                    "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and "
                    f"cpu! ({func}: a tensor of shape {list(tensor.shape)} is on the cpu)"
                )

    def _check_generator(self, func: Any, kwargs: Mapping[str, Any], makes_gpu: bool) -> None:
        generator = kwargs.get("generator")
        if makes_gpu and generator is not None and generator.device.type != "cuda":
            raise RuntimeError(f"{func}: Expected a 'cuda' device type for generator but found 'cpu'")

    def _count(self, func: Any, args: Any) -> None:
        selects = func in _INDEXING and any(index is not None and index.dtype == torch.bool for index in args[1])
        if func in _WAITING or selects:
            self._counts.syncs[place()] += 1
            self.settle()
        if not func.is_view and not func.name().startswith(_NO_KERNEL):
            self._counts.kernels[place()] += 1

    def settle(self) -> None:
        """The GPU has done all that it was asked to."""
        self._transfers.settle()

    def _to_copy(self, source: Tensor, *, device: Any = None, non_blocking: bool = False, **form: Any) -> Tensor:
        target = source.device if device is None else torch.device(device)
        if target.type == source.device.type:
            self._count_on_device(source, form.get("dtype") or source.dtype)
            return CudaTensor(aten._to_copy.default(held(source), **form))
        copy = aten._to_copy.default(held(source), **form)
        if target.type == "cuda":
            self._transfers.up(held(source), copy, non_blocking)
            return CudaTensor(copy)
        if non_blocking:  # PyTorch pins the memory of such a copy, and it begins with anything
            copy = self._transfers.pinned(torch.zeros_like(copy))
        self._transfers.down(held(source), copy, non_blocking)
        return copy

    def _copy_(self, target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
        if target.device.type == source.device.type:
            held(target).copy_(held(source))
            self._count_on_device(source, target.dtype)
        elif target.is_cuda:
            held(target).copy_(source)
            self._transfers.up(source, held(target), non_blocking)
        else:
            self._transfers.down(held(source), target, non_blocking)
        return target

    def _count_on_device(self, source: Tensor, dtype: torch.dtype) -> None:
        self._counts.kernels[place()] += 1
        if dtype != source.dtype:
            self._counts.cast_bytes[place()] += source.numel() * dtype.itemsize


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """`value` with its tensors changed, which may be in lists and tuples; PyTorch's own for trees is slow."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)(_mapped(each, change) for each in value)
    return value


def held(tensor: Tensor) -> Tensor:
    return tensor.held if isinstance(tensor, CudaTensor) else tensor
