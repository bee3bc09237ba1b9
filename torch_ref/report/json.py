"""Reports as one JSON file, written whole or not at all."""

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from torch_ref.compare import Report


def write_json(path: str | Path, reports: Sequence[Report]) -> None:
    """Write {"reports": [...]}, each as `Report.to_dict` gives it.

    Numbers that are not finite become strings. The file appears under its name only once it is
    complete. Raises OSError where it cannot be written.
    """
    target = Path(path)
    text = json.dumps({"reports": [_plain(report.to_dict()) for report in reports]}, indent=1)
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text + "\n")
        os.replace(temporary, target)
    except OSError:
        os.unlink(temporary)
        raise


def _plain(value: object) -> object:
    """JSON has no infinity and no NaN: those become "inf", "-inf" and "nan"."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    finite = not isinstance(value, float) or float("-inf") < value < float("inf")
    return value if finite else str(value)
