"""How far rounding alone can move a result: running error analysis over a recorded graph.

The graph runs once in float64. Beside each value v goes a bound e on the error that arithmetic in
the dtype under test could have made in it (Wilkinson 1963; Higham, Accuracy and Stability of
Numerical Algorithms, 2nd ed., 3.3). For v = f(a, b):

    e = |df/da| e_a + |df/db| e_b + k u |v| + eta

u is the unit roundoff; k is 1 where IEEE 754 rounds the operation itself, 0 where it is exact and 4
for exp, log, sigmoid and the like; eta, the smallest normal number, covers underflow and flush to
zero. The partial derivatives come from autograd, so there is no table of them. A bound of None
means that the value is exact.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from torch_ref.compare.twin import Values

COPIES = {"clone", "detach", "alias", "_to_copy", "lift_fresh_copy"}
CONSTANTS = {"ones_like", "zeros_like", "full_like", "full", "ones", "zeros", "scalar_tensor",
             "new_zeros", "new_ones", "new_full", "isnan", "isinf", "isfinite"}  # fmt: skip
ROUNDED_ONCE = {"add", "sub", "rsub", "mul", "div", "sqrt", "reciprocal"}
STRUCTURAL = {"view", "_unsafe_view", "reshape", "expand", "unsqueeze", "squeeze", "permute", "t",
              "transpose", "select", "slice", "select_backward", "slice_backward", "cat", "stack",
              "unbind", "split", "getitem", "roll", "flip"}  # fmt: skip
COMPARISONS = {"ge", "gt", "le", "lt", "eq", "ne"}
LOGICAL = {"logical_and", "logical_or", "logical_not", "bitwise_and", "bitwise_or", "bitwise_not"}


@dataclass(frozen=True)
class Arithmetic:
    """The numbers of a floating dtype that the bounds need."""

    unit_roundoff: float
    smallest_normal: float
    largest: float
    dtype: torch.dtype

    @staticmethod
    def of(dtype: torch.dtype) -> "Arithmetic":
        info = torch.finfo(dtype)
        return Arithmetic(info.eps / 2, info.smallest_normal, info.max, dtype)


@dataclass
class Walked:
    """What a walk gives: each output's float64 value, its bound, and operations without a rule."""

    values: Values
    bounds: Values
    unbounded: set[str] = field(default_factory=set)


def walk(graph: GraphModule, inputs: Values, arithmetic: Arithmetic) -> Walked:
    """Run the graph on exact float64 inputs and bound the rounding of every output."""
    walker = _Walker(graph, arithmetic)
    values, bounds = walker.run(pytree.tree_leaves(inputs))
    filled = {
        name: torch.zeros_like(value) if bounds[name] is None else bounds[name]
        for name, value in values.items()
    }
    return Walked(values, filled, walker.unbounded)


