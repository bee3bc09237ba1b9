"""The formulas written out in C: a block of cases at a time, and what is tallied of it."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch_ref.compare.compiled.c_driver import BLOCK_OF, DATA, DRIVER, HEAD, TALLY
from torch_ref.compare.compiled.formulas import LOOKED_AT, Formulas
from torch_ref.compare.histogram import ENDS, WITHIN
from torch_ref.native.c_math import FORMATS, functions
from torch_ref.native.compiler import STRICT
from torch_ref.native.loops import FORMS, Loops
from torch_ref.native.stages import Stage, in_stages, soonest, work
from torch_ref.native.symbols import Symbol

BLOCK = 512  # cases: what waits between the loops stays in the second cache
AT_ONCE = 16  # factors from 1e-16 to 1 whose product is a normal number, and one logarithm
STAGE = 80  # additions a loop: compilers give up on vectors in loops of some hundreds
DOUBLE = FORMATS["float64"]
# The first level makes vectors of these loops, too; the third takes five times as long to compile
# for a gain that was not measurable.
FLAGS = ("-O1", "-fno-thread-jumps", "-ffp-contract=off", *STRICT)


def source(formulas: Formulas) -> str:
    """The whole C source."""
    looked_at = _computed(value for one in formulas.elements for value in one.looked_at)
    computed = soonest(looked_at, _computed((*formulas.sums, *formulas.plainly)))
    stages = in_stages(computed, 1 + work(computed) // STAGE)
    names = {v: f"v{i}" for i, v in enumerate(v for stage in stages for v in stage.own)}
    room, kept = _waiting(stages)
    reads = {name: f"of_{name}[i]" for name in formulas.arguments}
    writer = _Writer(formulas, Loops(DOUBLE, FORMS, names, reads, kept))
    elements = formulas.elements
    quantities = [one.quantity for one in elements]
    return "".join(
        (
            HEAD.format(
                arguments=len(formulas.arguments),
                quantities=len(formulas.names),
                elements=len(elements),
                sums=len(writer.names),
                room=max(room, 1),
                block=BLOCK,
                ends=WITHIN,
                looked_at=len(LOOKED_AT),
                at_once=AT_ONCE,
                product=" * ".join(f"lost[i + {k * BLOCK // AT_ONCE}]" for k in range(AT_ONCE)),
            ),
            functions("float64"),
            DATA.format(
                quantity_of=_listed(quantities),
                place_of=_listed(one.place for one in elements),
                manual_of=_listed(one.manual for one in elements),
                numbers_of=_listed(map(quantities.count, range(len(formulas.names)))),
            ),
            BLOCK_OF.format(
                arguments=" ".join(
                    f"const T *const of_{name} = in[{place}];"
                    for place, name in enumerate(formulas.arguments)
                ),
                sums=_listed(f"{name} = 0" for name in dict.fromkeys(writer.names)),
                loops="\n".join(map(writer.loop, stages)),
                rest=writer.rest(),
                added=" ".join(f"sums[{i}] += {name};" for i, name in enumerate(writer.names)),
            ),
            _tally(),
            DRIVER,
        )
    )


def _tally() -> str:
    names = {f"within{place}": DOUBLE.number(limit) for place, limit in enumerate(ENDS[:WITHIN])}
    return TALLY.format(
        zeros=_listed(f"{name} = 0" for name in names),
        names=_listed(names),
        within=" ".join(
            f"{name} += ratio <= {limit} ? (T)1 : (T)0;" for name, limit in names.items()
        ),
        counted=" ".join(
            f"counts[{place}] += (int64_t)({name} - undecided);" for place, name in enumerate(names)
        ),
    )


def _computed(values: Iterable[Any]) -> list[Symbol]:
    return list(filter(_is_computed, values))


def _is_computed(value: Any) -> bool:
    return isinstance(value, Symbol) and value.operation != "argument"


def _listed(items: Iterable[Any]) -> str:
    return ", ".join(map(str, items))


def _waiting(stages: Sequence[Stage]) -> tuple[int, dict[Symbol, str]]:
    """Where values wait for later stages: the number of places, and each value's. A place is given
    anew once nobody needs what is there: so they stay few."""
    last = {value: at for at, stage in enumerate(stages) for value in stage.loaded}
    places: dict[Symbol, str] = {}
    free: list[int] = []
    held: dict[int, list[int]] = {}
    count = 0
    for at, stage in enumerate(stages):
        for value in (value for value in stage.own if value in last):
            if not free:
                free.append(count)
                count += 1
            place = free.pop()
            places[value] = f"room[{place}]"
            held.setdefault(last[value], []).append(place)
        free += held.pop(at, [])
    return count, places


class _Writer:
    """Writes each stage's loop, with what it stores and sums up.

    names: of the sums, one name for what is the same; the last counts the cases for the plain way.
    """

    def __init__(self, formulas: Formulas, loops: Loops) -> None:
        self.loops = loops
        flat = [value for one in formulas.elements for value in one.looked_at]
        self.found = [(value, f"found[{place}]") for place, value in enumerate(flat)]
        self.sums: dict[Any, str] = {}
        names = (self.sums.setdefault(v, f"sum{place}") for place, v in enumerate(formulas.sums))
        self.names = [*names, "plainly"]
        self.plainly = formulas.plainly

    def loop(self, stage: Stage) -> str:
        own = set(stage.own)
        stores = [*self.loops.kept.items(), *self.found]
        sums = {name: self.loops.names[value] for value, name in self.sums.items() if value in own}
        against = [self.loops.names[condition] for condition in self.plainly if condition in own]
        if against:
            sums["plainly"] = f"({' | '.join(against)}) ? (T)1 : (T)0"
        return self.loops.loop(
            stage, [(value, array) for value, array in stores if value in own], sums
        )

    def rest(self) -> str:
        """What is no more than an argument or a constant."""
        stores = [(array, value) for value, array in self.found if not _is_computed(value)]
        sums = [(name, value) for value, name in self.sums.items() if not _is_computed(value)]
        sums += [("plainly", 1.0) for condition in self.plainly if condition is True]
        return " ".join(
            (
                *(f"{array}[i] = {self._read(value)};" for array, value in stores),
                *(f"{name} += {self._read(value)};" for name, value in sums),
            )
        )

    def _read(self, value: Any) -> str:
        if isinstance(value, Symbol):
            return self.loops.arguments[value.operands[0]]
        return DOUBLE.number(value)
