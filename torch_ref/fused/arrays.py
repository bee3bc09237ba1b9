"""NumPy arrays and torch tensors as memory: addresses and strides in, arrays of that kind out."""

import sys
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np

Array = Any
Shape = tuple[int, ...]


@dataclass(slots=True)
class Samples:
    """Arrays that broadcast to `shape`, which is not empty, as memory that C can read.

    dtype: "float32" or "float64"; pointers: their addresses; strides: in numbers, those of one
    array expanded to `shape` after those of another.
    new(shape): an array of their kind; address(array): where its numbers are; apart(array): its
    numbers as arrays of shape (). owners: what must live as long as the addresses are used.
    """

    dtype: str
    shape: Shape
    pointers: Sequence[int]
    strides: tuple[int, ...]
    new: Callable[[Shape], Array]
    address: Callable[[Array], int]
    apart: Callable[[Array], Sequence[Array]]
    owners: Any


def samples(values: list[Any]) -> Samples | None:
    """The values, if they are Python floats and either NumPy's or plain torch tensors on the CPU.

    None for anything else, several dtypes, others than float32 and float64, and shapes that do not
    broadcast or are empty.
    """
    kinds = set(map(type, values)) - {float}
    torch = sys.modules.get("torch")
    if torch is not None and kinds <= {torch.Tensor, torch.nn.Parameter}:
        return _tensors(values, torch)
    if kinds <= {np.ndarray, np.float32, np.float64}:
        return _numpy(values)
    return None


def on_cuda(values: list[Any]) -> bool:
    """Whether these are plain torch tensors on CUDA devices, and Python floats."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return False
    plain = (torch.Tensor, torch.nn.Parameter)
    return all(type(v) is float or (type(v) in plain and v.is_cuda) for v in values)


def traced() -> bool:
    """Whether torch records or transforms what is done, instead of doing it."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._functorch.peek_interpreter_stack() is not None
    )


_shape, _dtype, _is_cpu = map(attrgetter, ("shape", "dtype", "is_cpu"))


def _tensors(values: list[Any], torch: Any) -> Samples | None:
    dtype = next(value.dtype for value in values if type(value) is not float)
    name = "float32" if dtype is torch.float32 else "float64"
    tensors = values
    if float in map(type, values):
        tensors = [
            torch.tensor(v, dtype=dtype, device="cpu") if type(v) is float else v for v in values
        ]
    if dtype not in (torch.float32, torch.float64) or set(map(_dtype, tensors)) != {dtype}:
        return None
    if not all(map(_is_cpu, tensors)) or any(map(torch.Tensor.is_neg, tensors)):
        return None
    try:
        pointers = list(map(torch.Tensor.data_ptr, tensors))
    except RuntimeError:  # sparse, or another layout without memory of its own
        return None
    shape = _common_shape(tensors, torch.broadcast_shapes)
    if shape is None:
        return None
    return Samples(
        name,
        shape,
        pointers,
        _strides(tensors, shape, torch.Tensor.stride, torch.Tensor.expand),
        lambda shape: torch.empty(shape, dtype=dtype, device="cpu"),  # whatever the default is
        torch.Tensor.data_ptr,
        torch.Tensor.unbind,
        tensors,
    )


def _numpy(values: list[Any]) -> Samples | None:
    dtype = next(value.dtype for value in values if type(value) is not float)
    if dtype != np.float32 and dtype != np.float64:
        return None
    for value in values:
        if type(value) is np.ndarray and not (value.dtype == dtype and value.flags.aligned):
            return None
        if type(value) is not np.ndarray and type(value) not in (float, dtype.type):
            return None
    size = dtype.itemsize
    arrays = [v if type(v) is np.ndarray else np.asarray(v, dtype) for v in values]
    shape = _common_shape(arrays, np.broadcast_shapes)
    if shape is None or any(stride % size for value in arrays for stride in value.strides):
        return None
    # NumPy takes a microsecond for an address, so those of single numbers are not asked for
    single = array(dtype.char, [v.item() if v.ndim == 0 else 0.0 for v in arrays])
    start = single.buffer_info()[0]
    return Samples(
        dtype.name,
        shape,
        [start + i * size if v.ndim == 0 else _address(v) for i, v in enumerate(arrays)],
        _strides(arrays, shape, lambda v: tuple(s // size for s in v.strides), np.broadcast_to),
        lambda shape: np.empty(shape, dtype),
        _address,
        list,
        (arrays, single),
    )


def _address(value: "np.ndarray[Any, Any]") -> int:
    address: int = value.__array_interface__["data"][0]
    return address


def _common_shape(arrays: list[Array], broadcast: Callable[..., Shape]) -> Shape | None:
    different = set(map(_shape, arrays)) - {()}
    if len(different) < 2:
        shape: Shape = different.pop() if different else ()
    else:
        try:
            shape = broadcast(*different)
        except (ValueError, RuntimeError):  # `manual_bp` says what is wrong
            return None
    return None if 0 in shape else shape


def _strides(
    arrays: list[Array],
    shape: Shape,
    own: Callable[[Array], tuple[int, ...]],
    expanded: Callable[[Array, Shape], Array],
) -> tuple[int, ...]:
    none = (0,) * len(shape)
    strides: tuple[int, ...] = ()
    for value in arrays:
        if value.ndim == 0:
            strides += none
        else:
            strides += own(value if value.shape == shape else expanded(value, shape))
    return strides
