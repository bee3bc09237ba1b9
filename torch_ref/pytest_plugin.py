"""The pytest plugin: a fixture that asserts a twin agrees, its options, and a summary.

pytest loads this module in every run where gradtwin is installed, so it must not import torch: that
waits for the first test that needs it.
"""

import functools
import os
import shlex
import sys
from collections.abc import Generator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from torch_ref import arguments
from torch_ref.devices import missing_device

if TYPE_CHECKING:
    import torch

    from torch_ref.compare import Report, Row, Twin

_HOME = Path(__file__).parent
MOST_LINES = 20  # of the summary, unless -v is given

Check = dict[str, Any]  # what the summary needs of one report: text and numbers, which xdist sends
_checks = pytest.StashKey[list[Check]]()


# options -----------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("gradtwin", "hand-written gradients judged against autograd")
    group.addoption(
        "--twin-device",
        action="append",
        type=arguments.device,
        metavar="DEVICE",
        help="where the hand-written side runs: cpu (default), cuda or cuda:N; may be repeated",
    )
    group.addoption(
        "--twin-seed",
        type=arguments.seed,
        default=0,
        metavar="SEED",
        help="of the random cases, where a test gives none (default 0)",
    )
    group.addoption(
        "--twin-cases",
        type=arguments.cases,
        metavar="CASES",
        help="how many random cases, where a test does not say "
        "(default 100000; 100 for a twin whose inputs make one case at a time)",
    )
    group.addoption(
        "--twin-strict",
        action="store_true",
        help="a device that is missing fails the tests that need it instead of skipping them",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "twin: judges a hand-written backward pass; every test that uses the fixture grad_twin has "
        "this mark, `-m twin` runs them and no others",
    )


def pytest_report_header(config: pytest.Config) -> str:
    devices, seed = ", ".join(_devices(config)), config.getoption("twin_seed")
    return f"gradtwin: {version('gradtwin')}, {devices}, seed {seed}"


def _devices(config: pytest.Config) -> list[str]:
    """The devices asked for, each once, in the order given."""
    return list(dict.fromkeys(config.getoption("twin_device") or ["cpu"]))


# fixtures ----------------------------------------------------------------------------------------


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test that uses `twin_device`, by way of `grad_twin` too, runs once a device."""
    if "twin_device" in metafunc.fixturenames and not _has_its_own(metafunc):
        metafunc.parametrize("twin_device", _devices(metafunc.config), indirect=True)


def _has_its_own(metafunc: pytest.Metafunc) -> bool:
    """Whether the test names its devices itself, by @pytest.mark.parametrize."""
    for mark in metafunc.definition.iter_markers("parametrize"):
        given = mark.kwargs.get("argnames") or mark.args[0]
        names = given.split(",") if isinstance(given, str) else given
        if "twin_device" in [name.strip() for name in names]:
            return True
    return False


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "grad_twin" in getattr(item, "fixturenames", ()):
            item.add_marker("twin")


@pytest.fixture
def twin_device(request: pytest.FixtureRequest) -> str:
    """Each device of --twin-device in turn; a missing one skips, or fails with --twin-strict."""
    device: str = getattr(request, "param", _devices(request.config)[0])
    _need(device, request.config)
    return device


class GradTwin(Protocol):
    """The type of the fixture `grad_twin`, for annotations."""

    def __call__(
        self,
        twin: "Twin",
        *,
        cases: int | None = None,
        dtype: "torch.dtype | None" = None,
        device: "torch.device | str | None" = None,
        seed: int | None = None,
    ) -> "Report": ...


@pytest.fixture
def grad_twin(request: pytest.FixtureRequest, twin_device: str) -> GradTwin:
    """A callable that verifies a twin, asserts that it agrees and returns the Report.

    `grad_twin(twin, cases=None, dtype=torch.float64, device=None, seed=None)`: what is left out
    comes from --twin-cases, --twin-device (the test runs once on each) and --twin-seed. It raises
    AssertionError, with the report's message and how to replay the worst case, where the twin
    differs or is undecided, and ValueError where it cannot be judged as it stands.
    """
    options = request.config.option

    def check(
        twin: "Twin",
        *,
        cases: int | None = None,
        dtype: "torch.dtype | None" = None,
        device: "torch.device | str | None" = None,
        seed: int | None = None,
    ) -> "Report":
        __tracebackhide__ = True
        import torch

        from torch_ref.compare import verify

        place = twin_device if device is None else str(device)
        _need(place, request.config)
        try:
            report = verify(
                twin,
                cases=options.twin_cases if cases is None else cases,
                dtype=torch.float64 if dtype is None else dtype,
                device=place,
                seed=options.twin_seed if seed is None else seed,
            )
        except ValueError as error:
            raise _without_our_lines(error) from error.__cause__
        replay = _replay(report, twin, request.node)
        _record(request.node, report, replay)
        try:
            report.assert_agreement()
        except AssertionError as error:
            raise AssertionError(f"{error}\nReplay it: {replay}") from None
        return report

    return check


def _without_our_lines(error: ValueError) -> ValueError:
    """The error, its traceback and that of its cause starting at the first line of the user's."""
    for one in (error, error.__cause__):
        trace = one.__traceback__ if one else None
        while trace and _is_ours(Path(trace.tb_frame.f_code.co_filename)):
            trace = trace.tb_next
        if one:
            one.__traceback__ = trace
    return error


