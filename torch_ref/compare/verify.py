"""verify: one call from a twin to a report."""

from collections.abc import Callable
from typing import Any

import torch

from torch_ref.compare.judge import Judge
from torch_ref.compare.report import Report
from torch_ref.compare.twin import Twin
from torch_ref.devices import missing_device

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def verify(
    twin: Twin,
    *,
    cases: int | None = None,
    dtype: torch.dtype | str = torch.float64,
    device: torch.device | str = "cpu",
    seed: int = 0,
    explain: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Judge the twin's manual backward pass against its reference on random cases.

    The manual side runs in `dtype` on `device`; the reference runs in float64 on the same numbers.
    Each quantity *agrees* (every difference is within what rounding can do to both sides),
    *differs* (some is not: that is a mistake) or is *undecided* (rounding, or an operation without
    a rounding rule, leaves nothing to judge). What comes back says so, and more:

        report = verify(twin, dtype=torch.float32)
        report.verdict      # "agree", "differ" or "undecided"
        report.rows         # one a quantity, in backward order: verdict, worst case, digits
        report.first_wrong  # where the mistake enters, and report.explanation what it looks like
        report.assert_agreement()  # in a test: raises AssertionError, saying all that

    cases: 100,000 for a batched twin and 100 for a one-case twin where none is given.
    dtype: torch.float64, torch.float32, torch.bfloat16 or torch.float16, or its name.
    device: "cpu", "cuda" or "cuda:1"; cases are drawn on the CPU and are the same on all.
    seed: of the cases, 0 to 2^64 - 1; case `index` is the same whatever else is drawn, and
        `gradtwin replay SEED:INDEX` shows it.
    explain: whether a report that differs says where mistakes enter, what they look like and whose
        they are, which takes a second or two, and whether it holds the graph of the quantities.
    progress: called with the number of cases done so far.

    The bounds: running error analysis (Wilkinson 1963; Higham 2002, 3.3), see
    `torch_ref.compare.rounding`; the verdict: `torch_ref.compare.verdict`.
    Raises ValueError for bad arguments, and TwinError (a ValueError) for a twin that cannot be
    judged: inputs or a loss of the wrong kind, a part that raises, a reference that is not
    deterministic, or out of memory.
    """
    check_arguments(twin, cases, seed)
    judging = Judge(twin, as_dtype(dtype), as_device(device), int(seed))
    return judging.run(None if cases is None else int(cases), explain=explain, progress=progress)


def as_device(device: torch.device | str) -> torch.device:
    """The device, with a sentence where it cannot be had. Raises ValueError."""
    try:
        found = torch.device(device)
    except RuntimeError:
        raise ValueError(f'device must be "cpu" or "cuda"; got {device!r}.') from None
    if found.type not in ("cpu", "cuda"):
        raise ValueError(f'device must be "cpu" or "cuda"; got {device!r}.')
    if missing := missing_device(str(found)):
        raise ValueError(f'{missing}: use "cpu".')
    return found


def as_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """The dtype, of its name, too. Raises ValueError for one that is not judged."""
    found = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if found is None or found not in DTYPES.values():
        names = ", ".join(f"torch.{name}" for name in DTYPES)
        raise ValueError(f"dtype must be one of {names}; got {dtype!r}.")
    return found


def check_arguments(twin: Any, cases: Any, seed: Any) -> None:
    """Raise ValueError for what cannot be, with a sentence."""
    if not isinstance(twin, Twin):
        raise ValueError(f"A Twin is needed; got {twin!r}.")
    if cases is not None and not (_whole(cases) and cases > 0):
        raise ValueError(f"cases must be a positive whole number; got {cases!r}.")
    if not (_whole(seed) and 0 <= seed < 2**64):
        raise ValueError(f"seed must be a whole number from 0 to 2^64 - 1; got {seed!r}.")


def _whole(number: Any) -> bool:
    return hasattr(number, "__index__") and not isinstance(number, bool)
