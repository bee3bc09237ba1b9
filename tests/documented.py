"""What a command wrote with --json, held against the documented form."""

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from torch_ref.report import SCHEMA

FORM = json.loads(SCHEMA.read_text(encoding="utf-8"))


def check(file: Path) -> dict[str, Any]:
    """What was written. Raises jsonschema.ValidationError where it has another form."""
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    Draft202012Validator(FORM, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(found)
    return found
