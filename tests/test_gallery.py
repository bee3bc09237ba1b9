"""The gallery: right backward passes agree, and each one's planted bugs are caught and named."""

import importlib
import inspect
import json
import pkgutil
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import gallery_bugs_1
import gallery_bugs_2
import pytest
import torch

import torch_ref.gallery
from torch_ref import Report, Twin, verify
from torch_ref.compare import DTYPES
from torch_ref.compare.graphs.known import Graphs
from torch_ref.compare.judge import Judge

BUGS = {**gallery_bugs_1.BUGS, **gallery_bugs_2.BUGS}
SENTENCES = json.loads((Path(__file__).parent / "data" / "gallery_sentences.json").read_text())
CASES = 36  # every stratum four times, once with each way to choose sizes
# Recording takes most of the time: a reference is the same for every dtype and every bug.
# Where the bug's line is not among those named: right gradients are made of it, too, or what it
# should compute is left out, and no operation is left.
UNNAMED = {
    "group norm: one group, as in layer norm",
    "group norm: one group a channel, as in instance norm",
    "cosine: eps forgotten",
    "tied embedding: only the unembedding",
    "tied embedding: only the embedding",
    "conv1d: padding on one side only",
    "layer norm: gamma left out of dL/dx_hat",
    "RMS norm: gamma left out of dL/dx_hat",
    "batch norm: the path through the mean left out",
    "Huber: sign of dL/dtarget",
    "Dice: sigmoid' left out",
    "log-softmax: the path through the sum left out",
    "logaddexp: not summed over the batch",
    "SwiGLU: the factor up left out of dL/dgate",
    "LSTM: forget gate left out of the way back",
    "GRU: tanh' forgotten",
    "GRU: both biases alike",
    "RNN: the state's way on to the next step forgotten",
    "RNN: tanh' forgotten at one step",
}
REFERENCES: defaultdict[str, Graphs] = defaultdict(Graphs)
RIGHT: defaultdict[str, Graphs] = defaultdict(Graphs)


def twins() -> Iterator[tuple[str, Twin]]:
    for module in pkgutil.iter_modules(torch_ref.gallery.__path__):
        loaded = importlib.import_module(f"torch_ref.gallery.{module.name}")
        for value in vars(loaded).values():
            if isinstance(value, Twin):
                yield value.name, value


TWINS = dict(twins())


def broken(twin: Twin, function: str, right: str, wrong: str) -> Twin:
    """The twin with one piece of its backward pass's source replaced."""
    module = inspect.getmodule(twin.manual)
    assert module is not None
    source = inspect.getsource(getattr(module, function))
    assert right in source, f"{right!r} is no longer in {function}"
    namespace = dict(vars(module))
    exec(source.replace(right, wrong, 1), namespace)
    return replace(twin, manual=namespace[twin.manual.__name__])


def judged(
    twin: Twin, dtype: str, manual_graphs: Graphs, device: str = "cpu", until: str | None = None
) -> Report:
    """As `verify` does, with graphs kept from one call to the next; until: a quantity that, named
    as the first wrong one after a turn of all strata, ends it."""
    judging = Judge(twin, DTYPES[dtype], torch.device(device), seed=0)
    judging.recorder.share_graphs(REFERENCES[twin.name + device], manual_graphs)
    turn = len(judging.cases.strata)
    for batch in judging.cases.batches(CASES):
        judging.judge(batch)
        done = batch.first + 1
        if until and done % turn == 0 and judging.report(done, explain=False).first_wrong == until:
            break
    return judging.report(done, explain=False)


@pytest.mark.parametrize("name", TWINS)
def test_a_right_backward_pass_agrees(name: str, device: str) -> None:
    for dtype in ("float64", "float32", "bfloat16"):
        report = judged(TWINS[name], dtype, RIGHT[name + device], device)
        report.assert_agreement()
        assert not report.notes, report.notes


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught_and_named(bug: str) -> None:
    twin, function, right, wrong, first_wrong = BUGS[bug]
    wrong_twin, graphs = broken(twin, function, right, wrong), Graphs()
    for dtype in ("float64", "float32"):
        report = judged(wrong_twin, dtype, graphs, until=first_wrong)
        assert (report.verdict, report.first_wrong) == ("differ", first_wrong), dtype


def some_quick(bugs: list[str]) -> Iterator[object]:
    """Every tenth; the others are marked slow."""
    for place, bug in enumerate(bugs):
        yield bug if place % 10 == 0 else pytest.param(bug, marks=pytest.mark.slow)


@pytest.mark.parametrize("bug", list(some_quick(list(BUGS))))
def test_the_mistake_enters_there_and_is_explained(bug: str) -> None:
    """In the recorded words, each of which was held against the bug by a reader."""
    twin, function, right, wrong, first_wrong = BUGS[bug]
    report = verify(broken(twin, function, right, wrong), cases=CASES)
    assert report.mistakes[0] == first_wrong
    assert report.diagnosis.blame != "reference"
    assert said(report) == SENTENCES[bug]
    assert bool(lines_of(bug) & named(report)) == (bug not in UNNAMED)


def lines_of(bug: str) -> set[int]:
    """The lines of the function that a bug replaces a piece of."""
    twin, function, right, *_ = BUGS[bug]
    source = inspect.getsource(getattr(inspect.getmodule(twin.manual), function))
    first = source[: source.index(right)].count("\n") + 1
    return set(range(first, first + right.count("\n") + 1))


def named(report: Report) -> set[int]:
    """The lines that a report names in code that was `exec`uted."""
    text = " ".join((*report.diagnosis.lines, report.diagnosis.shared)).replace("<string>:", "")
    runs = re.findall(r"(\d+)(?:-(\d+))?", text)
    return {line for first, last in runs for line in range(int(first), int(last or first) + 1)}


def said(report: Report) -> list[str]:
    """The sentences of a report, without the numbers of those that fit no pattern."""
    each = zip(report.diagnosis.explanations, report.diagnosis.explained, strict=True)
    return [text if known else text.partition(";")[0] for text, known in each]


def test_most_bugs_are_explained() -> None:
    explained = [
        bool(all_of) and "no known pattern" not in str(all_of) for all_of in SENTENCES.values()
    ]
    assert list(SENTENCES) == list(BUGS)
    assert sum(map(bool, explained)) >= 0.8 * len(BUGS)
