"""The elementwise functions of `manual_bp` on every float32 number, against float64:

    python bench/exhaustive.py LEDGER [--stride N] [--library torch|numpy] [--device cpu|cuda]

All 2^32 bit patterns, or every N-th (an odd N, so that the last bits vary). Each finished chunk is
one line of the file LEDGER, synced; started again, the run goes on after the last one. Writes
bench/results/exhaustive.json: by function the worst error in ulps and where, how many numbers were
in its domain, and of the others how many did not give NaN (of the loss: NaN or infinity).

The loss is taken as a function of t with x = 1. The float64 side is other formulas than the ones
under test, right to better than 10^-6 of a float32 ulp; infinity counts as 2^128, as in IEEE 754.
"""

import argparse
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from manual_bp import functions
from torch_ref.report.files import write_whole
from torch_ref.sweep.lines import Appender, parsed, whole_lines

PATTERNS, CHUNK = 2**32, 2**20
RESULT = Path(__file__).parent / "results" / "exhaustive.json"
NO_NUMBER = 1e300
NEAR = 2.0**-6  # |t - 1| below which a series keeps the digits that t - 1 - ln(t) loses


# the float64 side --------------------------------------------------------------------------------


def sigmoid(z: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-z))


def divergence(t: Tensor) -> Tensor:
    """t - 1 - ln(t); with d = t - 1 near 0 it is d^2/2 - d^3/3 + d^4/4 - ..., to d^11."""
    d = t - 1
    series = torch.zeros_like(d)
    for k in range(11, 1, -1):
        series = (-1) ** k / k + d * series
    return torch.where(d.abs() < NEAR, d * d * series, d - torch.log(t))


@dataclass(frozen=True)
class Function:
    """hand: as `manual_bp` has it, of one argument; exact: the same in float64; domain: where."""

    hand: Callable[[Any], Any]
    exact: Callable[[Tensor], Tensor]
    domain: Callable[[Tensor], Tensor]


def _number(z: Tensor) -> Tensor:
    return ~z.isnan()


def _positive(t: Tensor) -> Tensor:
    return (t > 0) & t.isfinite()


FUNCTIONS = {
    "sigmoid": Function(functions.sigmoid, sigmoid, _number),
    "sigmoid_derivative": Function(
        functions.sigmoid_derivative, lambda z: sigmoid(z) * sigmoid(-z), _number
    ),
    "square": Function(functions.square, lambda z: z * z, _number),
    "square_derivative": Function(functions.square_derivative, lambda z: 2 * z, _number),
    "itakura_saito": Function(
        lambda t: functions.itakura_saito(t * 0 + 1, t), divergence, _positive
    ),
}


# what a chunk shows ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Worst:
    """Of some numbers: the worst error and the bits of the first number that has it, how many are
    in the domain, how many are not, and how many of these gave an answer all the same."""

    ulps: float = -1.0
    bits: int = 0
    inside: int = 0
    outside: int = 0
    answered: int = 0

    def __add__(self, other: "Worst") -> "Worst":
        worse = other if other.ulps > self.ulps else self
        return Worst(
            worse.ulps,
            worse.bits,
            self.inside + other.inside,
            self.outside + other.outside,
            self.answered + other.answered,
        )


