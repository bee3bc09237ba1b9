"""A recording run again on other numbers, its loops compiled."""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torch_ref.compare.tape.emit import source
from torch_ref.compare.tape.recording import Recording, Value
from torch_ref.compare.tape.schedule import Loop, Single, parts
from torch_ref.fused.compiler import FLAGS, library

# a * b + c rounded once would not be what torch computes.
_EXACT = (*(flag for flag in FLAGS if "contract" not in flag), "-ffp-contract=off")


class Replay:
    """Computes the outputs of a recording for other inputs of the same shapes and dtypes, the same
    to the bit as what was recorded. Raises NoCompilerError."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.parts = parts(recording)
        loops = [part for part in self.parts if isinstance(part, Loop)]
        library_ = library(source(loops), _EXACT)
        self._compiled = {loop: getattr(library_, f"loop_{n}") for n, loop in enumerate(loops)}
        self._done_with = _last_uses(self.parts, recording)

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor] | None:
        """The outputs, or None where a question is answered otherwise than when it was recorded."""
        at = dict(zip(self.recording.inputs, inputs, strict=True))
        with torch.no_grad():
            for part, finished in zip(self.parts, self._done_with, strict=True):
                if isinstance(part, Single):
                    self._run_by_torch(part, at)
                elif not self._run_compiled(part, at):
                    return None
                for value in finished:
                    del at[value]
            return [_tensor(value, at) for value in self.recording.outputs]

    def _run_by_torch(self, part: Single, at: dict[Value, Tensor]) -> None:
        step = part.step
        args = [_looked_up(arg, at) for arg in step.args]
        kwargs = {name: _looked_up(arg, at) for name, arg in step.kwargs.items()}
        result = step.target(*args, **kwargs)
        for value in part.results:
            at[value] = result if isinstance(result, Tensor) else result[value.place]

    def _run_compiled(self, part: Loop, at: dict[Value, Tensor]) -> bool:
        loaded = [at[value].contiguous() for value in part.loaded]
        if any(
            tensor.shape != value.shape for tensor, value in zip(loaded, part.loaded, strict=True)
        ):
            return False  # made by an operation whose shapes depend on its numbers
        stored = [torch.empty(value.shape, dtype=value.dtype) for value in part.stored]
        pointers = [tensor.data_ptr() for tensor in (*loaded, *stored)]
        size: int = torch.Size(part.shape).numel()
        function: Any = self._compiled[part]
        differs = function(ctypes.c_int64(size), (ctypes.c_void_p * len(pointers))(*pointers))
        at.update(zip(part.stored, stored, strict=True))
        return not differs


def _looked_up(arg: Any, at: dict[Value, Tensor]) -> Any:
    if isinstance(arg, (list, tuple)):
        return [_looked_up(item, at) for item in arg]
    return _tensor(arg, at) if isinstance(arg, Value) else arg


def _tensor(value: Value, at: dict[Value, Tensor]) -> Tensor:
    if value.number is not None:
        return torch.full(value.shape, value.number, dtype=value.dtype)
    return at[value] if value.constant is None else value.constant


def _last_uses(parts: Sequence[Loop | Single], recording: Recording) -> list[list[Value]]:
    """The values that nobody needs after each part, so that memory stays small."""
    seen = set(recording.outputs)
    done: list[list[Value]] = []
    for part in reversed(parts):
        made = part.stored if isinstance(part, Loop) else part.results
        needs = part.loaded if isinstance(part, Loop) else part.step.needs
        finished = [value for value in dict.fromkeys((*needs, *made)) if value not in seen]
        seen.update(finished)
        done.append(finished)
    return done[::-1]
