"""Loops written in C: block by block and stage by stage, so that nothing leaves the nearest cache.

A stage is a short loop that compilers vectorise; what a later stage needs waits in a room of the
block's size. Each is a function of its own, since compilers take time with long ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from torch_ref.compare.tape.forms import FUNCTIONS, form, literal, operands
from torch_ref.compare.tape.recording import Question, Value
from torch_ref.compare.tape.schedule import Loop

BLOCK = 128  # numbers
STAGE = 32  # operations

_HEAD = f"""#include <math.h>
#include <stdint.h>
enum {{ BLOCK = {BLOCK} }};
{FUNCTIONS}"""


def source(loops: Sequence[Loop]) -> str:
    """A function loop_N(count, at) for each loop: `at` has pointers to what is loaded, then to
    what is stored; it returns 0 if every question is answered as before."""
    return _HEAD + "".join(_function(f"loop_{n}", loop) for n, loop in enumerate(loops))


def _function(name: str, loop: Loop) -> str:
    stages = [loop.computed[i : i + STAGE] for i in range(0, len(loop.computed), STAGE)]
    writer = _Writer.of(loop, stages)
    calls = [f"    {name}_{n}(start, size, room, at, met);" for n in range(len(stages))]
    usual = ["met[0]", *(f"!met[{place}]" for place in writer.met.values() if place)]
    return "\n".join([
        *(writer.stage(f"{name}_{n}", stage) for n, stage in enumerate(stages)),
        f"int {name}(int64_t count, void *const *at) {{",
        f"  int64_t met[{len(usual)}] = {{0}};",
        f"  double room[{max(len(set(writer.room.values())), 1)}][BLOCK];",
        "  for (int64_t start = 0; start < count; start += BLOCK) {",
        "    const int64_t size = count - start < BLOCK ? count - start : BLOCK;",
        *calls,
        "  }",
        f"  return {' || '.join(usual)};\n}}\n",
    ])  # fmt: skip


@dataclass(frozen=True)
class _Writer:
    """names: of variables; outside: places in `at`; room: where what later stages need waits; met:
    which count a question adds to, 0 for all those whose answer is that nothing is met."""

    names: Mapping[Value, str]
    outside: Mapping[Value, int]
    stored: frozenset[Value]
    room: Mapping[Value, int]
    met: Mapping[Question, int]
    asked: Mapping[Value, Sequence[Question]]

    @staticmethod
    def of(loop: Loop, stages: Sequence[Sequence[Value]]) -> "_Writer":
        asked: dict[Value, list[Question]] = {}
        for question in loop.questions:
            asked.setdefault(question.value, []).append(question)
        met = [one for one in loop.questions if one.answer != (one.kind == "all")]
        return _Writer(
            names={value: f"v{i}" for i, value in enumerate((*loop.loaded, *loop.computed))},
            outside={value: i for i, value in enumerate((*loop.loaded, *loop.stored))},
            stored=frozenset(loop.stored),
            room=_rooms(stages),
            met={q: met.index(q) + 1 if q in met else 0 for q in loop.questions},
            asked=asked,
        )

    def stage(self, name: str, stage: Sequence[Value]) -> str:
        own = set(stage)
        needed = list(dict.fromkeys(n for value in stage for n in value.needs if n not in own))
        stored = [value for value in stage if value in self.stored]
        met = self._met(stage)
        pointers = [(v, "const ") for v in needed if v in self.outside and v not in self.room]
        pointers += [(value, "") for value in stored]
        body = [
            *(f"const {_kind(v)} {self.names[v]} = {self._load(v)};" for v in needed),
            *map(self._statement, stage),
            *(f"room[{self.room[v]}][i] = {self.names[v]};" for v in stage if v in self.room),
            *(f"at_{self.names[value]}[i] = {self.names[value]};" for value in stored),
            *(f"met_{place} |= {' | '.join(texts)};" for place, texts in met.items()),
        ]
        flags = ", ".join(f"met_{place}" for place in met)
        return "\n".join([
            f"\nstatic __attribute__((noinline)) void {name}(int64_t start, int64_t size,",
            "    double (*restrict room)[BLOCK], void *const *at, int64_t *met) {",
            *(f"  {const}{_outside(v)} *const restrict at_{self.names[v]} = "
              f"({const}{_outside(v)} *)at[{self.outside[v]}] + start;" for v, const in pointers),
            *(f"  int64_t met_{place} = 0;" for place in met),
            f"  #pragma omp simd{f' reduction(| : {flags})' if met else ''}",
            "  for (int64_t i = 0; i < size; i++) {",
            *(f"    {line}" for line in body),
            "  }",
            *(f"  met[{place}] |= met_{place};" for place in met),
            "}",
        ])  # fmt: skip

    def _met(self, stage: Sequence[Value]) -> dict[int, list[str]]:
        met: dict[int, list[str]] = {}
        for value in stage:
            for question in self.asked.get(value, ()):
                text = ("" if question.kind == "any" else "!") + self.names[value]
                met.setdefault(self.met[question], []).append(text)
        return met

    def _load(self, value: Value) -> str:
        room = self.room.get(value)
        text = f"at_{self.names[value]}[i]" if room is None else f"room[{room}][i]"
        return f"{text} != 0" if value.dtype == torch.bool else text

    def _statement(self, value: Value) -> str:
        step = value.source
        pattern = form(step, value) if step is not None else None
        if step is None or pattern is None:
            raise AssertionError("Loops hold only what has a form in C.")
        text = pattern.format(*map(self._text, operands(step)))
        return f"const {_kind(value)} {self.names[value]} = {text};"

    def _text(self, operand: Any) -> str:
        if not isinstance(operand, Value):
            return literal(operand)
        return self.names[operand] if operand.number is None else literal(operand.number)


def _rooms(stages: Sequence[Sequence[Value]]) -> dict[Value, int]:
    """Where each value waits that a later stage needs; a room is used again once it is free."""
    made = {value: n for n, stage in enumerate(stages) for value in stage}
    last: dict[Value, int] = {}
    for value, n in made.items():
        last |= {need: n for need in value.needs if made.get(need, n) < n}
    room: dict[Value, int] = {}
    busy: list[int] = []  # until which stage
    for value in made:
        if value in last:
            place = next((p for p, until in enumerate(busy) if until < made[value]), len(busy))
            busy[place : place + 1] = [last[value]]
            room[value] = place
    return room


def _kind(value: Value) -> str:
    """As wide as a number, so that vectors of both are of one length."""
    return "int64_t" if value.dtype == torch.bool else "double"


def _outside(value: Value) -> str:
    return "unsigned char" if value.dtype == torch.bool else "double"