class _Walker:
    def __init__(self, graph: GraphModule, arithmetic: Arithmetic) -> None:
        self.graph = graph
        self.arithmetic = arithmetic
        self.unbounded: set[str] = set()

    def run(self, flat_inputs: list[Any]) -> tuple[Values, dict[str, Any]]:
        value: dict[Node, Any] = {}
        bound: dict[Node, Any] = {}
        remaining = iter(flat_inputs)
        last_use = _last_uses(self.graph)
        for node in self.graph.graph.nodes:
            if node.op == "placeholder":
                value[node], bound[node] = next(remaining), None
            elif node.op == "get_attr":
                value[node] = getattr(self.graph, str(node.target))
                bound[node] = _constant_bound(value[node], self.arithmetic.dtype)
            elif node.op == "output":
                out_spec: Any = self.graph._out_spec
                names = pytree.tree_unflatten(list(node.args[0]), out_spec)
                return (
                    {name: value[out] for name, out in names.items()},
                    {name: bound[out] for name, out in names.items()},
                )
            else:
                value[node], bound[node] = self.step(node, value, bound)
            for finished in last_use.get(node, ()):
                value.pop(finished), bound.pop(finished)
        raise ValueError("The recorded graph has no output.")

    def step(self, node: Node, value: dict[Node, Any], bound: dict[Node, Any]) -> tuple[Any, Any]:
        args, kwargs = pytree.tree_map_only(Node, value.__getitem__, (node.args, dict(node.kwargs)))
        errors, _ = pytree.tree_map(
            lambda leaf: bound[leaf] if isinstance(leaf, Node) else None,
            (node.args, {}),
            is_leaf=lambda leaf: leaf is None or not isinstance(leaf, (list, tuple, dict)),
        )
        with torch.no_grad():
            result = _call(node, args, kwargs)
        if not _any_bound(errors) and not _rounds(node):
            return result, None
        rule = self.rule(node)
        error = rule(node, args, kwargs, errors, result)
        if error is None or not isinstance(result, Tensor) or not result.is_floating_point():
            return result, error
        largest = self.arithmetic.largest
        if bool((result.abs() + error <= largest).all()):  # false for NaN
            return result, error
        steady = rule == self.pointwise and _steady(args, errors)
        return _overflowed(result, error, largest, steady)

    def rule(self, node: Node) -> Callable[..., Any]:
        name = _name(node)
        if name in CONSTANTS:
            return lambda *_: None
        if name in STRUCTURAL | COPIES:
            return self.structural
        if name == "where":
            return self.where
        if name in COMPARISONS:
            return self.comparison
        if name in LOGICAL:
            return self.logical
        if name == "abs":
            return lambda node, args, kwargs, errors, result: errors[0]
        if name in ("sum", "mean"):
            return self.reduction
        if torch.Tag.pointwise in getattr(node.target, "tags", ()):
            return self.pointwise
        return self.unknown

    def pointwise(self, node: Node, args: Any, kwargs: Any, errors: Any, result: Tensor) -> Tensor:
        name = _name(node)
        total = self.own_rounding(name, args, result)
        scale = kwargs.get("alpha", 1)
        carried = [i for i, error in enumerate(errors) if error is not None]
        if carried:
            for i, partial in zip(carried, _partials(node, args, kwargs, carried), strict=True):
                total = total + torch.where(errors[i] == 0, 0.0, partial.abs() * errors[i])
        for i, arg in enumerate(args):
            if isinstance(arg, float) and name in ROUNDED_ONCE:
                relative = _rounding_of(arg, self.arithmetic.dtype)
                if relative:  # |df/dc| |c - fl(c)|, for + and - the number itself, else relative
                    size = abs(arg * scale) if name in ("add", "sub", "rsub") else result.abs()
                    total = total + relative * size
            elif isinstance(arg, Tensor) and i == 1 and scale != 1:
                total = total + self.arithmetic.unit_roundoff * (scale * arg).abs()
        return total

    def own_rounding(self, name: str, args: Any, result: Tensor) -> Tensor:
        if name == "neg":
            return torch.zeros_like(result)
        factor = 1 if name in ROUNDED_ONCE else 4
        size = result.abs()
        total = factor * self.arithmetic.unit_roundoff * size
        exact_zero = name in ("add", "sub", "rsub")  # a sum that is 0 or subnormal is exact
        if not exact_zero:
            underflow = size <= 2 * self.arithmetic.smallest_normal
            for arg in args:
                if isinstance(arg, Tensor) and name in ("mul", "div"):
                    underflow = underflow & (arg != 0)
            total = total + underflow * self.arithmetic.smallest_normal
        return total

    def structural(self, node: Node, args: Any, kwargs: Any, errors: Any, result: Any) -> Any:
        """The same operation applied to the bounds."""
        pairs = pytree.tree_map(
            lambda error: torch.zeros(()) if error is None else error, errors,
            is_leaf=lambda leaf: leaf is None,
        )  # fmt: skip
        filled = _fill(args, pairs)
        with torch.no_grad():
            return _call(node, filled, kwargs)

    def comparison(self, node: Node, args: Any, kwargs: Any, errors: Any, result: Tensor) -> Tensor:
        """Where rounding could turn the answer round (a mask instead of a bound)."""
        margin: Any = sum(error for error in errors if error is not None)
        uncertain: Tensor = ((args[0] - args[1]).abs() <= margin) & (margin > 0)
        return uncertain

    def logical(self, node: Node, args: Any, kwargs: Any, errors: Any, result: Tensor) -> Tensor:
        uncertain = torch.zeros_like(result)
        for error in errors:
            uncertain = uncertain if error is None else uncertain | error.bool()
        return uncertain

    def where(self, node: Node, args: Any, kwargs: Any, errors: Any, result: Tensor) -> Tensor:
        """The chosen branch's bound; both, and their difference, where the choice is open."""
        chosen, left, right = args
        zero = torch.zeros((), dtype=torch.float64, device=result.device)
        on_left, on_right = (zero if error is None else error for error in errors[1:])
        bound = torch.where(chosen, on_left, on_right)
        if errors[0] is not None:
            either = torch.maximum(on_left, on_right) + (left - right).abs()
            bound = torch.where(errors[0].bool(), either, bound)
        return bound

    def reduction(self, node: Node, args: Any, kwargs: Any, errors: Any, result: Tensor) -> Tensor:
        """sum and mean of n terms: lambda sqrt(n) u on the absolute values, lambda = 3.

        Higham and Mary, SIAM J. Sci. Comput. 41(5), 2019; n u, which always holds, if smaller.
        """
        terms = max(args[0].numel() // max(result.numel(), 1), 1)
        growth = min(3 * terms**0.5, terms) * self.arithmetic.unit_roundoff
        sizes = _call(node, (args[0].abs(), *args[1:]), kwargs)
        bound: Tensor = growth * sizes
        if errors[0] is not None:
            bound = bound + _call(node, (errors[0], *args[1:]), kwargs)
        return bound

    def unknown(self, node: Node, args: Any, kwargs: Any, errors: Any, result: Any) -> Any:
        self.unbounded.add(str(node.target))
        return pytree.tree_map_only(Tensor, lambda r: torch.full_like(r, torch.inf), result)


def _call(node: Node, args: Any, kwargs: Any) -> Any:
    target: Any = node.target
    return target(*args, **kwargs)


def _name(node: Node) -> str:
    if node.target is operator.getitem:
        return "getitem"
    return str(getattr(node.target, "__name__", node.target)).split(".")[0]


def _rounds(node: Node) -> bool:
    """Whether the operation can round even where its arguments are exact."""
    name = _name(node)
    exact = COPIES | CONSTANTS | STRUCTURAL | COMPARISONS | LOGICAL
    return name not in exact and name not in ("where", "abs", "neg")


def _any_bound(errors: Any) -> bool:
    return any(leaf is not None for leaf in pytree.tree_leaves(errors))


def _overflowed(
    result: Tensor, bound: Tensor, largest: float, steady: Tensor | bool
) -> tuple[Tensor, Tensor]:
    """The value and bound where the dtype under test overflows: infinite, and exactly so.

    Where it only may overflow, the bound is infinite. An infinite float64 result is certain where
    its arguments are `steady`: the bound, infinite too, can no longer tell.
    """
    size = result.abs()
    overflows = (size - bound > largest) | (size.isinf() & steady)
    uncertain = ~overflows & ~(size + bound <= largest)
    infinite = torch.copysign(torch.full_like(result, torch.inf), result)
    return (
        torch.where(overflows, infinite, result),
        torch.where(uncertain, torch.inf, torch.where(overflows, 0.0, bound)),
    )


def _steady(args: Any, errors: Any) -> Tensor | bool:
    """Where every argument's bound is at most half of the argument."""
    steady: Tensor | bool = True
    for arg, error in zip(args, errors, strict=True):
        if isinstance(arg, Tensor) and isinstance(error, Tensor):
            steady = steady & (error <= arg.abs() / 2)
    return steady


def _partials(node: Node, args: Any, kwargs: Any, carried: list[int]) -> tuple[Tensor, ...]:
    """|df/d(arg)| elementwise, for the arguments that carry an error, by autograd."""
    shape = np.broadcast_shapes(*(arg.shape for arg in args if isinstance(arg, Tensor)))
    leaves = list(args)
    for i in carried:
        leaves[i] = args[i].detach().expand(shape).requires_grad_()
    with torch.enable_grad():
        out = _call(node, leaves, kwargs)
    return torch.autograd.grad(out, [leaves[i] for i in carried], torch.ones_like(out))


def _rounding_of(number: float, dtype: torch.dtype) -> float:
    """Relative error of a Python number once it is rounded to the dtype."""
    rounded = torch.tensor(number, dtype=torch.float64).to(dtype).double().item()
    return abs(rounded - number) / abs(number) if number else 0.0


def _constant_bound(constant: Any, dtype: torch.dtype) -> Any:
    if not isinstance(constant, Tensor) or not constant.is_floating_point():
        return None
    error = (constant.double() - constant.to(dtype).double()).abs()
    return error if bool((error > 0).any()) else None


def _fill(args: Any, errors: Any) -> Any:
    """The arguments with each tensor replaced by its bound, broadcast to the tensor's shape."""
    if isinstance(args, Tensor):
        return errors.to(args.device, torch.float64).expand(args.shape)
    if isinstance(args, (list, tuple)):
        return type(args)(_fill(a, e) for a, e in zip(args, errors, strict=True))
    return args


def _last_uses(graph: GraphModule) -> dict[Node, list[Node]]:
    """Which values are done with after each node, so that memory stays small."""
    seen: set[Node] = set()
    finished: dict[Node, list[Node]] = {}
    for node in reversed(graph.graph.nodes):
        for used in node.all_input_nodes:
            if used not in seen:
                seen.add(used)
                finished.setdefault(node, []).append(used)
    return finished
