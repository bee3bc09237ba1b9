"""Replayed and threaded comparisons: the report of any way of judging is the same to the bit."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from torch_ref import Report, Twin, verify
from torch_ref.assignment import assignment_twin
from torch_ref.compare import comparison
from torch_ref.compare.ahead import ahead
from torch_ref.compare.cases import SHARD
from torch_ref.compare.tape import Replay
from torch_ref.compare.twin import Draw, Values
from torch_ref.compare.verify import Judge

CASES = 7 * SHARD + 100


def small() -> Twin:
    """One formula with a sigmoid, so that compiling takes a second."""

    def inputs(draw: Draw) -> Values:
        return {"x": draw.normal(), "w": draw.uniform(0.5, 2.0)}

    def reference(values: Values) -> Values:
        y = torch.sigmoid(values["w"] * values["x"])
        return {"y": y, "loss": y * y}

    def manual(values: Values) -> Values:
        y = torch.sigmoid(values["w"] * values["x"])
        dz = 2 * y * y * (1 - y)
        return {"y": 2 * y, "w": dz * values["x"], "x": dz * values["w"]}

    return Twin("small", inputs, reference, manual)


def wrong() -> Twin:
    """Wrong in rare cases, of which only some shards have one."""
    right = small().manual

    def manual(values: Values) -> Values:
        given = right(values)
        return {**given, "w": torch.where(values["x"] > 3.9, -given["w"], given["w"])}

    return replace(small(), manual=manual, stress=())


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Recording pays at once, and is waited for; whether each replay had an answer."""
    answered: list[bool] = []
    call, submitted = Replay.__call__, comparison.ThreadPoolExecutor.submit

    def counted(self: Replay, inputs: object) -> object:
        outputs = call(self, inputs)  # type: ignore[arg-type]
        answered.append(outputs is not None)
        return outputs

    def at_once(pool: object, function: object, *args: object) -> object:
        future = submitted(pool, function, *args)  # type: ignore[arg-type]
        if function is Replay:
            future.exception()
        return future

    monkeypatch.setattr(Replay, "__call__", counted)
    monkeypatch.setattr(comparison.ThreadPoolExecutor, "submit", at_once)
    monkeypatch.setattr(comparison, "MANY", 1)
    return answered


def judged(twin: Twin, dtype: torch.dtype, threads: int = 1, explain: bool = False) -> Report:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return verify(twin, cases=CASES, dtype=dtype, explain=explain)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize("twin", [small(), wrong()], ids=["right", "wrong"])
def test_replayed_reports_are_the_direct_ones(
    twin: Twin, dtype: torch.dtype, threads: int, replays: list[bool]
) -> None:
    replayed = judged(twin, dtype, threads)
    assert replays.count(True) >= (4 if dtype != torch.float16 else 1)  # which often overflows
    comparison.MANY = 10**9
    assert replayed == judged(twin, dtype)
    assert replayed.rows[0].verdict == "agree"


def test_a_twins_own_functions_run_in_one_thread(replays: list[bool]) -> None:
    """torch.func.functional_call, for one, is not safe in several: it fills a module."""
    seen: set[int] = set()
    twin = small()

    def seeing(function: Callable[[Any], Values]) -> Callable[[Any], Values]:
        def call(given: Any) -> Values:
            seen.add(threading.get_ident())
            return function(given)

        return call

    parts = {n: seeing(getattr(twin, n)) for n in ("inputs", "reference", "manual")}
    judged(replace(twin, **parts), torch.float32, 3)
    assert seen == {threading.get_ident()}
    assert replays.count(True) >= 4


def test_a_wrong_twins_explanation_is_the_same_from_threads(replays: list[bool]) -> None:
    threaded = judged(wrong(), torch.float64, 2, explain=True)
    assert threaded == judged(wrong(), torch.float64, 1, explain=True)
    assert threaded.first_wrong == "w"


def test_the_assignments_twin_replayed(replays: list[bool]) -> None:
    replayed = judged(assignment_twin(), torch.float64, 2)
    assert replays == [True] * len(replays)
    assert len(replays) >= 4
    comparison.MANY = 10**9
    assert replayed == judged(assignment_twin(), torch.float64)


@pytest.mark.parametrize(("shard", "caught"), [(0, True), (1, True), (2, False), (64, True)])
def test_the_hand_runs_twice_on_some_shards_only(shard: int, caught: bool) -> None:
    """On the others a hand that changes its inputs changes a copy."""

    def manual(values: Values) -> Values:
        given = small().manual(values)
        values["x"] += 1
        return given

    judge = Judge(replace(small(), manual=manual), torch.float64, torch.device("cpu"), 0)
    judge.judge(judge.cases.batch(shard, 65 * SHARD))
    assert bool(judge.recorder.said.failures) == caught


@pytest.mark.parametrize(("every", "given_up"), [(50, False), (6, False), (4, True), (1, True)])
def test_replays_end_where_many_have_no_answer(every: int, given_up: bool) -> None:
    """However long the run: a rare one without must not end them."""
    judge = Judge(small(), torch.float64, torch.device("cpu"), 0, 10**9)
    judge.comparison._replays["key"] = future = comparison.Future()
    for shard in range(10_000):
        judge.comparison._count("key", answered=shard % every != 0)
    assert judge.comparison._replays["key"] is (None if given_up else future)


def test_without_a_compiler_all_is_as_it_was(
    replays: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    report = judged(small(), torch.float64, 2)
    assert replays == []
    monkeypatch.undo()
    assert report == judged(small(), torch.float64)


def test_gradients_that_are_one_tensor_at_first_need_not_be_so_later(replays: list[bool]) -> None:
    """The third shard and those behind it have another dL/dv; were a replay to take it from where
    the second had it, dL/dv would seem right."""
    seen: list[int] = []

    def inputs(draw: Draw) -> Values:
        return {"u": draw.normal(), "v": draw.normal()}

    def manual(values: Values) -> Values:
        seen.append(len(values["u"]))
        both = 2 * (values["u"] + values["v"])
        return {"u": both, "v": both if seen.count(SHARD) < 10 else 1.5 * both}

    def reference(values: Values) -> Values:
        return {"loss": (values["u"] + values["v"]) ** 2}

    report = judged(Twin("sum", inputs, reference, manual), torch.float64)
    assert report.first_wrong == "v"


def test_results_come_in_order_and_few_at_once() -> None:
    running: list[int] = []
    most: list[int] = []

    def slow(item: int) -> tuple[int, int]:
        running.append(item)
        most.append(len(running))
        time.sleep(0.02 if item % 3 else 0.06)
        running.remove(item)
        return item, threading.get_ident()

    found = list(ahead(slow, range(9), 3))
    assert [item for item, _ in found] == list(range(9))
    assert max(most) == 3
    assert list(ahead(abs, [-1, -2], 1)) == [1, 2]


@pytest.mark.parametrize("threads", [1, 3])
def test_what_the_function_raises_comes_in_its_place(threads: int) -> None:
    results = ahead(lambda item: 6 // item, [1, 2, 3, 0, 5], threads)
    assert [next(results), next(results), next(results)] == [6, 3, 2]
    with pytest.raises(ZeroDivisionError):
        next(results)
