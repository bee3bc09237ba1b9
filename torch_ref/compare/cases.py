"""Where the cases come from: the same ones for a seed, whatever the number, dtype or device.

A batched twin is drawn in whole shards and then cut, a one-case twin case by case; every shard and
case has a Philox counter of its own. The author's strata and the harness's stresses take turns.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from torch_ref.compare.contract import (
    check_cases,
    check_drawn_alike,
    check_drawn_together,
    check_inputs,
    check_loss,
    check_numbers,
    check_reference,
    check_strata,
)
from torch_ref.compare.layout import laid_out_as
from torch_ref.compare.sizes import any_size, set_of_sizes, way_of
from torch_ref.compare.strangers import call
from torch_ref.compare.stress import LAYOUT, stressed
from torch_ref.compare.twin import Draw, Twin, Values

# Drawn together: each stratum's part is large enough that numbers and not calls take the time.
SHARD = 65_536
# Judged together: 2^14 float64 numbers are 128 KiB, so values and bounds stay in the cache.
CHUNK = 16_384
# Up to so many numbers the reference runs on all stresses of a shard at once.
TOGETHER = 2**20
# A probe of so many cases tells a batched twin, whose loss then has so many numbers.
PROBE = 5

Sizes = Callable[[int, int], int]


@dataclass(frozen=True)
class Batch:
    """Inputs of `count` cases, the first with index `first`; one case without a cases dimension
    where `batched` is false."""

    inputs: Values
    first: int
    count: int
    batched: bool

    @property
    def cases(self) -> int | None:
        """The size of the cases dimension; None where there is none."""
        return self.count if self.batched else None

    @property
    def thoroughly(self) -> bool:
        """Whether to check all that a twin must keep to: of a batched one on the first two chunks
        and every 64th."""
        chunk = self.first // CHUNK
        return not self.batched or chunk < 2 or chunk % 64 == 0

    def chunks(self) -> "Iterator[Batch]":
        """The batch in pieces that are judged together."""
        for start in range(0, self.count, CHUNK):
            yield self.part(start, min(CHUNK, self.count - start))

    def part(self, start: int, count: int) -> "Batch":
        """So many of its cases; of a batched twin."""
        if (start, count) == (0, self.count):
            return self
        cut = {name: value[start : start + count] for name, value in self.inputs.items()}
        return Batch(cut, self.first + start, count, self.batched)


@dataclass(frozen=True)
class _Part:
    """Cases of one stratum as their author draws them, and what a stress makes of them; {} where
    it is the author's own."""

    stratum: str
    drawn: Values
    changed: Values


