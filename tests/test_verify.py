"""verify on twins that cannot be judged as they stand, each with its sentence; its notes."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from torch_ref import Draw, Report, Twin, TwinError, assignment_twin, verify
from torch_ref.compare import cases
from torch_ref.compare.graphs.side import record
from torch_ref.compare.judge import Judge
from torch_ref.compare.report import Row
from torch_ref.compare.sides import manual as of_the_hand
from torch_ref.compare.sides import reference as of_the_reference

Values = dict[str, Tensor]


def inputs(draw: Draw) -> Values:
    return {"x": draw.normal(), "w": draw.uniform(0.5, 2.0)}


def reference(values: Values) -> Values:
    y = torch.tanh(values["w"] * values["x"])
    return {"y": y, "loss": y**2}


def manual(values: Values) -> Values:
    y = torch.tanh(values["w"] * values["x"])
    dy = 2 * y
    dz = dy * (1 - y) * (1 + y)
    return {"y": dy, "w": dz * values["x"], "x": dz * values["w"]}


TWIN = Twin("tanh", inputs, reference, manual)


def judged(**changes: Any) -> Report:
    return verify(replace(TWIN, **changes), cases=200)


def test_the_twin_that_is_changed_here_is_right() -> None:
    report = judged()
    report.assert_agreement()
    assert (report.notes, report.missing) == ((), ())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cases": 0}, "cases must be a positive whole number; got 0"),
        ({"cases": True}, "cases must be a positive whole number; got True"),
        ({"cases": 1.5}, "cases must be a positive whole number; got 1.5"),
        ({"dtype": torch.int32}, "dtype must be one of torch.float64, .*; got torch.int32"),
        ({"dtype": "double"}, "dtype must be one of torch.float64, .*; got 'double'"),
        ({"seed": -1}, "seed must be a whole number from 0 to 2\\^64 - 1; got -1"),
        ({"seed": "a"}, "seed must be a whole number from 0 to 2\\^64 - 1; got 'a'"),
        ({"device": "gpu"}, 'device must be "cpu" or "cuda"; got \'gpu\''),
        ({"device": "meta"}, 'device must be "cpu" or "cuda"; got \'meta\''),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        verify(TWIN, **arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device on this machine")
def test_cuda_without_cuda() -> None:
    with pytest.raises(ValueError, match="cuda was asked for, but torch finds no CUDA device"):
        verify(TWIN, device="cuda")


def test_numpy_whole_numbers_are_whole_numbers() -> None:
    assert verify(TWIN, cases=np.int64(20), seed=np.int64(3)).verdict == "agree"


def _raise(values: Any) -> Any:
    raise KeyError("w12")


def _in_place(values: Values) -> Values:
    values["x"].mul_(2)
    return reference(values)


def _random(values: Values) -> Values:
    y = torch.tanh(values["w"] * values["x"]) * torch.rand(())
    return {"y": y, "loss": y**2}


BAD_TWINS: dict[str, tuple[dict[str, Any], str]] = {
    "inputs not a dict": (
        {"inputs": lambda draw: [draw.normal()]},
        "tanh: inputs must return a dict of tensors by name; got list",
    ),
    "an input that is no tensor": (
        {"inputs": lambda draw: {"x": draw.normal(), "w": 1.0}},
        "tanh: inputs gave w as a float; a torch.Tensor is needed: use the helpers of `draw`",
    ),
    "no floating input": (
        {"inputs": lambda draw: {"x": draw.integers(0, 3)}},
        "tanh: inputs gave no floating tensor: there is no gradient",
    ),
    "inputs that raise": (
        {"inputs": _raise},
        r"tanh: inputs raised KeyError at test_verify.py:\d+: 'w12'",
    ),
    "inputs of another dtype": (
        {"inputs": lambda draw: {**inputs(draw), "x": torch.ones(draw.cases)}},
        r"tanh: inputs gave x as torch.float32 on cpu; torch.float64 on cpu was asked for",
    ),
    "too few cases": (
        {"inputs": lambda draw: {n: v[:4] for n, v in inputs(draw).items()}},
        r"tanh: the loss must be a scalar, shape \(\), or one number a case, shape \(5,\) here; "
        r"got \(4,\)",
    ),
    "another number of cases each time": (
        {"inputs": lambda draw: {n: v[:150] for n, v in inputs(draw).items()}},
        r"tanh: inputs gave x with 150 cases; draw.cases, \d+, were asked for",
    ),
    "no loss": (
        {"reference": lambda values: {"y": values["x"] * values["w"]}},
        'tanh: reference must return the loss under "loss"; it returned y',
    ),
    "a loss that is no scalar": (
        {"reference": lambda values: {"loss": torch.outer(values["x"], values["w"])}},
        r"tanh: the loss must be a scalar.*; got \(5, 5\): sum it, or take its mean",
    ),
    "no dict from the reference": (
        {"reference": lambda values: values["x"] ** 2},
        "tanh: reference must return a dict of tensors by name, .*; got Tensor",
    ),
    "an intermediate that is no tensor": (
        {"reference": lambda values: {"y": 1.0, "loss": values["x"] ** 2}},
        "tanh: reference gave y as a float; a torch.Tensor is needed",
    ),
    "a reference that raises": (
        {"reference": _raise},
        r"tanh: reference raised KeyError at test_verify.py:\d+: 'w12'",
    ),
    "a reference in place": (
        {"reference": _in_place},
        "tanh: reference changed its input x in place: it must leave its inputs as they are",
    ),
    "a random reference": (
        {"reference": _random},
        "tanh: reference gave another answer on a second run with the same inputs: it must draw "
        "nothing itself",
    ),
    "a reference without a graph": (
        {"reference": lambda values: {"loss": values["x"].detach() ** 2}},
        "tanh: the loss does not depend on any input, as autograd sees it",
    ),
    "a loss of whole numbers": (
        {"reference": lambda values: {"loss": (values["x"] > 0).long()}},
        "tanh: the loss must be a floating number, which has a gradient; got torch.int64",
    ),
    "a name that is no string": (
        {"inputs": lambda draw: {1: draw.normal()}},
        "tanh: inputs must name its tensors by strings; got 1",
    ),
    "a reference that looks at its numbers": (
        {"reference": lambda values: {"loss": values["x"] * float(values["x"].detach().sum())}},
        r"cannot be recorded as one graph \(it looks at its numbers: use torch.where instead of",
    ),
    "a manual side that raises": (
        {"manual": _raise},
        r"tanh: manual raised KeyError at test_verify.py:\d+: 'w12'",
    ),
    "no strata": ({"strata": ()}, "tanh: strata must be a tuple of at least one name"),
    "strata in a string": ({"strata": "ordinary"}, "tanh: strata must be a tuple of at least one"),
    "an unknown stress": (
        {"stress": ("scaled",)},
        "tanh: stress scaled is not known; the stresses are scaled up, .*",
    ),
}


@pytest.mark.parametrize("name", BAD_TWINS)
def test_a_twin_that_cannot_be_judged(name: str) -> None:
    changes, message = BAD_TWINS[name]
    with pytest.raises(TwinError, match=message):
        judged(**changes)


def _with(name: str, change: Callable[[Tensor], Any]) -> Callable[[Values], Any]:
    return lambda values: {**manual(values), name: change(manual(values)[name])}


@pytest.mark.parametrize(
    ("change", "kind"), [(lambda g: g.numpy(), "numpy.ndarray"), (lambda g: 0.0, "float")]
)
def test_numpy_arrays_and_floats_are_converted_and_said(
    change: Callable[[Tensor], Any], kind: str
) -> None:
    one = Twin(
        "square",
        lambda draw: {"x": draw.normal(shape=())},
        lambda values: {"loss": values["x"] ** 2 if kind != "float" else values["x"] * 0},
        lambda values: {"x": change(2 * values["x"])},
    )
    report = verify(one, cases=9)
    report.assert_agreement()
    assert report.notes[0] == f"manual gave dL/dx as a {kind}: it was converted to a torch.Tensor."


def test_a_misspelt_name_is_answered_with_the_right_one() -> None:
    with pytest.raises(AssertionError, match=r"dL/dww, .* \(did you mean w\?\); it knows x, w, y"):
        judged(manual=lambda values: {"ww": manual(values)["w"]}).assert_agreement()


def test_a_transposed_shape_is_told() -> None:
    twin = Twin(
        "matrix",
        lambda draw: {"w": draw.normal(shape=(2, 3))},
        lambda values: {"loss": (values["w"] ** 2).sum()},
        lambda values: {"w": 2 * values["w"].T},
    )
    message = r"dL/dw has shape \(3, 2\); \(2, 3\) is expected, .*: it looks transposed"
    with pytest.raises(AssertionError, match=message):
        verify(twin, cases=9).assert_agreement()


def test_a_gradient_not_summed_over_the_batch_is_told() -> None:
    twin = Twin(
        "bias",
        lambda draw: {"x": draw.normal(shape=(4, 3)), "b": draw.normal(shape=(3,))},
        lambda values: {"loss": ((values["x"] + values["b"]) ** 2).sum()},
        lambda values: {"b": 2 * (values["x"] + values["b"])},
    )
    with pytest.raises(AssertionError, match=r"\(4, 3\); \(3,\) is expected.*: sum it over axis 0"):
        verify(twin, cases=9).assert_agreement()


def test_not_a_number_is_wrong_and_said() -> None:
    report = judged(manual=_with("w", lambda g: g * torch.nan))
    assert report.first_wrong == "w"
    with pytest.raises(AssertionError, match=r"dL/dw is wrong in .*: manual nan, reference"):
        report.assert_agreement()


def test_what_manual_leaves_out_is_said_aloud() -> None:
    report = judged(manual=lambda values: {"y": manual(values)["y"], "w": None})
    report.assert_agreement()
    assert report.missing == ("x", "w")


def test_a_loss_that_does_not_depend_on_a_named_quantity_is_said() -> None:
    def copied(values: Values) -> Values:
        return {"y": torch.tanh(values["w"] * values["x"]), "loss": reference(values)["loss"]}

    report = judged(reference=copied)
    assert report.first_wrong == "y"
    assert any(
        "The loss does not depend on y as the reference returns it" in n for n in report.notes
    )


def test_an_operation_without_a_rule_is_named_and_its_meaning_said() -> None:
    def without_rule(values: Values) -> Values:
        product = values["x"] * values["w"]
        return {"loss": torch.linalg.matrix_exp(product[:, None, None])[:, 0, 0]}

    def by_hand(values: Values) -> Values:
        return {"w": values["x"] * 0}

    twin = Twin("odd", inputs, without_rule, by_hand)
    report = verify(twin, cases=50)
    assert report.verdict == "undecided"
    assert any(
        "aten.linalg_matrix_exp.default, which has no rounding rule: what depends on it" in note
        for note in report.notes
    )


def test_memory_runs_out_and_smaller_parts_fit() -> None:
    def limited(values: Values) -> Values:
        if len(values["x"]) > 40:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return manual(values)

    whole, parts = judged(), judged(manual=limited)
    assert [row.worst_ratio for row in parts.rows] == [row.worst_ratio for row in whole.rows]
    assert [row.worst_case for row in parts.rows] == [row.worst_case for row in whole.rows]


def test_memory_runs_out_for_good() -> None:
    def full(values: Values) -> Values:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(TwinError, match="tanh: a single case does not fit into the memory of cpu"):
        judged(manual=full)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("factor", [1.0, 1.0 + 1e-4])
def test_a_verdict_is_bit_for_bit_that_of_unchunked_cases(
    dtype: torch.dtype, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for means over all cases, which are added up in another order."""
    right = assignment_twin()

    def manual(values: Values) -> Values:
        gradients = right.manual(values)
        return {**gradients, "w35": gradients["w35"] * factor}

    def rows() -> list[Row]:
        report = verify(
            replace(right, manual=manual), cases=cases.SHARD, dtype=dtype, explain=False
        )
        return [
            replace(row, digits_manual=0.0, digits_reference=0.0, bias=None) for row in report.rows
        ]

    in_chunks = rows()
    assert any(row.wrong for row in in_chunks) == (factor > 1)
    monkeypatch.setattr(cases, "CHUNK", cases.SHARD)
    assert rows() == in_chunks


