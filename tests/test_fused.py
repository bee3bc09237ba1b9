"""The fused gradients: the harness's verdict, every kind of argument, and what may go wrong."""

import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

import manual_bp
from torch_ref import assignment_twin, fused_gradients, verify
from torch_ref.fused import cuda, emit_c, emit_python, fused_backward, programs
from torch_ref.fused.arrays import samples
from torch_ref.fused.recording import ARGUMENTS, record
from torch_ref.native import compiler
from torch_ref.native.symbols import Graph, assuming
from torch_ref.selftest.twins import mean_twin

WIDE = {"float64": torch.float64, "float32": torch.float32}
SIZES = (1, 2, 7, 16, 511, 512, 513, 4099, 16_411)

Arrays = dict[str, Any]


def batch(
    size: int | tuple[int, ...] = 7, dtype: str = "float64", seed: int = 0
) -> tuple[Arrays, Arrays]:
    """NumPy arrays: parameters of shape (), inputs of shape `size`."""
    generator = np.random.default_rng(seed)
    inputs = {name: generator.normal(size=size) for name in manual_bp.INPUTS}
    inputs["t"] = np.exp(inputs["t"])
    return manual_bp.init_parameters(seed, dtype), {n: v.astype(dtype) for n, v in inputs.items()}


def tensors(arrays: Arrays) -> Arrays:
    return {n: torch.from_numpy(np.array(v)) for n, v in arrays.items()}


def assert_means_agree(given: tuple[Arrays, Arrays], found: tuple[Any, Arrays]) -> None:
    """Within 200 roundings of the mean size of what is averaged, from manual_bp in float64."""
    wide = [{n: np.asarray(v, dtype=np.float64) for n, v in one.items()} for one in given]
    loss, gradients = manual_bp.gradients(*wide)
    sizes = manual_bp.backward(wide[0], manual_bp.forward(*wide))
    unit = np.finfo(np.asarray(found[0]).dtype).eps
    np.testing.assert_allclose(found[0], loss, rtol=200 * unit)
    for name, truth in gradients.items():
        assert np.shape(found[1][name]) == np.shape(truth)
        atol = 200 * unit * float(np.mean(np.abs(sizes[name])))
        np.testing.assert_allclose(found[1][name], truth, rtol=0, atol=atol, err_msg=name)


# judged by the harness ---------------------------------------------------------------------------


def fused_twin() -> Any:
    def manual(values: Arrays) -> Arrays:
        parameters = {name: values[name] for name in manual_bp.PARAMETERS}
        inputs = {name: values[name] for name in manual_bp.INPUTS}
        return fused_backward(parameters, inputs, check_values=False)

    return replace(assignment_twin(), name="fused", manual=manual)


@pytest.mark.parametrize("dtype", WIDE.values(), ids=WIDE)
def test_all_21_gradients_are_right(dtype: torch.dtype, device: str) -> None:
    report = verify(fused_twin(), cases=20_000, dtype=dtype, device=device)
    assert len(report.rows) == 21
    report.assert_agreement()


@pytest.mark.parametrize("dtype", WIDE.values(), ids=WIDE)
def test_the_means_are_right(dtype: torch.dtype, device: str) -> None:
    twin = mean_twin({"gradients": fused_gradients})
    verify(twin, cases=24, dtype=dtype, device=device).assert_agreement()


@pytest.mark.parametrize("dtype", WIDE.values(), ids=WIDE)
def test_the_means_for_single_parameters_are_right(dtype: torch.dtype, device: str) -> None:
    """`mean_twin` shares its parameters in part; here the sums are made in C."""
    twin = mean_twin({"gradients": fused_gradients})

    def inputs(draw: Any) -> Arrays:
        size = (draw.size(500, 520),)
        values = {name: draw.normal(shape=()) for name in manual_bp.PARAMETERS}
        values |= {name: draw.uniform(0.1, 1.0, ()) for name in ("w36", "w46", "w56")}
        values |= {"b6": draw.uniform(0.5, 1.0, ()), "x1": draw.normal(shape=size)}
        return values | {"x2": draw.normal(shape=size), "t": draw.log_normal(shape=size)}

    report = verify(replace(twin, inputs=inputs), cases=24, dtype=dtype, device=device)
    assert len(report.rows) == 11
    report.assert_agreement()


