"""Twins as people bring them: what they do is judged rightly, or refused in one sentence."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from torch_ref import Draw, Twin, TwinError, verify
from torch_ref.compare.judge import Judge
from torch_ref.sweep.shards import Plan, judged

Values = dict[str, Tensor]


def one_case(manual: Callable[[Values], Any], **parts: Any) -> Twin:
    def inputs(draw: Draw) -> Values:
        return {"x": draw.normal(shape=(draw.size(2, 6),))}

    def reference(values: Values) -> Values:
        return {"loss": (values["x"] ** 2).sum()}

    return Twin("one case", **{"inputs": inputs, "reference": reference, "manual": manual, **parts})


def test_python_numbers_keep_their_digits() -> None:
    scalar = one_case(
        lambda values: {"x": 0.2 * float(values["x"])},
        inputs=lambda draw: {"x": draw.normal(shape=())},
        reference=lambda values: {"loss": 0.1 * values["x"] ** 2},
    )
    verify(scalar, cases=33).assert_agreement()


def test_softplus_by_the_textbook_differs_and_is_told_why() -> None:
    textbook = one_case(
        lambda values: {"x": values["x"].sigmoid()},
        inputs=lambda draw: {"x": draw.uniform(10, 30, shape=(draw.size(2, 6),))},
        reference=lambda values: {"loss": torch.nn.functional.softplus(values["x"]).sum()},
    )
    report = verify(textbook, cases=33, dtype=torch.float64)
    assert report.verdict == "differ"
    (note,) = [note for note in report.notes if "softplus" in note]
    assert note.startswith("The reference uses softplus, which torch takes for x itself above")
    assert note in str(report)
    torchs = replace(
        textbook,
        manual=lambda values: {"x": values["x"].sigmoid().masked_fill(values["x"] > 20, 1.0)},
    )
    agreed = verify(torchs, cases=33, dtype=torch.float64)
    assert (agreed.verdict, agreed.notes) == ("agree", ())


def test_a_hand_that_raises_on_its_second_run() -> None:
    runs: list[int] = []

    def manual(values: Values) -> Values:
        runs.append(0)
        if len(runs) == 2:
            raise KeyError("x")
        return {"x": 2 * values["x"]}

    with pytest.raises(TwinError, match=r"manual raised KeyError at .* on a second run"):
        verify(one_case(manual), cases=11)


def test_a_reference_that_raises_for_some_sizes_alone() -> None:
    def reference(values: Values) -> Values:
        if len(values["x"]) == 6:
            raise KeyError("six")
        return {"loss": (values["x"] ** 2).sum()}

    twin = one_case(lambda values: {"x": 2 * values["x"]}, reference=reference)
    with pytest.raises(TwinError, match=r"one case: reference.* raised KeyError at .*: 'six'"):
        verify(twin)


def test_what_depends_on_an_unknown_operation_does_not_agree_for_its_zeros() -> None:
    """Half of the numbers never get to the matrix exponential: their gradient is an exact 0."""
    twin = one_case(
        lambda values: {"x": torch.zeros_like(values["x"])},
        inputs=lambda draw: {"x": draw.normal(shape=(3, 6)) + 2 * torch.eye(3, 6).to(draw.dtype)},
        reference=lambda values: {"loss": torch.linalg.matrix_exp(values["x"][:, :3]).sum()},
    )
    report = verify(twin, cases=22)
    assert (report.verdict, report.rows[0].undecided < 1) == ("undecided", True)
    with pytest.raises(AssertionError, match="dL/dx is undecided: too little of it can be judged"):
        report.assert_agreement()


def test_torch_s_own_kernel_that_loses_digits_is_not_taken_for_branching() -> None:
    """Its hardsigmoid multiplies by a float32 1/6, even in float64."""
    twin = one_case(
        lambda values: {"x": torch.zeros_like(values["x"])},
        reference=lambda values: {"loss": torch.nn.functional.hardsigmoid(values["x"]).sum()},
    )
    report = verify(twin, cases=33)
    assert report.verdict == "undecided"
    assert "give another dL/dx than torch's own kernels" in report.notes[0]


def test_a_hand_by_fourier_transform_shares_its_rounding() -> None:
    """A row of zeros among the gradients comes out of the transform as small numbers."""

    def manual(values: Values) -> Values:
        there = torch.fft.rfft(2 * values["x"])
        return {"x": torch.fft.irfft(there, n=len(values["x"]))}

    report = verify(one_case(manual))
    report.assert_agreement()
    assert "aten._fft" in " ".join(report.notes)


def test_code_in_float32_is_judged_as_such_and_said() -> None:
    twin = one_case(lambda values: {"x": (2.2 * values["x"].float() / 1.1).to(values["x"].dtype)})
    report = verify(twin)
    report.assert_agreement()
    assert "The manual side computes in float32 on the way" in report.notes[0]
    assert 5 < report.rows[0].digits_manual < 9
    wrong = replace(twin, manual=lambda values: {"x": 2.001 * values["x"].float().double()})
    assert verify(wrong).verdict == "differ"


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        (lambda draw: {"x": draw.normal().requires_grad_()}, "x as a tensor that requires grad"),
        (lambda draw: {"x": draw.normal() * float("nan")}, "inputs gave x with NaN in it"),
        (
            lambda draw: {"x": draw.normal(shape=(draw.size(5, 2),))},
            "the smallest size comes first",
        ),
    ],
)
def test_inputs_that_cannot_be_used(inputs: Callable[[Draw], Values], sentence: str) -> None:
    with pytest.raises(TwinError, match=sentence):
        verify(one_case(lambda values: {"x": 2 * values["x"]}, inputs=inputs))


def test_inputs_that_cannot_be_drawn_again() -> None:
    twin = one_case(
        lambda values: {"x": 2 * values["x"]},
        inputs=lambda draw: {"x": torch.randn(3).to(draw.dtype)},
    )
    with pytest.raises(TwinError, match="inputs made other numbers of the same draw"):
        verify(twin)


def test_a_loss_that_is_not_a_number() -> None:
    twin = one_case(
        lambda values: {"x": 2 * values["x"]},
        reference=lambda values: {"loss": (values["x"] * float("nan")).sum()},
    )
    with pytest.raises(TwinError, match="the loss is NaN on the first case"):
        verify(twin)


def test_a_reference_that_cannot_take_a_layout() -> None:
    """Its cases under that stress are the drawn ones, and the report says so."""
    twin = one_case(
        lambda values: {"x": 2 * values["x"]},
        inputs=lambda draw: {"x": draw.normal(shape=(draw.size(2, 4), 3))},
        reference=lambda values: {"loss": (values["x"].view(-1) ** 2).sum()},
    )
    report = verify(twin)
    report.assert_agreement()
    assert any('Under the stress "strided" the reference raises' in note for note in report.notes)


def test_a_stress_is_no_string() -> None:
    twin = one_case(lambda values: {"x": 2 * values["x"]}, stress="tied")
    with pytest.raises(TwinError, match="stress must be a tuple of names"):
        verify(twin)


def test_a_name_in_other_letters_is_suggested() -> None:
    report = verify(one_case(lambda values: {"X": 2 * values["x"]}), cases=11)
    assert "did you mean x?" in report.failures[0]


EQUAL = {
    "two inputs equal": lambda x, y, m: bool((x == y).any()),
    "no mask at all": lambda x, y, m: not bool(m.any()),
    "a full mask": lambda x, y, m: bool(m.all()),
    "one row, several columns": lambda x, y, m: x.shape[0] == 1 < x.shape[1],
    "one column, several rows": lambda x, y, m: x.shape[1] == 1 < x.shape[0],
    "as many rows as columns": lambda x, y, m: x.shape[0] == x.shape[1] > 1,
}


@pytest.mark.parametrize("when", EQUAL)
def test_a_branch_on_equality_is_found(when: str) -> None:
    def inputs(draw: Draw) -> Values:
        shape = (draw.size(1, 9), draw.size(1, 12))
        log = {name: draw.uniform(0.01, 0.2, shape=shape) for name in "xy"}
        return {**log, "m": draw.booleans(shape=(16,))}

    def manual(values: Values) -> Values:
        x, y = values["x"], values["y"]
        wrong = 3.0 if EQUAL[when](x, y, values["m"]) else 1.0
        return {"x": (x.log() - y.log() + 1) * wrong}

    twin = one_case(
        manual,
        inputs=inputs,
        reference=lambda v: {
            "loss": (v["x"] * (v["x"].log() - v["y"].log())).sum() + v["m"].sum() * 0.0
        },
    )
    assert verify(twin, explain=False).verdict == "differ"


@pytest.mark.parametrize(
    "form",
    [
        lambda x: np.flip(x.flip(0).numpy()),
        lambda x: x.numpy().astype(">f8"),
        lambda x: x.numpy().astype(np.longdouble),
    ],
)
def test_numpy_s_arrays_of_any_layout_are_taken(form: Callable[[Tensor], Any]) -> None:
    twin = one_case(lambda values: {"x": form(2 * values["x"])})
    verify(twin, cases=11).assert_agreement()


def test_a_number_beyond_every_dtype_is_infinite() -> None:
    twin = one_case(
        lambda values: {"x": -(10**400)},
        inputs=lambda draw: {"x": draw.normal(shape=())},
        reference=lambda values: {"loss": values["x"] ** 2},
    )
    report = verify(twin, cases=11)
    assert (report.verdict, report.rows[0].manual) == ("differ", -math.inf)


def test_a_wrong_name_beside_one_that_is_no_string() -> None:
    def reference(values: Values) -> Any:
        h = 3 * values["x"]
        return {1: h, "loss": (h**2).sum()}

    twin = one_case(lambda values: {"h": 6 * values["x"], "x": 18 * values["x"]})
    (failure,) = verify(replace(twin, reference=reference), cases=11).failures
    assert "of which the reference has no gradient; it knows x, 1." in failure


def batched(inputs: Callable[[Draw], Values], **parts: Any) -> Twin:
    whole = {
        "reference": lambda values: {"loss": values["x"].reshape(len(values["x"]), -1).sum(1)},
        "manual": lambda values: {"x": torch.ones_like(values["x"])},
    }
    return Twin("batched", **{"inputs": inputs, **whole, **parts})


def test_an_intermediate_without_cases() -> None:
    def reference(values: Values) -> Values:
        frequencies = torch.arange(4.0, dtype=torch.float64)
        h = 2 * values["x"].T
        return {"f": frequencies, "h": h, "loss": (frequencies * h.T).sum(1)}

    def manual(values: Values) -> Values:
        return {"x": 2 * torch.arange(4.0).to(values["x"]).expand_as(values["x"])}

    twin = batched(lambda draw: {"x": draw.normal(shape=(draw.cases, 4))},
                   reference=reference, manual=manual)  # fmt: skip
    verify(twin, cases=1000).assert_agreement()


@pytest.mark.parametrize("late", [True, False])
def test_strata_of_a_batched_twin_have_the_same_inputs(late: bool) -> None:
    def inputs(draw: Draw) -> Values:
        more = {"y": draw.normal()} if (draw.stratum == "b") == late else {}
        return {"x": draw.normal(), **more}

    with pytest.raises(TwinError, match=r"inputs gave y with .* a case in stratum"):
        verify(batched(inputs, strata=("a", "b")), cases=100)


def test_cases_of_a_batched_twin_have_one_shape() -> None:
    twin = batched(lambda draw: {"x": draw.normal(shape=(draw.cases, draw.size(1, 5)))})
    with pytest.raises(TwinError, match="a batched twin's cases are alike; give a loss of shape"):
        verify(twin, cases=100)


def test_a_shard_is_judged_alike_after_one_in_which_the_hand_branched() -> None:
    def manual(values: Values) -> Values:
        x = values["x"]
        try:
            large = float(x.abs().max()) > 3.3
        except RuntimeError:  # of torch's, while it is recorded
            large = False
        return {"x": (1e3 * x + x**3) * 2e-3 - 2e-3 * x**3 if large else 2 * x}

    def fresh() -> Judge:
        return Judge(one_case(manual), torch.float64, torch.device("cpu"), 0)

    used, plan = fresh(), Plan(4 * 128, 128)
    for shard in range(4):
        assert judged(used, plan, shard).to_json() == judged(fresh(), plan, shard).to_json()


def inverse_of(twin_inputs: Callable[[Draw], Values], manual: Callable[[Values], Values]) -> Twin:
    """loss = sum of A^-1 b; the hand solves with A^T, in which LAPACK may meet a pivot of 0 where
    it met one of 1e-17 in A."""

    def reference(values: Values) -> Values:
        solved = torch.linalg.solve(values["a"], values["b"])
        return {"loss": solved.sum() if solved.ndim == 1 else solved.sum(-1)}

    return Twin("solve", twin_inputs, reference, manual)


def solved_by_hand(values: Values) -> Values:
    a, b = values["a"], values["b"]
    up = torch.linalg.solve(a.mT, torch.ones_like(b))
    return {"a": -up.unsqueeze(-1) * torch.linalg.solve(a, b).unsqueeze(-2), "b": up}


def one_system(draw: Draw) -> Values:
    return {"a": draw.normal(shape=(4, 4)), "b": draw.normal(shape=(4,))}


def many_systems(draw: Draw) -> Values:
    return {"a": draw.normal(shape=(draw.cases, 4, 4)), "b": draw.normal(shape=(draw.cases, 4))}


@pytest.mark.parametrize(("inputs", "cases"), [(one_system, 300), (many_systems, 30_000)])
def test_a_hand_that_finds_a_stressed_matrix_singular_is_judged_without_the_stress(
    inputs: Callable[[Draw], Values], cases: int
) -> None:
    def manual(values: Values) -> Values:
        large = (values["a"].abs() > 1e-3).flatten(-2).any(-1)
        torch.linalg.cholesky(large.double()[..., None, None])  # raises where it is 0
        return solved_by_hand(values)

    report = verify(inverse_of(inputs, manual), cases=cases)
    assert report.verdict == "agree"
    said = 'Under the stress "scaled down" one of the two sides raises _LinAlgError: such cases '
    assert said + "are judged as they were drawn." in report.notes


def test_a_hand_that_finds_the_author_s_own_matrix_singular_is_told_so() -> None:
    def manual(values: Values) -> Values:
        raise np.linalg.LinAlgError("singular")

    with pytest.raises(TwinError, match=r"manual raised LinAlgError .* singular"):
        verify(inverse_of(one_system, manual), cases=20)


def test_a_batch_without_a_stress_is_its_cases_without_it() -> None:
    twin = inverse_of(many_systems, solved_by_hand)
    cases = Judge(twin, torch.float64, torch.device("cpu"), 0).cases
    chunk = cases.batch(1, 10**6).part(500, 40)
    drawn = cases.as_drawn(chunk, ["scaled up"])
    for place in range(chunk.count):
        one, alone = drawn.part(place, 1), chunk.part(place, 1)
        changed = cases.stratum(alone.first) == "scaled up"
        assert bool((one.inputs["a"] != alone.inputs["a"]).any()) == changed
        expected = cases.as_drawn(cases.case(alone.first), ["scaled up"])
        torch.testing.assert_close(one.inputs, expected.inputs, rtol=0, atol=0)
