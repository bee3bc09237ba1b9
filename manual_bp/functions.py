"""The scalar functions of the network, each directly above its derivative.

Every function is elementwise, takes and returns real floating arrays of any library that
array-api-compat knows (NumPy, torch, JAX and array-api-strict; CuPy too, but that is not tested
here), and keeps dtype and device.
Every one stays within 4 ulp of the exact value over its whole domain, in float64, float32,
bfloat16 and float16; `tests/test_functions.py` measures it against mpmath.

JAX on the CPU takes subnormal numbers for 0, but for float16. It keeps to 4 ulp where the
arguments and the result are normal numbers or 0, and for the loss and its derivative t - x and
t - 2 x as well. jax.jit makes one division by x^2 of the two in `itakura_saito_derivative`: there
x^2 has to be a normal number, too, in every dtype.
"""

import math
from typing import Any

from array_api_compat import array_namespace

Array = Any  # an array of any of the libraries above


def sigmoid(z: Array) -> Array:
    """Logistic function 1 / (1 + exp(-z)), shape and dtype of z.

    Written with exp(-|z|), which cannot overflow and keeps the tail's digits down to the
    smallest subnormal. 0 at -inf, 1 at +inf, NaN at NaN.
    """
    xp = array_namespace(z)
    decay = xp.exp(-xp.abs(z))
    return xp.where(z >= 0, 1 / (1 + decay), decay / (1 + decay))


def sigmoid_derivative(z: Array) -> Array:
    """d sigmoid/dz = sigmoid(z) sigmoid(-z) = exp(-|z|) / (1 + exp(-|z|))^2, shape and dtype of z.

    The textbook sigmoid(z) (1 - sigmoid(z)) loses every digit once sigmoid(z) rounds to 1;
    nothing is subtracted here, and (1 + e)^2 = 1 + e (2 + e) rounds least where e is small.
    0 at both infinities, NaN at NaN.
    """
    xp = array_namespace(z)
    decay = xp.exp(-xp.abs(z))
    return decay / (1 + decay * (2 + decay))


def square(z: Array) -> Array:
    """The activation rho(z) = z^2, equation (2); shape and dtype of z."""
    return z * z


def square_derivative(z: Array) -> Array:
    """d rho/dz = 2 z, equation (4); exact unless it overflows; shape and dtype of z."""
    return 2 * z


def itakura_saito(x: Array, t: Array) -> Array:
    """Itakura-Saito divergence t/x - ln(t/x) - 1 of equation (1), broadcast shape of x and t.

    Needs x > 0 and t > 0, both finite; anything else gives NaN or infinity, except that two
    negative numbers can pass for positive ones. The printed form cancels where t is near x, so
    that region has a form in which nothing cancels.
    """
    xp = array_namespace(x, t)
    ratio = t / x
    result = _itakura_saito_far(x, t)
    for low, high, form in ((0.5, 2, _itakura_saito_near), (2, 4, _itakura_saito_double)):
        inside = (ratio >= low) & (ratio < high)
        safe_x, safe_t = (xp.where(inside, value, xp.ones_like(ratio)) for value in (x, t))
        result = xp.where(inside, form(safe_x, safe_t), result)
    return result


def itakura_saito_derivative(x: Array, t: Array) -> Array:
    """dL/dx = (x - t) / x^2, equation (3), broadcast shape of x and t.

    Divided by x twice: x^2 could overflow or underflow where the quotient does not.
    Domain as for `itakura_saito`.
    """
    return (x - t) / x / x


def _itakura_saito_near(x: Array, t: Array) -> Array:
    """The divergence for 1/2 <= t/x < 2, where t - x is exact (Sterbenz's lemma).

    With d = (t - x)/x and s = (t - x)/(t + x), ln(1 + d) = 2 artanh(s) and s (2 + d) = d give
    d - ln(1 + d) = d s - 2 s^3 (1/3 + s^2/5 + s^4/7 + ...), whose last term is a small correction.
    """
    xp = array_namespace(x, t)
    difference = t - x
    large = x > 1  # halved there, so that t + x cannot overflow
    half_difference = xp.where(large, difference / 2, difference)
    total = xp.where(large, t / 2 + x / 2, t + x)
    s = half_difference / total
    s_squared = s * s
    series = xp.zeros_like(s)
    for odd in range(35, 1, -2):  # |s| < 1/3: the terms left out are below 2^-57 of the result
        series = 1 / odd + s_squared * series
    return difference / x * s - 2 * s_squared * s * series


def _itakura_saito_double(x: Array, t: Array) -> Array:
    """The divergence for 2 <= t/x < 4, where t - 2 x is exact (Sterbenz's lemma).

    The rounding of t/x itself would cost up to 3 ulp there. With t/x = 2 (1 + d) the divergence
    is (1 - ln 2) + (2 d - ln(1 + d)).
    """
    xp = array_namespace(x, t)
    d = (t - 2 * x) / x / 2
    return (1 - math.log(2)) + (2 * d - xp.log1p(d))


def _itakura_saito_far(x: Array, t: Array) -> Array:
    """The divergence away from t/x = 1, where the printed form does not cancel.

    Below r = t/x = 1/2 it is (r - (1 - ln 2)) - ln(2 r): the subtraction is then exact and the
    logarithm small. A subnormal r has lost digits: there ln(2 r) is taken as ln(2 t) - ln(x).
    """
    xp = array_namespace(x, t)
    ratio = t / x
    subnormal = ratio < xp.finfo(ratio.dtype).smallest_normal
    low = ratio < 0.5
    argument = xp.where(low, 2 * ratio, ratio)
    log_argument = xp.where(
        subnormal,
        xp.log(2 * xp.where(subnormal, t, xp.ones_like(ratio))) - xp.log(x),
        xp.log(xp.where(subnormal | xp.isinf(ratio), xp.ones_like(ratio), argument)),
    )
    shift = xp.where(low, ratio - (1 - math.log(2)), ratio - 1)
    return shift - log_argument
