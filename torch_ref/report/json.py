"""A result as one JSON file, written whole or not at all."""

import json
import os
from pathlib import Path


def write_json(path: str | Path, result: dict[str, object]) -> None:
    """Write dicts, lists, strings and numbers; those that are not finite become strings.

    The file appears under its name only once it is complete; one that was there stays until then.
    Raises OSError where it cannot be written.
    """
    target = Path(path)
    text = json.dumps(_plain(result), indent=1)
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        beside.write_text(text + "\n", encoding="utf-8")
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def _plain(value: object) -> object:
    """JSON has no infinity and no NaN: those become "inf", "-inf" and "nan"."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    finite = not isinstance(value, float) or float("-inf") < value < float("inf")
    return value if finite else str(value)
