"""When the compiled judge judges, and what happens where it cannot."""

import warnings
from collections.abc import Callable

import torch

from torch_ref.compare.cases import SHARD, Batch
from torch_ref.compare.compiled.formulas import formulas
from torch_ref.compare.compiled.kernel import Kernel, compiled
from torch_ref.compare.sides import Recorder
from torch_ref.compare.sides.answers import Answers
from torch_ref.compare.twin import Values
from torch_ref.compare.verdict import Tally
from torch_ref.native.compiler import NoCompilerError

# Cases from which it is worth the seconds that compiling takes.
COMPILED_FROM = 2_000_000
# Which shards are judged both ways, and how far the means over one may be apart: the exp and log
# written in C round otherwise than torch's.
HELD = 128
DECIDED, DIGITS = 1e-4, 2e-3

Judged = tuple[list[Tally], int]  # a tally of each quantity, and how many cases are at kinks


class Compiled:
    """Judges whole shards on the CPU in which nothing is wrong; the plain way judges the others.

    The first shard of every process, and every HELD-th of all, is judged both ways. Where the two
    differ the plain way judges from there on, with a warning.

    at_odds: whether the last shard was refused and is the first of all or a HELD-th: the plain way
        has then to look at it whole, too, as was done here.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.usable = True
        self.at_odds = False
        self.usual = True  # whether nothing was seen to overflow so far
        self._held: set[bool] = set()  # the kernels, for the usual and for all, that were
        self._kernels: dict[object, Kernel] = {}

    def __call__(
        self, batch: Batch, first_case: str, plainly: Callable[[], Judged]
    ) -> Judged | None:
        """What judging the batch gives; None where it is for the plain way to judge it.

        plainly: judges it that way.
        """
        self.at_odds = False
        if not self.usable or batch.count != SHARD:
            return None
        answers = self.recorder.answers(batch)
        found = self._found(answers, first_case)
        if not found and self.usable and self.usual:  # something may have overflowed
            self.usual = False
            found = self._found(answers, first_case)
        if not found:
            self.at_odds = batch.first // SHARD % HELD == 0
            return None
        self.recorder.take(answers)
        if self.usual not in self._held or batch.first // SHARD % HELD == 0:
            self._held.add(self.usual)
            self._hold(found, plainly())
        return found if self.usable else None

    def _hold(self, found: Judged, plain: Judged) -> None:
        """Compare what the two ways gave for a batch."""
        (tallies, kinks), (expected, expected_kinks) = found, plain
        same = (kinks, len(tallies)) == (expected_kinks, len(expected))
        if same and all(map(_alike, tallies, expected)):
            return
        self.usable = False
        warnings.warn(
            "The compiled judge gave other numbers than the plain one, which judges from here on, "
            "several times slower. Please report it, with the compiler's version.",
            RuntimeWarning,
            stacklevel=2,
        )

    def _found(self, answers: Answers, first_case: str) -> Judged | None:
        if answers.problems or answers.failures or not answers.answer or answers.expected is None:
            return None
        key = _shapes(answers.wide), _shapes(answers.answer), self.usual
        if key not in self._kernels:
            self._compile(key, answers)
        kernel = self._kernels.get(key)
        return kernel(answers, first_case) if kernel else None

    def _compile(self, key: object, answers: Answers) -> None:
        """Make the kernel; where there can be none both sides are not run for it again."""
        try:
            self._kernels[key] = compiled(formulas(self.recorder, answers, usual=self.usual))
        except NoCompilerError as problem:
            self.usable = False
            warnings.warn(
                f"The judge is not compiled, and takes several times as long: {problem}. Install "
                "gcc or clang, or name a compiler in CC.",
                RuntimeWarning,
                stacklevel=2,
            )
        except torch.OutOfMemoryError:
            raise
        except Exception:  # CannotCompileError, and what torch or a stranger's code may raise
            self.usable = False


def _shapes(values: Values) -> tuple[object, ...]:
    return tuple((name, value.shape[1:]) for name, value in values.items())


def _alike(one: Tally, plain: Tally) -> bool:
    most = max(plain.elements, 1)
    return (
        (one.name, one.elements) == (plain.name, plain.elements)
        and not plain.wrong
        and abs(one.decided - plain.decided) <= DECIDED * most
        and abs(one.digits_manual - plain.digits_manual) <= DIGITS * most
        and abs(one.digits_reference - plain.digits_reference) <= DIGITS * most
    )
