"""A recorded graph written out in C: loops over a block of samples that compilers vectorise.

One loop over all operations would spend its time waiting: each operation needs the one before, and
a processor looks only some hundreds ahead. So the operations are cut into STAGES loops, each short
enough that many samples are under way at once; what a later loop needs waits in the nearest cache.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch_ref.fused.c_driver import DRIVER
from torch_ref.fused.c_math import FORMATS, functions
from torch_ref.fused.recording import Symbol, assuming
from torch_ref.fused.rewriting import rare_conditions, with_shared_logarithms
from torch_ref.fused.stages import CONDITIONS, Stage, in_stages

STAGES = 8  # measured: half again as fast as one, and no gain from more
BLOCK = 512  # samples: what waits between the loops stays in the nearest cache

FORMS = {
    "negative": "(-{})",
    "add": "({} + {})",
    "subtract": "({} - {})",
    "multiply": "({} * {})",
    "divide": "({} / {})",
    "less": "({} < {})",
    "greater": "({} > {})",
    "greater_equal": "({} >= {})",
    "logical_and": "({} & {})",
    "logical_or": "({} | {})",
    "where": "({} ? {} : {})",
    "abs": "absolute({})",
    "exp": "exponential({})",
    "exp of -|x|": "exponential_of_negative({})",
    "log": "natural_logarithm({})",
    "log1p": "logarithm_of_one_plus({})",
    "either_log": "either_logarithm({}, {}, {})",
    "isinf": "infinite({})",
}


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
            _block("usual_block", program, forms, rare),
            _block("any_block", program, forms, ()) if rare else "#define any_block usual_block\n",
            DRIVER,
        )
    )


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
    kept = dict.fromkeys(value for stage in stages for value in stage.loaded)
    names = {v: f"v{i}" for i, v in enumerate(v for stage in stages for v in stage.own)}
    sums = [*(f"sum{i}" for i in range(len(outputs) * program.summed)), "watched"]
    shared = program.arguments[: program.shared]
    writer = _Writer(program, forms, names, tuple(kept), outputs, watched, rare)
    lines = [
        f"\nstatic T {name}(int64_t count, const T *const *in, T *const *out, double *sums) {{",
        *(f"  const T {shared_name} = *in[{i}];" for i, shared_name in enumerate(shared)),
        f"  T {' = 0, '.join([*sums, 'met'])} = 0;",
        *(f"  T kept_{names[value]}[BLOCK];" for value in kept),
        *(writer.loop(stage) for stage in stages),
        *(f"  sums[{i}] = {sum_name};" for i, sum_name in enumerate(sums)),
        "  return met;\n}\n",
    ]
    return "\n".join(lines)


@dataclass(frozen=True)
class _Writer:
    """Writes one loop a stage; what `_block` found out, by its names there."""

    program: Program
    forms: Mapping[str, str]
    names: Mapping[Symbol, str]
    kept: Sequence[Symbol]
    outputs: Sequence[Symbol]
    watched: Sequence[Symbol]
    rare: Sequence[Symbol]

    def loop(self, stage: Stage) -> str:
        reduced = self._reduced(stage)
        pragma = f"reduction(+ : {', '.join(reduced)})" if reduced else ""
        body = [
            *self._loads(stage),
            *(self._statement(value) for value in stage.computed),
            *self._stores(stage),
            *(f"{name} += {term};" for name, term in reduced.items()),
        ]
        lines = "\n    ".join(body)
        return (
            f"  #pragma omp simd {pragma}\n"
            f"  for (int64_t i = 0; i < count; i++) {{\n    {lines}\n  }}"
        )

    def _loads(self, stage: Stage) -> list[str]:
        order = {name: place for place, name in enumerate(self.program.arguments)}
        own = [name for name in stage.arguments if order[name] >= self.program.shared]
        arguments = [f"const T {name} = in[{order[name]}][i];" for name in own]
        names = [self.names[value] for value in stage.loaded]
        return arguments + [f"const T {name} = kept_{name}[i];" for name in names]

    def _stores(self, stage: Stage) -> list[str]:
        own = set(stage.own)
        names = [self.names[value] for value in self.kept if value in own]
        stores = [f"kept_{name}[i] = {name};" for name in names]
        if not self.program.summed:
            for place, value in enumerate(self.outputs):
                if value in own:
                    stores.append(f"out[{place}][i] = {self.names[value]};")
        return stores

    def _reduced(self, stage: Stage) -> dict[str, str]:
        """What this stage adds to which sum."""
        own = set(stage.own)
        terms = {}
        if self.program.summed:
            of_outputs = enumerate(self.outputs)
            terms = {f"sum{i}": self.names[value] for i, value in of_outputs if value in own}
        zeros = [f"0 * {self.names[value]}" for value in self.watched if value in own]
        met = [f"({self.names[value]} ? (T)1 : (T)0)" for value in self.rare if value in own]
        sums = {"watched": " + ".join(zeros), "met": " + ".join(met)}
        return terms | {name: text for name, text in sums.items() if text}

    def _statement(self, value: Symbol) -> str:
        kind = "int" if value.operation in CONDITIONS else "T"
        operation = "exp of -|x|" if _is_exp_of_negative(value) else value.operation
        form = self.forms[operation].format(*map(self._text, value.operands))
        return f"const {kind} {self.names[value]} = {form};"

    def _text(self, operand: Any) -> str:
        if not isinstance(operand, Symbol):
            return FORMATS[self.program.dtype].number(operand)
        return operand.operands[0] if operand.operation == "argument" else self.names[operand]


def _is_exp_of_negative(value: Symbol) -> bool:
    """Whether this is exp(-|x|), which cannot overflow."""
    if value.operation != "exp" or value.operands[0].operation != "negative":
        return False
    inner = value.operands[0].operands[0]
    return isinstance(inner, Symbol) and inner.operation == "abs"
