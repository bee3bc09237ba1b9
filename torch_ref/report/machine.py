"""What a result was found with: versions and the machine; nothing that names a person or a host."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = {"gradtwin": "gradtwin", "torch": "torch", "NumPy": "numpy"}


def versions() -> str:
    """gradtwin's, Python's, torch's and NumPy's."""
    found = [f"{name} {_version(package)}" for name, package in PACKAGES.items()]
    return ", ".join([*found, f"Python {platform.python_version()}"])


def machine() -> str:
    """The model of the processor, its cores as the system counts them, and the system."""
    cores = os.cpu_count() or 1
    return f"{processor()}, {cores} {'core' if cores == 1 else 'cores'}; {_system()}"


def device_name(device: str) -> str:
    """A CUDA device with its model, anything else as it is."""
    if not device.startswith("cuda"):
        return device
    import torch

    try:
        return f"{device} ({torch.cuda.get_device_name(device)})"
    except (RuntimeError, AssertionError):  # it is on the machine that judged, not on this one
        return device


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # run from its source, not installed
        return "(version unknown)"


def processor() -> str:
    """The model, as Linux gives it; the architecture elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # no Linux
        text = ""
    models = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return models[0] if models else platform.processor() or platform.machine()


def _system() -> str:
    try:
        system = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        system = f"{platform.system()} {platform.release()}"
    return f"{system}, {platform.machine()}"
