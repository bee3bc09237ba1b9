"""The compiled judge says what the plain one says, or leaves the judging to it."""

import ctypes
import dataclasses
import math
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from torch_ref.assignment import assignment_twin
from torch_ref.compare import Draw, Twin
from torch_ref.compare.cases import SHARD, Batch
from torch_ref.compare.compiled import Compiled, algebra, judging
from torch_ref.compare.compiled.algebra import CannotCompileError
from torch_ref.compare.compiled.emit import FLAGS
from torch_ref.compare.compiled.formulas import formulas
from torch_ref.compare.compiled.kernel import compiled
from torch_ref.compare.judge import Judge
from torch_ref.compare.report import Report
from torch_ref.compare.twin import Values
from torch_ref.compare.verdict import Tally
from torch_ref.native.c_math import functions
from torch_ref.native.compiler import NoCompilerError, find_compiler, library

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def compiler() -> None:
    try:
        find_compiler()
    except NoCompilerError as missing:
        pytest.skip(str(missing))


def rows_of_three(draw: Draw) -> Values:
    shape = (draw.cases, 3)
    return {"x": draw.normal(shape=shape), "w": draw.normal(shape=shape), "t": draw.normal()}


def squared_error(values: Values) -> Values:
    y = (values["x"] * values["w"]).sum(1)
    p = y.sigmoid()
    return {"y": y, "p": p, "loss": (p - values["t"]) ** 2}


def squared_error_backward(values: Values) -> Values:
    p = 1 / (1 + torch.exp(-(values["x"] * values["w"]).sum(1)))
    dp = 2 * (p - values["t"])
    dy = dp * p * (1 - p)
    return {"p": dp, "y": dy, "x": dy[:, None] * values["w"], "w": dy[:, None] * values["x"]}


SMALL = Twin("small", rows_of_three, squared_error, squared_error_backward)


def judge_of(twin: Twin, dtype: torch.dtype = torch.float64, seed: int = 0) -> Judge:
    judge = Judge(twin, dtype, CPU, seed)
    judge.expect(judging.COMPILED_FROM)
    return judge


