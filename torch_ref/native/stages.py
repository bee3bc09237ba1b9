"""A graph's operations cut into stages of about equal work, and what goes from one to another."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch_ref.native.symbols import Symbol, in_order

WORK = {"exp": 20, "log": 25, "log1p": 35, "either_log": 45}  # in additions, roughly
CONDITIONS = {"less", "less_equal", "greater", "greater_equal", "equal", "not_equal", "isinf",
              "logical_and", "logical_or", "logical_not"}  # fmt: skip
AGAIN = CONDITIONS | {"abs"}  # what is sooner computed anew than kept, as numbers, for later
CHEAP = 3  # so many of these that are made of each other; of more the last is kept


@dataclass(frozen=True)
class Stage:
    """own: the operations of this stage; again: cheap ones of earlier stages that it needs;
    loaded: values of earlier stages; arguments: by name.
    """

    own: tuple[Symbol, ...]
    again: tuple[Symbol, ...]
    loaded: tuple[Symbol, ...]
    arguments: tuple[str, ...]

    @property
    def computed(self) -> tuple[Symbol, ...]:
        return (*self.again, *self.own)


def soonest(first: Sequence[Symbol], others: Sequence[Symbol]) -> list[Symbol]:
    """`first` in their order, and each of the others where all that it has of theirs is computed:
    less has to wait, then, than if they came last."""
    at = {value: place for place, value in enumerate(in_order(first))}
    for value in in_order(others):
        operands = (operand for operand in value.operands if isinstance(operand, Symbol))
        at.setdefault(value, max((at[operand] for operand in operands), default=0))
    return sorted((*first, *others), key=at.__getitem__)


def in_stages(needed: Sequence[Symbol], count: int) -> list[Stage]:
    """The operations that `needed` asks for, in at most `count` stages."""
    operations = [value for value in in_order(needed) if value.operation != "argument"]
    total = work(needed)
    parts: list[list[Symbol]] = [[] for _ in range(count)]
    done = 0
    for value in operations:
        parts[done * count // total].append(value)
        done += WORK.get(value.operation, 1)
    kept = _dear(operations)
    return [_stage(part, kept) for part in parts if part]


def _dear(operations: Sequence[Symbol]) -> set[Symbol]:
    """Those of AGAIN that are made of so many others that they are sooner kept than computed."""
    made_of: dict[Symbol, set[Symbol]] = {}
    dear = set()
    for value in operations:
        if value.operation not in AGAIN:
            continue
        parts = {value}.union(*(made_of.get(operand, ()) for operand in value.operands))
        if len(parts) > CHEAP:
            dear.add(value)
            parts = set()
        made_of[value] = parts
    return dear


def work(needed: Iterable[Symbol]) -> int:
    """What computing `needed` costs, in additions, roughly."""
    return sum(
        WORK.get(value.operation, value.operation != "argument") for value in in_order(needed)
    )


def _stage(own: Sequence[Symbol], kept: set[Symbol]) -> Stage:
    again: dict[Symbol, None] = {}
    loaded: dict[Symbol, None] = {}
    arguments: dict[str, None] = {}

    def need(value: Symbol) -> None:
        for operand in value.operands:
            if not isinstance(operand, Symbol) or operand in own:
                continue
            if operand.operation == "argument":
                arguments[operand.operands[0]] = None
            elif operand.operation not in AGAIN or operand in kept:
                loaded[operand] = None
            elif operand not in again:
                need(operand)
                again[operand] = None

    for value in own:
        need(value)
    return Stage(tuple(own), tuple(again), tuple(loaded), tuple(arguments))
