"""What a function does to tensors, taken down operation by operation while it runs.

As torch's make_fx does it, which also follows shapes that are symbols, and takes five times as long
and a second to import.
"""

import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache, cached_property
from operator import getitem
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import Graph, Node
from torch.fx.node import map_aggregate, map_arg
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack
from torch.utils.weak import WeakTensorKeyDictionary

from torch_ref.compare.strangers import line_outside

_ATEN = torch.ops.aten
_HERE = str(Path(__file__).parent)
Decompositions = Mapping[OpOverload, Callable[..., Any]]


class LooksAtNumbersError(RuntimeError):
    """What is recorded asks for a number that depends on floating inputs: for others it may do
    other things."""


class Form(NamedTuple):
    """What is known of a value without its numbers: `node.meta["form"]`."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    contiguous: bool

    @staticmethod
    def of(value: Tensor) -> "Form":
        contiguous = value.is_contiguous()
        return Form(value.shape, value.stride(), value.dtype, value.device, contiguous)


@dataclass(eq=False)
class Recorded:
    """A function's operations, for inputs of the shapes and layouts that it was recorded on.

    graph: of ATen's operations. constants: tensors that are no inputs, by the name in their nodes.
    inputs, outputs: their names, in order, where they have any.
    decided: whether numbers decided what was done, as in `if` and `assert`: see `recorded`.
    counted: whether integers of the inputs were asked for, so that it is for inputs with the same
        ones alone.
    known: values that do not depend on inputs, as walks find them, by the walk's arithmetic.
    """

    graph: Graph
    constants: dict[str, Any]
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    decided: bool = False
    counted: bool = False
    known: dict[Any, dict[Node, Any]] = field(default_factory=dict)

    @cached_property
    def last_uses(self) -> dict[Node, list[Node]]:
        """Which values are done with after each node, so that memory stays small."""
        seen: set[Node] = set()
        finished: dict[Node, list[Node]] = {}
        for node in reversed(self.graph.nodes):
            for used in node.all_input_nodes:
                if used not in seen:
                    seen.add(used)
                    finished.setdefault(node, []).append(used)
        return finished

    @cached_property
    def of_floats(self) -> set[Node]:
        """What floating inputs go into; all else has no gradient."""
        found: set[Node] = set()
        for node in self.graph.nodes:
            if node.op == "placeholder":
                into = node.meta["form"].dtype.is_floating_point
            else:
                into = not found.isdisjoint(node.all_input_nodes)
            if into:
                found.add(node)
        return found

    def __call__(self, *inputs: Tensor) -> Any:
        """Run it on inputs in the order of the function's arguments."""
        values: dict[Node, Any] = {}
        remaining = iter(inputs)
        for node in self.graph.nodes:
            if node.op == "placeholder":
                values[node] = next(remaining)
            elif node.op == "get_attr":
                values[node] = self.constants[node.target]
            elif node.op == "output":
                return map_arg(node.args[0], values.__getitem__)
            else:
                args, kwargs = map_arg((node.args, node.kwargs), values.__getitem__)
                values[node] = node.target(*args, **kwargs)
            for finished in self.last_uses.get(node, ()):
                del values[finished]
        raise ValueError("The recorded graph has no output.")


def recorded(
    function: Callable[..., Any],
    *example: Tensor,
    decompositions: Decompositions | None = None,
    may_decide: bool = False,
    places: bool = False,
) -> Recorded:
    """The operations of a function of tensors, which gives one, or a tuple of them.

    decompositions: by what functions operations are taken apart. may_decide: whether it may ask
        what is true of its numbers; what it then does for the example's is what is recorded.
    places: whether to note of each value where in the author's code it was made, and where in
        memory: `node.meta["line"]`, a file and a number, and `node.meta["memory"]`.
    Raises LooksAtNumbersError, and whatever the function raises.
    """
    taking = _TakingDown(decompositions or {}, may_decide, places)
    for value in example:
        taking.take_input(value)
    with _not_compiled(), taking:
        result = function(*example)
    taking.graph.output(map_aggregate(result, taking.node_or_itself))
    return Recorded(taking.graph, taking.constants, decided=taking.decided, counted=taking.counted)


