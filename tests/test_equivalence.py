"""The equivalence suite: hand-written gradients against autograd, on random and on real inputs.

Every tolerance here is derived: the harness's bounds for single gradients, and for 200 steps of
training the spread of trajectories that start one rounding apart.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_network import richardson, worst_share_of_bound
from torch.func import functional_call

import manual_bp
from torch_ref import AssignmentNet, Draw, ItakuraSaitoLoss, Twin, assignment_twin, verify
from torch_ref.assignment import STRATA
from torch_ref.compare import DTYPES, Batch, Cases
from torch_ref.compare.judge import Judge

WIDE = ("float64", "float32")
BATCH = 32
STEPS = 200
LEARNING_RATE = 0.01


# one case at a time ------------------------------------------------------------------------------


@pytest.mark.parametrize("stratum", STRATA)
@pytest.mark.parametrize("dtype", WIDE)
def test_random_cases_agree(dtype: str, stratum: str, device: str) -> None:
    twin = replace(assignment_twin(), strata=(stratum,), stress=())
    verify(twin, cases=4096, dtype=DTYPES[dtype], device=device).assert_agreement()


@pytest.mark.parametrize("stratum", STRATA)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_random_cases_in_low_precision(dtype: str, stratum: str, device: str) -> None:
    """Two to three digits are not enough for every hard place, which may stay undecided."""
    twin = replace(assignment_twin(), strata=(stratum,), stress=())
    report = verify(twin, cases=4096, dtype=DTYPES[dtype], device=device)
    assert report.first_wrong is None, report.rows
    assert not report.failures
    if stratum == "ordinary":
        report.assert_agreement()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_harness_own_stresses_find_nothing_wrong(dtype: str, device: str) -> None:
    """All strata of the author and all stresses of the harness, by turns."""
    report = verify(assignment_twin(), cases=8192, dtype=DTYPES[dtype], device=device)
    assert report.first_wrong is None, report.rows
    assert not report.failures


def test_rows_are_the_21_gradients_in_backward_order() -> None:
    rows = verify(assignment_twin(), cases=12).rows
    order = "x6 z6 w36 w46 w56 b6 x5 z5 w35 b5 x4 z4 w34 b4 x3 z3 w13 w23 b3 x1 x2"
    assert [row.name for row in rows] == order.split()


sizes = st.floats(-30.0, 30.0)


@cache
def judge_of(dtype: torch.dtype) -> Judge:
    """One for all examples: it records each side once."""
    return Judge(assignment_twin(), dtype, torch.device("cpu"), seed=0)


@settings(deadline=None, max_examples=100)
@given(
    numbers=st.lists(sizes, min_size=13, max_size=13),
    t=st.floats(1e-6, 1e6),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)
def test_no_finite_case_is_called_wrong(numbers: list[float], t: float, dtype: torch.dtype) -> None:
    names = (*manual_bp.PARAMETERS, "x1", "x2", "t")
    inputs = {
        name: torch.tensor([number], dtype=dtype)
        for name, number in zip(names, [*numbers, t], strict=True)
    }
    judging = judge_of(dtype)
    judging.tallies.clear()
    judging.judge(Batch(inputs, 0, 1, True))
    report = judging.report(1, explain=False)
    assert len(report.rows) == 21
    assert report.first_wrong is None, report.rows


# real inputs -------------------------------------------------------------------------------------


@cache
def sp500() -> dict[str, np.ndarray]:
    """Volatility forecasting on the S&P 500: yesterday's log realised variances, next day's target.

    x1, x2: log of the mean squared return, in percent squared, of the last 5 and 22 days; t: the
    next day's squared return. Days with return zero have t = 0, where the loss does not exist:
    they are left out.
    """
    from arch.data import sp500 as data

    squared = (100 * data.load()["Adj Close"].pct_change().dropna().to_numpy()) ** 2
    sums = np.concatenate([[0.0], np.cumsum(squared)])
    last = np.arange(22, len(squared))  # the day to forecast
    week, month = ((sums[last] - sums[last - days]) / days for days in (5, 22))
    traded = squared[last] > 0
    kept = {"x1": np.log(week), "x2": np.log(month), "t": squared[last]}
    return {name: value[traded] for name, value in kept.items()}


def sp500_inputs(draw: Draw) -> dict[str, torch.Tensor]:
    """Days drawn at random, each case with its own random parameters."""
    days = draw.generator.integers(0, len(sp500()["t"]), draw.cases)
    inputs = {name: draw.cast(value[days]) for name, value in sp500().items()}
    weights = {name: draw.normal() for name in manual_bp.PARAMETERS}
    return {**inputs, **weights, "b6": draw.uniform(1.0, 3.0)}


def sp500_twin() -> Twin:
    return replace(assignment_twin(), inputs=sp500_inputs, strata=("sp500",), stress=())


def test_zero_return_days_are_left_out() -> None:
    """5031 prices give 5030 returns; 22 start the longest mean; 3 of the others are zero."""
    assert len(sp500()["t"]) == 5030 - 22 - 3
    assert all(np.isfinite(value).all() for value in sp500().values())


@pytest.mark.parametrize("dtype", DTYPES)
def test_real_inputs_agree(dtype: str, device: str) -> None:
    verify(sp500_twin(), cases=16_384, dtype=DTYPES[dtype], device=device).assert_agreement()


@pytest.mark.parametrize("dtype", DTYPES)
def test_real_inputs_against_mpmath(dtype: str) -> None:
    """Differences of the loss in 480 digits: a witness that knows no derivative."""
    drawn = Cases(sp500_twin(), DTYPES[dtype], torch.device("cpu"), 4).shard(0)
    worst, place, decided = worst_share_of_bound({n: value[:40] for n, value in drawn.items()})
    print(f"{dtype}: worst error/bound {worst:.3f}, {decided:.0%} decided; {place}")
    assert worst <= 1, place
    assert decided > {"float64": 0.99, "float32": 0.99, "bfloat16": 0.5, "float16": 0.8}[dtype]


def test_mean_reduced_gradients_of_real_inputs_against_central_differences() -> None:
    """Of the mean loss of 512 days, for each parameter scaled by 1 + shift."""
    inputs, parameters = training_data("sp500"), manual_bp.init_parameters(seed=3)
    gradients = manual_bp.gradients(parameters, inputs)[1]
    for name in manual_bp.PARAMETERS:

        def loss(shift: float, name: str = name) -> np.ndarray:
            moved = {**parameters, name: parameters[name] * (1 + shift)}
            return manual_bp.gradients(moved, inputs)[0]

        witness, error = richardson(loss)
        by_hand = gradients[name] * parameters[name]
        assert abs(by_hand - witness) <= error, name
        assert error < 1e-6 * abs(by_hand), name  # a wrong one would show


# a batch that shares its parameters --------------------------------------------------------------


def random_batch(draw: Draw) -> dict[str, torch.Tensor]:
    """Inputs of `draw.cases` batches, shape (cases, BATCH)."""
    shape = (draw.cases, BATCH)
    normal = draw.generator.normal
    drawn = {"x1": normal(size=shape), "x2": normal(size=shape), "t": np.exp(normal(size=shape))}
    return {name: draw.cast(value) for name, value in drawn.items()}


def sp500_batch(draw: Draw) -> dict[str, torch.Tensor]:
    days = draw.generator.integers(0, len(sp500()["t"]), (draw.cases, BATCH))
    return {name: draw.cast(value[days]) for name, value in sp500().items()}


def batch_twin(batch) -> Twin:
    """`manual_bp.gradients`: one case is a batch whose samples share its parameters."""
    net, loss = AssignmentNet(dtype=torch.float64), ItakuraSaitoLoss(reduction="none")

    def inputs(draw: Draw) -> dict[str, torch.Tensor]:
        parameters = {name: draw.normal()[:, None] for name in manual_bp.PARAMETERS}
        return {**parameters, "b6": draw.uniform(3.0, 6.0)[:, None], **batch(draw)}

    def reference(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        x = torch.stack((values["x1"], values["x2"]), dim=-1)
        x6 = functional_call(net, {name: values[name] for name in manual_bp.PARAMETERS}, (x,))
        return {"loss": loss(x6, values["t"]).mean(dim=1) / len(x)}

    def manual(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        parameters = {name: values[name] for name in manual_bp.PARAMETERS}
        data = {name: values[name] for name in manual_bp.INPUTS}
        return manual_bp.gradients(parameters, data, check_values=False)[1]

    return Twin("assignment, mean over a batch", inputs, reference, manual, stress=())


@pytest.mark.parametrize("batch", [random_batch, sp500_batch])
@pytest.mark.parametrize("dtype", DTYPES)
def test_mean_reduced_gradients_agree(dtype: str, batch, device: str) -> None:
    report = verify(batch_twin(batch), cases=512, dtype=DTYPES[dtype], device=device)
    # of sums over a batch half precision may leave nothing
    narrow = dtype in ("bfloat16", "float16")
    allowed = {"agree", "undecided"} if narrow else {"agree"}
    assert {row.verdict for row in report.rows} <= allowed
    assert sum(row.verdict == "agree" for row in report.rows) >= len(report.rows) - 3


def one_batch_twin() -> Twin:
    """The same as a training loop has it: parameters of shape (), one mean loss, any batch size."""
    twin, net = batch_twin(random_batch), AssignmentNet(dtype=torch.float64)

    def inputs(draw: Draw) -> dict[str, torch.Tensor]:
        shape = (draw.size(1, 40),)
        data = {"x1": draw.normal(shape=shape), "x2": draw.normal(shape=shape)}
        parameters = {name: draw.normal(shape=()) for name in manual_bp.PARAMETERS}
        b6 = draw.uniform(3.0, 6.0, shape=())
        return {**parameters, "b6": b6, **data, "t": draw.log_normal(shape=shape)}

    def reference(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        x = torch.stack((values["x1"], values["x2"]), dim=-1)
        x6 = functional_call(net, {name: values[name] for name in manual_bp.PARAMETERS}, (x,))
        return {"loss": ItakuraSaitoLoss()(x6, values["t"])}

    return replace(twin, name="assignment, one batch", inputs=inputs, reference=reference)


@pytest.mark.parametrize("dtype", WIDE)
def test_the_gradients_of_one_batch_agree(dtype: str, device: str) -> None:
    verify(one_batch_twin(), cases=40, dtype=DTYPES[dtype], device=device).assert_agreement()


def test_a_sum_for_the_mean_is_caught() -> None:
    twin = batch_twin(random_batch)
    wrong = replace(twin, manual=lambda v: {n: g * BATCH for n, g in twin.manual(v).items()})
    assert verify(wrong, cases=64).first_wrong == "w13"


# training ----------------------------------------------------------------------------------------


def manual_gradients(parameters: dict, inputs: dict) -> dict:
    return manual_bp.gradients(parameters, inputs)[1]


def closed_form_gradients(p: dict, inputs: dict) -> dict:
    """The assignment's answers (5), b), c) and d), and the other parameters by the same rules."""
    s = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731
    x1, x2, t = inputs["x1"], inputs["x2"], inputs["t"]
    x3 = s(p["w13"] * x1 + p["w23"] * x2 + p["b3"])
    x4, x5 = s(p["w34"] * x3 + p["b4"]), s(p["w35"] * x3 + p["b5"])
    z6 = p["w36"] * x3 + p["w46"] * x4 + p["w56"] * x5 + p["b6"]
    dz6 = 2 * (z6**2 - t) / z6**3  # (5)
    dz4 = dz6 * p["w46"] * x4 * (1 - x4)
    dz5 = dz6 * p["w56"] * x5 * (1 - x5)
    paths = p["w34"] * p["w46"] * x4 * (1 - x4) + p["w35"] * p["w56"] * x5 * (1 - x5)
    dz3 = dz6 * (p["w36"] + paths) * x3 * (1 - x3)  # d)
    each = {
        "w13": dz3 * x1, "w23": dz3 * x2, "b3": dz3, "w34": dz4 * x3, "b4": dz4,
        "w35": dz5 * x3, "b5": dz5, "w36": dz6 * x3, "w46": dz6 * x4, "w56": dz6 * x5, "b6": dz6,
    }  # fmt: skip
    return {name: np.mean(gradient) for name, gradient in each.items()}


