"""Paths: the gradient is a sum over the consumers, and one of its terms is missing, doubled,
subtracted, or wrong by itself."""

from collections.abc import Iterator
from itertools import combinations, product

import torch

from torch_ref.compare.explain.arithmetic import (
    agree,
    joined,
    minus,
    picked,
    plus,
    scaled,
    times,
    total,
)
from torch_ref.compare.explain.constants import constant_ratio
from torch_ref.compare.explain.evidence import Answer
from torch_ref.compare.explain.forms import Form
from torch_ref.compare.explain.products import belonging, wrong_product
from torch_ref.compare.explain.question import Question
from torch_ref.compare.explain.scatter import overwritten
from torch_ref.compare.verdict import Side

MOST_PATHS = 5  # with more, one path alone is varied, or survives
COEFFICIENTS = (1, 0, 2, -1)
Coefficients = tuple[int, ...]


def wrong_coefficients(question: Question) -> Answer | None:
    """The hand has -1, 0, 1 or 2 times each path: the fewest changes that explain all.

    Where two such ways fit, paths are equal in every draw: both are said.
    """
    paths = _paths(question)
    fitting: list[tuple[Coefficients, Side]] = []
    for coefficients in _choices(len(paths)):
        if fitting and _changes(coefficients) > _changes(fitting[0][0]):
            break
        predicted = _prediction(question, list(paths.values()), coefficients)
        if predicted is not None:
            fitting.append((coefficients, predicted))
    if not fitting:
        return None
    says = [_says(question, paths, coefficients) for coefficients, _ in fitting]
    return Answer(", or ".join(says), fitting[0][1])


def wrong_path(question: Question) -> Answer | None:
    """One path is wrong by itself, by a constant, by a factor or as another product."""
    paths = _paths(question)
    if len(paths) < 2:
        return None
    for name, path in paths.items():
        others = total([side for other, side in paths.items() if other != name])
        part = question.about(minus(question.manual, others), path, name)
        answer = constant_ratio(part) or wrong_product(part) or overwritten(part)
        if answer is not None:
            predicate = f"has a wrong path {_through(name)}: it {answer.predicate}"
            return Answer(predicate, plus(others, answer.predicted))
    return None


def exchanged_factors(question: Question) -> Answer | None:
    """Two paths v * dL/dg and u * dL/dh have become u * dL/dg and v * dL/dh."""
    paths = _paths(question)
    forms = {name: _form(question, paths, name) for name in paths}
    for one, two in combinations(paths, 2):
        first, second = forms[one], forms[two]
        if not (first and second and first.factor and second.factor):
            continue
        if not (first.gradient and second.gradient):
            continue
        factors = [form.factor.at(question) for form in (first, second) if form.factor]
        gradients = [form.gradient.at(question) for form in (first, second) if form.gradient]
        others = [side for name, side in paths.items() if name not in (one, two)]
        crossed = [times(factors[1], gradients[0]), times(factors[0], gradients[1])]
        predicted = total([*others, *crossed])
        if question.answered_by(predicted):
            what = f"{first.factor.text} and {second.factor.text}"
            return Answer(
                f"has {what} exchanged between the paths {_through(one)} and {_through(two)}",
                predicted,
            )
    return None


def _paths(question: Question) -> dict[str, Side]:
    """The contribution of each consumer, flat over all draws; nothing where a draw lacks it."""
    return {
        name: joined([draw.paths.get(name, _nothing(draw.manual)) for draw in question.draws])
        for name in question.consumers
    }


def _nothing(like: Side) -> Side:
    return Side(torch.zeros_like(like.value), torch.zeros_like(like.value))


def _choices(count: int) -> Iterator[Coefficients]:
    """Coefficients to try, fewest changes first; not those that are one constant for all paths."""
    if count < 2:
        return
    if count <= MOST_PATHS:
        every = product(COEFFICIENTS, repeat=count)
        yield from sorted((c for c in every if len(set(c)) > 1), key=_changes)
        return
    for changed in (0, 2, -1):
        for place in range(count):
            yield tuple(changed if i == place else 1 for i in range(count))
    for place in range(count):
        yield tuple(int(i == place) for i in range(count))


def _changes(coefficients: Coefficients) -> int:
    """How many mistakes it takes: the only path that survives takes one."""
    if sorted(coefficients) == [*[0] * (len(coefficients) - 1), 1]:
        return 1
    return sum(coefficient != 1 for coefficient in coefficients)


def _prediction(question: Question, paths: list[Side], coefficients: Coefficients) -> Side | None:
    """The hand's numbers by these coefficients; None where they do not fit."""
    sample = question.sample
    few = _combined([picked(path, sample) for path in paths], coefficients)
    if not bool(agree(picked(question.manual, sample), few).all()):
        return None
    predicted = _combined(paths, coefficients)
    return predicted if question.answered_by(predicted) else None


def _combined(paths: list[Side], coefficients: Coefficients) -> Side:
    terms = [scaled(c, path) for c, path in zip(coefficients, paths, strict=True) if c]
    if terms:
        return total(terms)
    return Side(torch.zeros_like(paths[0].value), torch.zeros_like(paths[0].value))


def _says(question: Question, paths: dict[str, Side], coefficients: Coefficients) -> str:
    by_name = dict(zip(paths, coefficients, strict=True))
    alive = [name for name, coefficient in by_name.items() if coefficient]
    if len(alive) == 1 and by_name[alive[0]] == 1 and len(paths) > 2:
        return f"has only the path {_described(question, paths, alive[0])}"
    says = {0: "lacks the path", 2: "counts twice the path", -1: "subtracts the path"}
    return " and ".join(
        f"{says[coefficient]} {_described(question, paths, name)}"
        for name, coefficient in by_name.items()
        if coefficient != 1
    )


def _described(question: Question, paths: dict[str, Side], name: str) -> str:
    form = _form(question, paths, name)
    return f"{_through(name)}: {form.path}" if form else _through(name)


def _through(name: str) -> str:
    return "straight to the loss" if name == "loss" else f"through {name}"


def _form(question: Question, paths: dict[str, Side], name: str) -> Form | None:
    return belonging(question.about(question.manual, paths[name], name))