def being_recorded() -> bool:
    """Whether what runs now is being recorded, and must not look at numbers."""
    return _being_taken_down() is not None


def looks_at(value: Tensor) -> None:
    """Tell what is being recorded, if anything, that numbers are asked for beside torch."""
    taking = _being_taken_down()
    if taking is not None:
        taking.looks_at(value)


def _being_taken_down() -> "_TakingDown | None":
    modes = _get_current_dispatch_mode_stack()
    return next((mode for mode in modes if isinstance(mode, _TakingDown)), None)


class _TakingDown(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is on, every operation becomes a node of `graph`.

    fixed: the nodes that no input goes into, and that are no factory's, and where the memory of
        their values begins: numbers may be asked of these.
    whole: the nodes that no floating input goes into, likewise: what rounding cannot turn.
    fresh: the nodes of memory that was asked for and that nothing has been done to yet.
    """

    supports_higher_order_operators = True  # to say that there is no way to record them

    def __init__(self, decompositions: Decompositions, may_decide: bool, places: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.may_decide, self.decided, self.counted = may_decide, False, False
        self.places = places
        self._alive: list[Tensor] = []  # else memory would be used again, and stand for two values
        self.graph = Graph()
        self.constants: dict[str, Any] = {}
        self.fixed: dict[Node, int] = {}
        self.whole: dict[Node, int] = {}
        self.fresh: set[Node] = set()
        self._decompositions = decompositions
        self._nodes: Any = WeakTensorKeyDictionary()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: torch would import torch._dynamo, which takes a second, to switch it off here."""
        return False

    def take_input(self, value: Tensor) -> None:
        exact = not (value.is_floating_point() or value.is_complex())
        node = self.graph.placeholder(f"input_{len(self.graph.nodes)}")
        self._take(value, node, whole=exact)

    def looks_at(self, value: Tensor) -> None:
        """Note that numbers were asked for without an operation."""
        self.counted |= self.node_or_itself(value) in self.whole

    def node_or_itself(self, value: Any) -> Any:
        """A tensor's node, of a tensor that is met for the first time a constant's."""
        if not isinstance(value, Tensor):
            return value
        node = self._nodes.get(value)
        if node is None:
            node = self._constant(value, value)
        elif node in self.fresh:
            self.fresh.remove(node)
            if value.any():  # filled without an operation, as C++ makes a tensor of a list
                node = self._constant(value, value.clone())
        return node

    def _constant(self, value: Tensor, kept: Tensor) -> Node:
        name = f"constant_{len(self.constants)}"
        self.constants[name] = kept
        node = self.graph.create_node("get_attr", name)
        self._take(value, node, fixed=True, whole=True)
        return node

    def _take(self, value: Any, node: Node, *, fixed: bool = False, whole: bool) -> None:
        """Note that this is a node's value; of several values each has a node of its own."""
        if isinstance(value, Tensor):
            self._nodes[value] = node
            node.meta["form"] = Form.of(value)
            if self.places:
                node.meta["memory"] = _storage(value)
                self._alive.append(value)
            if fixed:
                self.fixed[node] = _storage(value)
            if whole:
                self.whole[node] = _storage(value)
        elif isinstance(value, (tuple, list)):
            for place, one in enumerate(value):
                own = self.graph.call_function(getitem, (node, place))
                self._take(one, own, fixed=fixed, whole=whole)

    def _written(self, tensors: list[Tensor], *, fixed: bool, whole: bool) -> None:
        """What shares memory with tensors that inputs were written into is no constant any more,
        nor whole where these were not."""
        storages = set(map(_storage, tensors))
        if not fixed:
            self.fixed = {node: one for node, one in self.fixed.items() if one not in storages}
        if not whole:
            self.whole = {node: one for node, one in self.whole.items() if one not in storages}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if not isinstance(func, OpOverload):
            raise TypeError(f"{func} takes functions, which cannot be recorded: call them instead")
        tensors = list(_tensors((args, kwargs.values())))
        if not all(type(one) in (Tensor, torch.nn.Parameter) for one in tensors):
            return NotImplemented  # a class of its own makes its operations of others, or cannot
        apart = self._decompositions.get(func) or _made_of_others(func, tensors)
        if apart:
            with self:
                result = apart(*args, **kwargs)
            if result is not NotImplemented:
                return result
        return self._note(func, args, kwargs, tensors)

    def _note(self, func: Any, args: Any, kwargs: Any, tensors: list[Tensor]) -> Any:
        """Run an operation and note it. tensors: those among its arguments."""
        nodes = set(map(self.node_or_itself, tensors))
        fixed, whole = bool(tensors) and self.fixed.keys() >= nodes, self.whole.keys() >= nodes
        if torch.Tag.data_dependent_output in func.tags:
            decides = self.may_decide and all(one.dtype == torch.bool for one in tensors)
            if not (whole or decides):
                raise LooksAtNumbersError(f"{func} looks at numbers")
            self.counted |= whole and not fixed
            self.decided |= not whole
            return func(*args, **kwargs)
        if func is _ATEN.lift_fresh.default:  # else a constant would be changed with its copy
            func = _ATEN.lift_fresh_copy.default
        try:
            result = func(*args, **kwargs)
        except RuntimeError:  # a view where, taken apart, numbers lie in memory otherwise
            if func is not _ATEN.view.default or args[0].is_contiguous():
                raise
            with self:
                return args[0].contiguous().view(args[1])
        given = map_aggregate((args, kwargs), self.node_or_itself)
        node = self.graph.call_function(func, *given)
        if self.places:
            node.meta["line"] = line_outside(_HERE)
        if func is _ATEN.empty.memory_format and not result.is_meta:
            self.fresh.add(node)
            result.zero_()
        seeded = torch.Tag.nondeterministic_seeded in func.tags
        fixed, whole = fixed and not seeded, whole and not seeded
        if func._schema.is_mutable:
            self._written(tensors, fixed=fixed, whole=whole)
        self._take(result, node, fixed=fixed, whole=whole)
        return result


def _not_compiled() -> AbstractContextManager[Any]:
    """While it is on, what torch.compile was given runs as it is written."""
    if "torch._dynamo" not in sys.modules:  # nothing was: importing it takes a second
        return nullcontext()
    eager: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return eager


def _storage(value: Tensor) -> int:
    """Where the tensor's memory begins; 0 for one that has none of its own."""
    try:
        return value.untyped_storage().data_ptr() if value.layout == torch.strided else 0
    except RuntimeError:  # it has none in Python, as what `functionalize` wraps
        return 0


def _tensors(value: Any) -> Iterable[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif not isinstance(value, (str, int, float)) and isinstance(value, Iterable):
        for one in value:
            yield from _tensors(one)


def _made_of_others(func: Any, tensors: list[Tensor]) -> Callable[..., Any] | None:
    """How torch makes an operation of others, where it does on these tensors' devices: below
    autograd, where operations are taken down, it would not."""
    return _composite(func, frozenset(one.device.type for one in tensors))


@cache
def _composite(func: "OpOverload[..., Any]", devices: frozenset[str]) -> Callable[..., Any] | None:
    keys = torch._C.DispatchKey
    own = [getattr(keys, device.upper(), None) for device in devices]
    if any(key and func.has_kernel_for_dispatch_key(key) for key in own):
        return None
    composite = func.has_kernel_for_dispatch_key(keys.CompositeImplicitAutograd)
    return func.decompose if composite else None