def numbers(start: int, count: int, stride: int, device: str) -> tuple[Tensor, Tensor]:
    """Bit patterns stride * (start + i), as int64, and the float32 numbers of shape (count,)."""
    bits = (start + torch.arange(count, device=device)) * stride % PATTERNS
    signed = torch.where(bits < PATTERNS // 2, bits, bits - PATTERNS)
    return bits, signed.int().view(torch.float32)


def errors_in_ulps(answer: Tensor, exact: Tensor) -> Tensor:
    """|answer - exact| in ulps of the exact value; answer float32, exact float64, one shape.

    An ulp is the distance of float32 numbers in the value's binade, that of subnormal numbers below
    the smallest normal one. NaN counts as NO_NUMBER of them.
    """
    beyond = 2.0**128
    exact = exact.clamp(-beyond, beyond)
    exponent = torch.frexp(exact).exponent.clamp(-125, 128) - 24
    difference = (answer.double().clamp(-beyond, beyond) - exact).abs()
    return torch.ldexp(difference, -exponent).nan_to_num(nan=NO_NUMBER)


def shown_by(function: Function, bits: Tensor, values: Tensor, library: str) -> Worst:
    answer = _answer(function.hand, values, library)
    inside = function.domain(values)
    errors = errors_in_ulps(answer, function.exact(values.double()))
    worst, place = torch.where(inside, errors, -1.0).max(0)
    refused = answer.isnan() | (answer.isinf() if function.domain is _positive else False)
    return Worst(
        float(worst),
        int(bits[place]),
        int(inside.sum()),
        int((~inside).sum()),
        int((~inside & ~refused).sum()),
    )


def _answer(hand: Callable[[Any], Any], values: Tensor, library: str) -> Tensor:
    if library == "torch":
        return torch.as_tensor(hand(values))
    with np.errstate(all="ignore"):
        return torch.as_tensor(hand(values.cpu().numpy())).to(values.device)


# the run -----------------------------------------------------------------------------------------


def sweep(
    ledger: Path, stride: int, library: str, device: str, *, total: int | None = None
) -> dict[str, Any]:
    """What all `total` numbers show (by default, as many as the stride leaves), from the ledger
    and from the work that it lacks. Raises ValueError where it is another run's."""
    total = total if total is not None else PATTERNS // stride
    run = {"stride": stride, "library": library, "device": device, "torch": torch.__version__}
    run["source"] = hashlib.sha256(Path(functions.__file__).read_bytes()).hexdigest()
    places = whole_lines(ledger) if ledger.exists() else ()
    known = [parsed(ledger, at, line) for at, line in places]
    if known and known[0] != run:
        raise ValueError(f"{ledger} is of another run: {known[0]}; this one is {run}.")
    lines = Appender(ledger)
    if not known:
        lines.append(run)
    found = {int(line["chunk"]): line for line in known[1:]}
    for chunk in range(-(-total // CHUNK)):
        if chunk not in found:
            found[chunk] = _chunk(chunk, total, stride, library, device)
            lines.append(found[chunk])
    lines.close()
    worst = dict.fromkeys(FUNCTIONS, Worst())
    for chunk in sorted(found):
        worst = {n: one + Worst(**found[chunk]["worst"][n]) for n, one in worst.items()}
    seconds = sum(line["seconds"] for line in found.values())
    return {**run, "numbers": total, "seconds": seconds, "functions": worst}


def _chunk(chunk: int, total: int, stride: int, library: str, device: str) -> dict[str, Any]:
    start = time.perf_counter()
    first = chunk * CHUNK
    bits, values = numbers(first, min(CHUNK, total - first), stride, device)
    worst = {n: asdict(shown_by(f, bits, values, library)) for n, f in FUNCTIONS.items()}
    return {"chunk": chunk, "seconds": time.perf_counter() - start, "worst": worst}


def told(found: dict[str, Any]) -> list[str]:
    """A sentence a function."""
    lines = []
    for name, worst in found["functions"].items():
        (at,) = np.array([worst.bits], np.uint32).view(np.float32)
        lines.append(
            f"{name}: {worst.ulps:.4f} ulp at {at!r} (bits {worst.bits:#010x}), of "
            f"{worst.inside:,} numbers; {worst.answered} of {worst.outside:,} outside its domain "
            "got an answer"
        )
    each = found["seconds"] / found["numbers"]
    lines.append(
        f"{found['numbers']:,} numbers in {found['seconds']:.0f} s with {found['threads']} "
        f"thread(s); all {PATTERNS:,} take {each * PATTERNS / 60:.0f} minutes"
    )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="manual_bp on every float32 number")
    parser.add_argument("ledger", type=Path, help="file that keeps what is finished")
    parser.add_argument("--stride", type=int, default=1, help="1 (default): all; else an odd one")
    parser.add_argument("--library", choices=("torch", "numpy"), default="torch")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    if options.stride < 1 or options.stride % 2 == 0:
        parser.error(f"--stride must be odd and positive; got {options.stride}.")
    try:
        found = sweep(options.ledger, options.stride, options.library, options.device)
    except ValueError as error:
        parser.error(str(error))
    found["threads"] = torch.get_num_threads()
    found["vectors"] = torch.backends.cpu.get_cpu_capability()
    print("\n".join(told(found)))
    found["functions"] = {name: asdict(one) for name, one in found["functions"].items()}
    write_whole(RESULT, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
