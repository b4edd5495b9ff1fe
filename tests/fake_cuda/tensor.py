"""Tensors that say cuda:0 and hold a CPU tensor, and the rules of a device that work on them.

PyTorch's dispatcher sees a CUDA tensor, so that autocast takes CUDA's lists and an optimizer CUDA's way. Every
kernel then runs on the CPU tensor inside. What CUDA refuses is refused here, in its words, and what it waits for
is counted.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.fake_cuda.counts import Counts, place

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
        self.random_state = torch.Generator().manual_seed(0).get_state()  # of draws without a generator

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.run(func, args, kwargs or {})

    def run(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        if func is aten._pin_memory.default:  # needs a driver; all memory is alike here
            return args[0].clone()
        kwargs = {name: value for name, value in kwargs.items() if name != "pin_memory"}
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
        assert torch.Tag.inplace_view not in func.tags, (
            f"{func} changes a shape in place: the wrapper would not see it"
        )
        args, kwargs = _mapped(args, _held), {name: _mapped(value, _held) for name, value in kwargs.items()}
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
        """A CPU tensor may come along as a number, as an index into a GPU tensor, and for nothing else."""
        allowed: list[Tensor] = []
        if func in _INDEXING and isinstance(args[0], CudaTensor):
            allowed = [index for index in args[1] if index is not None and not isinstance(index, CudaTensor)]
        for index in allowed:
            self._counts.to_device_bytes[place()] += index.nbytes
        strange = [
            each for each in tensors if not isinstance(each, CudaTensor) and all(each is not a for a in allowed)
        ]
        written = [args[0]] if func._schema.is_mutable and isinstance(args[0], Tensor) else []
        for tensor in strange:
            if tensor.dim() > 0 or any(tensor is each for each in written):
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
        if not func.is_view and not func.name().startswith(_NO_KERNEL):
            self._counts.kernels[place()] += 1

    def _to_copy(self, source: Tensor, *, device: Any = None, non_blocking: bool = False, **form: Any) -> Tensor:
        target = source.device if device is None else torch.device(device)
        copy = aten._to_copy.default(_held(source), **form)
        self._count_copy(source, target, copy.dtype, non_blocking)
        return CudaTensor(copy) if target.type == "cuda" else copy

    def _copy_(self, target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
        _held(target).copy_(_held(source))
        self._count_copy(source, target.device, target.dtype, non_blocking)
        return target

    def _count_copy(self, source: Tensor, target: torch.device, dtype: torch.dtype, non_blocking: bool) -> None:
        counts, where = self._counts, place()
        if source.device.type == target.type:
            counts.kernels[where] += 1
            if dtype != source.dtype:
                counts.cast_bytes[where] += source.numel() * dtype.itemsize
        elif target.type == "cuda":
            counts.to_device_bytes[where] += source.nbytes
        else:
            counts.off_device_bytes[where] += source.nbytes
            if not non_blocking:
                counts.syncs[where] += 1


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


def _held(tensor: Tensor) -> Tensor:
    return tensor.held if isinstance(tensor, CudaTensor) else tensor
