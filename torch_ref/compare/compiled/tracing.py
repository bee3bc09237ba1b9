"""Code that works on tensors, run once and taken down as formulas of single numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from torch_ref.compare.compiled.algebra import Algebra, CannotCompileError, is_condition
from torch_ref.compare.compiled.operations import Operations, Symbols

CASES = 2  # that the code is run on: what one case does to another shows
# These take a shape, and no number.
_FRESH = {"full_like", "ones_like", "zeros_like", "empty_like", "new_zeros", "new_ones", "new_full"}


class Tracing(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is on, every operation is taken down that depends on an argument.

    The code must not look at numbers: it would be taken down for these alone.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.algebra = Algebra()
        self._operations = Operations(self.algebra)
        self._known: dict[int, tuple[Tensor, Symbols]] = {}  # the tensor too: ids are given anew

    def argument(self, value: Tensor, names: Sequence[Sequence[str]]) -> None:
        """Take a tensor as an argument; names: of its numbers, by case."""
        flat = [self.algebra.symbol("argument", name) for of_case in names for name in of_case]
        self._known[id(value)] = value, np.array(flat, dtype=object).reshape(value.shape)

    def symbols(self, value: Tensor) -> Symbols:
        """What a tensor's numbers were taken down as, in an array of its shape."""
        known = self._known.get(id(value))
        if known is not None:
            return known[1]
        return np.array(value.tolist(), dtype=object).reshape(value.shape)

    def assume_finite(self, value: Tensor) -> None:
        """Take formulas down that need only hold where these numbers are finite."""
        for symbol in self.symbols(value).flat:
            self.algebra.assume_finite(symbol)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = func.__name__.split(".")[0]
        if name in _FRESH or not any(map(self._depends, pytree.tree_leaves((args, kwargs)))):
            return result
        operation = self._operations.find(name)
        if operation is None or not isinstance(result, Tensor):
            looks = name == "_local_scalar_dense"
            raise CannotCompileError("it looks at its numbers" if looks else f"it uses {func}")
        logical = result.dtype == torch.bool
        if not logical and result.dtype != torch.float64:
            raise CannotCompileError(f"it computes in {result.dtype}")
        places, by_name = pytree.tree_map_only(Tensor, self.symbols, (args, kwargs))
        if not logical:  # what is true counts as 1
            chosen = places[:1] if name == "where" else ()
            places = (*chosen, *pytree.tree_map(self._as_numbers, places[len(chosen) :]))
        try:
            symbols = operation(*places, **by_name)
        except TypeError:  # an argument that the operation here does not take
            symbols = NotImplemented
        alike = symbols is not NotImplemented and np.shape(symbols) == tuple(result.shape)
        symbols = np.asarray(symbols, dtype=object)
        if not alike or any(is_condition(symbol) != logical for symbol in symbols.flat):
            raise CannotCompileError(f"it uses {func} in a way that is not known")
        self._known[id(result)] = result, symbols
        return result

    def _as_numbers(self, value: Any) -> Any:
        """An array's conditions as 0 or 1; anything else as it is."""
        if not isinstance(value, np.ndarray):
            return value
        numbers = np.empty(value.shape, dtype=object)
        for place, one in np.ndenumerate(value):
            condition = is_condition(one)
            numbers[place] = self.algebra.apply("where", one, 1.0, 0.0) if condition else one
        return numbers

    def _depends(self, value: Any) -> bool:
        return isinstance(value, Tensor) and id(value) in self._known