def test_a_fault_planted_in_the_c_emitter_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    forms = emit_c.FORMS | {"exp of -|x|": "exponential({} * (T)1.000001)"}
    faulty = _kernel_of("backward", forms)
    monkeypatch.setitem(programs._kernels, ("backward", "float64"), faulty)
    report = verify(fused_twin(), cases=2000)
    assert report.verdict == "differ", report.rows


def test_a_fault_planted_in_the_c_sums_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the last sample of a block were left out."""
    right = emit_c.DRIVER
    faulty = right.replace("usual_block(count, in", "usual_block(count - (count == BLOCK), in")
    assert faulty != right
    monkeypatch.setattr(emit_c, "DRIVER", faulty)
    monkeypatch.setattr(programs, "_kernels", {})
    given = batch(2048)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_means_agree(given, fused_gradients(*given))


def test_a_fault_planted_in_the_python_emitter_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = programs.wanted("means", "float64"), record("float64").watched
    forms = emit_python.FORMS | {"subtract": "{1} - {0}"}
    faulty = emit_python.function(ARGUMENTS, *plan, forms)
    monkeypatch.setattr("torch_ref.fused.gradients.sample", lambda kind: faulty)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        test_floats_give_floats(0)


def _kernel_of(kind: str, forms: dict[str, str], dtype: str = "float64") -> programs.Kernel:
    plan = programs.program(kind, dtype)
    places = {n: plan.outputs.index(v) for n, v in programs.wanted(kind, dtype).items()}
    return programs.loaded(plan, places, forms)


# every kind of argument --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize("size", SIZES)
def test_numpy_and_torch_of_every_size(size: int, dtype: str) -> None:
    given = batch(size, dtype)
    loss, gradients = fused_gradients(*given)
    assert_means_agree(given, (loss, gradients))
    other, others = fused_gradients(*map(tensors, given))
    assert other.dtype == WIDE[dtype]
    assert other.shape == ()
    assert other.item() == loss
    assert {n: v.item() for n, v in others.items()} == gradients


@pytest.mark.parametrize("make", [lambda one: one, tensors], ids=["numpy", "torch"])
def test_results_are_of_the_kind_that_manual_bp_returns(make: Callable[[Arrays], Arrays]) -> None:
    parameters, inputs = map(make, batch(5, "float32"))
    parameters["b4"] = parameters["b4"].reshape(1)
    for fused, by_hand in (
        (fused_gradients(parameters, inputs), manual_bp.gradients(parameters, inputs)),
        ((0.0, fused_backward(parameters, inputs)), (0.0, _backward(parameters, inputs))),
    ):
        assert list(fused[1]) == list(by_hand[1])
        for one, other in zip([fused[0], *fused[1].values()], [by_hand[0], *by_hand[1].values()]):
            assert type(one) is type(other)
            assert getattr(one, "dtype", None) == getattr(other, "dtype", None)
            assert np.shape(one) == np.shape(other)


def _backward(parameters: Arrays, inputs: Arrays) -> Arrays:
    return manual_bp.backward(parameters, manual_bp.forward(parameters, inputs))


@pytest.mark.parametrize("seed", range(40))
def test_floats_give_floats(seed: int) -> None:
    """t/x6 from 1/100 to 100: through every form of the loss."""
    parameters, inputs = batch(1, seed=seed)
    inputs["t"] = 100 ** np.random.default_rng(seed).uniform(-1, 1, 1)
    given = [{n: v.item() for n, v in one.items()} for one in (parameters, inputs)]
    loss, gradients = fused_gradients(*given)
    assert {type(value) for value in (loss, *gradients.values())} == {float}
    assert_means_agree(tuple(given), (loss, gradients))
    per_sample = fused_backward(*given)
    arrays = ({n: np.float64(v) for n, v in one.items()} for one in given)
    for name, truth in _backward(*arrays).items():
        np.testing.assert_allclose(per_sample[name], truth, rtol=1e-12)


def test_python_floats_go_along_with_arrays() -> None:
    for make in (lambda one: one, tensors):
        parameters, inputs = map(make, batch(5, "float32"))
        expected = fused_gradients(parameters, inputs)
        mixed = {n: v.item() for n, v in parameters.items()}
        assert_equal(fused_gradients(mixed, inputs), expected)
        inputs["x2"] = 0.25
        assert_means_agree((mixed, inputs), fused_gradients(mixed, inputs))


def assert_equal(one: tuple[Any, Arrays], other: tuple[Any, Arrays]) -> None:
    assert one[0] == other[0]
    assert {n: v.tolist() for n, v in one[1].items()} == {
        n: v.tolist() for n, v in other[1].items()
    }


@pytest.mark.parametrize("make", [lambda one: one, tensors], ids=["numpy", "torch"])
@pytest.mark.parametrize(
    "shapes",
    [
        {"w13": (7,)},
        {"w13": (1,), "b6": (1, 1)},
        {"w34": (3, 1), "b5": (5,), "w46": (3, 5), "x1": (3, 5)},
        {"x1": (3, 1), "x2": (5,), "t": ()},
        {"x1": (2, 3, 5), "w23": (3, 1), "w56": (2, 1, 1)},
        dict.fromkeys(ARGUMENTS, ()),
        dict.fromkeys(ARGUMENTS, (600,)),
    ],
)
def test_broadcasting(shapes: dict[str, tuple[int, ...]], make: Callable[[Arrays], Arrays]) -> None:
    default = np.broadcast_shapes(*shapes.values())
    generator = np.random.default_rng(0)
    parameters = {n: np.abs(v) for n, v in manual_bp.init_parameters(0).items()}
    given = parameters | {n: np.ones(default) for n in manual_bp.INPUTS}
    given |= {n: np.abs(generator.uniform(0.5, 2, shape)) for n, shape in shapes.items()}
    given = {n: np.asarray(v) for n, v in given.items()}
    pair = {n: given[n] for n in parameters}, {n: given[n] for n in manual_bp.INPUTS}
    assert_means_agree(pair, fused_gradients(*map(make, pair)))
    per_sample = fused_backward(*map(make, pair))
    for name, truth in _backward(*pair).items():
        np.testing.assert_allclose(per_sample[name], np.broadcast_to(truth, default), rtol=1e-11)


@pytest.mark.parametrize("make", [lambda one: one, tensors], ids=["numpy", "torch"])
def test_memory_that_is_not_in_a_row(make: Callable[[Arrays], Arrays]) -> None:
    parameters, inputs = batch((30, 40))
    expected = {n: v[::2, 1::3].T for n, v in inputs.items()}
    if make is tensors:
        inputs = {n: v[::2, 1::3].T for n, v in tensors(inputs).items()}
        assert not inputs["x1"].is_contiguous()
    else:
        inputs = expected
    assert_means_agree((parameters, expected), fused_gradients(make(parameters), inputs))
    stored = fused_backward(make(parameters), inputs)
    for name, truth in _backward(parameters, expected).items():
        np.testing.assert_allclose(stored[name], truth, rtol=1e-11)


def test_numpy_backwards_and_unaligned() -> None:
    parameters, inputs = batch(100)
    backwards = {n: v[::-1] for n, v in inputs.items()}
    assert_means_agree((parameters, backwards), fused_gradients(parameters, backwards))
    packed = np.zeros(100, dtype=[("byte", "i1"), ("x1", "f8"), ("x2", "f8"), ("t", "f8")])
    for name, value in inputs.items():
        packed[name] = value
    crooked = {name: packed[name] for name in inputs}
    assert samples([*parameters.values(), *crooked.values()]) is None
    assert_means_agree((parameters, inputs), fused_gradients(parameters, crooked))
    swapped = {n: v.astype(">f8") for n, v in inputs.items()}
    assert samples([*parameters.values(), *swapped.values()]) is None


def test_parameters_of_a_module_give_no_history() -> None:
    parameters = {n: torch.nn.Parameter(v) for n, v in tensors(batch()[0]).items()}
    loss, gradients = fused_gradients(parameters, tensors(batch()[1]))
    assert not loss.requires_grad
    assert not any(value.requires_grad for value in gradients.values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_other_dtypes_are_left_to_manual_bp(dtype: torch.dtype) -> None:
    given = [{n: v.to(dtype) for n, v in tensors(one).items()} for one in batch()]
    assert_equal(fused_gradients(*given), manual_bp.gradients(*given))


def test_other_libraries_are_left_to_manual_bp() -> None:
    jnp = pytest.importorskip("jax.numpy")
    given = [{n: jnp.asarray(v, "float32") for n, v in one.items()} for one in batch()]
    assert_equal(fused_gradients(*given), manual_bp.gradients(*given))


def test_what_is_recorded_or_transformed_is_left_to_manual_bp() -> None:
    parameters, inputs = map(tensors, batch())

    def loss(inputs: Arrays) -> Any:
        return fused_gradients(parameters, inputs, check_values=False)[0]

    graph = make_fx(loss)(inputs)
    other = tensors(batch(seed=5)[1])
    assert graph(other) == pytest.approx(loss(other).item(), rel=1e-12)  # recorded, not a constant
    each = torch.vmap(loss)({n: v[:, None] for n, v in inputs.items()})
    assert each.mean().item() == pytest.approx(loss(inputs).item(), rel=1e-12)


@pytest.mark.parametrize("dtype", WIDE)
def test_the_same_bits_for_any_number_of_threads(dtype: str) -> None:
    given = list(map(tensors, batch(100_003, dtype)))
    before = torch.get_num_threads()
    try:
        found = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(fused_gradients(*given))
    finally:
        torch.set_num_threads(before)
    assert_equal(found[0], found[1])
    assert_equal(found[0], found[2])


# numbers at the ends -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", WIDE)
def test_rare_numbers_take_the_whole_formula(dtype: str) -> None:
    """One sample in 700 has a subnormal t/x6, and one an infinite one; manual_bp says the same."""
    parameters, inputs = batch(700, dtype)
    limits = np.finfo(dtype)
    inputs["t"][300] = limits.smallest_normal / 8
    given = (parameters, inputs)
    assert_means_agree(given, fused_gradients(*given))
    large = parameters | {"b6": np.asarray(1e3, dtype)}
    assert_means_agree((large, inputs), fused_gradients(large, inputs))
    tiny = parameters | {n: parameters[n] * 1e-12 for n in ("w36", "w46", "w56", "b6")}
    inputs["t"][:] = limits.max
    found, truth = (f(tiny, inputs, check_values=False) for f in (fused_backward, _by_hand))
    for name, value in truth.items():
        np.testing.assert_array_equal(np.isfinite(found[name]), np.isfinite(value))


def _by_hand(parameters: Arrays, inputs: Arrays, check_values: bool) -> Arrays:
    with np.errstate(all="ignore"):
        values = manual_bp.forward(parameters, inputs, check_values=check_values)
        return manual_bp.backward(parameters, values, check_values=check_values)


ENDS = {
    "exp": [0.0, -0.0, -np.inf, np.inf, np.nan, -1e30, 1e30, -1e-30],
    "log": [0.0, -0.0, np.inf, np.nan, -1.0, -np.inf, 1.0],
    "log1p": [0.0, -0.0, np.inf, np.nan, -1.0, -2.0, -np.inf, 1e-30, -1e-30],
}


@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize("name", ENDS)
def test_functions_are_within_2_ulp(name: str, dtype: str) -> None:
    limits = np.finfo(dtype)
    generator = np.random.default_rng(0)
    wide = np.exp(generator.uniform(np.log(limits.smallest_subnormal), np.log(limits.max), 40_000))
    span = np.log(limits.smallest_subnormal) - 1, np.log(limits.max)
    values = {
        "exp": np.concatenate([generator.uniform(*span, 40_000), generator.normal(size=20_000)]),
        "log": np.concatenate([wide, 1 + generator.normal(size=20_000) * 0.05]),
        "log1p": np.concatenate([generator.uniform(-0.99, 4, 40_000), wide, -wide[wide < 1]]),
    }[name]
    values = np.concatenate([values, generator.uniform(0, 1, 20_000)]).astype(dtype)
    if name == "log":
        values = values[values > 0]
    found = _applied(name, values)
    mpmath.mp.prec = 80
    few = slice(None, None, 1 if dtype == "float32" else 20)
    if dtype == "float32":
        with np.errstate(all="ignore"):
            truth = getattr(np, name)(values.astype(np.float64))
    else:
        truth = np.array([getattr(mpmath, name)(mpmath.mpf(v)) for v in values[few].tolist()])
    ulp = np.spacing(np.abs(truth.astype(dtype)))
    error = np.abs((found[few].astype(object) - truth) / ulp).astype(np.float64)
    assert error.max() <= 2, (values[few][error.argmax()], error.max())


@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize("name", ENDS)
def test_functions_at_the_ends(name: str, dtype: str) -> None:
    values = np.array(ENDS[name], dtype)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(_applied(name, values), getattr(np, name)(values))


def _applied(name: str, values: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """One of the C functions, as the emitter uses it."""
    graph = Graph(values.dtype)
    outputs = [getattr(graph, name)(graph.symbol("argument", "x"))]
    plan = emit_c.Program(values.dtype.name, ("x",), outputs, summed=False)
    found = np.empty_like(values)
    given = samples([values])
    assert given is not None
    programs.loaded(plan, {"y": 0})(given, [found.ctypes.data])
    return found


# bad input ---------------------------------------------------------------------------------------

BAD: dict[str, Callable[[Arrays, Arrays], Any]] = {
    "t negative": lambda p, i: i["t"].__setitem__(3, -1.0),
    "t zero": lambda p, i: i["t"].__setitem__(0, 0.0),
    "x1 not finite": lambda p, i: i["x1"].__setitem__(6, np.nan),
    "x2 infinite": lambda p, i: i["x2"].__setitem__(2, np.inf),
    "weight not finite": lambda p, i: p.update(w13=np.float64(np.nan)),
    "z3 overflows": lambda p, i: (p.update(w13=np.float64(1e200)), i["x1"].fill(1e200)),
    "loss overflows": lambda p, i: p.update({n: 0 * v for n, v in p.items()}),
    "gradient overflows": lambda p, i: (
        p.update({n: 0 * v for n, v in p.items()} | {"b6": np.float64(1e-3)}),
        i["t"].fill(1e300),
    ),
    "missing": lambda p, i: p.pop("w34"),
    "unknown": lambda p, i: i.update(x3=i["x1"]),
    "misspelt": lambda p, i: i.update(X1=i.pop("x1")),
    "shapes": lambda p, i: i.update(x1=np.ones(3)),
    "empty": lambda p, i: i.update({n: np.ones(0) for n in i}),
    "integers": lambda p, i: i.update(x1=np.arange(7)),
    "dtypes": lambda p, i: i.update(x1=np.ones(7, np.float32)),
    "list": lambda p, i: i.update(x1=[1.0] * 7),
    "libraries": lambda p, i: i.update(x1=torch.ones(7, dtype=torch.float64)),
}


@pytest.mark.parametrize("loss", [True, False], ids=["loss", "no loss"])
@pytest.mark.parametrize("make", [lambda one: one, tensors], ids=["numpy", "torch"])
@pytest.mark.parametrize("bad", BAD)
def test_bad_input_is_refused_in_the_words_of_manual_bp(
    bad: str, make: Callable[[Arrays], Arrays], loss: bool
) -> None:
    given = batch()
    BAD[bad](*given)
    if bad not in ("list", "libraries"):
        given = tuple(map(make, given))
    with pytest.raises((ValueError, TypeError)) as expected:
        manual_bp.gradients(*given, loss=loss)
    with pytest.raises(expected.type) as refused:
        fused_gradients(*given, loss=loss)
    assert str(refused.value) == str(expected.value)
    if bad != "empty" and loss:
        with pytest.raises(expected.type) as refused:
            fused_backward(*given)
        assert str(refused.value) == str(expected.value)


@pytest.mark.parametrize("given", [(None, {}), ([], {}), (3, 4)])
def test_arguments_that_are_no_dicts(given: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as expected:
        manual_bp.gradients(*given)
    with pytest.raises(expected.type, match="must"):
        fused_gradients(*given)


@pytest.mark.parametrize("change", [{"t": -1.0}, {"t": 0.0}, {"x1": float("nan")}, {"x2": 1e400}])
def test_bad_floats_are_refused_in_the_words_of_manual_bp(change: Arrays) -> None:
    given = [{n: float(np.ravel(v)[0]) for n, v in one.items()} for one in batch(1)]
    given[1] |= change
    with pytest.raises(ValueError, match=r"is not (positive|finite)") as expected:
        manual_bp.gradients(*({n: np.float64(v) for n, v in one.items()} for one in given))
    for function in (fused_gradients, fused_backward):
        with pytest.raises(ValueError, match=r"is not (positive|finite)") as refused:
            function(*given)
        assert str(refused.value) == str(expected.value)


@pytest.mark.parametrize("make", [lambda one: one, tensors], ids=["numpy", "torch"])
def test_unchecked_values_come_out_as_nan(make: Callable[[Arrays], Arrays]) -> None:
    parameters, inputs = map(make, batch())
    inputs["x1"][2] = np.nan
    loss, gradients = fused_gradients(parameters, inputs, check_values=False)
    assert np.isnan(float(loss))
    assert all(np.isnan(float(value)) for value in gradients.values())
    found = fused_backward(parameters, inputs, check_values=False)
    assert [v != v for v in found["w46"].tolist()] == [i == 2 for i in range(7)]


# compiling ---------------------------------------------------------------------------------------


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Nothing compiled yet, and an empty cache."""
    monkeypatch.setattr(programs, "_kernels", {})
    monkeypatch.setenv("GRADTWIN_CACHE", str(tmp_path / "cache"))
    compiler.cache_directory.cache_clear()
    yield tmp_path / "cache"
    compiler.cache_directory.cache_clear()


