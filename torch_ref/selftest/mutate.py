"""Mutants of `manual_bp`: one small change each to the source of one function.

Made by cosmic-ray's operators (github.com/sixty-north/cosmic-ray) and, where those do not reach, by
ours. Nothing is written to a file: a mutant is a text, run in memory.
"""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from itertools import islice
from types import ModuleType
from typing import Any

import manual_bp.functions
import manual_bp.network
from torch_ref.selftest.operators import DOMAIN_OPERATORS, Node, Operator

# What is mutated: the mathematics, not the checks of what is given.
FUNCTIONS = (
    "sigmoid", "sigmoid_derivative", "square", "square_derivative", "itakura_saito",
    "itakura_saito_derivative", "_itakura_saito_near", "_itakura_saito_double",
    "_itakura_saito_far",
)  # fmt: skip
NETWORK = ("_forward", "_loss", "_backward", "_mean_over_batch")
MUTATED = (*FUNCTIONS, *NETWORK)

# cosmic-ray replaces each binary operator by every other; between these groups the result is no
# more than a TypeError on floating arrays, which would be caught by running it at all.
_GROUPS = ({"Add", "Sub", "Mul", "Div", "FloorDiv", "Mod", "Pow"}, {"BitOr", "BitAnd", "BitXor"})


@dataclass(frozen=True)
class Mutant:
    """One change: `before` became `after`, on line `line` of `function`'s source.

    function: its name in `manual_bp`; operator: what made the change; source: the whole function.
    """

    function: str
    operator: str
    line: int
    before: str
    after: str
    source: str

    @property
    def quantity(self) -> str | None:
        """The gradient that the changed line of the backward pass computes, for example "w46"."""
        target, equals, _ = self.before.partition(" = ")
        derived = self.function == "_backward" and equals and target.startswith("d")
        return target[1:] if derived else None

    @property
    def module(self) -> ModuleType:
        """The module of `manual_bp` that the function belongs to."""
        return manual_bp.functions if self.function in FUNCTIONS else manual_bp.network

    def module_source(self) -> str:
        """The source of the module with the mutant in place of the function."""
        source = inspect.getsource(self.module)
        return source.replace(_source_of(self.module, self.function), self.source, 1)

    def namespace(self) -> dict[str, Any]:
        """The names of `manual_bp.network` and `manual_bp.functions`, the mutant in place."""
        mutated = _run(self.module, self.module_source())
        if self.module is manual_bp.network:
            return {**vars(manual_bp.functions), **mutated}
        network = _run(manual_bp.network, inspect.getsource(manual_bp.network))
        network.update({name: mutated[name] for name in FUNCTIONS if name in network})
        return {**mutated, **network}


def mutants() -> list[Mutant]:
    """Every mutant, the same ones in the same order each time.

    Raises ModuleNotFoundError where cosmic-ray is not installed.
    """
    _cosmic_ray_operators()
    return [mutant for function in MUTATED for mutant in _mutants_of(function)]


@cache
def _mutants_of(function: str) -> tuple[Mutant, ...]:
    operators = {**_cosmic_ray_operators(), **{n: make() for n, make in DOMAIN_OPERATORS.items()}}
    source = original(function).source
    found: dict[str, Mutant] = {}  # two operators can make the same change
    for name, operator in operators.items():
        for mutated in _mutations(source, operator):
            mutant = Mutant(function, name, *_change(source, mutated), mutated)
            found.setdefault(mutated, mutant)
    return tuple(found.values())


def original(function: str) -> Mutant:
    """The function as it is, for comparison: no change at all."""
    module = manual_bp.functions if function in FUNCTIONS else manual_bp.network
    return Mutant(function, "", 0, "", "", _source_of(module, function))


def _source_of(module: ModuleType, function: str) -> str:
    return inspect.getsource(getattr(module, function))


def _cosmic_ray_operators() -> dict[str, Operator]:
    try:
        provider = import_module("cosmic_ray.operators.provider").OperatorProvider()
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "The self-test makes its mutants with cosmic-ray, which is not installed: "
            "pip install 'gradtwin[selftest]'."
        ) from None
    # those with arguments insert random names and numbers
    return {n: provider[n]() for n in provider if not provider[n].arguments() and _sensible(n)}


def _sensible(operator: str) -> bool:
    kind, _, change = operator.partition("_")
    if kind != "ReplaceBinaryOperator":
        return True
    return any(set(change.split("_")) <= group for group in _GROUPS)


def _mutations(source: str, operator: Operator) -> Iterator[str]:
    """The source with each of the operator's mutations of the function's body, one at a time."""
    ways = [
        (number, index)
        for number, node in enumerate(_nodes_of(source))
        for index, _ in enumerate(operator.mutation_positions(node))
    ]
    for number, index in ways:
        body = _body(source)  # parsed anew: mutating changes the tree
        node = next(islice(_nodes(body), number, None))
        siblings = node.parent.children
        at = next(i for i, sibling in enumerate(siblings) if sibling is node)
        siblings[at] = operator.mutate(node, index)
        yield body.get_root_node().get_code()


@cache
def _nodes_of(source: str) -> tuple[Node, ...]:
    """The nodes of a body, to be looked at only."""
    return tuple(_nodes(_body(source)))


def _body(source: str) -> Node:
    (function,) = import_module("parso").parse(source).iter_funcdefs()
    return function.children[-1]


def _nodes(node: Node) -> Iterator[Node]:
    yield node
    for child in getattr(node, "children", ()):
        yield from _nodes(child)


def _change(source: str, mutated: str) -> tuple[int, str, str]:
    """Number of the first changed line, old and new text without comments and surplus blanks."""
    pairs = zip(source.splitlines(), mutated.splitlines(), strict=True)
    changed = [(i, *pair) for i, pair in enumerate(pairs, start=1) if pair[0] != pair[1]]
    lines, before, after = zip(*changed, strict=True)
    texts = [" ".join(line.partition("  #")[0] for line in text) for text in (before, after)]
    return lines[0], *(" ".join(text.split()) for text in texts)


def _run(module: ModuleType, source: str) -> dict[str, Any]:
    """The names that the module's source gives, run in memory."""
    namespace: dict[str, Any] = {"__name__": module.__name__}
    exec(compile(source, f"<mutant of {module.__name__}>", "exec"), namespace)
    return namespace
