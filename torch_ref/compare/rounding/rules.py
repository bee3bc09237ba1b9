"""Which operation is bounded how: the table that GUIDE prints, made of code."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node
from torch.utils import _pytree as pytree

from torch_ref.compare.rounding import (
    exponentials,
    factorizations,
    linear,
    open_indices,
    pointwise,
    resampling,
    selection,
    structure,
    windows,
)
from torch_ref.compare.rounding.operation import Bound, Operation, is_long, name_of

Rule = Callable[[Operation], Bound]

COPIES = {"clone", "detach", "alias", "lift_fresh_copy"}
CONVERSIONS = {"_to_copy", "convert_element_type"}
CONSTANTS = {"ones_like", "zeros_like", "full_like", "full", "ones", "zeros", "scalar_tensor",
             "new_zeros", "new_ones", "new_full", "isnan", "isinf", "isfinite", "arange", "eye",
             "empty_permuted", "new_empty_strided", "empty", "empty_like",
             "empty_strided"}  # fmt: skip
STRUCTURAL = {"view", "_unsafe_view", "reshape", "expand", "unsqueeze", "squeeze", "permute", "t",
              "transpose", "select", "slice", "select_backward", "slice_backward", "cat", "stack",
              "unbind", "split", "split_with_sizes", "getitem", "roll", "flip", "repeat", "unfold",
              "as_strided", "as_strided_scatter", "slice_scatter", "select_scatter", "diagonal",
              "diagonal_scatter", "constant_pad_nd", "copy", "broadcast_in_dim", "gather", "index",
              "index_select", "scatter", "_unsafe_index", "triu", "tril", "take",
              "masked_select", "masked_scatter", "masked_scatter_backward"}  # fmt: skip
COMPARISONS = {"ge", "gt", "le", "lt", "eq", "ne"}
LOGICAL = {"logical_and", "logical_or", "logical_not", "bitwise_and", "bitwise_or", "bitwise_not",
           "logical_xor", "bitwise_xor", "any", "all"}  # fmt: skip
JUMPS = {"sign", "sgn", "floor", "ceil", "round", "trunc"}
WHOLE = {"div", "floor_divide", "remainder", "fmod"}  # of integers, as of indices: exact
SUMS = {"sum", "mean", "cumsum", "avg_pool2d", "avg_pool2d_backward"}

# (what the rule is, the operations it holds for), in the order in which the guide prints them.
TABLE: tuple[tuple[Rule, set[str]], ...] = (
    (structure.constant, CONSTANTS),
    (structure.structural, STRUCTURAL | COPIES | resampling.PADS),
    (structure.conversion, CONVERSIONS),
    (pointwise.pointwise, (pointwise.ROUNDED_ONCE | pointwise.ACCURATE) - {"erf"}),
    (pointwise.erf, {"erf"}),
    (pointwise.gelu, {"gelu", "gelu_backward"}),
    (pointwise.special, pointwise.SPECIAL),
    (pointwise.absolute, {"abs", "neg"}),
    (linear.reduction, SUMS),
    (resampling.resampled, resampling.RESAMPLED),
    (linear.product, set(linear.PRODUCTS)),
    (linear.convolution_backward, {"convolution_backward"}),
    (linear.accumulation, {"scatter_add"}),
    (linear.all_multiplied, {"prod", "cumprod"}),
    (exponentials.softmax, {"_softmax"}),
    (exponentials.log_softmax, {"_log_softmax"}),
    (exponentials.logarithm_of_sum, {"logsumexp"}),
    (exponentials.logarithm_of_sums, {"logcumsumexp"}),
    (factorizations.solution, {"_linalg_solve_ex", "linalg_lu_solve"}),
    (factorizations.triangular_solution, {"linalg_solve_triangular"}),
    (factorizations.inverse, {"linalg_inv_ex"}),
    (factorizations.determinant, {"_linalg_det", "_linalg_slogdet"}),
    (factorizations.cholesky, {"linalg_cholesky_ex"}),
    (selection.comparison, COMPARISONS),
    (selection.logical, LOGICAL),
    (selection.where, {"where"}),
    (selection.clamped, {"relu", "clamp", "clamp_min", "clamp_max"}),
    (selection.larger, {"maximum", "minimum"}),
    (selection.jump, JUMPS),
    (selection.extreme, {"amax", "amin"}),
    (selection.extreme_with_index, {"max", "min"}),
    (selection.extreme_index, {"argmax", "argmin"}),
    (selection.ordered, {"sort", "topk"}),
    (selection.one_in_order, {"kthvalue", "median"}),
    (selection.extreme_so_far, {"cummax", "cummin"}),
    (selection.extreme_of_scattered, {"scatter_reduce"}),
    (windows.max_pool, windows.POOLS),
    (windows.max_pool_backward, windows.POOLS_BACKWARD),
)
_BY_NAME = {name: rule for rule, names in TABLE for name in names}
# With exact arguments these are exact: there is nothing to bound.
_EXACT = (
    COPIES | STRUCTURAL | resampling.PADS | COMPARISONS | LOGICAL | JUMPS
    | {"where", "abs", "neg", "relu", "clamp", "clamp_min", "clamp_max", "maximum", "minimum",
       "amax", "amin", "max", "min", "argmax", "argmin", "sort", "topk", "kthvalue", "median",
       "cummax", "cummin", "scatter_reduce"} | windows.POOLS
)  # fmt: skip
# ... but where they meet a threshold exactly there may be a kink to report.
_KINKED = COMPARISONS | {"relu", "clamp", "clamp_min", "clamp_max", "maximum", "minimum", "sign",
                         "sgn", "max", "min", "sort", "topk", "kthvalue", "median",
                         "cummax", "cummin", "scatter_reduce"} | windows.POOLS  # fmt: skip
# ... and where they bring a number of their own that the dtype may have to round.
_NUMBERED = COMPARISONS | {"clamp", "clamp_min", "clamp_max", "constant_pad_nd", "scatter"}
# Of one tensor: it alone moves, and so does its bound.
_ALONE = COPIES | {"view", "_unsafe_view", "unsqueeze", "squeeze", "permute", "t", "transpose",
                   "expand", "select", "slice"}  # fmt: skip
_MOVING = (STRUCTURAL | COPIES | resampling.PADS) - {
    "constant_pad_nd",
    "scatter",
}  # these bring numbers of their own

# What an open integer reaches is known, and the rest is not opened with it; so it is of integers
# that are computed place by place.
_BY_PLACE = {pointwise.pointwise, pointwise.open_everywhere, selection.comparison,
             selection.logical, selection.where, selection.clamped, selection.larger}  # fmt: skip
_FOLLOWING = (
    _ALONE | windows.POOLS_BACKWARD | open_indices.ALONG | open_indices.ACROSS | {"getitem"}
)


@dataclass(frozen=True)
class Plan:
    """What is known of a node without any number.

    name: the operation's. constant: whether its value is the same whatever the inputs are. rounds:
    whether it can round even where its arguments are exact. numbered: whether all that it rounds
    then is a number written in the code. kinks: whether it reports kinks. moves: whether every
    number of the result is one of an argument's, so that none can overflow. alone: whether these
    are those of the first argument. whole: whether an argument may hold integers or booleans;
    follows: whether the rule knows what an open one reaches. narrow: whether an argument is of
    floats with fewer digits than float64's.
    extreme: whether it has float64's largest number, or the least, written into it.
    places: which arguments are nodes; None where some are in lists or given by name.
    """

    rule: Rule
    name: str
    constant: bool
    rounds: bool
    numbered: bool
    kinks: bool
    moves: bool
    alone: bool
    whole: bool
    follows: bool
    narrow: bool
    extreme: bool
    places: tuple[int, ...] | None


def plan_of(node: Node) -> Plan:
    """A node's plan, made once: looking it all up takes as long as a small operation."""
    plan = node.meta.get("plan")
    if not isinstance(plan, Plan):
        name = name_of(node)
        numbered = name in _NUMBERED and any(map(is_long, (*node.args, *node.kwargs.values())))
        rule = _rule_for(node, name)
        plan = node.meta["plan"] = Plan(
            rule,
            name,
            constant=name in CONSTANTS | _ALONE and all(map(_is_constant, node.all_input_nodes)),
            rounds=name not in _EXACT or numbered or rule is structure.unknown,
            numbered=numbered,
            kinks=name in _KINKED,
            moves=name in _MOVING,
            alone=name in _ALONE,
            whole=any(map(_may_hold_whole, node.all_input_nodes)),
            follows=name in _FOLLOWING or (rule in _BY_PLACE and _is_of_integers(node)),
            narrow=any(map(_is_narrow, node.all_input_nodes)),
            extreme=any(map(_is_extreme, (*node.args, *node.kwargs.values()))),
            places=_places(node),
        )
    return plan


