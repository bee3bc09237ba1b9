"""What a manual side must keep to beyond the numbers; each breach is named in one sentence."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from torch_ref import Report, assignment_twin, verify
from torch_ref.compare.cases import CHUNK, SHARD
from torch_ref.compare.judge import Judge

Values = dict[str, torch.Tensor]
TWIN = assignment_twin()


def report(manual: Callable[[Values], Values]) -> Report:
    return verify(replace(TWIN, manual=manual), cases=24)


def refused(manual: Callable[[Values], Values], reason: str) -> None:
    result = report(manual)
    assert result.verdict == "differ"
    with pytest.raises(AssertionError, match=reason):
        result.assert_agreement()


def test_an_input_changed_in_place() -> None:
    def manual(values: Values) -> Values:
        gradients = TWIN.manual(values)
        values["w46"] -= 0.1 * gradients["w46"]
        return gradients

    refused(manual, "manual changed its input w46 in place: it must leave its inputs as they are")


def test_an_input_removed() -> None:
    def manual(values: Values) -> Values:
        gradients = TWIN.manual(values)
        del values["x1"]
        return gradients

    refused(manual, "manual changed its input x1")


def test_another_answer_on_a_second_run() -> None:
    calls = []

    def manual(values: Values) -> Values:
        calls.append(1)
        gradients = TWIN.manual(values)
        return {**gradients, "b6": gradients["b6"] * len(calls)}

    refused(manual, "manual gave another answer on a second run with the same inputs")


def test_other_last_digits_on_a_second_run_are_told() -> None:
    """As sums have that are added up in whatever order their terms arrive in."""
    calls = []

    def manual(values: Values) -> Values:
        calls.append(1)
        gradients = TWIN.manual(values)
        return {**gradients, "b6": gradients["b6"] * (1 + 2.0**-52 * (len(calls) % 2))}

    report = verify(replace(TWIN, manual=manual), cases=1000)
    report.assert_agreement()
    assert any("other last digits on a second run" in note for note in report.notes)


@pytest.mark.parametrize(("chunk", "caught"), [(0, True), (1, True), (2, False), (64, True)])
def test_the_hand_runs_twice_on_some_chunks_only(chunk: int, caught: bool) -> None:
    """On the others a hand that changes its inputs changes a copy."""

    def manual(values: Values) -> Values:
        gradients = TWIN.manual(values)
        values["x1"] += 1
        return gradients

    judge = Judge(replace(TWIN, manual=manual), torch.float64, torch.device("cpu"), 0)
    batch = judge.cases.batch(chunk * CHUNK // SHARD, 65 * CHUNK)
    judge.judge(next(part for part in batch.chunks() if part.first == chunk * CHUNK))
    assert bool(judge.recorder.said.failures) == caught


def test_gradients_that_are_one_tensor_at_first_and_two_later() -> None:
    """What is recorded of the first chunks does not stand for the others."""
    seen: list[int] = []

    def manual(values: Values) -> Values:
        gradients = TWIN.manual(values)
        seen.append(len(values["x1"]))
        error = 1.0 if seen.count(CHUNK) < 8 else 1.5
        return {"z3": gradients["z3"], "b3": gradients["z3"] * error}

    assert verify(replace(TWIN, manual=manual), cases=7 * CHUNK).first_wrong == "b3"


def test_a_wrong_shape() -> None:
    def manual(values: Values) -> Values:
        gradients = TWIN.manual(values)
        return {**gradients, "b6": gradients["b6"].mean(dim=0, keepdim=True)}

    refused(manual, r"dL/db6 has shape \(1,\); \(24,\) is expected, the shape of b6")


def test_a_wrong_dtype() -> None:
    def manual(values: Values) -> Values:
        gradients = TWIN.manual(values)
        return {**gradients, "b6": gradients["b6"].float()}

    refused(manual, "dL/db6 has dtype torch.float32; torch.float64 is expected, that of the inputs")


def test_a_wrong_device() -> None:
    def manual(values: Values) -> Values:
        gradients = TWIN.manual(values)
        return {**gradients, "b6": gradients["b6"].to("meta")}

    refused(manual, "dL/db6 is on meta; cpu is expected, where the inputs are")


def test_a_name_the_reference_does_not_know() -> None:
    def manual(values: Values) -> Values:
        return {**TWIN.manual(values), "w47": values["x1"] * 1}

    refused(manual, r"dL/dw47, of which the reference has no gradient \(did you mean w4.*w46")


def test_what_else_is_right_is_still_judged() -> None:
    def manual(values: Values) -> Values:
        gradients = TWIN.manual(values)
        return {**gradients, "w47": values["x1"] * 1, "b6": -gradients["b6"]}

    assert report(manual).first_wrong == "b6"


def test_autograd_recording() -> None:
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)

    def manual(values: Values) -> Values:
        gradients = TWIN.manual(values)
        return {**gradients, "b6": gradients["b6"] * weight}

    refused(manual, "manual let autograd record dL/db6: it must not use autograd")


def test_gradients_by_autograd_itself() -> None:
    def manual(values: Values) -> Values:
        leaf = values["b6"].requires_grad_()
        loss = TWIN.reference({**values, "b6": leaf})["loss"].sum()
        return {"b6": torch.autograd.grad(loss, leaf)[0]}

    refused(manual, "autograd")


def test_no_dict_at_all() -> None:
    refused(
        lambda values: [values["x1"]], "manual must return a dict of gradients by name; got list"
    )


def test_a_value_that_is_no_tensor() -> None:
    def manual(values: Values) -> Values:
        return {**TWIN.manual(values), "b6": "1.0"}

    refused(manual, "dL/db6 is of type str; a torch.Tensor is needed")


def test_nothing_at_all() -> None:
    refused(lambda values: {}, "manual gave no gradient")