def _is_ours(file: Path) -> bool:
    """A line of gradtwin, or of functools between two of them."""
    return file.is_relative_to(_HOME) or file == Path(functools.__file__)


def _need(device: str, config: pytest.Config) -> None:
    """Skip the test, or fail it with --twin-strict, where this machine has no such device."""
    __tracebackhide__ = True
    reason = missing_device(device)
    if reason and config.getoption("twin_strict"):
        pytest.fail(f"{reason} (with --twin-strict that is a failure).", pytrace=False)
    if reason:
        pytest.skip(reason)


# how to look at it again -------------------------------------------------------------------------


def _replay(report: "Report", twin: "Twin", item: pytest.Item) -> str:
    """The command that shows the worst case again, or, for a twin without a name that the command
    could find it by, the one that runs the test again on the same cases."""
    row = _worst(report)
    address = _address(twin, item)
    if row is None or row.worst_case is None or not address:
        return (
            f"pytest {shlex.quote(_from_here(item))} --twin-cases {report.cases} "
            f"--twin-seed {report.seed} --twin-device {report.device}"
        )
    return (
        f"gradtwin replay {row.worst_case} {shlex.quote(address)} --dtype {report.dtype} "
        f"--device {report.device}"
    )


def _from_here(item: pytest.Item) -> str:
    """The test's node id, which begins at pytest's root, as it is typed where pytest was called."""
    _, *names = item.nodeid.split("::")
    start = item.config.invocation_params.dir
    return "::".join([os.path.relpath(item.path, start), *names])


def _worst(report: "Report") -> "Row | None":
    """The first wrong row, or else the one that used the largest share of allowed rounding."""
    for row in report.rows:
        if row.name == report.first_wrong:
            return row
    rows = [row for row in report.rows if row.worst_ratio is not None]
    return max(rows, key=lambda row: row.worst_ratio or 0.0, default=None)


def _address(twin: "Twin", item: pytest.Item) -> str:
    """FILE.py:NAME or MODULE:NAME where the twin has a name in a module, "" where it has none."""
    homes = [getattr(f, "__module__", "") for f in (twin.manual, twin.inputs, twin.reference)]
    found = [*(sys.modules.get(name) for name in homes), getattr(item, "module", None)]
    for module in (module for module in found if isinstance(module, ModuleType)):
        for name, value in vars(module).items():
            if value is twin:
                return f"{_place(module)}:{name}"
    return ""


def _place(module: ModuleType) -> str:
    """A module in a package by its name, another one by its path from here."""
    file = getattr(module, "__file__", None)
    return os.path.relpath(file) if file and not module.__package__ else module.__name__


# what is reported --------------------------------------------------------------------------------


def _record(item: pytest.Item, report: "Report", replay: str) -> None:
    """Properties of the test for JUnit XML, and what the summary shows.

    The properties go where the fixture record_property would put them: that one warns under
    pytest's own default, junit_family=xunit2.
    """
    row = _worst(report)
    name = f"gradtwin.{report.twin}.{report.dtype}.{report.device}"
    item.user_properties += [
        (f"{name}.verdict", report.verdict),
        (f"{name}.quantity", row.name if row else ""),
        (f"{name}.worst_ratio", str(row.worst_ratio) if row else ""),
        (f"{name}.replay", replay),
    ]
    item.stash.setdefault(_checks, []).append(
        {
            "twin": report.twin,
            "dtype": report.dtype,
            "device": report.device,
            "cases": report.cases,
            "verdict": report.verdict,
            "quantity": row.name if row else "",
            "ratio": row.worst_ratio if row else None,
        }
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, Any]:
    """The checks travel on the test's report, which xdist sends from its workers."""
    report = yield
    if _checks in item.stash:
        vars(report)["gradtwin"] = item.stash[_checks]
        del item.stash[_checks]
    return report


def pytest_terminal_summary(terminalreporter: "pytest.TerminalReporter") -> None:
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    checks = [check for report in reports for check in getattr(report, "gradtwin", ())]
    if not checks:
        return
    terminalreporter.section("gradtwin: worst share of allowed rounding")
    for line in summary_lines(checks, cut=terminalreporter.config.get_verbosity() < 1):
        terminalreporter.write_line(line)


def summary_lines(checks: list[Check], *, cut: bool) -> list[str]:
    """One line a check, the worst first; `cut` after MOST_LINES of them."""
    ordered = sorted(checks, key=_how_bad, reverse=True)
    shown = ordered[:MOST_LINES] if cut else ordered
    lines = _aligned([_cells(check) for check in shown])
    rest = len(ordered) - len(shown)
    return [*lines, f"... and {rest} that used less of it (all with -v)"] if rest else lines


def _how_bad(check: Check) -> tuple[int, float]:
    rank = ("agree", "undecided", "differ").index(check["verdict"])
    return rank, -1.0 if check["ratio"] is None else check["ratio"]


def _cells(check: Check) -> list[str]:
    quantity = f"dL/d{check['quantity']}" if check["quantity"] else ""
    return [
        check["twin"],
        check["dtype"],
        check["device"],
        _share(check["ratio"]),
        quantity,
        f"{check['cases']:,} cases",
        check["verdict"],
    ]


def _share(ratio: float | None) -> str:
    """0.353 as 35%; a ratio far above 1 as a factor; "-" where nothing could be decided."""
    if ratio is None:
        return "-"
    return f"{ratio:.0%}" if ratio < 10 else f"{ratio:.1e} x"


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in rows]
