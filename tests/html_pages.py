"""Reports of every kind for the page, and names that try to be more than names."""

import io
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import torch_ref.assignment
from torch_ref import Twin
from torch_ref.assignment import assignment_twin
from torch_ref.cli import main
from torch_ref.compare import Report, Row
from torch_ref.compare.histogram import BINS
from torch_ref.compare.report import Diagnosis, Graph
from torch_ref.compare.twin import Draw, Values

DTYPES = ("float64", "float32", "bfloat16", "float16")
EVIL = "</title><script>alert(1)</script>"
NAMES = (EVIL, "a\"b'c&d", "line\nbreak", "turned\u202eround", "half \ud800 letter", "<img src=x>")


def row(name: str, verdict: str = "agree", **changes: Any) -> Row:
    """A row as verify makes them; its errors half within and, where it differs, half beyond."""
    counts = [0] * BINS
    counts[5], counts[12] = 50, 50 * (verdict == "differ")
    made = Row(
        name, verdict, 4.0 if verdict == "differ" else 0.3, "0:17", 1.5, 2.5, 1e-9, 12.3, 12.5,
        0.02, 0.5 * (verdict == "differ"), stratum="ordinary", histogram=tuple(counts),
    )  # fmt: skip
    return replace(made, **changes)


def chain(*names: str, wrong: str = "", twin: str = "chain", dtype: str = "float64") -> Report:
    """Quantities each computed from the one before; the gradients behind the wrong one inherit."""
    backward = names[::-1]
    at = backward.index(wrong) if wrong else len(names)
    rows = [row(name, "agree" if i < at else "differ") for i, name in enumerate(backward)]
    found = Diagnosis(
        (wrong,), (f"dL/d{wrong} has the wrong sign",), (True,), ("mine.py:7",), blame="manual"
    )
    return Report(
        twin, 600, dtype, "cpu", 0, tuple(rows), diagnosis=found if wrong else Diagnosis(),
        graph=Graph((*names, "loss"), tuple(zip(names, (*names[1:], "loss")))),
    )  # fmt: skip


def wrong_twin() -> Twin:
    """The assignment's twin with a sign error in dL/dw46."""
    twin = assignment_twin()

    def manual(values: Values) -> Values:
        gradients = twin.manual(values)
        return {**gradients, "w46": -gradients["w46"]}

    return replace(twin, manual=manual)


def one_case_twin() -> Twin:
    def inputs(draw: Draw) -> Values:
        return {"x": draw.normal(shape=(draw.size(2, 4), 3))}

    return Twin(
        "one case",
        inputs,
        lambda v: {"y": v["x"].exp(), "loss": v["x"].exp().sum()},
        lambda v: {"x": v["x"].exp()},
    )


def broken(names: tuple[str, ...], rows: tuple[Row, ...] = ()) -> Report:
    reasons = tuple(f"{name} is not what it should be." for name in names)
    return replace(chain("x"), rows=rows, failures=reasons, graph=Graph())


MANY = tuple(f"encoder.layers.{i}.self_attention.in_projection_weight" for i in range(60))
nothing = row("y", None, worst_ratio=None, worst_case=None)  # refused: it could not be compared
PAGES = {
    "agree": [chain("x", "y")],
    "many": [chain(*MANY, wrong=MANY[30], twin="x" * 300, dtype=dtype) for dtype in DTYPES],
    "names": [chain(*NAMES, wrong=NAMES[2], twin=EVIL), chain(*NAMES, twin=EVIL, dtype="float32")],
    "wide": [replace(chain("y"), graph=Graph(("y", *MANY), tuple((m, "y") for m in MANY)))],
    "undecided": [replace(chain("x"), rows=(row("x", "undecided", worst_ratio=None),))],
    "contract": [broken(NAMES)],
    "refused": [broken(("dL/dy",), (replace(nothing, verdict="differ", histogram=()),))],
}


def planted_page(folder: Path) -> Path:
    """The page that the command writes for a planted bug."""
    file = folder / "report.html"
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()):
        patch.setattr(torch_ref.assignment, "assignment_twin", wrong_twin)
        assert main(["verify", "--cases", "600", "--report", str(file)]) == 1
    return file
