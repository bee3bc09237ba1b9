"""Slices of a hand in NumPy, by arrays that know what they are made of."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from torch_ref.compare.layout import copies_of
from torch_ref.compare.lines.slices import Slices, union
from torch_ref.compare.sides.into_numpy import IntoNumPy, Seen, plain_operands
from torch_ref.compare.strangers import Line, line_outside
from torch_ref.compare.twin import Twin, Values

_HERE = str(Path(__file__).parent)
_FACTORIES = ("zeros", "ones", "empty", "full", "array")
# What changes its first argument.
_IN_PLACE = {"copyto", "put", "fill_diagonal", "put_along_axis", "place", "putmask"}


def slices_by_numpy(twin: Twin, inputs: Values, names: tuple[str, ...]) -> Slices:
    """Of these quantities, as the hand computes them from these inputs, NumPy's arrays or tensors
    in the same memory. Raises whatever the hand raises."""
    made = _Made()
    with made.followed():
        answer = twin.manual(copies_of(inputs))
        return Slices(made.lines, {name: made.of(answer[name]) for name in names})


class _Made:
    """What arrays are made of, by where their memory begins: all of it is one value."""

    def __init__(self) -> None:
        self.lines: list[Line | None] = []
        self._of: dict[int, int] = {}
        self._alive: list[Any] = []  # else memory would be used again, and stand for two values

    @contextmanager
    def followed(self) -> Iterator[None]:
        """While it is on, the arrays that the hand makes of tensors, or anew, are followed."""

        class Followed(_Followed):
            made = self

        def wrapped(factory: Any) -> Any:
            return lambda *args, **kwargs: self.follow(factory(*args, **kwargs), args)

        self.kind = Followed
        made_anew = {name: wrapped(getattr(np, name)) for name in _FACTORIES}
        with mock.patch.multiple(np, **made_anew), IntoNumPy(self.follow):
            yield

    def of(self, value: Any) -> int:
        """What an array, or a tensor in its memory, is made of; what a list holds together."""
        if isinstance(value, (list, tuple)):
            return union(map(self.of, value))
        return self._of.get(_memory(value), 0)

    def follow(self, value: Any, operands: Any = ()) -> Any:
        """A result of an operation on these operands; of several, each of them."""
        if isinstance(value, (list, tuple)):
            return type(value)(self.follow(one, operands) for one in value)
        if not isinstance(value, (np.ndarray, np.generic)):
            return value
        result = np.asarray(value).view(self.kind)
        self.note(result, operands)
        return result

    def note(self, target: Any, operands: Any) -> None:
        """Note that an operation gave, or wrote to, this array."""
        self._alive.append(target)
        own = 1 << len(self.lines)
        self.lines.append(line_outside(_HERE))
        self._of[_memory(target)] = self.of(target) | self.of(operands) | own


class _Followed(Seen):
    """An array whose operations are noted."""

    made: _Made

    def __getitem__(self, key: Any) -> Any:
        return self.made.follow(super().__getitem__(key), (self, key))

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        self.made.note(self, (key, value))

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: Any, *inputs: Any, out: Any = None, **kwargs: Any
    ) -> Any:
        args, kwargs = plain_operands(inputs, out, kwargs)
        result = getattr(ufunc, method)(*args, **kwargs)
        for target in out or inputs[: method == "at"]:
            self.made.note(target, inputs)
        return out[0] if out and len(out) == 1 else self.made.follow(result, inputs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        result = super().__array_function__(func, types, args, kwargs)
        operands = (*args, *kwargs.values())
        if func.__name__ in _IN_PLACE:
            self.made.note(args[0], operands)
        return self.made.follow(result, operands)


def _memory(value: Any) -> int:
    """Where the memory begins that a value is in; 0 for what has none."""
    if isinstance(value, torch.Tensor):
        return value.untyped_storage().data_ptr()
    if not isinstance(value, np.ndarray):
        return 0
    while isinstance(value.base, np.ndarray):
        value = value.base
    address: int = value.__array_interface__["data"][0]
    return address
