"""A benchmark's result as JSON: what was measured, and on what; nothing that names a host."""

import json
import os
import platform
import re
import subprocess
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from torch_ref.report.json import json_format
from torch_ref.report.machine import processor

Result = dict[str, Any]
FORMAT = json_format("bench")
PACKAGES = ("torch", "numpy", "jax", "jaxlib", "gradtwin")


def machine(threads: int, device: str) -> Result:
    """The processor, its cores, threads that are used, and versions; a CUDA device by its model."""
    return {
        "cpu": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": threads,
        "device": _device(device),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "compiler": _compiler(),
        **{name: _version(name) for name in PACKAGES},
    }


def load() -> float | None:
    """How many processes have wanted to run in the last minute; None where nobody counts them."""
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None


def result(where: Result, loads: tuple[float | None, float | None], parts: Result) -> Result:
    """Everything of one run; loads: before and after."""
    return {
        "format": FORMAT,
        "date": date.today().isoformat(),
        "machine": where,
        "load_average": {"before": loads[0], "after": loads[1]},
        **parts,
    }


def read(path: Path) -> Result:
    """A stored result. Raises ValueError, with one sentence, for anything else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from None
    except ValueError:  # no JSON, or no text
        found = None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ValueError(f"{path} is no result of gradtwin bench: give what --json has written.")
    return found


def _version(package: str) -> str | None:
    """Without the build; None where it is not installed."""
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return None


def _compiler() -> str | None:
    from torch_ref.native.compiler import NoCompilerError, find_compiler

    try:
        command = [*find_compiler(), "--version"]
    except NoCompilerError:
        return None
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    number = re.search(r"\d+\.\d+(\.\d+)?", re.sub(r"\(.*?\)", "", done.stdout))
    return f"{Path(command[0]).name} {number[0] if number else '(version unknown)'}"


def _device(device: str) -> str:
    from torch_ref.report.machine import device_name

    return device_name(device)
