"""Strangers' code is called: whatever it raises becomes one clear sentence, with the place."""

import inspect
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from torch_ref.compare.twin import Twin, TwinError

Line = tuple[str, int]  # a file and a number
_JUDGE = str(Path(__file__).parent)  # where its code is
# What is raised of a matrix without an inverse, and the like.
SINGULAR = (torch.linalg.LinAlgError, np.linalg.LinAlgError)  # type: ignore[attr-defined]
# What torch says where a tensor is changed in place that repeats its numbers without a copy, and
# where one is that has a gradient.
_IN_PLACE = (
    "more than one element of the written-to tensor",
    "is being used in an in-place operation",
)


def call(twin: Twin, part: str, argument: Any) -> Any:
    """What twin.inputs, twin.reference or twin.manual returns.

    Raises TwinError for whatever it raises, with the place; out of memory goes through as it is.
    """
    function: Callable[[Any], Any] = getattr(twin, part)
    with Saying(twin.name, part, names=tuple(argument) if isinstance(argument, dict) else ()):
        return function(argument)


@dataclass(frozen=True)
class Saying:
    """Raises TwinError for whatever `what` raises, a stranger's code; out of memory goes through as
    it is. mend: what to add to the sentence. names: of what it was given.

    A class, since a generator's frames would stand in the place that is said.
    """

    name: str
    what: str
    mend: str = ""
    names: tuple[str, ...] = ()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, Exception) or isinstance(
            error, (torch.OutOfMemoryError, TwinError)
        ):
            return
        changes = any(words in str(error) for words in _IN_PLACE)
        in_place = " (it must leave what it is given as it is)" if changes else ""
        misnamed = isinstance(error, KeyError) and not {*error.args} & {*self.names}
        names = f" (the names are {', '.join(self.names)})" if misnamed and self.names else ""
        said = f"{self.name}: {self.what} raised {told(error)}{names}{in_place}{self.mend}."
        raise TwinError(said) from error


def told(error: Exception) -> str:
    """The error's kind, text, and the line of the author's code that it came from."""
    frames = traceback.extract_tb(error.__traceback__)[1:]
    text = " ".join(str(error).split()) or "no message"
    outside = [
        frame
        for frame in frames
        if not (_is_library(frame.filename) or frame.filename.startswith(_JUDGE))
    ]
    if not outside:
        return f"{type(error).__name__}: {text.rstrip('.')}"
    place = f"{Path(outside[-1].filename).name}:{outside[-1].lineno}"
    return f"{type(error).__name__} at {place}: {text.rstrip('.')}"


def line_outside(own: str) -> Line | None:
    """The line that runs now, libraries' left out and those in the folder `own`; None where it is
    another one of the judge's."""
    frame = inspect.currentframe()
    while frame and (_is_library(_file(frame)) or _file(frame).startswith((own, __file__))):
        frame = frame.f_back
    if frame is None or _file(frame).startswith(_JUDGE):
        return None
    return _file(frame), frame.f_lineno


def _file(frame: FrameType) -> str:
    return frame.f_code.co_filename


def _is_library(file: str) -> bool:
    return "site-packages" in file or file.startswith("<frozen")
