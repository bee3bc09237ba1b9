"""The scalar functions against 50-digit mpmath, in ulps of the dtype they compute in.

All 65,536 float16 and bfloat16 numbers are tried, and a dense sample of float32 and float64. Each
test prints its worst error, shown by `pytest tests/test_functions.py -rA`.
"""

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import jax
import mpmath
import numpy as np
import pytest
import torch

from manual_bp import functions

ULPS = 4  # the most that issue and docstring allow
DIGITS = 50
CANCELLED = 36  # digits that t/x - ln(t/x) - 1 loses where t/x is 1 + 2^-52, and some to spare
TINIER = -100_000  # an exponent far below every dtype's, for exp(-10^300) and the like
DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}
BITS = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}
INTEGERS = {"float16": "i2", "bfloat16": "i2", "float32": "i4", "float64": "i8"}
SIDES = [
    (library, dtype)
    for dtype in DTYPES
    for library in ("numpy", "cpu", "cuda", "jax", "jax.jit")
    if (library, dtype) != ("numpy", "bfloat16")  # NumPy has no bfloat16
]
# JAX compiles an operation alone for every shape, which takes seconds; as one function it is quick.
QUICK_SIDES = [side for side in SIDES if side[0] != "jax"]
ONE_ARGUMENT = ("sigmoid", "sigmoid_derivative", "square", "square_derivative")
TWO_ARGUMENTS = ("itakura_saito", "itakura_saito_derivative")
Numbers = np.ndarray[Any, Any]


# the exact values --------------------------------------------------------------------------------


@cache
def wide(number: float) -> mpmath.mpf:
    return mpmath.mpf(number)


@cache
def logarithm(number: float) -> mpmath.mpf:
    return mpmath.log(number)


def exact_sigmoid(z: float) -> mpmath.mpf:
    return 1 / (1 + mpmath.exp(-z))


def exact_sigmoid_derivative(z: float) -> mpmath.mpf:
    decay = mpmath.exp(-abs(z))
    return decay / (1 + decay) ** 2


def exact_itakura_saito(x: float, t: float) -> mpmath.mpf:
    return wide(t) / wide(x) - (logarithm(t) - logarithm(x)) - 1


def exact_itakura_saito_derivative(x: float, t: float) -> mpmath.mpf:
    return (wide(x) - wide(t)) / wide(x) ** 2


EXACT: dict[str, Callable[..., mpmath.mpf]] = {
    "sigmoid": exact_sigmoid,
    "sigmoid_derivative": exact_sigmoid_derivative,
    "square": lambda z: mpmath.mpf(z) ** 2,
    "square_derivative": lambda z: 2 * mpmath.mpf(z),
    "itakura_saito": exact_itakura_saito,
    "itakura_saito_derivative": exact_itakura_saito_derivative,
}


@cache
def exact(name: str, dtype: str) -> tuple[Numbers, Numbers, Numbers]:
    """The function on all `points`: arrays m, r, e with value = (m + r) 2^e, 1/2 <= |m| <= 1.

    m and r hold 53 bits each, and no exponent overflows or underflows here.
    """
    with mpmath.workdps(DIGITS + CANCELLED):
        columns = [column.tolist() for column in points(name, dtype)]
        parts = [parts_of(EXACT[name](*arguments)) for arguments in zip(*columns, strict=True)]
    mantissa, rest, exponent = np.array(parts).T
    return mantissa, rest, exponent.astype(np.int64)


def parts_of(number: mpmath.mpf) -> tuple[float, float, int]:
    mantissa, exponent = mpmath.frexp(number)
    leading = float(mantissa)
    return leading, float(mantissa - leading), max(exponent, TINIER)


# the points --------------------------------------------------------------------------------------


@cache
def points(name: str, dtype: str) -> tuple[Numbers, ...]:
    """The arguments, as float64 that the dtype holds exactly: (z,), or (x, t) for the loss."""
    half = dtype in ("float16", "bfloat16")
    if name in ONE_ARGUMENT:
        return (every_number(dtype) if half else sample(dtype),)
    return every_pair(dtype) if half else sample_of_pairs(dtype)


