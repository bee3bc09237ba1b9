"""Tensors that go to NumPy go there as arrays of another kind."""

from collections.abc import Callable
from typing import Any

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
