"""One walk through a recorded graph: every value in float64, and beside it its bound."""

import math
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree as pytree

from torch_ref.compare.graphs.recording import Recorded
from torch_ref.compare.rounding.looks import Looking, Looks
from torch_ref.compare.rounding.operation import Arithmetic, Bound, Operation, floating
from torch_ref.compare.rounding.pointwise import as_numbers, pointwise
from torch_ref.compare.rounding.rules import Plan, plan_of
from torch_ref.compare.rounding.structure import (
    constant_bound,
    conversion,
    moved,
    opened,
    unknown,
)
from torch_ref.compare.twin import Values

LOOKING = Looking()
FLOAT32 = Arithmetic.of(torch.float32)
FLOAT64_MAX = torch.finfo(torch.float64).max


@dataclass
class Walked:
    """What a walk gives: each output's float64 value and its bound, operations without a rule, and
    the cases (one in all, where `cases` was not given) at which a gradient is a convention.

    narrow: the dtypes in which the code computes though they round more than the walk's own.
    """

    values: Values
    bounds: Values
    unbounded: set[str] = field(default_factory=set)
    kinks: Tensor | None = None
    narrow: set[torch.dtype] = field(default_factory=set)


def walk(
    graph: Recorded,
    inputs: Values,
    arithmetic: Arithmetic,
    *,
    bounds: Values | None = None,
    cases: int | None = None,
    looks: Looks = LOOKING,
    constant: Container[str] = (),
) -> Walked:
    """Run a recorded graph on float64 inputs; bound the rounding of every output.

    bounds: how far off inputs may be, by name; the others are exact.
    cases: their number, where they are the first dimension of every tensor.
    looks: what may be found out about the numbers. constant: inputs that count as numbers written
        in the code, where only these round.
    """
    names = graph.inputs
    walker = _Walker(graph, arithmetic, cases, looks, [name in constant for name in names])
    given = bounds or {}
    with torch.no_grad():  # once and not for each operation: that takes a seventh of a small walk
        values, found = walker.run([inputs[name] for name in names], [given.get(n) for n in names])
    outputs = graph.outputs
    return Walked(
        dict(zip(outputs, values, strict=True)),
        {
            name: torch.zeros_like(value, dtype=torch.float64) if bound is None else bound
            for name, value, bound in zip(outputs, values, found, strict=True)
        },
        walker.unbounded,
        walker.kinks if cases is None or walker.kinks is None else walker.kinks.expand(cases),
        walker.narrow,
    )