def every_number(dtype: str) -> Numbers:
    """All finite ones of the 65,536 numbers, both zeros among them."""
    numbers = of_bits(np.arange(-(2**15), 2**15), dtype)
    return numbers[np.isfinite(numbers)]


def every_pair(dtype: str) -> tuple[Numbers, Numbers]:
    """Every x > 0 with several t, every t > 0 with several x, and each with its neighbour."""
    numbers = every_number(dtype)
    numbers = np.sort(numbers[numbers > 0])
    info = torch.finfo(DTYPES[dtype])
    several = rounded([info.smallest_normal / 3, 1.0, 200.0], dtype)
    pairs = [(numbers, np.full_like(numbers, one)) for one in several]
    pairs += [(t, x) for x, t in pairs]
    pairs += [(numbers[1:], numbers[:-1]), (numbers[:-1], numbers[1:]), (numbers, numbers)]
    return joined(pairs)


def special(dtype: str) -> Numbers:
    """Both zeros, 1, and the dtype's extremes with their neighbours, of either sign."""
    info = torch.finfo(DTYPES[dtype])
    smallest = info.smallest_normal * info.eps
    around = np.array([info.smallest_normal, 0.5, 1, 2])[:, None] * [1 - info.eps, 1, 1 + info.eps]
    sizes = [0, smallest, 2 * smallest, info.eps, *around.ravel(), info.max**0.5, info.max]
    return np.concatenate([rounded(sizes, dtype), rounded(np.negative(sizes), dtype)])


def sample(dtype: str) -> Numbers:
    """Specials, random bit patterns (every exponent, subnormals too), and the sigmoid's range."""
    generator = np.random.default_rng(0)
    tail = 750 if dtype == "float64" else 105  # exp(-tail) is below half the smallest subnormal
    parts = [
        special(dtype),
        random_bits(dtype, 12_000, generator),
        rounded(generator.uniform(-tail, tail, 12_000), dtype),
        rounded(np.arange(-tail, tail + 1.0), dtype),
        rounded(generator.normal(size=6_000), dtype),
    ]
    return np.concatenate(parts)


def sample_of_pairs(dtype: str) -> tuple[Numbers, Numbers]:
    """All pairs of specials, pairs of any size, of one size, near 1, and around the branches."""
    generator = np.random.default_rng(0)
    specials = special(dtype)[special(dtype) > 0]
    of_any_size = [np.abs(random_bits(dtype, 8_000, generator)) for _ in range(2)]
    x = np.abs(random_bits(dtype, 16_000, generator))
    with np.errstate(over="ignore"):
        of_one_size = rounded(x * np.exp(generator.normal(size=len(x))), dtype)
        near = rounded(x * (1 + random_deviation(len(x), dtype, generator)), dtype)
        borders = [rounded(x[:1000] * ratio, dtype) for ratio in (0.25, 1 / 3, 0.5, 2, 3)]
    steps = [np.nextafter(border, end) for border in borders for end in (0, np.inf)]
    pairs = [np.meshgrid(specials, specials), of_any_size, (x, of_one_size), (x, near)]
    pairs += [(x[:1000], rounded(border, dtype)) for border in (*borders, *steps)]
    return joined(pairs)


def random_deviation(count: int, dtype: str, generator: np.random.Generator) -> Numbers:
    """Relative deviations of either sign, from 1/2 to half an ulp, evenly in the exponent."""
    sign = generator.choice([-1, 1], count)
    return sign * 2.0 ** generator.uniform(-BITS[dtype] - 1, -1, count)


def random_bits(dtype: str, count: int, generator: np.random.Generator) -> Numbers:
    """Finite numbers of random bits, not zero."""
    limits = np.iinfo(INTEGERS[dtype])
    numbers = of_bits(generator.integers(limits.min, limits.max, count), dtype)
    return np.where(np.isfinite(numbers) & (numbers != 0), numbers, 1.0)


