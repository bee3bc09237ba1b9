"""exp, log and log1p in C that any compiler turns into vector instructions, and nothing else does.

They are polynomials after an exact reduction of the argument: no tables, no branches, no calls, and
every step stays valid under the strict rules of IEEE 754. Each is within 2 ulp, with the library's
own results at infinities, NaN and zeros; `tests/test_fused.py` measures them. Reductions and the
correction of log1p as in FDLIBM (Sun Microsystems, 1993); polynomials by economising Taylor's
(Lanczos, J. Math. Phys. 17, 1938).
"""

import math
from dataclasses import dataclass
from decimal import Decimal, localcontext
from math import factorial

from numpy.polynomial import Chebyshev, Polynomial


@dataclass(frozen=True)
class Format:
    """A floating type of C: what the functions below need to know of it."""

    name: str
    word: str
    suffix: str  # of a literal and of the library's functions
    bits: int  # of the fraction
    bias: int  # of the exponent
    exp_terms: int  # of (e^r - 1 - r)/r^2, so that e^r is off by a fifth of a unit roundoff
    log_terms: int  # of 2 (artanh(s)/s - 1)/s^2, so that artanh(s) is off by less
    lowest: int  # exp is 0 below
    highest: int  # exp is infinite above

    def number(self, value: float) -> str:
        """A literal of this type."""
        if not math.isfinite(value):
            return "NAN" if math.isnan(value) else "INFINITY" if value > 0 else "(-INFINITY)"
        return f"{float(value)!r}{self.suffix}"


FORMATS = {
    "float32": Format("float", "uint32_t", "f", 23, 127, 5, 3, -104, 89),
    "float64": Format("double", "uint64_t", "", 52, 1023, 10, 7, -746, 710),
}


def _ln2(kind: Format) -> tuple[float, float]:
    """ln 2 as a sum: a head so short that k times it is exact, and the rest."""
    with localcontext() as context:
        context.prec = 60
        whole = Decimal(2).ln()
        scale = 2 ** (15 if kind.bits == 23 else 41)
        head = int(whole * scale) / scale
        return head, float(whole - Decimal(head))


# A few terms more than any dtype needs, and where the argument then lies: |r| <= ln(2)/2, and
# s^2 = ((m - 1)/(m + 1))^2 for sqrt(1/2) <= m < sqrt(2).
EXP_SERIES, EXP_REACH = [1 / factorial(n) for n in range(2, 20)], (-0.3466, 0.3466)
LOG_SERIES, LOG_REACH = [2 / (2 * n + 1) for n in range(1, 16)], (0.0, 0.02945)


def economised(series: list[float], reach: tuple[float, float], terms: int) -> list[float]:
    """The coefficients, lowest first, of a polynomial of so many terms that is within `reach` about
    as near to the series as can be: its Chebyshev expansion there, cut off.
    """
    there = Polynomial(series).convert(domain=reach, kind=Chebyshev)
    cut = there.truncate(terms).convert(domain=Polynomial.domain, kind=Polynomial)
    return [float(coefficient) for coefficient in cut.coef]