@pytest.mark.parametrize(
    ("change", "said"),
    [({"PATH": ""}, r"no C compiler is found \(gcc, clang, cc\)"), ({"CC": "false"}, "false does")],
)
def test_without_a_compiler_manual_bp_answers_and_it_is_said_once(
    change: dict[str, str], said: str, uncompiled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    given = batch()
    with pytest.warns(RuntimeWarning, match=said) as warned:
        found = fused_gradients(*given)
    assert warned[0].filename == __file__
    assert_equal(found, manual_bp.gradients(*given))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_equal(fused_gradients(*given), manual_bp.gradients(*given))


def test_a_cache_may_be_named_from_this_folder(
    uncompiled: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRADTWIN_CACHE", ".")
    given = batch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fused_gradients(*given)
    assert list(tmp_path.glob("*.so"))


def test_a_cache_that_goes_away(uncompiled: Path) -> None:
    compiler.cache_directory()
    uncompiled.rmdir()
    given = batch()
    with pytest.warns(RuntimeWarning, match=f"{uncompiled} cannot be written: No such file"):
        assert_equal(fused_gradients(*given), manual_bp.gradients(*given))


RUN = """
import numpy as np, manual_bp
from torch_ref.fused import fused_gradients
inputs = {"x1": np.ones(9), "x2": np.zeros(9), "t": np.full(9, 2.0)}
print(float(fused_gradients(manual_bp.init_parameters(0), inputs)[0]))
"""


def test_two_processes_compile_into_one_cache_at_once(uncompiled: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", RUN]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert said[0] == said[1] != ""
    assert [path.suffix for path in uncompiled.iterdir()] == [".so"]  # and nothing half done


def test_numpy_alone_needs_no_torch() -> None:
    code = RUN + "import sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_a_damaged_library_is_compiled_again(uncompiled: Path) -> None:
    given = batch()
    uncompiled.mkdir(mode=0o700)
    compiler.cache_directory.cache_clear()
    fused_gradients(*given)
    (library,) = uncompiled.iterdir()
    whole = library.stat().st_size
    library.unlink()  # it is in use here: a new file, not other contents
    library.write_bytes(b"no library")
    done = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert library.stat().st_size == whole


@pytest.mark.parametrize("mode", [0o777, 0o500])
def test_a_directory_that_others_write_or_nobody_is_not_used(mode: int, uncompiled: Path) -> None:
    uncompiled.mkdir()
    uncompiled.chmod(mode)
    if mode == 0o500 and os.access(uncompiled, os.W_OK):
        pytest.skip("the superuser writes anywhere")
    given = batch()
    assert_means_agree(given, fused_gradients(*given))
    assert not list(uncompiled.iterdir())


def test_no_directory_at_all_is_needed(uncompiled: Path) -> None:
    uncompiled.write_text("a file in its place")
    given = batch()
    assert_means_agree(given, fused_gradients(*given))


def test_a_forked_process_computes_on_one_thread() -> None:
    code = (
        "import os, signal, numpy as np, manual_bp, torch\n"
        "from torch_ref.fused import fused_gradients\n"
        "torch.set_num_threads(2)\n"
        "i = {n: np.ones(200_000) for n in ('x1', 'x2', 't')}\n"
        "p = manual_bp.init_parameters(0)\n"
        "before = fused_gradients(p, i)[0]\n"
        "if os.fork() == 0:\n"
        "    signal.alarm(30)\n"
        "    os._exit(int(fused_gradients(p, i)[0] != before))\n"
        "print(os.wait()[1])\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "0\n"


def test_ten_million_samples_need_no_memory_of_their_own() -> None:
    code = (
        "import resource, numpy as np, manual_bp\n"
        "from torch_ref.fused import fused_gradients\n"
        "i = {n: np.ones(10_000_000, np.float32) for n in ('x1', 'x2', 't')}\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "p = manual_bp.init_parameters(0, np.float32)\n"
        "before = peak()\n"
        "fused_gradients(p, i)\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 64 * 1024  # KiB


# recording, and CUDA -----------------------------------------------------------------------------


def test_formulas_that_branch_on_numbers_cannot_be_recorded() -> None:
    graph = Graph(np.dtype("float64"))
    with pytest.raises(TypeError, match="must not branch"):
        bool(graph.symbol("argument", "x") > 0)


def test_selections_are_simplified_by_what_is_known() -> None:
    graph = Graph(np.dtype("float64"))
    x, y = (graph.symbol("argument", name) for name in "xy")
    positive = x > 0
    both = positive & (y > 0)
    assert graph.where(positive, graph.where(positive, x, y), y) is graph.where(positive, x, y)
    assert graph.where(positive, x / y, x * 2 / y) is graph.where(positive, x, x * 2) / y
    assert assuming(graph.where(both, x, y), {positive: False}) is y
    assert assuming(graph.where(both, x, y), {positive: True}) is graph.where(y > 0, x, y)
    assert x + y is x + y
    assert x + y is not y + x


@pytest.mark.parametrize("shape", [(), (7,), (1,)])
def test_what_cuda_compiles_is_right(shape: tuple[int, ...]) -> None:
    """The function itself, on the CPU and not compiled."""
    parameters, inputs = map(tensors, batch())
    parameters["w34"] = parameters["w34"].expand(shape)
    loss, gradients, sound = cuda._means({**parameters, **inputs})
    assert sound
    assert_equal((loss, gradients), manual_bp.gradients(parameters, inputs))
    stored, sound = cuda._samples({**parameters, **inputs})
    assert sound
    assert_equal((0, stored), (0, _backward(parameters, inputs)))
    inputs["x1"][0] = torch.inf
    assert not cuda._means({**parameters, **inputs})[2]
    assert not cuda._samples({**parameters, **inputs})[1]


@pytest.mark.slow
def test_what_cuda_compiles_compiles() -> None:
    given = tuple(map(tensors, batch(1000)))
    found = cuda.gradients(*given, True)
    assert found is not None
    assert_means_agree(batch(1000), found)
    given[1]["t"][3] = -1
    assert cuda.gradients(*given, True) is None


def test_another_default_device_changes_nothing() -> None:
    """Else C would write to an address that is none."""
    parameters = {n: torch.tensor(float(v)) for n, v in manual_bp.init_parameters(0).items()}
    inputs = {n: torch.rand(5) + 0.5 for n in manual_bp.INPUTS} | {"x1": 0.25}
    loss, gradients = fused_gradients(parameters, inputs)
    with torch.device("meta"):
        again, same = fused_gradients(parameters, inputs)
    assert again.device.type == "cpu"
    assert torch.equal(again, loss)
    assert all(torch.equal(same[name], value) for name, value in gradients.items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize("size", [1, 513, 100_003])
def test_cuda(size: int, dtype: str) -> None:
    given = batch(size, dtype)
    moved = tuple({n: v.cuda() for n, v in tensors(one).items()} for one in given)
    loss, gradients = fused_gradients(*moved)
    assert loss.is_cuda
    assert_means_agree(given, (loss.cpu(), {n: v.cpu() for n, v in gradients.items()}))
    moved[1]["t"][0] = -1
    with pytest.raises(ValueError, match="t = -1"):
        fused_gradients(*moved)
