"""The autograd twin, and the judge beside it. Names load when they are first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch_ref.assignment import assignment_twin
    from torch_ref.compare import Draw, Report, Row, Twin, TwinError, verify
    from torch_ref.fused import fused_backward, fused_gradients
    from torch_ref.module import AssignmentNet, ItakuraSaitoLoss

__all__ = [
    "AssignmentNet",
    "Draw",
    "ItakuraSaitoLoss",
    "Report",
    "Row",
    "Twin",
    "TwinError",
    "assignment_twin",
    "fused_backward",
    "fused_gradients",
    "verify",
]

_HOME = {
    "AssignmentNet": "torch_ref.module",
    "ItakuraSaitoLoss": "torch_ref.module",
    "assignment_twin": "torch_ref.assignment",
    "fused_backward": "torch_ref.fused",
    "fused_gradients": "torch_ref.fused",
} | dict.fromkeys(("Draw", "Report", "Row", "Twin", "TwinError", "verify"), "torch_ref.compare")


def __getattr__(name: str) -> Any:  # so that `gradtwin --help` need not wait for torch
    if name not in _HOME:
        raise AttributeError(f"module 'torch_ref' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