class _Walker:
    def __init__(
        self,
        graph: Recorded,
        arithmetic: Arithmetic,
        cases: int | None,
        looks: Looks,
        constant: list[bool],
    ) -> None:
        self.graph, self.arithmetic, self.cases = graph, arithmetic, cases
        self.looks = looks
        self.unbounded: set[str] = set()
        self.kinks: Tensor | None = None
        self.narrow: set[torch.dtype] = set()
        self.of_constants = arithmetic.unit_roundoff == 0
        self.fixed: set[Node] = set()  # no input goes into these, or constant ones alone
        self.constant = iter(constant)
        self.value: dict[Node, Any] = {}
        self.finite: dict[Node, bool] = {}

    def run(self, flat: list[Any], flat_bounds: list[Any]) -> tuple[list[Any], list[Any]]:
        value, bound = self.value, dict[Node, Any]()
        remaining = iter(zip(flat, flat_bounds, strict=True))
        last_use = self.graph.last_uses
        constants = self.graph.known.setdefault(self.arithmetic, {})
        for node in self.graph.graph.nodes:
            if self.of_constants and _is_fixed(node, self.fixed):
                self.fixed.add(node)
            if node.op == "placeholder":
                value[node], bound[node] = next(remaining)
                if next(self.constant) and self.of_constants:
                    self.fixed.add(node)
            elif node.op == "get_attr":
                constant = self.graph.constants[str(node.target)]
                value[node] = constant.detach() if isinstance(constant, Tensor) else constant
                bound[node] = constant_bound(value[node], self.arithmetic.dtype)
            elif node.op == "output":
                outputs: Any = node.args[0]
                return [value[out] for out in outputs], [bound[out] for out in outputs]
            elif node in constants:
                value[node], bound[node] = constants[node], None
            else:
                value[node], bound[node] = self.step(node, value, bound)
                if bound[node] is None and plan_of(node).constant:
                    constants[node] = value[node]
            for finished in last_use.get(node, ()):
                value.pop(finished), bound.pop(finished)
        raise ValueError("The recorded graph has no output.")

    def step(self, node: Node, value: dict[Node, Any], bound: dict[Node, Any]) -> tuple[Any, Bound]:
        plan = plan_of(node)
        args, kwargs, errors = _given(node, plan, value, bound)
        if plan.extreme:  # as of torch.finfo(x.dtype): that of the dtype under test, then
            args, kwargs = pytree.tree_map_only(float, self.in_dtype, (args, kwargs))
        target: Any = node.target
        result = target(*args, **kwargs)
        inexact = any(map(_is_some, errors))
        if not inexact and not plan.rounds and not plan.kinks:
            return result, None
        if plan.alone and floating(result) and result.dtype == torch.float64:
            self.finite[node] = self.finite.get(node.all_input_nodes[0], False)
            return result, moved(target, args, kwargs, errors[0])
        arithmetic = self.arithmetic_of(node, args, kwargs, result)
        if plan.narrow and plan.rule != conversion:  # rules mix them with bounds, in float64
            args = pytree.tree_map_only(Tensor, _wide, args)
        operation = Operation(
            node, plan.name, plan.whole, args, kwargs, errors, result, arithmetic,
            self.report_kink if node in self.graph.of_floats else _no_kink,
            self.is_finite, self.looks,
        )  # fmt: skip
        error = self.bound(operation, plan, inexact)
        if isinstance(error, tuple) and not plan.moves:
            pairs = [_within(*pair, arithmetic) for pair in zip(result, error, strict=True)]
            return tuple(value for value, _ in pairs), tuple(bound for _, bound in pairs)
        if error is None or not floating(result):
            return result, error
        error = error.double()
        if plan.moves:
            return result, error
        if self.looks.are_small(operation.size + error, arithmetic.largest):
            self.finite[node] = True
            return result, error
        adds = plan.name in ("add", "sub") and not kwargs
        if adds:
            error = _of_sum(as_numbers(operation), error)
        steady = plan.rule == pointwise and _steady(args, errors)
        return _overflowed(result, error, arithmetic, steady, adds=adds)

    def in_dtype(self, number: float) -> float:
        """The dtype's largest number, or its least, for float64's."""
        extreme = abs(number) == FLOAT64_MAX
        return math.copysign(self.arithmetic.largest, number) if extreme else number

    def arithmetic_of(
        self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> Arithmetic:
        """The walk's own, unless the code computes in a dtype that rounds more, and does round:
        counts and masks are exact in any; or in float32, which it asks for by its name, where the
        dtype under test has fewer digits."""
        if node in self.fixed:
            return Arithmetic.of(self.arithmetic.dtype)
        result = _first_floating(result)
        if result is None or result.dtype == torch.float64:
            return self.arithmetic
        if result.dtype == torch.float32 and self.arithmetic.unit_roundoff > FLOAT32.unit_roundoff:
            return FLOAT32
        arithmetic = self.arithmetic.at_least(result.dtype)
        if arithmetic is self.arithmetic or not any(map(floating, pytree.tree_leaves(args))):
            return self.arithmetic  # what is made of no floats is exact
        target: Any = node.target
        wide = _first_floating(target(*pytree.tree_map_only(Tensor, _wide, args), **kwargs))
        if wide.dtype == result.dtype:  # asked for by its name: a cast, or numbers in the code
            wide = args[0] if args and floating(args[0]) else result
        if bool((wide.double() == result.double()).all()):
            return self.arithmetic
        self.narrow.add(result.dtype)
        return arithmetic

    def bound(self, operation: Operation, plan: Plan, inexact: bool) -> Bound:
        rule = plan.rule
        if not floating(operation.result):
            results = pytree.tree_leaves(operation.result)
            if not (inexact or plan.numbered or any(map(_may_round, results))):
                return None
            if any(map(_is_complex, results)):
                rule = unknown
        if rule is unknown and operation.result is not None:
            self.unbounded.add(str(operation.node.target))
        elif plan.whole and not plan.follows and opened(operation, torch.bool):
            rule = unknown  # the rules know open masks only
        error = rule(operation)
        return error if inexact or plan.rounds else None

    def is_finite(self, node: Node) -> bool:
        """Whether all numbers of a node's value are finite; most are known to be."""
        if not self.finite.get(node):
            value = self.value[node]
            self.finite[node] = not floating(value) or self.looks.are_finite(value)
        return self.finite[node]

    def report_kink(self, mask: Tensor) -> None:
        """Add the places of a mask to the cases at which a gradient is a convention."""
        if self.cases is not None and mask.ndim and mask.shape[0] == self.cases:
            found = mask.reshape(self.cases, -1).any(1)
        else:
            found = mask.any().reshape(1)
        self.kinks = found if self.kinks is None else self.kinks | found


def _no_kink(mask: Tensor) -> None:
    """Where nothing has a gradient, none is a convention."""


def _is_fixed(node: Node, fixed: set[Node]) -> bool:
    return node.op != "placeholder" and fixed.issuperset(node.all_input_nodes)


def _wide(value: Tensor) -> Tensor:
    return value.double() if value.is_floating_point() else value


def _given(
    node: Node, plan: Plan, value: dict[Node, Any], bound: dict[Node, Any]
) -> tuple[tuple[Any, ...], dict[str, Any], tuple[Any, ...]]:
    """The arguments of a node, those given by name, and the bounds on the former."""
    if plan.places is None:
        by_name = {name: _looked_up(arg, value) for name, arg in node.kwargs.items()}
        args = tuple([_looked_up(arg, value) for arg in node.args])
        return args, by_name, tuple([_errors_of(arg, bound) for arg in node.args])
    given: list[Any] = list(node.args)
    errors: list[Any] = [None] * len(given)
    for place in plan.places:
        argument = given[place]
        given[place], errors[place] = value[argument], bound[argument]
    return tuple(given), node.kwargs, tuple(errors)


def _looked_up(arg: Any, value: dict[Node, Any]) -> Any:
    """An argument of a node, with values in place of nodes."""
    if isinstance(arg, Node):
        return value[arg]
    return [_looked_up(item, value) for item in arg] if isinstance(arg, (list, tuple)) else arg


def _errors_of(arg: Any, bound: dict[Node, Any]) -> Any:
    """The bound on an argument, in the same nesting; None for what is no node, and for exact."""
    if isinstance(arg, Node):
        return bound[arg]
    return [_errors_of(item, bound) for item in arg] if isinstance(arg, (list, tuple)) else None


def _is_some(error: Any) -> bool:
    return any(map(_is_some, error)) if isinstance(error, (list, tuple)) else error is not None


def _first_floating(result: Any) -> Any:
    """A floating result, of several the first one; None where none is."""
    if isinstance(result, Tensor):
        return result if result.is_floating_point() else None
    return next(filter(floating, pytree.tree_leaves(result)), None)


def _may_round(value: Any) -> bool:
    return floating(value) or _is_complex(value)


def _is_complex(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_complex()


def _within(value: Any, bound: Bound, arithmetic: Arithmetic) -> tuple[Any, Bound]:
    """One of several results and its bound, where it overflows in the dtype as `_overflowed`."""
    if bound is None or not floating(value):
        return value, bound
    return _overflowed(value, bound.double(), arithmetic, False)


def _overflowed(
    result: Tensor,
    bound: Tensor,
    arithmetic: Arithmetic,
    steady: Tensor | bool,
    *,
    adds: bool = False,
) -> tuple[Tensor, Tensor]:
    """The value and bound where the dtype under test overflows: infinite, and exactly so.

    Where it only may overflow, the bound is infinite. An infinite float64 result is certain where
    its arguments are `steady`: the bound, infinite too, can no longer tell.
    """
    size, largest = result.abs(), arithmetic.largest
    overflows = (size - bound > largest) | ((size == math.inf) & steady)
    # A sum with the largest number is rounded to that again, up to half a unit roundoff beyond it;
    # the bound has a whole one for it.
    spared = 1.5 * arithmetic.unit_roundoff if adds else 0.0
    uncertain = ~overflows & ~(size * (1 - spared) + bound <= largest)
    infinite = torch.copysign(torch.full_like(result, torch.inf), result)
    return (
        torch.where(overflows, infinite, result),
        torch.where(uncertain, torch.inf, torch.where(overflows, 0.0, bound)),
    )


def _of_sum(operation: Operation, error: Tensor) -> Tensor:
    """The bound on a sum beside the largest number, as where a mask of it is added to something: a
    sum is off by its smaller term at most, since the larger one is a number of the dtype."""
    moved, sizes = 0.0, []
    for place, term in enumerate(operation.args):
        own = operation.errors[place]
        moved = moved + (0.0 if own is None else own)
        sizes.append(abs(term) + (0.0 if own is None else own))
    smaller = torch.minimum(*(torch.as_tensor(size, dtype=torch.float64) for size in sizes))
    beyond = operation.size + error > operation.arithmetic.largest
    return torch.where(beyond, torch.minimum(error, moved + smaller), error)


def _steady(args: Any, errors: Any) -> Tensor | bool:
    """Where every argument's bound is finite and at most half of the argument."""
    steady: Tensor | bool = True
    for arg, error in zip(args, errors, strict=True):
        if isinstance(arg, Tensor) and isinstance(error, Tensor):
            small = error <= arg.abs() / 2 if floating(arg) else ~error  # else the open places
            steady = steady & (error < math.inf) & small
    return steady