def _polynomial(coefficients: list[float], variable: str, kind: Format) -> str:
    """Horner's scheme, lowest coefficient first."""
    text = kind.number(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        text = f"({kind.number(coefficient)} + {variable} * {text})"
    return text


def functions(dtype: str) -> str:
    """The C source of the functions for "float32" or "float64"; T is the type there."""
    kind = FORMATS[dtype]
    head, rest = map(kind.number, _ln2(kind))
    exp_series = economised(EXP_SERIES, EXP_REACH, kind.exp_terms)
    log_series = economised(LOG_SERIES, LOG_REACH, kind.log_terms)
    one = kind.bias << kind.bits
    low_half = {"float32": 0x3F3504F3, "float64": 0x3FE6A09E667F3BCD}[dtype]  # sqrt(1/2)
    whole, offset = f"2^{kind.bits}", kind.number(2**kind.bits + kind.bias)
    half_range = (kind.bias + 1) // 2
    return f"""
#define SUBNORMAL {2.0 ** (1 - kind.bias)!r}{kind.suffix}
typedef {kind.word} word;
static inline word bits_of(T x) {{ word bits; memcpy(&bits, &x, sizeof bits); return bits; }}
static inline T of_bits(word bits) {{ T x; memcpy(&x, &bits, sizeof x); return x; }}
static inline T absolute(T x) {{ return fabs{kind.suffix}(x); }}
static inline T square_root(T x) {{ return sqrt{kind.suffix}(x); }}
static inline T with_sign_of(T size, T x) {{ return copysign{kind.suffix}(size, x); }}
static inline int infinite(T x) {{ return absolute(x) == INFINITY; }}

/* e^x = 2^k e^r with |r| <= ln(2)/2; 2^k in two factors, as it may be no normal number. Where e^x
   vanishes nothing is multiplied until it does: underflow takes some processors long. */
static inline T power(T x, T half, T outer) {{
  const T to_whole = {kind.number(1.5 * 2**kind.bits)};  /* adding it rounds to a whole number */
  const T shifted = x * {kind.number(1.4426950408889634)} + to_whole;
  const T k = shifted - to_whole;
  const T r = (x - k * {head}) - k * {rest};
  const T series = 1 + (r + r * r * {_polynomial(exp_series, "r", kind)});
  return series * of_bits((bits_of(shifted - half) << {kind.bits}) + (word){one}) * outer;
}}
static inline T exponential_of_negative(T x) {{  /* x <= 0, or NaN */
  const int vanishes = x < {kind.lowest};
  const T result = power(vanishes ? 0 : x, -{half_range}, {kind.number(2.0**-half_range)});
  return vanishes ? 0 : result;
}}
static inline T exponential(T x) {{
  const int vanishes = x < {kind.lowest};
  x = vanishes ? 0 : x > {kind.highest} ? {kind.highest} : x;
  const T half = x < 0 ? -{half_range} : {half_range};
  const T outer = x < 0 ? {kind.number(2.0**-half_range)} : {kind.number(2.0**half_range)};
  const T result = power(x, half, outer);
  return vanishes ? 0 : result;
}}

/* k ln 2 + ln(1 + f) + correction, for sqrt(1/2) <= 1 + f < sqrt(2): 2 artanh(f / (2 + f)). */
static inline T logarithm_of_parts(T k, T f, T correction) {{
  const T s = f / (2 + f), z = s * s, half = {kind.number(0.5)} * f * f;
  const T rest = z * {_polynomial(log_series, "z", kind)};
  const T low = s * (half + rest) + (k * {rest} + correction);
  return k * {head} + (f - (half - low));
}}

static inline T exponent(T x) {{
  const word bits = bits_of(x) + (word){one - low_half};
  /* It becomes the last bits of {whole}: few machines turn 64-bit integers into floats at once. */
  return of_bits((bits >> {kind.bits}) + (word){(kind.bias + kind.bits) << kind.bits}) - {offset};
}}
static inline T fraction(T x) {{
  const word bits = bits_of(x) + (word){one - low_half};
  return of_bits((bits & (word){(1 << kind.bits) - 1}) + (word){low_half}) - 1;
}}

/* ln(1 + d) or ln(x): two selected between cost little more than one, computed apart far more.
   What rounding 1 + d lost comes back as a correction. y is 1 + d or x, times a power of two so
   that it is a normal number, and k the exponent of what it was. */
static inline T either_of_parts(int one_plus, T d, T y, T k) {{
  const T sum = 1 + d;
  const T lost = (d > 1 ? 1 - (sum - d) : d - (sum - 1)) / sum;
  const T f = one_plus & (k == 0) ? d : fraction(y);
  return logarithm_of_parts(k, f, one_plus & (k != 0) ? lost : 0);
}}
static inline T either_logarithm_of_normal(int one_plus, T d, T x) {{
  const T y = one_plus ? 1 + d : x;
  return either_of_parts(one_plus, d, y, exponent(y));
}}
static inline T either_logarithm(int one_plus, T d, T x) {{
  const T given = one_plus ? 1 + d : x;
  const int small = given < SUBNORMAL;
  const T y = small ? given * {kind.number(2.0 ** (kind.bits + 2))} : given;
  const T k = exponent(y) - (small ? {kind.bits + 2} : 0);
  const T result = either_of_parts(one_plus, d, y, k);
  return given > 0 ? (given < INFINITY ? result : INFINITY) : (given == 0 ? -INFINITY : NAN);
}}
static inline T natural_logarithm(T x) {{ return either_logarithm(0, 0, x); }}
static inline T logarithm_of_one_plus(T d) {{ return either_logarithm(1, d, 1); }}
"""
