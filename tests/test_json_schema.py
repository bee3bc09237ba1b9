"""What the commands write with --json has the documented form, and the form says all of it."""

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from documented import FORM, check
from jsonschema import Draft202012Validator, ValidationError

from manual_bp.audit import Finding
from torch_ref.cli import main
from torch_ref.compare.report import Diagnosis, Graph, Report, Row
from torch_ref.selftest.run import MutantRow

WRONG = """
import torch
from torch_ref import Twin


def inputs(draw):
    return {"x": draw.normal(shape=(2, 3))}


def reference(values):
    y = torch.tanh(values["x"])
    return {"y": y, "loss": (y**2).sum()}


def manual(values):
    y = torch.tanh(values["x"])
    return {"y": 2 * y, "x": 2 * y * (1 - y)}


twin = Twin("wrong", inputs, reference, manual)
"""


def test_the_form_is_a_form() -> None:
    Draft202012Validator.check_schema(FORM)


def test_verify_writes_it(tmp_path: Path) -> None:
    twin, file = tmp_path / "wrong.py", tmp_path / "out.json"
    twin.write_text(WRONG)
    assert main(["verify", str(twin), "--cases", "20", "--json", str(file)]) == 1
    found = check(file)
    assert found["format"] == "gradtwin verify 1"
    assert [report["first_wrong"] for report in found["reports"]] == ["x", "x"]


def test_numbers_that_json_lacks_fit(tmp_path: Path) -> None:
    """The hand has no number at all: an infinite ratio, a manual value that is none."""
    twin, file = tmp_path / "nan.py", tmp_path / "out.json"
    twin.write_text(WRONG.replace("2 * y * (1 - y)", "2 * y * float('nan')"))
    command = ["verify", str(twin), "--cases", "20", "--dtype", "float64", "--json", str(file)]
    assert main(command) == 1
    wrong = check(file)["reports"][0]["rows"][1]
    assert (wrong["manual"], wrong["worst_ratio"]) == ("nan", "inf")


def test_audit_writes_it(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    assert main(["audit", "--json", str(file)]) == 0
    assert check(file)["format"] == "gradtwin audit 1"


def test_the_stored_benchmark_has_it() -> None:
    check(Path(__file__).parents[1] / "bench" / "results" / "gradients.json")


def test_another_version_does_not_fit(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    file.write_text('{"format": "gradtwin verify 2", "reports": []}')
    with pytest.raises(ValidationError):
        check(file)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("row", Row),
        ("report", Report),
        ("diagnosis", Diagnosis),
        ("graph", Graph),
        ("finding", Finding),
        ("mutant", MutantRow),
    ],
)
def test_every_field_has_its_key(name: str, kind: type) -> None:
    """A field that is new, or gone, is said in the form, whose version grows."""
    keys = set(FORM["$defs"][name]["properties"])
    more = {"report": {"verdict", "first_wrong", "mistakes", "explanation"}}.get(name, set())
    assert keys == {field.name for field in fields(kind)} | more


def objects(form: Any) -> Iterator[dict[str, Any]]:
    for item in form.values() if isinstance(form, dict) else form:
        if isinstance(item, (dict, list)):
            yield from objects(item)
    if isinstance(form, dict) and "properties" in form:
        yield form


def test_nothing_unsaid_fits() -> None:
    """So a key that the form lacks is found by the tests above."""
    assert all(form["additionalProperties"] is False for form in objects(FORM["$defs"]))
    assert len(list(objects(FORM["$defs"]))) > 10
