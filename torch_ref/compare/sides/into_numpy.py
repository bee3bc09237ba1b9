"""Tensors that go to NumPy go there as arrays of another kind, whose operations are seen."""

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor
from torch.overrides import TorchFunctionMode


class IntoNumPy(TorchFunctionMode):
    """While it is on, whatever a tensor becomes in NumPy is `change`d."""

    def __init__(self, change: Callable[[Any], Any]) -> None:
        super().__init__()
        self.change = change

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        return self.change(result) if func in (Tensor.numpy, Tensor.__array__) else result


class Seen(np.ndarray[Any, Any]):
    """An array of another kind; what its operations do besides stands in subclasses."""

    def dot(self, other: Any, out: Any = None) -> Any:
        return np.dot(self, other, out=out)


def plain(value: Any) -> Any:
    return value.view(np.ndarray) if isinstance(value, Seen) else value


def plain_operands(
    inputs: tuple[Any, ...], out: tuple[Any, ...] | None, kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A ufunc's operands, those by name and what it writes to included, as NumPy's own arrays."""
    named = kwargs if out is None else {**kwargs, "out": tuple(map(plain, out))}
    return tuple(map(plain, inputs)), named