def of_bits(bits: Numbers, dtype: str) -> Numbers:
    """The numbers of these bit patterns, as float64."""
    integers = torch.as_tensor(bits.astype(INTEGERS[dtype]))
    return integers.view(DTYPES[dtype]).double().numpy()


def rounded(numbers: Iterable[float], dtype: str) -> Numbers:
    """The nearest numbers of the dtype, as float64."""
    return torch.tensor(np.asarray(numbers, float)).to(DTYPES[dtype]).double().numpy()


def joined(pairs: Iterable[Any]) -> tuple[Numbers, Numbers]:
    """One array of x and one of t, pairs that are not positive and finite left out."""
    x, t = (np.concatenate([np.ravel(pair[i]) for pair in pairs]) for i in (0, 1))
    usable = (x > 0) & (t > 0) & np.isfinite(x) & np.isfinite(t)
    return x[usable], t[usable]


def in_domain(library: str, name: str, dtype: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which of the `points` the docstring of `manual_bp.functions` speaks of: see there for JAX."""
    arguments, (mantissa, _, exponent) = points(name, dtype), exact(name, dtype)
    smallest = torch.finfo(DTYPES[dtype]).smallest_normal
    inside = np.ones(len(mantissa), bool)
    if library.startswith("jax") and dtype != "float16":
        numbers = list(arguments)
        if name in TWO_ARGUMENTS:
            x, t = arguments
            with np.errstate(over="ignore"):
                numbers += [t - x, t - 2 * x]
        for number in numbers:
            inside &= (number == 0) | (np.abs(number) >= smallest)
        inside &= (mantissa == 0) | (exponent >= np.frexp(smallest)[1])
    if library == "jax.jit" and name == "itakura_saito_derivative":
        with np.errstate(over="ignore", under="ignore"):
            x_squared = arguments[0] ** 2
        inside &= (x_squared >= smallest) & (x_squared <= torch.finfo(DTYPES[dtype]).max)
    return inside


# the comparison ----------------------------------------------------------------------------------


def computed(library: str, dtype: str, name: str, *arguments: Numbers) -> Numbers:
    """The function's own answer in that library and dtype, as float64."""
    if library == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    function = getattr(functions, name)
    if library == "numpy":
        with np.errstate(all="ignore"):
            result = function(*(argument.astype(dtype) for argument in arguments))
        assert result.dtype == dtype
        return result.astype(np.float64)
    if library.startswith("jax"):
        return computed_by_jax(function, dtype, arguments, compiled=library == "jax.jit")
    tensors = [torch.as_tensor(a).to(DTYPES[dtype]).to(library) for a in arguments]
    result = function(*tensors)
    assert result.dtype == DTYPES[dtype]
    assert result.device == tensors[0].device
    return result.double().cpu().numpy()


def computed_by_jax(
    function: Callable[..., Any], dtype: str, arguments: tuple[Numbers, ...], compiled: bool
) -> Numbers:
    with jax.enable_x64(True):
        given = [jax.numpy.asarray(argument, dtype) for argument in arguments]
        result = (jax.jit(function) if compiled else function)(*given)
        assert result.dtype == dtype
        return np.asarray(result, np.float64)


def errors_in_ulps(result: Numbers, value: tuple[Numbers, Numbers, Numbers], dtype: str) -> Numbers:
    """|result - exact value| in ulps of the exact value.

    An ulp is the distance of the dtype's numbers in the value's binade, and that of subnormal
    numbers below the smallest normal one. Infinity counts as the number that would follow the
    largest, on either side: it is right where the exact value rounds to it.
    """
    info = torch.finfo(DTYPES[dtype])
    beyond = int(np.frexp(info.max)[1]) + 1  # infinity is 1/2 2^beyond
    lowest = int(np.frexp(info.smallest_normal)[1])
    mantissa, rest, exponent = value
    overflow = exponent >= beyond
    mantissa = np.where(overflow, np.copysign(0.5, mantissa), mantissa)
    rest = np.where(overflow, 0.0, rest)
    exponent = np.where(mantissa == 0, lowest, np.where(overflow, beyond, exponent))
    ulp = np.clip(exponent, lowest, beyond - 1) - BITS[dtype]
    mine, mine_exponent = np.frexp(result)
    mine = np.where(np.isinf(result), np.copysign(0.5, result), mine)
    mine_exponent = np.where(np.isinf(result), beyond, mine_exponent)
    with np.errstate(over="ignore"):
        difference = np.ldexp(mine, mine_exponent - ulp) - np.ldexp(mantissa, exponent - ulp)
        return np.abs(difference - np.ldexp(rest, exponent - ulp))


@pytest.mark.parametrize("name", [*ONE_ARGUMENT, *TWO_ARGUMENTS])
@pytest.mark.parametrize(("library", "dtype"), SIDES)
def test_within_4_ulp_of_mpmath(library: str, dtype: str, name: str) -> None:
    arguments = points(name, dtype)
    result = computed(library, dtype, name, *arguments)
    errors = errors_in_ulps(result, exact(name, dtype), dtype)
    errors = np.where(np.isnan(errors), np.inf, errors)
    inside = in_domain(library, name, dtype)
    errors = np.where(inside, errors, 0)
    worst = int(errors.argmax())
    at = ", ".join(repr(float(argument[worst])) for argument in arguments)
    told = f"{name} {library} {dtype}: {errors[worst]:.2f} ulp at ({at}), of {inside.sum()} points"
    print(told)
    assert errors[worst] <= ULPS, told
    assert inside.mean() > 0.4, told  # most of those left out have a subnormal result
    if name == "square_derivative":
        assert errors[worst] == 0, told


# no finite number --------------------------------------------------------------------------------

INF, NAN = float("inf"), float("nan")
LIMITS = {
    "sigmoid": {-INF: 0.0, INF: 1.0},
    "sigmoid_derivative": {-INF: 0.0, INF: 0.0},
    "square": {-INF: INF, INF: INF},
    "square_derivative": {-INF: -INF, INF: INF},
}


@pytest.mark.parametrize("name", ONE_ARGUMENT)
@pytest.mark.parametrize(("library", "dtype"), QUICK_SIDES)
def test_limits_at_infinity_and_nan(library: str, dtype: str, name: str) -> None:
    ends = computed(library, dtype, name, np.array([-INF, INF, NAN]))
    assert ends[:2].tolist() == [LIMITS[name][-INF], LIMITS[name][INF]]
    assert np.isnan(ends[2])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_nan_gives_nan(dtype: str) -> None:
    """Whatever the payload and the sign: 2,046 float16 and 254 bfloat16 numbers."""
    bits = torch.arange(-(2**15), 2**15).to(torch.int16).view(DTYPES[dtype])
    nans = bits[bits.isnan()]
    assert len(nans) == {"float16": 2046, "bfloat16": 254}[dtype]
    for name in ONE_ARGUMENT:
        assert getattr(functions, name)(nans).isnan().all(), name


@pytest.mark.parametrize(("library", "dtype"), QUICK_SIDES)
def test_signed_zeros(library: str, dtype: str) -> None:
    zeros = np.array([0.0, -0.0])
    assert computed(library, dtype, "sigmoid", zeros).tolist() == [0.5, 0.5]
    assert computed(library, dtype, "sigmoid_derivative", zeros).tolist() == [0.25, 0.25]
    assert np.signbit(computed(library, dtype, "square", zeros)).tolist() == [False, False]
    assert np.signbit(computed(library, dtype, "square_derivative", zeros)).tolist() == [
        False,
        True,
    ]


@pytest.mark.parametrize(("library", "dtype"), QUICK_SIDES)
def test_loss_outside_its_domain_is_not_finite(library: str, dtype: str) -> None:
    """x or t zero, negative (not both), infinite or NaN: nothing that could pass for a loss."""
    numbers = [-INF, -3.0, -1.0, -0.0, 0.0, 1.0, 3.0, INF, NAN]
    x, t = (axis.ravel() for axis in np.meshgrid(numbers, numbers))
    finite, both_negative = np.isfinite(x) & np.isfinite(t), (x < 0) & (t < 0)
    outside = ~(finite & (x > 0) & (t > 0)) & ~(finite & both_negative)
    assert outside.sum() == 81 - 8
    loss = computed(library, dtype, "itakura_saito", x[outside], t[outside])
    assert not np.isfinite(loss).any(), (x[outside], t[outside], loss)


@pytest.mark.parametrize("name", TWO_ARGUMENTS)
@pytest.mark.parametrize(("library", "dtype"), QUICK_SIDES)
def test_nan_in_either_argument_gives_nan(library: str, dtype: str, name: str) -> None:
    x, t = np.array([NAN, 1.0, NAN]), np.array([1.0, NAN, NAN])
    assert np.isnan(computed(library, dtype, name, x, t)).all()


# what the formulas are for -----------------------------------------------------------------------


@pytest.mark.parametrize("z", [40.0, 100.0, 700.0, -40.0, -100.0, -700.0])
def test_sigmoid_derivative_keeps_its_digits_in_the_tails(z: float) -> None:
    """There sigmoid(z) (1 - sigmoid(z)) is 0, or has none left."""
    derivative = functions.sigmoid_derivative(np.asarray(z))
    with mpmath.workdps(DIGITS):
        right = exact_sigmoid_derivative(z)
    assert abs(float(derivative / right) - 1) < 1e-15
    if z > 0:
        x = functions.sigmoid(np.asarray(z))
        assert x * (1 - x) == 0


def test_loss_is_0_only_where_x_is_t() -> None:
    """t/x - ln(t/x) - 1 as printed gives 0, or less, for many t next to x."""
    x = np.abs(random_bits("float64", 2_000, np.random.default_rng(1)))
    x = x[(x > 1e-150) & (x < 1e150)]
    assert (functions.itakura_saito(x, x) == 0).all()
    assert (functions.itakura_saito(x, np.nextafter(x, INF)) > 0).all()
    assert (functions.itakura_saito(x, np.nextafter(x, 0)) > 0).all()


# the measure itself ------------------------------------------------------------------------------


def measured(result: float, number: mpmath.mpf, dtype: str) -> float:
    """errors_in_ulps of one number."""
    mantissa, rest, exponent = parts_of(number)
    value = np.array([mantissa]), np.array([rest]), np.array([exponent])
    return float(errors_in_ulps(np.array([result]), value, dtype)[0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_ulps_are_counted_right(dtype: str) -> None:
    info = torch.finfo(DTYPES[dtype])
    smallest = info.smallest_normal * info.eps
    with mpmath.workdps(DIGITS):
        one, subnormal = mpmath.mpf(1), mpmath.mpf(3 * smallest)
        assert measured(1.0, one, dtype) == 0
        assert measured(1 + info.eps, one, dtype) == 1
        assert measured(1.0, one + one * info.eps / 4, dtype) == 0.25
        assert measured(-1.0, one, dtype) == 2 / info.eps
        assert measured(2 * smallest, subnormal, dtype) == 1
        assert measured(0.0, mpmath.mpf(0), dtype) == 0
        assert measured(smallest, mpmath.mpf(0), dtype) == 1
        assert measured(0.0, mpmath.exp(mpmath.mpf(-(10**30))), dtype) == 0
        assert measured(INF, 2 * mpmath.mpf(info.max), dtype) == 0
        assert measured(INF, mpmath.mpf(info.max), dtype) == 1
        assert measured(info.max, 4 * mpmath.mpf(info.max), dtype) == 1
        assert measured(-INF, 4 * mpmath.mpf(info.max), dtype) > ULPS
        assert measured(NAN, one, dtype) != measured(NAN, one, dtype)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_no_number_is_left_out(dtype: str) -> None:
    """65,536 bit patterns: finite ones, two infinities and the NaNs."""
    nans = {"float16": 2046, "bfloat16": 254}[dtype]
    assert len(every_number(dtype)) == 65_536 - 2 - nans
    assert len(np.unique(every_number(dtype))) == 65_536 - 2 - nans - 1  # -0 equals 0
