"""Mutations of this domain, where the mutation tool's operators do not reach.

Each has the two methods of a cosmic-ray operator, on the same parso trees: `mutation_positions`
gives one item for every way to mutate a node, `mutate` carries out one of them.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, Protocol

Node = Any  # of a parso tree; parso is an extra, imported only where the self-test runs


class Operator(Protocol):
    """What cosmic-ray's operators and those below have in common."""

    def mutation_positions(self, node: Node) -> Iterator[Any]: ...

    def mutate(self, node: Node, index: int) -> Node: ...


class DropTerm:
    """a + b - c without one of its terms: a forgotten path, bias or correction."""

    def mutation_positions(self, node: Node) -> Iterator[int]:
        if node.type == "arith_expr":
            yield from range(len(node.children[::2]))

    def mutate(self, node: Node, index: int) -> Node:
        minus_first = index == 0 and node.children[1].value == "-"
        return _without(node, index, keep_operator=minus_first)


class DropFactor:
    """a * b / c without one of its factors or divisors: a forgotten link of the chain rule."""

    def mutation_positions(self, node: Node) -> Iterator[int]:
        if node.type == "term":
            yield from self._droppable(node)

    def mutate(self, node: Node, index: int) -> Node:
        dropped = self._droppable(node)[index]
        if dropped == 0 and node.children[1].value != "*":  # a / b without a is 1 / b
            node.children[0] = _number_one(node.children[0])
            return node
        return _without(node, dropped, keep_operator=False)

    def _droppable(self, node: Node) -> list[int]:
        one_already = _first_leaf(node).value == "1" and node.children[1].value != "*"
        return list(range(int(one_already), len(node.children[::2])))


class FlipSign:
    """name = -(what it was): a lost or invented minus."""

    def mutation_positions(self, node: Node) -> Iterator[int]:
        if node.type == "expr_stmt" and len(node.children) == 3 and _is_number(node.children[2]):
            yield 0

    def mutate(self, node: Node, index: int) -> Node:
        value = node.children[2]
        _first_leaf(value).prefix = " -("
        _last_leaf(value).value += ")"
        return node


class SwapName:
    """A variable in place of another of its kind: w36 for w46, dz5 for dz4, dx5 for dz5, x for t.

    One of a kind are numbered names with the same letters, numbered names with the same number
    whose letters are before and after an activation (z and x, dz and dx), and parameters of one
    letter (x and t). Only what is known at that line comes into question.
    """

    def mutation_positions(self, node: Node) -> Iterator[str]:
        if _is_variable(node):
            yield from self._others(node)

    def mutate(self, node: Node, index: int) -> Node:
        node.value = self._others(node)[index]
        return node

    def _others(self, node: Node) -> list[str]:
        parameters, assigned = _known_before(node)
        others = [name for name in (*parameters, *assigned) if _numbered_alike(node.value, name)]
        plain = [name for name in parameters if len(name) == 1]
        if node.value in plain:
            others += [name for name in plain if name != node.value]
        return others


class SwapFunction:
    """A function of the network in place of another: sigma for sigma', rho' for sigma'."""

    def mutation_positions(self, node: Node) -> Iterator[str]:
        if node.type == "name" and node.value in _FUNCTIONS:
            yield from self._others(node)

    def mutate(self, node: Node, index: int) -> Node:
        node.value = self._others(node)[index]
        return node

    def _others(self, node: Node) -> list[str]:
        arguments = _FUNCTIONS[node.value]
        return [f for f, n in _FUNCTIONS.items() if n == arguments and f != node.value]


DOMAIN_OPERATORS: dict[str, Callable[[], Operator]] = {
    operator.__name__: operator
    for operator in (DropTerm, DropFactor, FlipSign, SwapName, SwapFunction)
}

_NUMBERED = re.compile(r"([a-z]+?)(\d+)")
_ACTIVATION = {"z": "x", "x": "z", "dz": "dx", "dx": "dz"}
_FUNCTIONS = {
    "sigmoid": 1, "sigmoid_derivative": 1, "square": 1, "square_derivative": 1,
    "itakura_saito": 2, "itakura_saito_derivative": 2,
}  # fmt: skip


def _without(node: Node, index: int, *, keep_operator: bool) -> Node:
    """A chain of operands and operators without operand `index` and the operator beside it."""
    prefix = _first_leaf(node).prefix
    if index == 0:
        del node.children[: 1 if keep_operator else 2]
    else:
        del node.children[2 * index - 1 : 2 * index + 1]
    _first_leaf(node).prefix = prefix
    return node


def _number_one(operand: Node) -> Node:
    """The leaf "1" in place of an operand, with the blanks before it."""
    leaf = _first_leaf(operand)
    return type(leaf)("1", leaf.start_pos, leaf.prefix)


def _numbered_alike(name: str, other: str) -> bool:
    ours, theirs = _NUMBERED.fullmatch(name), _NUMBERED.fullmatch(other)
    if not ours or not theirs or name == other:
        return False
    letters, number = ours.groups()
    same_kind = theirs[1] == letters
    return same_kind or (theirs[2] == number and theirs[1] == _ACTIVATION.get(letters))


def _is_variable(node: Node) -> bool:
    """A name that is read: neither assigned, nor called, nor an attribute or a keyword."""
    if node.type != "name" or node.is_definition(include_setitem=True):
        return False
    before, after = node.get_previous_leaf(), node.get_next_leaf()
    if before is not None and before.value == ".":
        return False
    in_argument = node.parent.type == "argument" and node.parent.children[0] is node
    return not in_argument and after.value not in ("(", ".")


def _is_number(node: Node) -> bool:
    """Arithmetic, a variable, or what a function of the network or the array library returns."""
    if node.type == "atom_expr":
        return node.children[0].value in (*_FUNCTIONS, "xp")
    return node.type in ("arith_expr", "term", "name")


def _known_before(node: Node) -> tuple[list[str], list[str]]:
    """The function's parameters, and the names that lines before this one assigned, in order."""
    function = node.search_ancestor("funcdef")
    parameters = [parameter.name.value for parameter in function.get_params()]
    leaf, line = function.children[-1].get_first_leaf(), node.start_pos[0]
    assigned: dict[str, None] = {}
    while leaf.start_pos[0] < line:
        if leaf.type == "name" and leaf.is_definition():
            assigned[leaf.value] = None
        leaf = leaf.get_next_leaf()
    return parameters, list(assigned)


def _first_leaf(node: Node) -> Node:
    return node.get_first_leaf() if hasattr(node, "children") else node


def _last_leaf(node: Node) -> Node:
    return node.get_last_leaf() if hasattr(node, "children") else node
