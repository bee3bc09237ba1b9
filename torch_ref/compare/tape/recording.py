"""A run of tensor operations kept as a list, to be run again on other numbers.

What Python does between the operations is not kept, so its decisions must be the same again: every
truth value that it asked of a tensor is kept as a question, with the answer. A run on other numbers
holds only if all answers are the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

aten = torch.ops.aten
# They make tensors of one number, whatever numbers they are shown.
_UNIFORM = {"full", "full_like", "zeros", "zeros_like", "ones", "ones_like", "scalar_tensor",
            "new_zeros", "new_ones", "new_full"}  # fmt: skip
_COPIES = {"alias", "detach", "lift_fresh", "clone"}
_SHAPED = {"view", "_unsafe_view", "reshape", "expand"}
_COMMUTATIVE = {"add", "mul", "maximum", "bitwise_and", "bitwise_or"}
_UNSET = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}


class CannotRecordError(RuntimeError):
    """The run does what a list of operations cannot hold; the message says what."""


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of the run. `number`: what all of its elements are, where that is always the same;
    `source`: the step that makes it, None for an input or a constant."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    number: float | bool | None = None
    constant: Tensor | None = None
    source: "Step | None" = None
    place: int = 0  # among the results of its step

    @property
    def needs(self) -> list["Value"]:
        """The values it is made of, not constants."""
        return [] if self.source is None else self.source.needs

    @property
    def fixed(self) -> bool:
        """Whether it is a constant."""
        return self.number is not None or self.constant is not None


@dataclass(frozen=True, eq=False)
class Step:
    """An operation on values and constants; `args` and `kwargs` hold Values for tensors."""

    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def name(self) -> str:
        return name_of(self.target)

    @cached_property
    def needs(self) -> list[Value]:
        """The values it is made of, not constants."""
        flat = pytree.tree_leaves((self.args, self.kwargs))
        return [leaf for leaf in flat if isinstance(leaf, Value) and not leaf.fixed]


@dataclass(frozen=True)
class Question:
    """Are all ("all") or any ("any") elements of `value` true? `answer` is what was found."""

    kind: str
    value: Value
    answer: bool


@dataclass(frozen=True)
class Recording:
    """inputs in the order given, outputs likewise, and all questions asked on the way."""

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    questions: tuple[Question, ...]


def name_of(target: Any) -> str:
    return str(target.__name__).split(".")[0]


def record(
    function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]
) -> tuple[Sequence[Tensor], Recording]:
    """What the function gives for these inputs, and how. Raises CannotRecordError."""
    recorder = _Recorder()
    given = tuple(recorder.enter(tensor) for tensor in inputs)
    with recorder:
        results = function(*inputs)
    outputs = tuple(recorder.value_of(result) for result in results)
    return results, Recording(given, outputs, tuple(recorder.questions))


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types here
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # nor here
        self.questions: dict[Question, None] = {}
        self._known: Any = WeakIdKeyDictionary()
        self._steps: dict[Any, tuple[Value, ...]] = {}

    def enter(self, tensor: Tensor) -> Value:
        self._known[tensor] = value = Value(tuple(tensor.shape), tensor.dtype)
        return value

    def value_of(self, tensor: Tensor) -> Value:
        if tensor not in self._known:
            self._known[tensor] = _constant(tensor)
        found: Value = self._known[tensor]
        return found

    def __torch_dispatch__(
        self, target: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = target(*args, **kwargs)
        if target._schema.is_mutable:
            raise CannotRecordError(f"{target} changes a tensor in place")
        args, kwargs = pytree.tree_map_only(Tensor, self.value_of, (args, kwargs))
        if target is aten._local_scalar_dense.default:
            self._asked(args[0], result)
        elif isinstance(result, Tensor):
            self._known[result] = self._made(target, args, kwargs, (result,))[0]
        elif isinstance(result, (tuple, list)) and all(isinstance(r, Tensor) for r in result):
            made = self._made(target, args, kwargs, tuple(result))
            for tensor, value in zip(result, made, strict=True):
                self._known[tensor] = value
        else:
            raise CannotRecordError(f"{target} gives no tensor")
        return result

    def _asked(self, value: Value, answer: Any) -> None:
        if value.fixed:
            return
        source = value.source
        if source is None or source.name not in ("all", "any") or len(source.args) != 1:
            raise CannotRecordError("a number is read that is no answer of yes or no")
        self.questions[Question(source.name, source.args[0], bool(answer))] = None

    def _made(
        self, target: Any, args: Any, kwargs: Any, results: tuple[Tensor, ...]
    ) -> tuple[Value, ...]:
        name = name_of(target)
        if name in _UNSET or torch.Tag.nondeterministic_seeded in target.tags:
            raise CannotRecordError(f"{target} gives other numbers each time")
        first = results[0]
        if name in _UNIFORM:
            return (_constant(first),)
        if isinstance(args[0] if args else None, Value) and args[0].dtype == first.dtype:
            same = args[0].shape == tuple(first.shape)
            if name in _COPIES or (name in _SHAPED and same) or (name == "_to_copy" and same):
                return (args[0],)
            if name in _SHAPED and args[0].number is not None:
                return (_constant(first),)
        leaves = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Value)]
        if all(leaf.fixed for leaf in leaves):
            return tuple(map(_constant, results))
        key = _key(name, target, args, kwargs)
        if key not in self._steps:
            step = Step(target, args, kwargs)
            self._steps[key] = tuple(
                Value(tuple(result.shape), result.dtype, source=step, place=place)
                for place, result in enumerate(results)
            )
        return self._steps[key]


def _constant(tensor: Tensor) -> Value:
    flat = tensor.detach().reshape(-1)
    with torch.utils._python_dispatch._disable_current_modes():
        uniform = bool(flat.numel()) and bool((flat == flat[:1]).all())
        number = flat[0].item() if uniform else None
    return Value(tuple(tensor.shape), tensor.dtype, number, None if uniform else tensor.detach())


def _key(name: str, target: Any, args: Any, kwargs: Any) -> Any:
    def plain(leaf: Any) -> Any:
        if isinstance(leaf, Value) and leaf.number is not None:
            return (leaf.dtype, leaf.shape, repr(leaf.number))
        return leaf if isinstance(leaf, Value) else (type(leaf), repr(leaf))

    leaves, spec = pytree.tree_flatten((args, kwargs))
    flat = [plain(leaf) for leaf in leaves]
    if name in _COMMUTATIVE and len(flat) == 2 and all(isinstance(leaf, Value) for leaf in flat):
        flat.sort(key=id)
    return target, str(spec), tuple(flat)