class Cases:
    """All cases of a twin for a seed, in one dtype on one device. Raises TwinError.

    notes: what is worth saying about how they came about, each once.
    """

    def __init__(self, twin: Twin, dtype: torch.dtype, device: torch.device, seed: int) -> None:
        self.twin, self.dtype, self.device, self.seed = twin, dtype, device, seed
        self.notes: dict[str, None] = {}

    @cached_property
    def batched(self) -> bool:
        """Whether one draw holds many cases: the loss then has one number a case."""
        check_strata(self.twin)
        inputs = self._probe()
        check_drawn_alike(self.twin, inputs, self._probe())
        batched = check_loss(self.twin, widened(inputs), PROBE)
        check_reference(self.twin, widened(inputs))
        return batched

    def _probe(self) -> Values:
        generator = self._generator(0)
        draw = self._draw(generator, PROBE, self.twin.strata[0], partial(any_size, generator))
        inputs: Values = call(self.twin, "inputs", draw)
        check_inputs(self.twin, inputs, draw)
        check_numbers(self.twin, inputs)
        return inputs

    @property
    def strata(self) -> tuple[str, ...]:
        """The names of all strata, in the order in which the cases take turns."""
        layout = () if self.batched else LAYOUT
        stress = tuple(s for s in self.twin.stress if s not in LAYOUT or s in layout)
        return (*self.twin.strata, *stress)

    def stratum(self, index: int) -> str:
        """The stratum of the case with this index."""
        within = index % SHARD if self.batched else index
        return self.strata[within % len(self.strata)]

    def batches(self, cases: int) -> Iterator[Batch]:
        """Cases 0 to cases - 1."""
        if not self.batched:
            yield from (self.case(index) for index in range(cases))
            return
        yield from (self.batch(shard, cases) for shard in range(-(-cases // SHARD)))

    def batch(self, shard: int, cases: int) -> Batch:
        """A shard of a batched twin, cut where there are only so many cases in all."""
        return self._whole(shard).part(0, min(SHARD, cases - shard * SHARD))

    def _whole(self, shard: int) -> Batch:
        return Batch(self.shard(shard), shard * SHARD, SHARD, True)

    def case(self, index: int) -> Batch:
        """One case; of a batched twin, with a cases dimension of size 1."""
        if self.batched:
            return self._whole(index // SHARD).part(index % SHARD, 1)
        (inputs,) = self._in_domain([self._part_of(index)])
        return Batch(inputs, index, 1, False)

    def under_stress(self, batch: Batch) -> dict[str, Batch]:
        """The cases of a batch under each stress; those of the author's own strata are left out."""
        if not self.batched:
            stratum = self.stratum(batch.first)
            return {} if stratum in self.twin.strata else {stratum: batch}
        found = {}
        for turn, stratum in enumerate(self.strata):
            cases = self._of_turn(turn, batch)
            if stratum not in self.twin.strata and len(cases):
                inputs = {name: value[cases] for name, value in batch.inputs.items()}
                found[stratum] = replace(batch, inputs=inputs, count=len(cases))
        return found

    def as_drawn(self, batch: Batch, stresses: Collection[str]) -> Batch:
        """The same cases, but those under these stresses as their author draws them."""
        if not self.batched:
            return replace(batch, inputs=self._part_of(batch.first).drawn)
        inputs = {name: value.clone() for name, value in batch.inputs.items()}
        first = batch.first % SHARD
        for turn, part in enumerate(self._parts(batch.first // SHARD)):
            if part.stratum in stresses:
                cases = self._of_turn(turn, batch)
                for name, value in part.drawn.items():
                    inputs[name][cases] = value[(first + cases) // len(self.strata)]
        return replace(batch, inputs=inputs)

    def _of_turn(self, turn: int, batch: Batch) -> Tensor:
        """Which of a batch's cases have this turn among the strata."""
        turns = len(self.strata)
        return torch.arange(batch.count)[(turn - batch.first % SHARD) % turns :: turns]

    def note_raised(self, stratum: str, what: str, error: BaseException) -> None:
        """Note that a stress is more than the reference, or the hand, can take."""
        self.notes[
            f'Under the stress "{stratum}" {what} raises {type(error).__name__}: such cases are '
            "judged as they were drawn."
        ] = None

    def shard(self, shard: int) -> Values:
        """The inputs of cases shard * SHARD to (shard + 1) * SHARD - 1; strata by turns."""
        parts = self._parts(shard)
        check_drawn_together(self.twin, dict(zip(self.strata, (part.drawn for part in parts))))
        chosen = self._in_domain(parts)
        by_turns = {name: _by_turns([one[name] for one in chosen])[:SHARD] for name in chosen[0]}
        check_numbers(self.twin, by_turns)  # once and not part by part, which takes longer
        return by_turns

    def _parts(self, shard: int) -> list[_Part]:
        generator = self._generator(shard)
        each = -(-SHARD // len(self.strata))
        return [
            self._part(generator, each, stratum, turn, partial(any_size, generator))
            for turn, stratum in enumerate(self.strata)
        ]

    def _part_of(self, index: int) -> _Part:
        """Of a one-case twin."""
        turn = index // len(self.strata)
        stratum = self.stratum(index)
        chosen = 0 if stratum in LAYOUT else set_of_sizes(turn)
        sizes = partial(way_of(chosen), self._generator(chosen, sizes=True))
        return self._part(self._generator(index), 1, stratum, turn, sizes)

    def _part(
        self, generator: np.random.Generator, cases: int, stratum: str, turn: int, sizes: Sizes
    ) -> _Part:
        """Cases of one stratum; of a stress, made from the author's strata by turns."""
        own = self.twin.strata
        drawn_as = stratum if stratum in own else own[turn % len(own)]
        draw = self._draw(generator, cases, drawn_as, sizes)
        drawn: Values = call(self.twin, "inputs", draw)
        check_inputs(self.twin, drawn, draw)
        if self.batched:
            check_cases(self.twin, drawn, cases)
        else:
            check_numbers(self.twin, drawn)
        if stratum in own:
            return _Part(stratum, drawn, {})
        return _Part(stratum, drawn, stressed(drawn, stratum, generator, self.batched))

    def _in_domain(self, parts: Sequence[_Part]) -> list[Values]:
        """The changed inputs where the reference is finite on them, the drawn ones elsewhere. It
        runs once on all parts, unless they are large or it raises for one."""
        changed = [part.changed for part in parts if part.changed]
        if not changed:
            return [part.drawn for part in parts]
        numbers = sum(value.numel() for one in changed for value in one.values())
        if len(parts) > 1 and numbers > TOGETHER:
            return self._one_by_one(parts)
        try:
            finite = iter(self._finite(_joined(changed)).chunk(len(changed)))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a stranger's code may raise anything outside its domain
            if len(parts) > 1:
                return self._one_by_one(parts)
            self.note_raised(parts[0].stratum, "the reference", error)
            return [parts[0].drawn]
        return [self._where(next(finite), p) if p.changed else p.drawn for p in parts]

    def _one_by_one(self, parts: Sequence[_Part]) -> list[Values]:
        return [chosen for part in parts for chosen in self._in_domain([part])]

    def _where(self, finite: Tensor, part: _Part) -> Values:
        if bool(finite.all()):
            return part.changed
        if not self.batched:
            return part.drawn
        return {
            name: torch.where(
                finite.reshape(-1, *(1,) * (value.ndim - 1)), part.changed[name], value
            )
            for name, value in part.drawn.items()
        }

    def _finite(self, inputs: Values) -> Tensor:
        """The cases in which the reference is finite; one in all where they are not batched."""
        wide = widened(inputs)
        with torch.no_grad():
            values = {**wide, **self.twin.reference(dict(wide))}
        return self._where_finite(values, len(next(iter(inputs.values()))) if self.batched else 1)

    def _where_finite(self, values: Values, cases: int) -> Tensor:
        """The cases in which every number is finite; one in all where they are not batched.

        Of a batched twin what has no cases, in its first dimension, is the same in all of them.
        """
        zeros = torch.zeros((), dtype=torch.float64, device=self.device)
        for value in values.values():
            if value.is_floating_point() and (not self.batched or value.shape[:1] == (cases,)):
                by_case = value
                if not self.batched or value.ndim > 1:
                    by_case = (0 * value).reshape(cases, -1).sum(1)
                # 0 times a finite number is 0, and NaN otherwise: cheaper than asking for each
                zeros = torch.add(zeros, by_case, alpha=0)
        return zeros == 0

    def _draw(self, generator: np.random.Generator, cases: int, stratum: str, sizes: Sizes) -> Draw:
        return Draw(generator, self.dtype, self.device, cases, stratum, sizes)

    def _generator(self, counter: int, sizes: bool = False) -> np.random.Generator:
        return np.random.Generator(
            np.random.Philox(key=self.seed, counter=[0, 0, int(sizes), counter])
        )


def _joined(parts: list[Values]) -> Values:
    """The cases of all parts; of one part as they are."""
    if len(parts) == 1:
        return parts[0]
    return {name: torch.cat([one[name] for one in parts]) for name in parts[0]}


def _by_turns(parts: list[Tensor]) -> Tensor:
    """The first case of each part, the second of each, and so on.

    As stack(parts, dim=1), in half the time: torch copies in blocks where there are three axes.
    """
    return torch.stack(parts)[None].transpose(1, 2).flatten(0, 2)


def widened(inputs: Values) -> Values:
    """The same numbers in float64, laid out alike in memory; integers and booleans as they are."""
    return {n: _wide(v) if v.is_floating_point() else v for n, v in inputs.items()}


def _wide(value: Tensor) -> Tensor:
    wide = value.double()
    return wide if wide.stride() == value.stride() else laid_out_as(value, wide)


def shapes(values: Values) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(value.shape) for value in values.values())
