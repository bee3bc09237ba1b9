"""A result as one JSON file, written whole or not at all."""

import json
from pathlib import Path

from torch_ref.report.files import write_whole

SCHEMA = Path(__file__).with_name("schema.json")  # what every command writes, and what it means
VERSION = 1


def json_format(kind: str) -> str:
    """What stands under "format", by which a reader knows the form: "gradtwin verify 1"."""
    return f"gradtwin {kind} {VERSION}"


def write_json(path: str | Path, result: dict[str, object]) -> None:
    """Write dicts, lists, strings and numbers; those that are not finite become strings.

    How the file is written is said in `write_whole`, and so is what it raises.
    """
    write_whole(path, json.dumps(_plain(result), indent=1) + "\n")


def _plain(value: object) -> object:
    """JSON has no infinity and no NaN: those become "inf", "-inf" and "nan"."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    finite = not isinstance(value, float) or float("-inf") < value < float("inf")
    return value if finite else str(value)
