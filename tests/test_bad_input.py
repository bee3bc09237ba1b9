"""What manual_bp refuses: each message says what was expected, what came, and how to mend it."""

import re
from collections.abc import Callable
from typing import Any

import array_api_strict
import numpy as np
import pytest
import torch

import manual_bp
from manual_bp import INPUTS, PARAMETERS

NAMES = "w13, w23, b3, w34, b4, w35, b5, w36, w46, w56, b6"
NAN, INF = float("nan"), float("inf")
Numbers = dict[str, Any]


def good() -> Numbers:
    """Parameters and a batch of 4 samples, NumPy and float64."""
    generator = np.random.default_rng(0)
    inputs = {name: generator.uniform(0.5, 2, 4) for name in INPUTS}
    return {**manual_bp.init_parameters(), **inputs}


def forward(given: Numbers, **options: bool) -> Numbers:
    inputs = {name: value for name, value in given.items() if name in INPUTS}
    parameters = {name: value for name, value in given.items() if name not in INPUTS}
    return manual_bp.forward(parameters, inputs, **options)


def gradients(given: Numbers) -> tuple[Any, Numbers]:
    return manual_bp.gradients(
        {name: given[name] for name in PARAMETERS}, {name: given[name] for name in INPUTS}
    )


def renamed(given: Numbers, old: str, new: str) -> Numbers:
    return {new if name == old else name: value for name, value in given.items()}


def without(given: Numbers, name: str) -> Numbers:
    return {other: value for other, value in given.items() if other != name}


def refused(error: type[Exception], message: str):
    """Exactly this message, not only a part of it."""
    return pytest.raises(error, match=f"^{re.escape(message)}$")


def test_the_good_input_is_good() -> None:
    """So that what the others change is what is refused."""
    assert np.isfinite(gradients(good())[0])
    assert forward(good())["loss"].shape == (4,)


# values ------------------------------------------------------------------------------------------


def with_one(name: str, number: float) -> Numbers:
    """The number in sample 2 of an input, or as the whole of a parameter."""
    given = good()
    given[name] = given[name].copy()
    given[name][2 if name in INPUTS else ()] = number
    return given


@pytest.mark.parametrize("number", [0.0, -0.0, -1.5])
def test_t_not_positive(number: float) -> None:
    message = f"t = {number} in case 2 is not positive, and the loss has ln(t/x6): leave it out."
    with refused(ValueError, message):
        forward(with_one("t", number))


@pytest.mark.parametrize("number", [NAN, INF, -INF])
@pytest.mark.parametrize("name", ["x1", "x2", "t"])
def test_input_not_finite(name: str, number: float) -> None:
    problem = "is not finite: every number given must be; mend it or leave it out."
    with refused(ValueError, f"{name} = {number} in case 2 {problem}"):
        forward(with_one(name, number))


@pytest.mark.parametrize("number", [NAN, INF, -INF])
@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_not_finite(name: str, number: float) -> None:
    """In each of them: none is hidden by a sigmoid that saturates."""
    problem = "is not finite: every number given must be; mend it or leave it out."
    with refused(ValueError, f"{name} = {number} {problem}"):
        forward(with_one(name, number))


@pytest.mark.parametrize(
    ("name", "number"),
    [("t", 0.0), ("t", -1.5), *((name, n) for name in INPUTS for n in (NAN, INF)), ("b3", NAN)],
)
def test_without_the_loss_the_same_is_refused(name: str, number: float) -> None:
    given = with_one(name, number)
    with pytest.raises(ValueError, match=rf"^{name} = ") as expected:
        forward(given)
    with refused(ValueError, str(expected.value)):
        forward(given, loss=False)


def test_python_float_not_finite() -> None:
    with refused(
        ValueError,
        "b4 = nan is not finite: every number given must be; mend it or leave it out.",
    ):
        forward({**good(), "b4": NAN})


def test_case_in_a_batch_of_two_dimensions() -> None:
    given = {name: np.full((2, 3), 1.0) for name in INPUTS}
    given["t"][1, 2] = -1
    with pytest.raises(ValueError, match=re.escape("t = -1.0 in case (1, 2) is not positive")):
        forward({**good(), **given})


def test_z6_is_0() -> None:
    zero = {name: np.asarray(0.0) for name in PARAMETERS}
    problem = "is out of range for float64; keep z6 away from 0, or use a wider dtype."
    for loss in (True, False):
        with refused(ValueError, f"x6 = 0.0 in case 0 {problem}"):
            forward({**good(), **zero}, loss=loss)


def test_overflow_names_the_dtype_and_the_value() -> None:
    given = {name: value.astype(np.float16) for name, value in good().items()}
    given["b6"] = np.asarray(60_000, np.float16)
    problem = "is out of range for float16; keep z6 away from 0, or use a wider dtype."
    with refused(ValueError, f"x6 = inf in case 0 {problem}"):
        forward(given)