def test_one_case_twins_take_any_shapes_and_kinds() -> None:
    def drawn(draw: Draw) -> Values:
        rows, columns = draw.size(1, 4), draw.size(1, 5)
        return {
            "x": draw.normal(shape=(rows, columns)),
            "pick": draw.integers(0, rows, (3,)),
            "keep": draw.booleans(0.5, (columns,)),
            "scale": draw.normal(shape=()),
        }

    def loss(values: Values) -> Values:
        picked = values["x"][values["pick"]] * values["keep"]
        return {"picked": picked, "loss": (picked * picked).sum() * values["scale"]}

    def backward(values: Values) -> Values:
        picked = values["x"][values["pick"]] * values["keep"]
        dpicked = 2 * picked * values["scale"]
        dx = torch.zeros_like(values["x"])
        dx = dx.index_add(0, values["pick"], dpicked * values["keep"])
        return {"picked": dpicked, "x": dx, "scale": (picked * picked).sum()}

    twin = Twin("picked", drawn, loss, backward)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        report = verify(twin, dtype=dtype)
        report.assert_agreement()
        assert (report.cases, report.batched, report.notes) == (100, False, ())
    overwritten = replace(
        twin,
        manual=lambda v: {
            "x": torch.zeros_like(v["x"]).index_copy(
                0, v["pick"], 2 * v["x"][v["pick"]] * v["keep"] * v["scale"]
            )
        },
    )
    assert verify(overwritten).first_wrong == "x"
    assert len(verify(overwritten).rows[0].worst_element) == 2


