"""Options as the user types them, for the command and the pytest plugin; needs no torch.

Each function takes the typed text and gives its value; it raises argparse.ArgumentTypeError with
one sentence about what was expected.
"""

import re
from argparse import ArgumentTypeError

MOST_THREADS = 4096
DTYPES = ("float64", "float32", "bfloat16", "float16")


def cases(text: str) -> int:
    """How many random cases, also as 1e9 or 1_000_000_000: 1 to 10^18."""
    form = r"(\d{1,3}(?:_\d{3})+|\d{1,20})(?:\.(\d{1,18}))?(?:[eE]\+?(\d{1,2}))?"
    found = re.fullmatch(form, text, re.ASCII)
    whole, part, power = found.groups(default="") if found else ("0", "", "")
    number, below = int(whole.replace("_", "") + part), 10 ** len(part)
    scale: int = 10 ** int(power or 0)
    count: int = number * scale // below
    if count * below != number * scale or not 1 <= count <= 10**18:
        raise ArgumentTypeError(
            f"{text!r}: a whole number of cases, 1 to 1e18, is needed, for example 1e6"
        )
    return count


def threads(text: str) -> int:
    """How many threads: 1 to MOST_THREADS."""
    if not _whole(text) or not 1 <= int(text) <= MOST_THREADS:
        raise ArgumentTypeError(
            f"{text!r}: a whole number of threads, 1 to {MOST_THREADS}, is needed"
        )
    return int(text)


def seed(text: str) -> int:
    """A seed of the random cases: 0 to 2^64 - 1."""
    if not _whole(text) or int(text) >= 2**64:
        raise ArgumentTypeError(f"{text!r}: a whole number from 0 to 2^64 - 1 is needed")
    return int(text)


def dtypes(text: str) -> list[str]:
    """Names of dtypes, separated by commas."""
    names = text.split(",")
    for name in names:
        if name not in DTYPES:
            raise ArgumentTypeError(
                f"{name!r} is not a dtype; give one or several of {', '.join(DTYPES)}, with commas"
            )
    return names


def case(text: str) -> tuple[int, int]:
    """SEED:INDEX, as `gradtwin verify` prints it."""
    before, _, after = text.partition(":")
    if not _whole(before) or not _whole(after):
        raise ArgumentTypeError(f"{text!r}: SEED:INDEX is needed, for example 0:17")
    return seed(before), seed(after)


def device(text: str) -> str:
    """cpu, cuda or cuda:N."""
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", text, re.ASCII):
        raise ArgumentTypeError(f"{text!r} is not a device; give cpu, cuda or cuda:N")
    return text


def device_or_auto(text: str) -> str:
    """A device, or auto: cuda where there is one."""
    if text == "auto":
        return text
    try:
        return device(text)
    except ArgumentTypeError as error:
        raise ArgumentTypeError(f"{error}, or auto") from None


def _whole(text: str) -> bool:
    """Whether these are ASCII digits, and no more of them than any number here can have."""
    return text.isascii() and text.isdecimal() and len(text) <= 20
