"""A recording as parts that run one after the other: loops for C, and steps for torch."""

from collections.abc import Set
from dataclasses import dataclass

from torch_ref.compare.tape.forms import form
from torch_ref.compare.tape.recording import Question, Recording, Step, Value


@dataclass(frozen=True, eq=False)
class Loop:
    """Values computed number by number, in this order, with what is asked about them.

    loaded: values of earlier parts that it needs; stored: those that later parts need.
    """

    shape: tuple[int, ...]
    computed: tuple[Value, ...]
    questions: tuple[Question, ...]
    loaded: tuple[Value, ...]
    stored: tuple[Value, ...]


@dataclass(frozen=True, eq=False)
class Single:
    """A step that torch does, with the places of its results that are needed."""

    step: Step
    results: tuple[Value, ...]


Part = Loop | Single


def parts(recording: Recording) -> list[Part]:
    """All that the outputs and the questions need, in as few loops as can be."""
    order = _in_order([*recording.outputs, *(question.value for question in recording.questions)])
    steps = {value: value.source for value in order if value.source is not None}
    in_c = {value for value, step in steps.items() if form(step, value) is not None}
    by_torch = steps.keys() - in_c
    of_shape = {shape: {v for v in in_c if v.shape == shape} for shape in {v.shape for v in in_c}}
    waiting = dict.fromkeys(steps)
    groups: list[list[Value]] = []
    while waiting:
        singles = _ready(waiting, by_torch)
        for step in dict.fromkeys(steps[value] for value in singles):
            groups.append([value for value in singles if steps[value] is step])
        _remove(singles, waiting)
        loops = [_ready(waiting, values) for values in of_shape.values()]
        largest = max(loops, key=len, default=[])
        groups += [largest] if largest else []
        _remove(largest, waiting)
    return _as_parts(groups, steps, in_c, recording)


def _ready(waiting: dict[Value, None], wanted: Set[Value]) -> list[Value]:
    """The wanted values that can be computed at once, or after others of these, in order."""
    found: dict[Value, None] = {}
    for value in waiting:
        if value in wanted and all(need in found or need not in waiting for need in value.needs):
            found[value] = None
    return list(found)


def _remove(done: list[Value], waiting: dict[Value, None]) -> None:
    for value in done:
        del waiting[value]


def _as_parts(
    groups: list[list[Value]], steps: dict[Value, Step], in_c: set[Value], recording: Recording
) -> list[Part]:
    made: list[Part] = []
    later = set(recording.outputs)
    for group in reversed(groups):
        own = set(group)
        needs = dict.fromkeys(need for value in group for need in value.needs if need not in own)
        if group[0] in in_c:
            questions = tuple(one for one in recording.questions if one.value in own)
            stored = tuple(value for value in group if value in later)
            made.append(Loop(group[0].shape, tuple(group), questions, tuple(needs), stored))
        else:
            made.append(Single(steps[group[0]], tuple(group)))
        later |= needs.keys()
    return made[::-1]


def _in_order(wanted: list[Value]) -> list[Value]:
    """Every value that is needed, depth first, what it is made of before it."""
    order: dict[Value, None] = {}
    stack = [(value, False) for value in reversed(wanted)]
    while stack:
        value, done = stack.pop()
        if done:
            order[value] = None
        elif value not in order:
            stack.append((value, True))
            stack += [(need, False) for need in reversed(value.needs)]
    return list(order)
