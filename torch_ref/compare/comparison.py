"""Both sides of a batch held against each other; where many batches follow, soon in less time.

Switched off: a review found that a replay can give another verdict, drops questions about values
that torch itself makes, and forgets how tensors lie in memory. What it is meant to do:

On the CPU the second whole shard's comparison is recorded, operation by operation, and compiled
while others go on. From then on it is replayed: the same bits in a third of the time. Where a
question that was asked on the way is answered otherwise, or there is no compiler, all is as it was.
"""

import math
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields, replace

from torch import Tensor

from torch_ref.compare.cases import SHARD, Batch
from torch_ref.compare.layout import layout
from torch_ref.compare.rounding import Arithmetic
from torch_ref.compare.sides import Answers, Recorder
from torch_ref.compare.tape import CannotRecordError, Replay, record
from torch_ref.compare.verdict import Compared, compare
from torch_ref.fused.compiler import NoCompilerError

# Cases from which on compiling, some 15 s the first time, would be worth its while: 3 million.
MANY = math.inf
# A replay without an answer is a debt that so many others pay off; with too much debt none follow.
PRICE, MOST_DEBT = 4, 64
Found = tuple[dict[str, Compared], Tensor | None]  # by quantity, and the cases at kinks


class Comparison:
    """Compares batches; `expected`: roughly how many cases will come."""

    def __init__(self, recorder: Recorder, expected: int = 0) -> None:
        self.recorder = recorder
        self.many = expected >= MANY
        self._replays: dict[object, Future[Replay] | None] = {}
        self._debts: Counter[object] = Counter()

    def __call__(self, batch: Batch, answers: Answers) -> Found:
        """How both sides' answers compare."""
        if self._worth_recording(batch, answers):
            return self._recorded(batch, answers)
        return self.replayed(answers) or self._directly(batch, answers)

    def _worth_recording(self, batch: Batch, answers: Answers) -> bool:
        return (
            self.many
            and batch.batched
            and batch.count == SHARD
            and bool(answers.expected)
            and all(value.device.type == "cpu" for value in batch.inputs.values())
            and _key(answers) not in self._replays
            and self.recorder.recorded(answers)
        )

    def replayed(self, answers: Answers) -> Found | None:
        """The same, or None where there is no recording that holds; any thread may call it, since
        none of the twin's own code runs."""
        future = self._replays.get(_key(answers)) if answers.expected else None
        if future is None or not future.done():
            return None
        try:
            outputs = future.result()(_tensors(answers))
        except NoCompilerError:
            self._replays[_key(answers)] = None
            return None
        self._count(_key(answers), answered=outputs is not None)
        return None if outputs is None else _found(tuple(answers.answer), outputs)

    def _count(self, key: object, *, answered: bool) -> None:
        """A recording that is of no use for more than a fifth of the shards costs too much."""
        self._debts[key] = max(self._debts[key] + (-1 if answered else PRICE), 0)
        if self._debts[key] > MOST_DEBT:
            self._replays[key] = None

    def _directly(self, batch: Batch, answers: Answers) -> Found:
        sides = self.recorder.bounded(batch, answers)
        unit_roundoff = Arithmetic.of(self.recorder.dtype).unit_roundoff
        compared = {
            name: compare(
                given,
                sides.manual_side[name],
                sides.reference[name],
                sides.reference_in_dtype[name],
                fits=sides.fits[name],
                most_digits=-math.log10(unit_roundoff),
                unit_roundoff=unit_roundoff,
            )
            for name, given in sides.manual.items()
        }
        return compared, sides.kinks

    def _recorded(self, batch: Batch, answers: Answers) -> Found:
        def run(*tensors: Tensor) -> list[Tensor]:
            compared, kinks = self._directly(batch, _with_tensors(answers, tensors))
            outputs = [getattr(one, f.name) for one in compared.values() for f in fields(one)]
            return outputs if kinks is None else [*outputs, kinks]

        key = _key(answers)
        self._replays[key] = None
        try:
            outputs, recording = record(run, [tensor.detach() for tensor in _tensors(answers)])
        except CannotRecordError:
            return self._directly(batch, answers)
        pool = ThreadPoolExecutor(1)
        self._replays[key] = pool.submit(Replay, recording)
        pool.shutdown(wait=False)
        return _found(tuple(answers.answer), outputs)


def _key(answers: Answers) -> object:
    return tuple(answers.answer), layout(answers.wide)


def _with_tensors(answers: Answers, tensors: Sequence[Tensor]) -> Answers:
    """The answers with these in place of `_tensors`: two that are one object are apart then."""
    rest = iter(tensors)
    groups = (answers.wide, answers.answer, answers.expected or {}, answers.known)
    wide, answer, expected, known = ({name: next(rest) for name in group} for group in groups)
    return replace(answers, wide=wide, answer=answer, expected=expected, known=known)


def _tensors(answers: Answers) -> list[Tensor]:
    groups = (answers.wide, answers.answer, answers.expected or {}, answers.known)
    return [value for group in groups for value in group.values()]


def _found(names: tuple[str, ...], outputs: Sequence[Tensor]) -> Found:
    each = len(fields(Compared))
    compared = {
        name: Compared(*outputs[place * each : (place + 1) * each])
        for place, name in enumerate(names)
    }
    return compared, outputs[-1] if len(outputs) % each else None
