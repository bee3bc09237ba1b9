"""How far rounding alone can move a result: running error analysis over a recorded graph.

The graph runs once in float64. Beside each value v goes a bound e on the error that arithmetic in
the dtype under test could have made in it (Wilkinson 1963; Higham, Accuracy and Stability of
Numerical Algorithms, 2nd ed., 3.3). For v = f(a, b):

    e = |df/da| e_a + |df/db| e_b + k u |v| + eta

u is the unit roundoff; k is 1 where IEEE 754 rounds the operation itself, 0 where it is exact and 4
for exp, log, sigmoid and the like; eta, the smallest normal number, covers underflow and flush to
zero. + - * / keep their second order, too; other partial derivatives come from autograd, so there
is no table of them. A bound of None means that the value is exact.
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
# Not sqrt: torch computes a float32 one on the CPU to 1 ulp only.
ROUNDED_ONCE = {"add", "sub", "rsub", "mul", "div"}
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
    """Run a recorded graph on exact float64 inputs; bound the rounding of every output."""
    walker = _Walker(graph, arithmetic)
    values, bounds = walker.run([inputs[name] for name in graph.meta["inputs"]])
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
                constant = getattr(self.graph, str(node.target))
                value[node] = constant.detach() if isinstance(constant, Tensor) else constant
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
            return self.constant
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

    def constant(self, node: Node, args: Any, kwargs: Any, errors: Any, result: Any) -> Any:
        return _constant_bound(result, self.arithmetic.dtype)

    def pointwise(self, node: Node, args: Any, kwargs: Any, errors: Any, result: Tensor) -> Tensor:
        name = _name(node)
        propagated: Tensor | float = _propagated(node, args, kwargs, errors, result)
        return propagated + self.own_rounding(name, args, kwargs, result, propagated)

    def own_rounding(
        self, name: str, args: Any, kwargs: Any, result: Tensor, propagated: Tensor | float
    ) -> Tensor:
        """k u |v| and eta, for the operation itself and for the numbers written into it.

        |v| is that of the value the dtype computes, so the propagated error is added to it.
        """
        if name == "neg":
            return torch.zeros_like(result)
        u, eta = self.arithmetic.unit_roundoff, self.arithmetic.smallest_normal
        size = result.abs() + propagated
        total = (1 if name in ROUNDED_ONCE else 4) * u * size
        if name in ("add", "sub", "rsub"):  # a sum that is 0 or subnormal is exact: no eta
            scale = kwargs.get("alpha", 1)
            if scale != 1:
                total = total + u * abs(scale) * abs(args[1])
            numbers = [abs(arg * scale) for arg in args if isinstance(arg, float)]
        else:
            underflow = result.abs() <= 2 * eta
            for arg in args:
                if isinstance(arg, Tensor) and name in ("mul", "div"):
                    underflow = underflow & (arg != 0)
            total = total + underflow * eta
            numbers = [size] * (name in ROUNDED_ONCE)
        for arg in args:
            if isinstance(arg, float) and numbers:
                total = total + _rounding_of(arg, self.arithmetic.dtype) * numbers[0]
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
    exact = COPIES | STRUCTURAL | COMPARISONS | LOGICAL
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


def _propagated(node: Node, args: Any, kwargs: Any, errors: Any, result: Tensor) -> Any:
    """How far v = f(a, b) moves where a and b move by their bounds.

    Exactly so for the four operations of arithmetic, where the second order counts as soon as a
    bound is a good part of its value; to first order, by the partial derivatives, for others.
    """
    name = _name(node)
    carried = [i for i, error in enumerate(errors) if error is not None]
    if not carried:
        return 0.0
    if name in ("add", "sub", "rsub", "mul", "div") and not kwargs.get("rounding_mode"):
        left, right = (0.0 if error is None else error for error in errors[:2])
        return _propagated_by_arithmetic(name, args, kwargs.get("alpha", 1), left, right, result)
    return sum(
        _times(errors[i], partial)
        for i, partial in zip(carried, _partials(node, args, kwargs, errors, carried), strict=True)
    )


def _propagated_by_arithmetic(
    name: str, args: Any, scale: Any, left: Any, right: Any, result: Tensor
) -> Any:
    a, b = args[:2]
    if name == "rsub":
        return right + abs(scale) * left
    if name in ("add", "sub"):
        return left + abs(scale) * right
    if name == "mul":
        return _times(left, b) + _times(right, a) + left * right
    # |(a + da)/(b + db) - a/b| <= (da + |a/b| db) / (|b| - db)
    divisor = torch.clamp(abs(b) - right, min=0.0) if isinstance(b, Tensor) else abs(b)
    moved = left + _times(right, result)
    return torch.where(moved == 0, 0.0, moved / divisor)


def _times(error: Any, factor: Any) -> Any:
    """error |factor|, where no error times infinity is none."""
    product = error * abs(factor)
    return torch.where(error == 0, 0.0, product) if isinstance(error, Tensor) else product


def _partials(node: Node, args: Any, kwargs: Any, errors: Any, carried: list[int]) -> list[Tensor]:
    """|df/d(arg)| elementwise, for the arguments that carry an error, by autograd.

    With one such argument, the largest of those at it and at both ends of its error: most
    functions are steepest at an end.
    """
    if len(carried) > 1:
        return _partials_at(node, args, kwargs, carried)
    at = carried[0]
    here, error = args[at], errors[at]
    ends = [[*args[:at], place, *args[at + 1 :]] for place in (here - error, here, here + error)]
    return [torch.stack([_partials_at(node, end, kwargs, carried)[0] for end in ends]).amax(0)]


def _partials_at(node: Node, args: Any, kwargs: Any, carried: list[int]) -> list[Tensor]:
    shape = np.broadcast_shapes(*(arg.shape for arg in args if isinstance(arg, Tensor)))
    leaves = list(args)
    for i in carried:
        leaves[i] = args[i].detach().expand(shape).requires_grad_()
    with torch.enable_grad():
        out = _call(node, leaves, kwargs)
    wanted = [leaves[i] for i in carried]
    return [partial.abs() for partial in torch.autograd.grad(out, wanted, torch.ones_like(out))]


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
