"""Reports as one self-contained HTML page, and one report as a notebook shows it.

No script, nothing loaded from elsewhere, and every text from outside escaped: names are the user's.
Needs jinja2, the extra `report`.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch_ref.report.files import write_whole
from torch_ref.report.machine import device_name, machine, versions
from torch_ref.report.view import WORDS, Detail, section, shown, sign
from torch_ref.report.words import sentence, worst_verdict

if TYPE_CHECKING:
    import jinja2

    from torch_ref.compare import Report

LARGEST = 300_000  # bytes
# The first that makes the page small enough; rows of all reports together, quantities a drawing.
DETAILS = (
    Detail(240, 80), Detail(120, 60), Detail(60, 40), Detail(30, 20), Detail(12, 12),
    Detail(12, 12, letters=100), Detail(6, 6, letters=50),
)  # fmt: skip
MISSING = "the page needs jinja2, which is not installed: pip install 'gradtwin[report]'."


def is_missing() -> bool:
    """Whether what the page needs is not installed."""
    return find_spec("jinja2") is None


def write_html(path: str | Path, reports: "Sequence[Report]", address: str | None = None) -> None:
    """Write the reports on one twin, one a dtype, as a page of less than LARGEST bytes.

    address: the twin as the command line names it, "" for the assignment's; None where only Python
    can replay its cases. Written whole or not at all; raises OSError where it cannot be, and
    ImportError without jinja2.
    """
    write_whole(path, html_page(reports, address))


def html_page(reports: "Sequence[Report]", address: str | None = None) -> str:
    """The page's text. Of very many quantities it shows the most telling ones, and says so."""

    def page(detail: Detail) -> str:
        rows = max(detail.rows // len(reports), 3)
        return _page(reports, address, replace(detail, rows=rows))

    return _small_enough(page, DETAILS)


def html_fragment(report: "Report") -> str:
    """One report without a page around it, with its style; its ids are its own."""
    key = f"g{hashlib.sha256(repr(report).encode(errors='replace')).hexdigest()[:10]}"

    def fragment(detail: Detail) -> str:
        template = _environment(detail.letters).get_template("fragment.html")
        return template.render(section=section(report, None, detail, key))

    return _small_enough(fragment, DETAILS[2:])


def _small_enough(made: Callable[[Detail], str], details: Sequence[Detail]) -> str:
    """With as much detail as fits."""
    page = ""
    for page in map(made, details):
        if len(page.encode()) < LARGEST:
            break
    return page


def _page(reports: "Sequence[Report]", address: str | None, detail: Detail) -> str:
    first = reports[0]
    return _environment(detail.letters).get_template("page.html").render(
        sentence=sentence(reports),
        verdict=worst_verdict(reports),
        twin=first.twin,
        sections=[section(r, address, detail, f"r{at}") for at, r in enumerate(reports)],
        facts={
            "Twin": first.twin,
            "Cases": f"{first.cases:,} a dtype",
            "Seed": first.seed,
            "Device": device_name(first.device),
            "Versions": versions(),
            "Machine": machine(),
        },
    )  # fmt: skip


@cache
def _environment(letters: int) -> "jinja2.Environment":
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("torch_ref.report", "page"),
        autoescape=True,
        finalize=partial(shown, most=letters),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    helpers: dict[str, Any] = {"WORDS": WORDS, "sign": sign}
    environment.globals.update(helpers)
    return environment