def test_the_report_without_explanation_is_the_same_but_for_it() -> None:
    wrong = replace(TWIN, manual=_with("w", torch.neg))
    told, silent = (verify(wrong, cases=200, explain=explain) for explain in (True, False))
    assert told.explanation == "dL/dw has the wrong sign"
    assert silent.explanation == ""
    assert told.rows == silent.rows


@pytest.mark.parametrize("shape", [None, (3, 2)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_hand_that_computes_in_numpy_is_granted_the_references_bound(
    shape: tuple[int, ...] | None, dtype: torch.dtype
) -> None:
    def by_numpy(values: Values) -> Values:
        x, w = (values[name].numpy() for name in ("x", "w"))
        y = np.tanh(w * x)
        return {"y": torch.as_tensor(2 * y), "w": torch.as_tensor(2 * y * (1 - y) * (1 + y) * x)}

    def loss(values: Values) -> Values:
        found = reference(values)
        return {**found, "loss": found["loss"] if shape is None else found["loss"].sum()}

    def drawn(draw: Draw) -> Values:
        return {"x": draw.normal(shape=shape), "w": draw.uniform(0.5, 2.0, shape=shape)}

    report = verify(Twin("numpy", drawn, loss, by_numpy), cases=300, dtype=dtype)
    report.assert_agreement()
    assert "granted 4 times that of the reference in its dtype" in report.notes[0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_what_numpy_gives_is_no_constant_though_other_numbers_leave_it_as_it_is(
    dtype: torch.dtype,
) -> None:
    """Of equal logits the gradient is the same whatever they are."""

    def by_numpy(values: Values) -> Values:
        x, target = values["x"].numpy(), values["t"].numpy()
        largest = x.max(1, keepdims=True)
        p = np.exp(x - (largest + np.log(np.exp(x - largest).sum(1, keepdims=True))))
        p[np.arange(len(target)), target] -= 1
        return {"x": torch.as_tensor(p / np.asarray(len(target), x.dtype))}

    def drawn(draw: Draw) -> Values:
        rows, classes = draw.size(2, 7), draw.size(2, 9)
        x = draw.normal(shape=(rows, classes))
        return {"x": x, "t": draw.integers(0, classes, shape=(rows,))}

    def loss(values: Values) -> Values:
        return {"loss": torch.nn.functional.cross_entropy(values["x"], values["t"])}

    stress = ("expanded", "tied", "equal")
    report = verify(Twin("numpy", drawn, loss, by_numpy, stress=stress), cases=60, dtype=dtype)
    report.assert_agreement()
    assert "it goes on outside torch, as in NumPy" in report.notes[0]


def sum_of_three(order: str) -> Twin:
    """dL/dx is a + b + c: in one order a sum on the way is twice the result."""

    def inputs(draw: Draw) -> Values:
        return {"x": draw.normal(), **{name: draw.uniform(0.5, 1.0) for name in "abc"}}

    def reference(values: Values) -> Values:
        a, b, c, x = (values[name] for name in "abcx")
        return {"loss": x * ((a - c) + b)}

    def manual(values: Values) -> Values:
        a, b, c = (values[name] for name in "abc")
        return {"x": a + b - c if order == "another" else (a + b) * 1e6 / 1e6 - c}

    return Twin("sum of three", inputs, reference, manual, stress=("scaled up",))


def test_an_overflow_that_another_order_of_a_sum_misses_is_no_mistake() -> None:
    """In float16, scaled up to 10^5, it happens; a factor of a million on the way is a mistake."""
    right = verify(sum_of_three("another"), cases=20_000, dtype=torch.float16, explain=False)
    assert right.verdict == "agree"
    wrong = verify(sum_of_three("spoilt"), cases=20_000, dtype=torch.float16, explain=False)
    assert wrong.verdict == "differ"
    assert wrong.rows[0].worst_ratio == float("inf")


@pytest.mark.parametrize(
    ("low", "high", "wrong_for"),
    [(1, 32, 32), (1, 8, 8), (1, 32, "even"), (1, 6, "even"), (1, 32, 1)],
)
def test_a_mistake_at_some_sizes_only_is_found(low: int, high: int, wrong_for: object) -> None:
    """And the sentence does not say of all sizes what is true of some."""

    def manual(values: Values) -> Values:
        x, w = values["x"], values["w"]
        wrong = len(x) % 2 == 0 if wrong_for == "even" else len(x) == wrong_for
        dy = 2 * (x @ w) * (1.5 if wrong else 1.0)
        return {"y": dy, "w": x.T @ dy}

    def reference(values: Values) -> Values:
        y = values["x"] @ values["w"]
        return {"y": y, "loss": (y**2).sum()}

    def inputs(draw: Draw) -> Values:
        return {"x": draw.normal(shape=(draw.size(low, high), 3)), "w": draw.normal(shape=(3,))}

    report = verify(Twin("sizes", inputs, reference, manual))
    assert report.first_wrong == "y"
    assert re.fullmatch(
        r"dL/dy is 1.5 times the truth in \d+% of the elements looked at, and right in the others",
        report.explanation,
    )


def test_a_stress_that_brings_the_reference_down_leaves_the_case_as_drawn() -> None:
    """A singular matrix: torch's inverse raises."""

    def inputs(draw: Draw) -> Values:
        return {"a": draw.normal(shape=(3, 3)) + 3 * torch.eye(3, dtype=draw.dtype)}

    def reference(values: Values) -> Values:
        return {"loss": torch.linalg.inv(values["a"]).sum()}

    def manual(values: Values) -> Values:
        inverse = torch.linalg.inv(values["a"])
        return {"a": -inverse.sum(0)[:, None] * inverse.sum(1)}

    twin = Twin("inverse", inputs, reference, manual, stress=("zeros", "tied"))
    report = verify(twin, cases=30)
    assert report.verdict == "agree"
    assert 'Under the stress "tied" the reference raises _LinAlgError' in " ".join(report.notes)


WRONG_KINDS: dict[str, tuple[dict[str, Any], str]] = {
    "a complex input": (
        {"inputs": lambda draw: {"x": draw.normal(shape=(2,)) * 1j, "w": draw.normal(shape=())}},
        "inputs gave x as a complex tensor, for which there are no rounding rules",
    ),
    "a sparse input": (
        {"inputs": lambda draw: {"x": draw.normal(shape=(2,)).to_sparse()}},
        "inputs gave x as a sparse tensor",
    ),
    "another tensor for an input": (
        {"reference": lambda values: {"x": 2 * values["x"], "loss": values["x"].sum()}},
        "reference gave another tensor for its input x: give what is made of it a name of its own",
    ),
    "sparse on the way": (
        {"reference": lambda v: {"loss": torch.sparse.sum(v["x"].to_sparse())}},
        "[Ss]parse",
    ),
}


@pytest.mark.parametrize("kind", WRONG_KINDS)
def test_a_twin_of_the_wrong_kind(kind: str) -> None:
    changes, message = WRONG_KINDS[kind]
    plain = Twin(
        "plain", lambda draw: {"x": draw.normal(shape=(3,))}, lambda v: {"loss": v["x"].sum()},
        lambda v: {"x": torch.ones_like(v["x"])},
    )  # fmt: skip
    with pytest.raises(TwinError, match=message):
        verify(replace(plain, **changes), cases=3)


@pytest.mark.parametrize(
    ("gradient", "message"),
    [
        (np.array([None] * 3), "dL/dx is of type ndarray; a torch.Tensor is needed"),
        ([1.0] * 3, "dL/dx is of type list; a torch.Tensor is needed"),
        (torch.ones(3, dtype=torch.float64).to_sparse(), "dL/dx is sparse; a dense tensor"),
    ],
)
def test_a_gradient_of_the_wrong_kind(gradient: object, message: str) -> None:
    twin = Twin(
        "plain", lambda draw: {"x": draw.normal(shape=(3,))}, lambda v: {"loss": v["x"].sum()},
        lambda v: {"x": gradient},
    )  # fmt: skip
    with pytest.raises(AssertionError, match=message):
        verify(twin, cases=3).assert_agreement()


def test_what_is_no_twin() -> None:
    with pytest.raises(ValueError, match="A Twin is needed; got 3"):
        verify(3)  # type: ignore[arg-type]


# several dtypes, one recording -------------------------------------------------------------------


def in_two_dtypes(twin: Twin) -> tuple[Report, Report]:
    """As `gradtwin verify` judges, one dtype after the other."""
    wide = Judge(twin, torch.float64, torch.device("cpu"), 0)
    narrow = Judge(twin, torch.float32, torch.device("cpu"), 0, like=wide)
    return wide.run(200), narrow.run(200)


def test_a_second_dtype_records_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[object] = []

    def counted(*args: Any, **kwargs: Any) -> Any:
        recorded.append(args)
        return record(*args, **kwargs)

    for side in (of_the_hand, of_the_reference):
        monkeypatch.setattr(side, "record", counted)
    assert [report.verdict for report in in_two_dtypes(TWIN)] == ["agree", "agree"]
    assert len(recorded) == 2  # the reference and the hand


def test_each_dtype_says_why_the_hand_has_no_bound() -> None:
    def by_numpy(values: Values) -> Values:
        numbers = {name: value.numpy() for name, value in values.items()}
        y = np.tanh(numbers["w"] * numbers["x"])
        dz = 2 * y * (1 - y) * (1 + y)
        found = {"y": 2 * y, "w": dz * numbers["x"], "x": dz * numbers["w"]}
        return {name: torch.from_numpy(value) for name, value in found.items()}

    wide, narrow = in_two_dtypes(replace(TWIN, manual=by_numpy))
    assert wide.notes == narrow.notes
    assert "The manual side has no rounding bound of its own" in wide.notes[0]