def train_by_hand(parameters: dict, inputs: dict, gradients: Callable = manual_gradients) -> dict:
    for _ in range(STEPS):
        step = gradients(parameters, inputs)
        parameters = manual_bp.sgd_step(parameters, step, LEARNING_RATE)
    return {name: float(value) for name, value in parameters.items()}


def train_by_autograd(parameters: dict, inputs: dict) -> dict:
    net = AssignmentNet(dtype=inputs["t"].dtype, device=inputs["t"].device)
    net.load_state_dict(parameters)
    optimizer = torch.optim.SGD(net.parameters(), lr=LEARNING_RATE)
    x = torch.stack((inputs["x1"], inputs["x2"]), dim=-1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        ItakuraSaitoLoss()(net(x), inputs["t"]).backward()
        optimizer.step()
    return {name: value.item() for name, value in net.state_dict().items()}


@cache
def rounding_spread(source: str, dtype: str) -> dict:
    """How far 8 trajectories end apart that start one rounding apart, times the steps.

    Every step rounds anew, and no rounding has longer to grow than the first.
    """
    inputs, start = training_data(source, dtype), manual_bp.init_parameters(3, dtype)
    generator = np.random.default_rng(1)
    ends = []
    for _ in range(8):
        ways = generator.choice([-np.inf, np.inf], len(start)).astype(dtype)
        beside = {n: np.nextafter(v, way) for (n, v), way in zip(start.items(), ways, strict=True)}
        ends.append(train_by_hand(beside, inputs))
    return {name: STEPS * np.ptp([end[name] for end in ends]) for name in start}


def training_data(source: str, dtype: str = "float64") -> dict[str, np.ndarray]:
    if source == "sp500":
        data = {name: value[:512] for name, value in sp500().items()}
    else:
        generator = np.random.default_rng(0)
        drawn = {name: generator.normal(size=64) for name in ("x1", "x2", "t")}
        data = {**drawn, "t": np.exp(drawn["t"])}
    return {name: value.astype(dtype) for name, value in data.items()}


# bfloat16 and float16 do not train: there most steps are less than half an ulp of a parameter.
@pytest.mark.parametrize("source", ["random", "sp500"])
@pytest.mark.parametrize("dtype", WIDE)
def test_200_steps_of_sgd_agree(dtype: str, source: str, device: str) -> None:
    """By hand in NumPy and in torch on the device, torch.optim.SGD there, the closed forms."""
    inputs, start = training_data(source, dtype), manual_bp.init_parameters(3, dtype)
    on_device = [
        {name: torch.as_tensor(value, device=device) for name, value in values.items()}
        for values in (start, inputs)
    ]
    by_hand = train_by_hand(start, inputs)
    others = {
        "by hand in torch": train_by_hand(*on_device),
        "torch.optim.SGD": train_by_autograd(*on_device),
        "closed forms": train_by_hand(start, inputs, closed_form_gradients),
    }
    allowed = rounding_spread(source, dtype)
    learned = {name: np.asarray(value, dtype) for name, value in by_hand.items()}
    assert manual_bp.gradients(learned, inputs)[0] < manual_bp.gradients(start, inputs)[0]
    sensitive = 4000 * np.finfo(dtype).eps  # then the comparison would say little
    for who, end in others.items():
        for name, value in end.items():
            assert abs(value - by_hand[name]) <= allowed[name] < sensitive, f"{who}, {name}"


@pytest.mark.parametrize("name", manual_bp.PARAMETERS)
def test_training_with_one_gradient_wrong_shows(name: str) -> None:
    """By 1 part in 1000, which 200 steps add up: the test above can fail."""
    inputs, start = training_data("random"), manual_bp.init_parameters(3)

    def wrong(parameters: dict, inputs: dict) -> dict:
        step = manual_gradients(parameters, inputs)
        return {**step, name: step[name] * 1.001}

    ends = train_by_hand(start, inputs), train_by_hand(start, inputs, wrong)
    assert abs(ends[1][name] - ends[0][name]) > rounding_spread("random", "float64")[name]