def test_gradient_that_overflows() -> None:
    """Where z6 = 10^-14 the loss, 10^28, is finite; dL/dx6 is beyond float32."""
    given = {name: np.asarray(0.0, np.float32) for name in PARAMETERS}
    given["b6"] = np.asarray(1e-14, np.float32)
    given |= {name: np.ones(4, np.float32) for name in INPUTS}
    values = forward(given)
    parameters = {name: given[name] for name in PARAMETERS}
    problem = "is out of range for float32; keep z6 away from 0, or use a wider dtype."
    with refused(ValueError, f"dL/dx6 = -inf in case 0 {problem}"):
        manual_bp.backward(parameters, values)


def test_values_are_not_looked_at_when_told_so() -> None:
    """As a tracer needs it: NaN in, NaN out, in that sample only."""
    loss = forward(with_one("x1", NAN), check_values=False)["loss"]
    assert np.isnan(loss).tolist() == [False, False, True, False]


def test_empty_batch_has_no_mean() -> None:
    empty = {**good(), **{name: np.empty(0) for name in INPUTS}}
    message = (
        "The batch is empty (shape (0,)): a mean needs at least one sample. "
        "Check how the batch was cut or filtered."
    )
    with refused(ValueError, message):
        gradients(empty)


def test_empty_batch_of_samples_is_empty() -> None:
    """No mean is asked for: no sample in, no gradient out."""
    values = forward({**good(), **{name: np.empty((0, 3)) for name in INPUTS}})
    each = manual_bp.backward(manual_bp.init_parameters(), values)
    assert all(value.shape == (0, 3) for value in each.values())


# names -------------------------------------------------------------------------------------------


def test_missing_parameter() -> None:
    with refused(ValueError, f"parameters must have exactly the names {NAMES}; missing b6."):
        forward(without(good(), "b6"))


def test_missing_input() -> None:
    with refused(ValueError, "inputs must have exactly the names x1, x2, t; missing t."):
        forward(without(good(), "t"))


@pytest.mark.parametrize(
    ("right", "wrong"), [("w46", "w64"), ("w46", "W46"), ("b6", "b_6"), ("w13", "w_13")]
)
def test_misspelt_parameter(right: str, wrong: str) -> None:
    with refused(
        ValueError,
        f"parameters must have exactly the names {NAMES}; missing {right} "
        f"and unknown {wrong} (did you mean {right}?).",
    ):
        forward(renamed(good(), right, wrong))


def test_unknown_parameter_like_none_of_the_missing() -> None:
    with refused(
        ValueError,
        f"parameters must have exactly the names {NAMES}; missing b3, w56 and unknown bias, 7.",
    ):
        forward(renamed(renamed(good(), "b3", "bias"), "w56", 7))


def test_unknown_parameter_beside_the_right_ones() -> None:
    with refused(ValueError, f"parameters must have exactly the names {NAMES}; unknown b7."):
        forward({**good(), "b7": np.asarray(1.0)})


def test_values_not_from_forward() -> None:
    values = without(forward(good()), "x4")
    with refused(
        ValueError,
        "values must have exactly the names x1, x2, t, z3, x3, z4, x4, z5, x5, z6, x6, loss; "
        "missing x4.",
    ):
        manual_bp.backward(manual_bp.init_parameters(), values)


def test_not_a_dict() -> None:
    with refused(TypeError, "parameters must be a dict of arrays by name; got list."):
        manual_bp.forward(list(good().values()), {})


# shapes ------------------------------------------------------------------------------------------


def test_shapes_that_do_not_broadcast() -> None:
    with refused(
        ValueError,
        "The shapes do not broadcast together: x1 (3,), x2 (4,), t (4,). "
        "Give each one number, or one a sample.",
    ):
        forward({**good(), "x1": np.ones(3)})


def test_parameter_that_does_not_broadcast() -> None:
    with pytest.raises(ValueError, match=re.escape("together: w36 (2, 3), x1 (4,), ")):
        forward({**good(), "w36": np.ones((2, 3))})


def test_sgd_step_with_gradients_of_single_samples() -> None:
    """Subtracted from a shared parameter, they would make it one a sample without a word."""
    parameters = manual_bp.init_parameters()
    each = manual_bp.backward(parameters, forward(good()))
    with refused(
        ValueError,
        "The gradient of w13 has shape (4,), the parameter (): use manual_bp.gradients, which "
        "gives each the shape of its parameter.",
    ):
        manual_bp.sgd_step(parameters, {name: each[name] for name in PARAMETERS}, 0.1)


# libraries, devices, dtypes ----------------------------------------------------------------------


