"""The functions of a named quantity that turn up as factors, right or wrong, in a backward pass."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_ref.compare.explain.arithmetic import SMALLEST_NORMAL, applied, exact, over, times
from torch_ref.compare.verdict import Side


@dataclass(frozen=True)
class Function:
    """A function of one quantity: how it is written ({} is the name), and what it gives.

    weight: how far-fetched it is, 0 for the quantity itself. divides: written after a stroke.
    """

    text: str
    of: Callable[[Side], Side]
    weight: int
    divides: bool = False


def _one(side: Side) -> Side:
    return exact(torch.ones_like(side.value))


def _square(side: Side) -> Side:
    return times(side, side)


def _logistic_derivative(z: Tensor) -> Tensor:
    decay = torch.exp(-z.abs())
    return decay / (1 + decay) ** 2


def _silu_derivative(z: Tensor) -> Tensor:
    return torch.sigmoid(z) + z * _logistic_derivative(z)


def _normal_density(z: Tensor) -> Tensor:
    return torch.exp(-z * z / 2) * 0.3989422804014327  # 1/sqrt(2 pi)


def _gelu_derivative(z: Tensor) -> Tensor:
    distribution: Tensor = torch.special.ndtr(z)
    return distribution + z * _normal_density(z)


def _size_of_terms(z: Tensor) -> Tensor:
    return 1 + z.abs()


def _smooth(
    function: Callable[[Tensor], Tensor], terms: Callable[[Tensor], Tensor] = torch.zeros_like
) -> Callable[[Side], Side]:
    return lambda side: applied(function, side, terms)


def _step(side: Side) -> Side:
    """1 where positive, else 0; no number where rounding leaves the sign open."""
    value = (side.value > 0).to(side.value.dtype)
    open_ = (side.value.abs() <= side.bound) & (side.bound > SMALLEST_NORMAL)
    return Side(torch.where(open_, torch.nan, value), torch.zeros_like(value))


def _sign(side: Side) -> Side:
    step = _step(side)
    value = torch.where(side.value == 0, 0.0, 2 * step.value - 1)
    return Side(value, step.bound)


def _mask(side: Side) -> Side:
    return exact(side.value.double())


def _outside(side: Side) -> Side:
    return exact(1 - side.value.double())


MASKS = (Function("{}", _mask, 0), Function("(not {})", _outside, 1))

ITSELF = Function("{}", lambda side: side, 0)

FUNCTIONS = (
    ITSELF,
    Function("{}^2", _square, 1),
    Function("sqrt({})", _smooth(torch.sqrt), 1),
    Function("{}^3", lambda side: times(side, _square(side)), 1),
    Function("{}", lambda side: over(_one(side), side), 1, divides=True),
    Function("{}^2", lambda side: over(_one(side), _square(side)), 1, divides=True),
    Function("sqrt({})", _smooth(torch.rsqrt), 1, divides=True),
    Function("sigma'({})", _smooth(_logistic_derivative), 2),
    Function("tanh'({})", _smooth(lambda z: 4 * _logistic_derivative(2 * z)), 2),
    Function("(1 - {})", _smooth(lambda v: 1 - v), 2),
    Function("{0} * (1 - {0})", _smooth(lambda v: v * (1 - v)), 2),
    Function("(1 - {}^2)", _smooth(lambda v: (1 - v) * (1 + v)), 2),
    Function("sigma({})", _smooth(torch.sigmoid), 2),
    Function("(1 - sigma({}))", _smooth(lambda z: torch.sigmoid(-z)), 3),
    Function("tanh({})", _smooth(torch.tanh), 2),
    Function("cos({})", _smooth(torch.cos), 2),
    Function("sin({})", _smooth(torch.sin), 2),
    Function("exp({})", _smooth(torch.exp), 2),
    Function("exp(-{})", _smooth(lambda v: torch.exp(-v)), 2),
    Function("[{} > 0]", _step, 2),
    Function("sign({})", _sign, 2),
    Function("|{}|", lambda side: Side(side.value.abs(), side.bound), 2),
    Function("log({})", _smooth(torch.log), 2),
    Function("(1 + {})", _smooth(lambda v: 1 + v), 3),
    Function("{0} * (1 + {0})", _smooth(lambda v: v * (1 + v)), 3),
    Function("(1 + {}^2)", _smooth(lambda v: 1 + v * v), 3),
    Function("(1 + {}^2)", _smooth(lambda v: 1 / (1 + v * v)), 3, divides=True),
    Function("silu'({})", _smooth(_silu_derivative, _size_of_terms), 3),
    Function("{0} * sigma({0})", _smooth(lambda z: z * torch.sigmoid(z)), 3),
    Function("Phi({})", _smooth(torch.special.ndtr), 3),
    Function("gelu'({})", _smooth(_gelu_derivative, _size_of_terms), 3),
)

# of the difference of two values
PAIR_FUNCTIONS = (
    ITSELF,
    Function("sigma{}", _smooth(torch.sigmoid), 2),
    Function("exp{}", _smooth(torch.exp), 2),
    Function("[{} > 0]", _step, 2),
)
