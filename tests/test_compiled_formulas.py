"""What the compiled judge is made of: torch's operations as formulas, as short as may be."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from torch_ref.compare.compiled import tracing
from torch_ref.compare.compiled.algebra import _OF_NUMBERS, Algebra, CannotCompileError
from torch_ref.compare.compiled.tracing import Tracing
from torch_ref.native.stages import soonest
from torch_ref.native.symbols import Symbol, in_order

SPECIAL = (0.0, -0.0, 1.0, -1.0, 0.5, 3.0, 1e-320, 1e308, -1e308, math.inf, -math.inf, math.nan)


def value_of(output: Any, arguments: dict[str, Any]) -> Any:
    """What formulas come to for these arguments, by NumPy."""
    known: dict[Any, Any] = {}
    with np.errstate(all="ignore"):
        for symbol in in_order([output]):
            if symbol.operation == "argument":
                known[symbol] = np.asarray(arguments[symbol.operands[0]])
            else:
                operands = (known.get(operand, operand) for operand in symbol.operands)
                known[symbol] = _OF_NUMBERS[symbol.operation](*operands)
    return known.get(output, output)


# what torch's operations are taken down as --------------------------------------------------------

BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda a, b: torch.add(a, b, alpha=0.25),
    "sub": lambda a, b: torch.sub(a, b, alpha=0.5),
    "rsub": lambda a, b: torch.rsub(a, b),
    "number minus": lambda a, b: 2 - a,
    "mul": torch.mul,
    "div": torch.div,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "relu": lambda a, b: a.relu() + b,
    "powers": lambda a, b: a**2 + b**3 + a.square() + b**0,
    "roots": lambda a, b: a.abs() ** 0.5 + b**-1,
    "reciprocal powers": lambda a, b: a**-2 + b.abs().rsqrt(),
    "copysign": torch.copysign,
    "where": lambda a, b: torch.where(a > b, a, b),
    "and": lambda a, b: ((a > 0) & (b < 1)).double(),
    "or": lambda a, b: ((a > 0) | ~(b < 1)).double(),
    "times": lambda a, b: ((a > 0) * (b < 1)).double(),
    "finite": lambda a, b: a.isfinite().double() - b.isfinite().double(),
    "infinite": lambda a, b: a.isinf().double() + 2 * b.isnan().double(),
    "equal": lambda a, b: (a == b).double() + 2 * (a != b).double(),
    "order": lambda a, b: (a <= b).double() + 2 * (a >= b).double(),
    "abs": lambda a, b: a.abs() + b.neg().abs(),
    "clamp": lambda a, b: a.clamp(-1, 1) + b.clamp(min=0.5),
    "nan_to_num": lambda a, b: a.nan_to_num(nan=7.0) + b.nan_to_num(nan=1.0, posinf=2.0),
    "reciprocal": lambda a, b: a.reciprocal() * b,
    "sqrt": lambda a, b: a.sqrt() + b.abs().sqrt(),
    "moved": lambda a, b: torch.stack((a, b), 1)[:, 1:].squeeze(1),
    "joined": lambda a, b: torch.cat((a[:, None], b.unsqueeze(1)), 1).t().permute(1, 0)[:, 0],
    "summed": lambda a, b: torch.stack((a, b, a)).sum(0),
    "mean": lambda a, b: torch.stack((a, b, a), 1).mean(1) + torch.stack((a, b)).mean(0),
    "largest": lambda a, b: torch.stack((a, b, a), 1).amax(1),
    "any": lambda a, b: torch.stack((a > 0, b > 0)).any(0).double(),
    "expanded": lambda a, b: (a[:, None].expand(-1, 3) * b[:, None]).select(1, 2).view(-1),
}
ROOTS = {"roots", "reciprocal powers", "sqrt"}
CLOSE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "exp": lambda a, b: (a / 10).clamp(max=700).exp() + 0 * b,
    "log": lambda a, b: a.abs().log() + 0 * b,
    "log1p": lambda a, b: a.abs().log1p() + 0 * b,
    "log10": lambda a, b: b.abs().log10(),
    "sigmoid": lambda a, b: a.sigmoid() * b,
}


def taken_down(function: Callable[[Tensor, Tensor], Tensor]) -> Any:
    """The formula for one case."""
    trace = Tracing()
    a, b = (torch.rand(tracing.CASES, dtype=torch.float64) + 0.5 for _ in range(2))
    trace.argument(a, [["a"], ["other_a"]])
    trace.argument(b, [["b"], ["other_b"]])
    with trace:
        result = function(a, b)
    return trace.symbols(result)[0]


@pytest.mark.parametrize("name", list(BINARY))
def test_operations_are_what_torch_computes(name: str) -> None:
    pairs = torch.tensor([(a, b) for a in SPECIAL for b in SPECIAL], dtype=torch.float64)
    a, b = pairs.unbind(1)
    expected = BINARY[name](a, b).numpy()
    found = np.broadcast_to(
        value_of(taken_down(BINARY[name]), {"a": a.numpy(), "b": b.numpy()}), expected.shape
    )
    rtol = 1e-15 if name in ROOTS else 0  # torch rounds roots otherwise on some processors
    np.testing.assert_allclose(found, expected, rtol=rtol)


@pytest.mark.parametrize("name", list(CLOSE))
def test_functions_are_what_torch_computes(name: str) -> None:
    a, b = torch.linspace(-50, 50, 1001, dtype=torch.float64), torch.full((1001,), 3.0).double()
    expected = CLOSE[name](a, b).numpy()
    found = value_of(taken_down(CLOSE[name]), {"a": a.numpy(), "b": b.numpy()})
    np.testing.assert_allclose(found, expected, rtol=1e-15 * 8)


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda a, b: a if bool((a > b).any()) else b, "it looks at its numbers"),
        (lambda a, b: a.float().double(), "it computes in torch.float32"),
        (lambda a, b: torch.lgamma(a), "it uses aten.lgamma"),
        (lambda a, b: a.clone().mul_(b), "it uses aten.mul_"),
        (lambda a, b: a**0.3, "in a way that is not known"),
        (lambda a, b: torch.div(a, b, rounding_mode="floor"), "in a way that is not known"),
        (lambda a, b: torch.stack((a, b)).max(0)[0], "it uses aten.max"),
    ],
)
def test_what_is_no_formula_is_said(function: Any, why: str) -> None:
    with pytest.raises(CannotCompileError, match=why):
        taken_down(function)


def test_a_sign_taken_from_what_may_be_no_number_makes_no_size() -> None:
    """0 times infinity is NaN with the sign bit set, on x86."""
    algebra = Algebra()
    a, b = (algebra.apply("abs", algebra.symbol("argument", name)) for name in "ab")
    signed = algebra.apply("copysign", 0.0, algebra.apply("multiply", a, b))
    assert not algebra.is_size(signed)
    assert algebra.apply("abs", signed) is not signed
    assert algebra.is_size(algebra.apply("copysign", 0.0, a))


NUMBERS = st.one_of(st.sampled_from(SPECIAL), st.floats(-10, 10))
TWO = ("add", "subtract", "multiply", "divide", "copysign")
COMPARED = ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal")


@st.composite
def numbers(draw: Any, algebra: Algebra, depth: int = 4) -> tuple[Any, Any]:
    """A formula as the algebra writes it, and as it was asked for."""
    if not depth or draw(st.booleans()):
        name = draw(st.sampled_from(("a", "b", "")))
        number = algebra.symbol("argument", name) if name else draw(NUMBERS)
        return number, number
    kind = draw(st.sampled_from(("abs", "negative", "where", *TWO)))
    plain = Algebra.symbol
    if kind == "where":
        condition, asked = draw(conditions(algebra, depth - 1))
        (yes, yes_asked), (no, no_asked) = (draw(numbers(algebra, depth - 1)) for _ in range(2))
        written = algebra.apply("where", condition, yes, no)
        return written, plain(algebra, "where", asked, yes_asked, no_asked)
    count = 1 if kind in ("abs", "negative") else 2
    parts = [draw(numbers(algebra, depth - 1)) for _ in range(count)]
    written = algebra.apply(kind, *(part[0] for part in parts))
    return written, plain(algebra, kind, *(part[1] for part in parts))


@st.composite
def conditions(draw: Any, algebra: Algebra, depth: int) -> tuple[Any, Any]:
    plain = Algebra.symbol
    kind = draw(st.sampled_from((*COMPARED, "logical_and", "logical_or", "logical_not")))
    if kind in COMPARED or not depth:
        kind = kind if kind in COMPARED else "less"
        parts = [draw(numbers(algebra, max(depth - 1, 0))) for _ in range(2)]
    else:
        count = 1 if kind == "logical_not" else 2
        parts = [draw(conditions(algebra, depth - 1)) for _ in range(count)]
    written = algebra.apply(kind, *(part[0] for part in parts))
    return written, plain(algebra, kind, *(part[1] for part in parts))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_the_algebra_changes_no_number(data: st.DataObject) -> None:
    algebra = Algebra()
    written, asked = data.draw(numbers(algebra))
    grid = np.array([(a, b) for a in SPECIAL for b in SPECIAL])
    arguments = {"a": grid[:, 0], "b": grid[:, 1]}
    found, expected = (
        np.broadcast_to(value_of(one, arguments), len(grid)) for one in (written, asked)
    )
    np.testing.assert_array_equal(found, expected)
    if isinstance(written, Symbol) and algebra.is_size(written):
        assert not np.signbit(found[~np.isnan(found)]).any()


def test_what_is_asked_for_besides_comes_as_soon_as_it_can() -> None:
    """Two chains; what is made of the first one's end need not wait for the second's."""
    algebra = Algebra()
    ends = []
    for name in ("a", "b"):
        value = algebra.symbol("argument", name)
        for _ in range(3):
            value = algebra.apply("exp", value)
        ends.append(value)
    last, early = (algebra.apply("multiply", end, end) for end in reversed(ends))
    order = soonest(ends, [last, early])
    assert sorted(map(id, order)) == sorted(map(id, (*ends, early, last)))
    assert order.index(early) < order.index(ends[1]) < order.index(last)


@pytest.mark.parametrize("number", [0.0, -3.5, math.inf, -math.inf, math.nan])
def test_isfinite_is_one_comparison(number: float) -> None:
    algebra = Algebra()
    x = algebra.symbol("argument", "x")
    size = algebra.apply("abs", x)
    found = algebra.apply(
        "logical_and", algebra.apply("equal", x, x), algebra.apply("not_equal", size, math.inf)
    )
    assert (found.operation, found.operands) == ("less", (size, math.inf))
    assert value_of(found, {"x": number}) == math.isfinite(number)