@pytest.mark.parametrize("value", [[1.0, 2.0], "1.0", None, (1.0,), 3, True, {}], ids=repr)
def test_not_an_array(value: object) -> None:
    kind = type(value).__name__
    with refused(
        TypeError,
        f"x2 must be a floating array or a Python float; got {kind}: convert it, for example "
        "with numpy.asarray(..., dtype=float).",
    ):
        forward({**good(), "x2": value})


def test_nothing_but_python_floats() -> None:
    with refused(
        TypeError,
        "At least one value must be an array; got only Python floats: use numpy.asarray.",
    ):
        forward(dict.fromkeys((*PARAMETERS, *INPUTS), 1.0))


@pytest.mark.parametrize("dtype", ["int64", "int32", "bool", "complex128", "object"])
def test_not_floating(dtype: str) -> None:
    with refused(
        TypeError,
        f"x1 has dtype {dtype}; real floating numbers are needed: convert it, for example to "
        "float64.",
    ):
        forward({**good(), "x1": np.ones(4, dtype)})


def test_integer_parameter_in_torch() -> None:
    given = {name: torch.as_tensor(value) for name, value in good().items()}
    with pytest.raises(TypeError, match=r"^w34 has dtype torch\.int64; real floating numbers"):
        forward({**given, "w34": torch.tensor(1)})


def test_mixed_dtypes() -> None:
    with refused(
        TypeError,
        "All arrays must have one dtype; w13 is float64 and t is float32: convert one of them.",
    ):
        forward({**good(), "t": np.ones(4, np.float32)})


def test_numpy_float64_is_no_python_float() -> None:
    """It is one to isinstance, but it says that it has float64."""
    given = {name: value.astype(np.float32) for name, value in good().items()}
    message = "one dtype; w13 is float32 and b4 is float64: convert one of them."
    with pytest.raises(TypeError, match=re.escape(message)):
        forward({**given, "b4": np.float64(1.0)})
    tensors = {name: torch.as_tensor(value) for name, value in given.items()}
    with pytest.raises(TypeError, match="from one library; got numpy and torch"):
        forward({**tensors, "b4": np.float64(1.0)})


def test_sgd_step_with_gradients_of_another_dtype() -> None:
    """Subtracted, they would turn a float32 parameter into float64 without a word."""
    parameters = {n: v.astype(np.float32) for n, v in manual_bp.init_parameters().items()}
    with refused(
        TypeError, "The gradient of w13 is float64, the parameter float32: convert one of them."
    ):
        manual_bp.sgd_step(parameters, manual_bp.init_parameters(), 0.1)


def test_mixed_libraries() -> None:
    with refused(
        TypeError,
        "All arrays must come from one library; got numpy and torch: convert one, for example "
        "with torch.as_tensor.",
    ):
        forward({**good(), "t": torch.ones(4, dtype=torch.float64)})


def mixed_devices(convert: Callable[[Any], Any], move: Callable[[Any], Any]) -> Numbers:
    given = {name: convert(value) for name, value in good().items()}
    return {**given, "x2": move(given["x2"])}


def test_mixed_devices_in_torch() -> None:
    """The meta device stands for any other one: it needs no accelerator."""
    with refused(
        ValueError,
        "All arrays must be on one device; w13 is on cpu and x2 is on meta: move one of them.",
    ):
        forward(mixed_devices(torch.as_tensor, lambda value: value.to("meta")))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_mixed_devices_with_cuda() -> None:
    with pytest.raises(ValueError, match=r"w13 is on cpu and x2 is on cuda:0: move one of them"):
        forward(mixed_devices(torch.as_tensor, lambda value: value.to("cuda")))


def test_mixed_devices_in_array_api_strict() -> None:
    other = array_api_strict.Device("device1")
    with pytest.raises(ValueError, match=r"one device; w13 is on .*CPU.* and x2 is on .*device1"):
        forward(mixed_devices(array_api_strict.asarray, lambda value: value.to_device(other)))


# the rest ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0, 0.0, -1, NAN, INF])
def test_learning_rate(rate: float) -> None:
    parameters = manual_bp.init_parameters()
    with refused(ValueError, f"learning_rate must be positive and finite; got {rate}."):
        manual_bp.sgd_step(parameters, parameters, rate)


def test_names_in_sgd_step() -> None:
    parameters = manual_bp.init_parameters()
    with pytest.raises(ValueError, match=r"^gradients must have exactly .*; missing w56\.$"):
        manual_bp.sgd_step(parameters, without(parameters, "w56"), 0.1)


@pytest.mark.parametrize("dtype", [int, "complex128", "no dtype", torch.float32], ids=repr)
def test_dtype_of_initial_parameters(dtype: object) -> None:
    with refused(
        TypeError, f"dtype must be a NumPy floating dtype, such as numpy.float64; got {dtype!r}."
    ):
        manual_bp.init_parameters(dtype=dtype)