def _rule_for(node: Node, name: str) -> Rule:
    """The rule for an operation; `structure.unknown` where there is none."""
    if name in ("index_put", "_unsafe_index_put", "put"):
        return linear.accumulation if linear.accumulates(node) else structure.structural
    if name in ("max", "min") and len(node.args) < 2:  # of all numbers: no axis, no index
        return selection.extreme
    if name in WHOLE and not _is_floating(node):
        return pointwise.open_everywhere
    if name == "scatter_add" and not isinstance(node.args[3], Node):  # scatter of one number
        return structure.unknown
    if name == "scatter_reduce" and node.args[4] not in ("amax", "amin"):
        return structure.unknown
    if node.kwargs.get("rounding_mode") or node.kwargs.get("decimals"):  # it jumps, and rounds
        return structure.unknown
    return _BY_NAME.get(name, structure.unknown)


def _is_extreme(value: Any) -> bool:
    return isinstance(value, float) and abs(value) == torch.finfo(torch.float64).max


def _is_constant(node: Node) -> bool:
    return node.op == "call_function" and plan_of(node).constant


def _places(node: Node) -> tuple[int, ...] | None:
    places = tuple(place for place, arg in enumerate(node.args) if isinstance(arg, Node))
    others = [arg for place, arg in enumerate(node.args) if place not in places]
    nested = any(isinstance(leaf, Node) for leaf in pytree.tree_leaves((others, node.kwargs)))
    return None if nested else places


def _is_floating(node: Node) -> bool:
    form = node.meta.get("form")
    return form is None or form.dtype.is_floating_point


def _is_of_integers(node: Node) -> bool:
    return not any(map(_is_floating, (node, *node.all_input_nodes)))


def _is_narrow(node: Node) -> bool:
    form = node.meta.get("form")
    return form is not None and form.dtype.is_floating_point and form.dtype != torch.float64


def _may_hold_whole(node: Node) -> bool:
    return node.meta.get("form") is None or not _is_floating(node)
