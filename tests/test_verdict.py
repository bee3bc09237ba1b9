"""The verdict on hand-made arrays: what is decided, what differs, what the report says."""

import math

import pytest
import torch

from torch_ref import Report
from torch_ref.compare.verdict import Row, Side, judge

INF, NAN = math.inf, math.nan


def tensor(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def side(values: torch.Tensor, bound: float) -> Side:
    return Side(values, torch.full_like(values, bound))


def row_of(manual, reference=None, *, bound=0.0, manual_bound=0.0, in_dtype=None) -> Row:
    """The row for `manual` against `reference`, the manual formulas' value being `manual`."""
    reference = manual if reference is None else reference
    return judge(
        "q",
        manual,
        side(manual, manual_bound),
        side(reference, bound),
        side(reference, bound) if in_dtype is None else in_dtype,
    ).row()


def test_equal_numbers_agree_even_where_nothing_may_round() -> None:
    row = row_of(tensor(1.0, 0.0, -2.0))
    assert (row.verdict, row.worst_ratio, row.undecided) == ("agree", 0.0, 0.0)


def test_both_bounds_add_up() -> None:
    manual, reference = tensor(1.0), tensor(1.3)
    assert row_of(manual, reference, bound=0.1, manual_bound=0.1).verdict == "differ"
    row = row_of(manual, reference, bound=0.2, manual_bound=0.2)
    assert row.verdict == "agree"
    assert row.worst_ratio == pytest.approx(0.75)
    assert row.tolerance == pytest.approx(0.4)


def test_the_worst_case_is_found_and_can_be_replayed() -> None:
    true = side(tensor(1.0, 2.0, 3.0), 0.1)
    row = judge("q", tensor(1.0, 2.5, 3.1), true, true, true, first_case="7:100").row()
    assert (row.worst_case, row.manual, row.reference) == ("7:101", 2.5, 2.0)
    assert row.worst_ratio == pytest.approx(2.5)
    assert row.wrong == pytest.approx(1 / 3)


def test_several_elements_a_case_count_as_that_case() -> None:
    manual = tensor(1, 1, 1, 1, 9, 1).reshape(3, 2)
    assert row_of(manual, torch.ones(3, 2, dtype=torch.float64)).worst_case == "0:2"


@pytest.mark.parametrize("which", ["bound", "manual_bound"])
def test_a_bound_above_half_of_the_value_leaves_it_undecided(which: str) -> None:
    assert row_of(tensor(2.0), **{which: 1.0}).verdict == "agree"
    row = row_of(tensor(2.0), **{which: 1.01})
    assert (row.verdict, row.worst_ratio, row.undecided) == ("undecided", None, 1.0)


def test_a_wrong_value_far_too_large_does_not_hide_behind_its_own_bound() -> None:
    assert row_of(tensor(1e9), tensor(1.0), manual_bound=1e3).verdict == "differ"


def test_a_wrong_value_of_zero_does_not_hide_behind_its_own_size() -> None:
    assert row_of(tensor(0.0), tensor(1.0), manual_bound=1e-3).verdict == "differ"


@pytest.mark.parametrize("number", [NAN, INF, -INF])
def test_no_number_where_the_reference_has_one_differs(number: float) -> None:
    row = row_of(tensor(1.0, number), tensor(1.0, 1.0), bound=1e-9, manual_bound=1e-9)
    assert (row.verdict, row.worst_ratio) == ("differ", INF)


@pytest.mark.parametrize("number", [NAN, INF, -INF])
def test_a_reference_that_overflows_is_undecided(number: float) -> None:
    for manual in (1.0, number):
        assert row_of(tensor(manual), tensor(number)).verdict == "undecided"


def test_no_number_is_undecided_where_the_reference_would_overflow_in_that_dtype() -> None:
    overflows = side(tensor(INF), 0.0)
    assert row_of(tensor(NAN), tensor(1e300), in_dtype=overflows).verdict == "undecided"
    assert row_of(tensor(NAN), tensor(1e300)).verdict == "differ"


def test_no_number_differs_though_the_reference_keeps_no_digit() -> None:
    """No rounding makes it infinite, or no number, unless its bound is."""
    no_digit, anything = side(tensor(1.0), 10.0), side(tensor(1.0), INF)
    assert row_of(tensor(NAN), tensor(1.0), in_dtype=no_digit).verdict == "differ"
    assert row_of(tensor(NAN), tensor(1.0), in_dtype=anything).verdict == "undecided"


@pytest.mark.parametrize("bound", [NAN, INF])
def test_a_bound_that_is_no_number_is_undecided(bound: float) -> None:
    assert row_of(tensor(1.0), tensor(5.0), bound=bound).verdict == "undecided"
    assert row_of(tensor(1.0), tensor(5.0), manual_bound=bound).verdict == "undecided"


def test_digits_are_those_the_bound_leaves() -> None:
    row = row_of(tensor(1.0, 100.0), bound=1e-3, manual_bound=1e-5)
    assert row.digits_manual == pytest.approx((5 + 7) / 2)
    assert row.digits_reference == pytest.approx((3 + 5) / 2)


def test_tallies_add_up() -> None:
    def tally(numbers: torch.Tensor, first: int):
        ones = side(torch.ones_like(numbers), 0.25)
        return judge("q", numbers, ones, ones, ones, first_case=f"0:{first}")

    numbers = tensor(1.0, 1.2, 3.0, 1.1)
    whole = tally(numbers, 0).row()
    halves = (tally(numbers[:2], 0) + tally(numbers[2:], 2)).row()
    assert whole == halves
    assert whole.worst_case == "0:2"


# reports -----------------------------------------------------------------------------------------


def report(*rows: Row, failures: tuple[str, ...] = ()) -> Report:
    return Report("made by hand", 3, "float64", "cpu", 0, rows, failures)


AGREES = row_of(tensor(1.0))
DIFFERS = row_of(tensor(1.0), tensor(2.0), bound=0.1)
UNDECIDED = row_of(tensor(1.0), bound=1.0)


def test_verdicts() -> None:
    assert report(AGREES, AGREES).verdict == "agree"
    assert report(AGREES, UNDECIDED).verdict == "undecided"
    assert report(AGREES, DIFFERS, UNDECIDED).verdict == "differ"
    assert report(AGREES, failures=("a reason.",)).verdict == "differ"
    assert report().verdict == "undecided"


def test_first_wrong_is_the_first_in_backward_order() -> None:
    from dataclasses import replace

    rows = (AGREES, replace(DIFFERS, name="first"), replace(DIFFERS, name="second"))
    assert report(*rows).first_wrong == "first"
    assert report(AGREES).first_wrong is None


def test_assert_agreement_says_what_and_where() -> None:
    report(AGREES).assert_agreement()
    with pytest.raises(AssertionError) as caught:
        report(AGREES, DIFFERS).assert_agreement()
    message = str(caught.value)
    assert "The backward pass is wrong (made by hand: 3 cases, float64, cpu, seed 0)." in message
    assert (
        "dL/dq is wrong in 100.00% of the cases; worst in case 0:0: manual 1, reference 2, 10 times"
        in message
    )
    assert "The mistake enters at dL/dq" in message
    with pytest.raises(AssertionError, match="could not be judged"):
        report(UNDECIDED).assert_agreement()
    with pytest.raises(AssertionError, match="a reason\\."):
        report(AGREES, failures=("a reason.",)).assert_agreement()


def test_to_dict_holds_everything() -> None:
    plain = report(AGREES, DIFFERS).to_dict()
    assert plain["verdict"] == "differ"
    assert plain["first_wrong"] == "q"
    assert [row["verdict"] for row in plain["rows"]] == ["agree", "differ"]
    assert plain["rows"][1]["worst_case"] == "0:0"