def both_ways(judge: Judge, shard: int) -> tuple[list[Tally], list[Tally]] | None:
    """What the compiled judge finds in a shard, if it is for it to judge, and the plain one."""
    batch = judge.cases.batch(shard, 10**9)
    first_case = f"{judge.seed}:{batch.first}"
    plain = judge._in_chunks(batch)
    assert judge.compiled is not None
    found = judge.compiled(batch, first_case, lambda: plain)
    if found is None:
        return None
    assert found[1] == plain[1]
    return found[0], plain[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_compiled_judge_counts_as_the_plain_one_does(dtype: torch.dtype) -> None:
    """The dtype's rounding is far larger than float64's, so hardly a number may be another."""
    judge = judge_of(SMALL, dtype)
    for shard in (0, 7):
        both = both_ways(judge, shard)
        assert both is not None
        for one, plain in zip(*both, strict=True):
            assert (one.name, one.elements, one.wrong) == (plain.name, plain.elements, 0)
            assert abs(one.decided - plain.decided) <= 2
            moved = np.abs(np.subtract(one.histogram, plain.histogram))
            assert moved.sum() <= 1e-3 * one.elements
            assert one.worst_ratio == pytest.approx(plain.worst_ratio, rel=1e-6)
            assert one.worst["case"] == plain.worst["case"]
            assert one.worst["element"] == plain.worst["element"]
            for number in ("manual", "reference", "tolerance"):
                assert one.worst[number] == pytest.approx(plain.worst[number], rel=1e-9)
            assert one.digits_manual == pytest.approx(plain.digits_manual, rel=1e-6)
            assert one.digits_reference == pytest.approx(plain.digits_reference, rel=1e-6)
            np.testing.assert_allclose(
                dataclasses.astuple(one.pool), dataclasses.astuple(plain.pool), rtol=1e-4
            )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_assignment_is_judged_alike(dtype: torch.dtype) -> None:
    """float32 overflows in every shard, float64 in none: both kinds of formulas are used."""
    judge = judge_of(assignment_twin(), dtype)
    for shard in (0, 5):
        both = both_ways(judge, shard)
        assert both is not None
        for one, plain in zip(*both, strict=True):
            assert one.wrong == plain.wrong == 0
            assert abs(one.decided - plain.decided) <= 1e-3 * SHARD
            assert one.digits_manual == pytest.approx(plain.digits_manual, rel=1e-3)
            assert one.digits_reference == pytest.approx(plain.digits_reference, rel=1e-3)
            assert 0 < one.worst_ratio <= 1
    assert judge.compiled is not None
    assert judge.compiled.usual == (dtype == torch.float64)


def reported(judge: Judge, shards: int) -> Report:
    for shard in range(shards):
        judge.judge(judge.cases.batch(shard, shards * SHARD))
    return judge.report(shards * SHARD, explain=False)


def wrong_in_few(values: Values) -> Values:
    right = squared_error_backward(values)
    return {**right, "y": torch.where(values["t"] > 3.2, 2 * right["y"], right["y"])}


def test_what_is_wrong_is_judged_plainly() -> None:
    twin = replace(SMALL, manual=wrong_in_few)
    judge, plain = judge_of(twin), Judge(twin, torch.float64, CPU, 0)
    found, expected = reported(judge, 3), reported(plain, 3)
    assert found.verdict == "differ"
    row, same = (next(row for row in one.rows if row.name == "y") for one in (found, expected))
    assert row == same
    assert judge.suspects


def test_a_shard_is_judged_alike_whoever_does_it_and_after_what() -> None:
    one, other = judge_of(SMALL, seed=3), judge_of(SMALL, seed=3)
    for shard in (1, 4, 2):
        one.judge(one.cases.batch(shard, 10**9))
    one.forget()
    for judge in (one, other):
        judge.judge(judge.cases.batch(4, 10**9))
    assert one.tallies == other.tallies


def test_a_hand_that_is_wrong_of_very_many_cases_at_once_is_seen() -> None:
    """By an index that is too narrow, say: the plain way never runs it on so many."""

    def manual(values: Values) -> Values:
        found = squared_error_backward(values)
        wrong = torch.arange(len(values["t"])) > 2**15 - 1
        return {**found, "p": torch.where(wrong, 1.5 * found["p"], found["p"])}

    twin = replace(SMALL, manual=manual)
    judge = judge_of(twin)
    judge.judge(judge.cases.batch(0, 10**9))
    assert judge.report(SHARD, explain=False).first_wrong == "p"
    plain = Judge(twin, torch.float64, CPU, 0)
    plain.judge(plain.cases.batch(0, 10**9))
    assert plain.report(SHARD, explain=False).verdict == "agree"


def test_a_hand_that_raises_in_float64_alone_is_judged_plainly() -> None:
    def manual(values: Values) -> Values:
        if values["t"].dtype == torch.float64 and len(values["t"]) == SHARD:
            raise ValueError("no room")
        return squared_error_backward(values)

    judge = judge_of(replace(SMALL, manual=manual), torch.float32)
    for shard in (0, 1):
        judge.judge(judge.cases.batch(shard, 10**9))
    assert judge.report(2 * SHARD, explain=False).verdict == "agree"


@pytest.mark.parametrize("cases", [1, 255, 256, 1000])
def test_a_kernel_takes_any_number_of_cases(cases: int) -> None:
    """Though only whole shards are given to it: the last block may be short."""
    judge = judge_of(SMALL, torch.float32)
    batch = judge.cases.batch(0, SHARD)
    kernel = compiled(formulas(judge.recorder, judge.recorder.answers(batch), usual=False))
    few = batch.part(0, cases)
    found = kernel(judge.recorder.answers(few), "0:0")
    assert found is not None
    for one, plain in zip(found[0], judge._in_chunks(few)[0], strict=True):
        assert (one.elements, one.decided) == (plain.elements, plain.decided)
        assert one.digits_manual == pytest.approx(plain.digits_manual, rel=1e-6)
        assert one.digits_reference == pytest.approx(plain.digits_reference, rel=1e-6)
        assert np.abs(np.subtract(one.histogram, plain.histogram)).sum() <= 2
        assert sum(one.histogram) == one.decided


def over_cases(values: Values) -> Values:
    return {"loss": values["t"] * values["t"].sum()}


def by_place(values: Values) -> Values:
    return {"loss": values["t"] * torch.arange(len(values["t"]), dtype=torch.float64)}


def with_whole(draw: Draw) -> Values:
    return {"t": draw.normal(), "k": draw.integers(0, 3)}


T = {"inputs": lambda draw: {"t": draw.normal()}, "strata": ("ordinary",)}


@pytest.mark.parametrize(
    ("twin", "why"),
    [
        (
            Twin("a", reference=over_cases, manual=lambda v: {"t": 0 * v["t"]}, **T),
            "a case",
        ),
        (Twin("b", reference=by_place, manual=lambda v: {"t": 0 * v["t"]}, **T), "depends on"),
        (
            Twin(
                "c", with_whole, lambda v: {"loss": v["t"] * v["k"]}, lambda v: {"t": 1.0 * v["k"]}
            ),
            "no floats",
        ),
        (
            Twin(
                "d",
                reference=lambda v: {"loss": torch.lgamma(v["t"].abs() + 1)},
                manual=lambda v: {"t": torch.digamma(v["t"].abs() + 1) * v["t"].sign()},
                **T,
            ),
            "uses aten.(lgamma|digamma)",
        ),
    ],
)
def test_what_cannot_be_compiled_is_judged_plainly(twin: Twin, why: str) -> None:
    judge = judge_of(twin)
    answers = judge.recorder.answers(judge.cases.batch(0, SHARD))
    with pytest.raises(CannotCompileError, match=why):
        formulas(judge.recorder, answers, usual=True)
    assert reported(judge, 1) == reported(Judge(twin, torch.float64, CPU, 0), 1)


HALF = torch.tensor(0.5, dtype=torch.float64)


def mask_as_number(values: Values) -> Values:
    t = values["t"]
    return {"loss": values["x"] / torch.where(t > 2, HALF, t > -50)}


def one_over_mask(values: Values) -> Values:
    t = values["t"]
    wrong_half = torch.where(t > 3.6, 0.7 * torch.ones_like(t), HALF)
    return {"x": 1 / torch.where(t > 2, wrong_half, 1.0)}


def rectified(values: Values) -> Values:
    return {"loss": (values["x"].relu() * values["t"]).maximum(values["t"])}


def rectified_backward(values: Values) -> Values:
    x, t = values["x"], values["t"]
    one, other = x.relu() * t, t
    share = torch.where(one > other, t, torch.where(one == other, t / 2, 0 * t))
    return {"x": share * (x > 0)}


def tied_by_constants(values: Values) -> Values:
    thresholds = torch.tensor([0.5, 0.7, 0.9], dtype=torch.float64)
    x = values["x"][:, None].expand(-1, 3)
    return {"loss": torch.where(thresholds > 0.5, x, 2 * x).sum(1)}


XT: dict[str, Any] = {"inputs": lambda draw: {"x": draw.normal(), "t": draw.normal()}}


@pytest.mark.parametrize(
    "twin",
    [
        Twin("mask", reference=mask_as_number, manual=one_over_mask, stress=(), **XT),
        Twin("kinks", reference=rectified, manual=rectified_backward, **XT),
        Twin(
            "constant kinks",
            reference=tied_by_constants,
            manual=lambda v: {"x": torch.full_like(v["x"], 4.0)},
            **XT,
        ),
    ],
    ids=lambda twin: twin.name,
)
def test_masks_and_kinks_are_judged_alike(twin: Twin) -> None:
    judge = judge_of(twin, seed=3)
    for shard in range(2):
        both = both_ways(judge, shard)
        assert (both is None) == any(one.wrong for one in judge._in_chunks(batch(judge, shard))[0])
        for one, plain in zip(*both, strict=True) if both else ():
            assert (one.decided, one.wrong) == (plain.decided, plain.wrong)
    assert judge.compiled is not None
    assert any(judge.compiled._kernels.values())


def batch(judge: Judge, shard: int) -> Batch:
    return judge.cases.batch(shard, 10**9)


def columns_of_any_number(draw: Draw) -> Values:
    return {"x": draw.normal(shape=(draw.cases, draw.size(2, 5)))}


def test_shards_of_other_sizes_are_compiled_anew() -> None:
    twin = Twin(
        "sizes",
        columns_of_any_number,
        lambda values: {"loss": (values["x"] ** 2).sum(1)},
        lambda values: {"x": 2 * values["x"]},
        stress=(),
    )
    judge = judge_of(twin)
    assert reported(judge, 4).verdict == "agree"
    assert judge.compiled is not None
    assert len(judge.compiled._kernels) > 1
    sizes = {key[0] for key in judge.compiled._kernels if isinstance(key, tuple)}
    assert len(sizes) > 1
    kernel = next(kernel for kernel in judge.compiled._kernels.values() if kernel)
    answers = judge.recorder.answers(batch(judge, 0))
    wider = replace(answers, wide={"x": torch.ones(SHARD, 9, dtype=torch.float64)})
    with pytest.raises(ValueError, match="of other shapes"):
        kernel(wider, "0:0")


def test_powers_of_tensors_are_judged_plainly() -> None:
    twin = Twin(
        "power",
        reference=lambda values: {"loss": 2.0 ** values["x"]},
        manual=lambda values: {"x": math.log(2) * 2.0 ** values["x"]},
        stress=(),
        **XT,
    )
    judge = judge_of(twin)
    assert reported(judge, 1).verdict == "agree"
    assert judge.compiled is not None
    assert not any(judge.compiled._kernels.values())


def test_what_would_take_minutes_to_compile_is_judged_plainly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(algebra, "MOST", 100)
    judge = judge_of(SMALL)
    with pytest.raises(CannotCompileError, match="more than 100 operations a case"):
        formulas(judge.recorder, judge.recorder.answers(batch(judge, 0)), usual=True)
    assert reported(judge, 1) == reported(Judge(SMALL, torch.float64, CPU, 0), 1)


def test_without_a_compiler_the_plain_judge_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    judge = judge_of(SMALL)
    with pytest.warns(RuntimeWarning, match="is not compiled.*no-such-compiler.*name a compiler"):
        judge.judge(judge.cases.batch(0, 10**9))
    with warnings.catch_warnings():  # it is said once
        warnings.simplefilter("error")
        judge.judge(judge.cases.batch(1, 10**9))
    assert judge.tallies == plain_tallies(2)


def plain_tallies(shards: int) -> dict[str, Tally]:
    plain = Judge(SMALL, torch.float64, CPU, 0)
    reported(plain, shards)
    return plain.tallies


def test_a_compiled_judge_that_errs_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Compiled._found

    def fewer_decided(self: Compiled, *args: Any) -> Any:
        right = found(self, *args)
        if right is None:
            return None
        return [replace(one, decided=one.decided // 2) for one in right[0]], right[1]

    monkeypatch.setattr(Compiled, "_found", fewer_decided)
    judge = judge_of(SMALL)
    with pytest.warns(RuntimeWarning, match="compiled judge gave other numbers.*report it"):
        judge.judge(judge.cases.batch(0, 10**9))
    judge.judge(judge.cases.batch(1, 10**9))
    assert judge.tallies == plain_tallies(2)


@pytest.fixture
def held_often(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    places: list[int] = []
    monkeypatch.setattr(judging, "HELD", 2)
    monkeypatch.setattr(Compiled, "_hold", lambda *_: places.append(1))
    return places


def test_it_is_held_against_the_plain_way_again_and_again(held_often: list[int]) -> None:
    judge = judge_of(SMALL)
    for shard in (1, 2, 3, 4):  # the first, and every second one
        judge.judge(judge.cases.batch(shard, 10**9))
    assert len(held_often) == 3


def test_few_cases_and_parts_of_shards_are_judged_plainly() -> None:
    judge = Judge(SMALL, torch.float64, CPU, 0)
    judge.expect(judging.COMPILED_FROM - 1)
    assert judge.compiled is None
    judge = judge_of(SMALL)
    judge.judge(judge.cases.batch(0, 100))
    assert judge.compiled is not None
    assert not judge.compiled._kernels


FUNCTIONS = """#include <math.h>
#include <stdint.h>
#include <string.h>
typedef double T;
{functions}
void run(int64_t count, const T *x, T *e, T *l, T *s) {{
  for (int64_t i = 0; i < count; i++) {{
    const T small = exponential_of_negative(-absolute(x[i]));
    e[i] = exponential(x[i]);
    l[i] = natural_logarithm(absolute(x[i]));
    s[i] = (x[i] >= 0 ? 1.0 : small) / (1.0 + small);
  }}
}}
"""


def test_functions_are_as_accurate_as_the_rules_suppose() -> None:
    """exp, log and sigmoid to 4 unit roundoffs, with the options of the compiled judge."""
    if np.finfo(np.longdouble).eps > 1e-18:
        pytest.skip("long double is no longer than double here")
    run = library(FUNCTIONS.format(functions=functions("float64")), FLAGS).run
    generator = np.random.default_rng(0)
    x = np.concatenate([generator.uniform(-700, 700, 200_000), generator.uniform(-2, 2, 200_000)])
    found = np.empty((3, len(x)))
    run(ctypes.c_int64(len(x)), *(ctypes.c_void_p(each.ctypes.data) for each in (x, *found)))
    wide = x.astype(np.longdouble)
    exact = (np.exp(wide), np.log(np.abs(wide)), 1 / (1 + np.exp(-wide)))
    for one, right in zip(found, exact, strict=True):
        assert np.max(np.abs((one - right) / right)) <= 4 * 2.0**-53
