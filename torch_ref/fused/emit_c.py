"""A recorded graph written out in C: loops over a block of samples that compilers vectorise.

One loop over all operations would spend its time waiting: each operation needs the one before, and
a processor looks only some hundreds ahead. So the operations are cut into STAGES loops, each short
enough that many samples are under way at once; what a later loop needs waits in the nearest cache.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch_ref.fused.c_driver import DRIVER
from torch_ref.fused.rewriting import rare_conditions, with_shared_logarithms
from torch_ref.native.c_math import FORMATS, functions
from torch_ref.native.loops import FORMS, Loops
from torch_ref.native.stages import Stage, in_stages
from torch_ref.native.symbols import Symbol, assuming

STAGES = 8  # measured: half again as fast as one, and no gain from more
BLOCK = 512  # samples: what waits between the loops stays in the nearest cache


@dataclass(frozen=True)
class Program:
    """What one sample's arguments are turned into, in the NumPy dtype "float32" or "float64".

    arguments: their names, in the order in which pointers to them come; the first `shared` of them
    have one number for all samples.
    outputs: what is summed over the samples, or stored sample by sample.
    watched: the sum of 0 times these tells whether all are finite: else it is NaN.
    """

    dtype: str
    arguments: Sequence[str]
    outputs: Sequence[Symbol]
    watched: Sequence[Symbol] = ()
    shared: int = 0
    summed: bool = True


def source(program: Program, forms: Mapping[str, str] = FORMS) -> str:
    """The whole C source; `forms` says how each operation is written."""
    rare = rare_conditions([*program.outputs, *program.watched])
    # Where none of these is met t/x6, and so what a logarithm is taken of, is a normal number.
    usual = {**forms, "either_log": forms["either_log of normal"]} if rare else forms
    return "".join(
        (
            _HEAD.format(
                T=FORMATS[program.dtype].name,
                arguments=len(program.arguments),
                shared=program.shared,
                outputs=len(program.outputs),
                summed=int(program.summed),
                block=BLOCK,
            ),
            functions(program.dtype),
            _block("usual_block", program, usual, rare),
            _block("any_block", program, forms, ()) if rare else _NOTHING_RARE,
            DRIVER,
        )
    )


# Not a second call of the same block: neither would be inlined, and take three times as long.
_NOTHING_RARE = "#define any_block(count, in, to, own) (void)0\n"
_HEAD = """#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
typedef {T} T;
enum {{ ARGUMENTS = {arguments}, SHARED = {shared}, OUTPUTS = {outputs}, SUMMED = {summed},
       BLOCK = {block}, SUMS = SUMMED * OUTPUTS + 1 }};  /* the last is that of what is watched */
"""


def _block(name: str, program: Program, forms: Mapping[str, str], rare: Sequence[Symbol]) -> str:
    """A C function that does a block of samples as if no condition of `rare` were met.

    It returns how many samples meet one: were there any, what it computed is wrong.
    """
    known = dict.fromkeys(rare, False)
    outputs, watched = (
        [with_shared_logarithms(assuming(value, known)) for value in values]
        for values in (program.outputs, program.watched)
    )
    stages = in_stages([*outputs, *watched, *rare], STAGES)
    names = {v: f"v{i}" for i, v in enumerate(v for stage in stages for v in stage.own)}
    kept = {value: f"kept_{names[value]}" for stage in stages for value in stage.loaded}
    sums = [*(f"sum{i}" for i in range(len(outputs) * program.summed)), "watched"]
    shared = program.arguments[: program.shared]
    own = enumerate(program.arguments[program.shared :], program.shared)
    arguments = {own_name: f"in[{place}][i]" for place, own_name in own}
    loops = Loops(FORMATS[program.dtype], forms, names, arguments, kept)
    stored = _Stored(program, names, kept, outputs, watched, rare)
    lines = [
        f"\nstatic T {name}(int64_t count, const T *const *in, T *const *out, double *sums) {{",
        *(f"  const T {shared_name} = *in[{i}];" for i, shared_name in enumerate(shared)),
        f"  T {' = 0, '.join([*sums, 'met'])} = 0;",
        *(f"  T {array}[BLOCK];" for array in kept.values()),
        *(loops.loop(stage, stored.stores(stage), stored.sums(stage)) for stage in stages),
        *(f"  sums[{i}] = {sum_name};" for i, sum_name in enumerate(sums)),
        "  return met;\n}\n",
    ]
    return "\n".join(lines)


@dataclass(frozen=True)
class _Stored:
    """What each stage stores and sums up; what `_block` found out, by its names there."""

    program: Program
    names: Mapping[Symbol, str]
    kept: Mapping[Symbol, str]
    outputs: Sequence[Symbol]
    watched: Sequence[Symbol]
    rare: Sequence[Symbol]

    def stores(self, stage: Stage) -> list[tuple[Symbol, str]]:
        own = set(stage.own)
        stores = [(value, array) for value, array in self.kept.items() if value in own]
        if not self.program.summed:
            places = enumerate(self.outputs)
            stores += [(value, f"out[{place}]") for place, value in places if value in own]
        return stores

    def sums(self, stage: Stage) -> dict[str, str]:
        own = set(stage.own)
        terms = {}
        if self.program.summed:
            of_outputs = enumerate(self.outputs)
            terms = {f"sum{i}": self.names[value] for i, value in of_outputs if value in own}
        zeros = [f"0 * {self.names[value]}" for value in self.watched if value in own]
        met = [f"({self.names[value]} ? (T)1 : (T)0)" for value in self.rare if value in own]
        sums = {"watched": " + ".join(zeros), "met": " + ".join(met)}
        return terms | {name: text for name, text in sums.items() if text}
