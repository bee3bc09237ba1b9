"""Which quantities each public function needs of one sample, and the code that computes them."""

import ctypes
import os
import sys
import warnings
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from math import prod
from typing import Any

from manual_bp.network import PARAMETERS
from torch_ref.fused import emit_c, emit_python
from torch_ref.fused.arrays import Samples
from torch_ref.fused.recording import ARGUMENTS, record
from torch_ref.fused.rewriting import telling
from torch_ref.native.compiler import NoCompilerError, library
from torch_ref.native.loops import FORMS

MEANS = "means"  # of the loss and its gradient for parameters that are one number each
GRADIENTS = "gradients"  # the same without the loss
SAMPLES = "samples"  # of the loss and its gradient for parameters, sample by sample
BACKWARD = "backward"  # all gradients, sample by sample
SMALL = 4_096  # samples, below which starting threads takes longer than they save


@cache
def wanted(kind: str, dtype: str) -> Mapping[str, Any]:
    """The quantities' symbols by name; two names may have the same one."""
    recording = record(dtype)
    if kind == BACKWARD:
        return dict(recording.gradients)
    loss = {} if kind == GRADIENTS else {"loss": recording.values["loss"]}
    return loss | {name: recording.gradients[name] for name in PARAMETERS}


def watched(kind: str, dtype: str) -> list[Any]:
    """What must be finite."""
    recording = record(dtype)
    with_loss = "loss" in wanted(kind, dtype)
    return recording.watched if with_loss else recording.watched_without_loss


def program(kind: str, dtype: str) -> emit_c.Program:
    """What the C code of this kind computes, each quantity once."""
    summed = kind in (MEANS, GRADIENTS)
    outputs = list(dict.fromkeys(wanted(kind, dtype).values()))
    # what is summed shows by its sum whether it is finite
    looked_at = telling(watched(kind, dtype), outputs if summed else ())
    shared = len(PARAMETERS) if summed else 0
    return emit_c.Program(dtype, ARGUMENTS, outputs, looked_at, shared, summed)


@dataclass(frozen=True)
class Kernel:
    """Compiled code; `places` is where its output of a name comes, `run` is that of `c_driver`."""

    places: Mapping[str, int]
    run: Callable[..., int]

    def __call__(self, given: Samples, outputs: Sequence[int]) -> bool:
        """Whether everything is finite; outputs: where to write, as `run` takes them.

        Raises MemoryError.
        """
        count = prod(given.shape)
        addresses = array("Q", [*given.pointers, *outputs])
        data = addresses.buffer_info()[0]
        status = self.run(
            count,
            len(given.shape),
            _integers(given.shape),
            data,
            _integers(given.strides),
            data + len(given.pointers) * addresses.itemsize,
            1 if count < SMALL else threads(),
        )
        if status == 1:
            raise MemoryError(f"There is no memory for the sums of {count:,} samples.")
        return status == 0


@lru_cache(256)
def _integers(numbers: tuple[int, ...]) -> Any:
    return (ctypes.c_int64 * len(numbers))(*numbers)


def threads() -> int:
    """As many as torch uses; without torch, as OpenMP is told or the processors there are."""
    torch = sys.modules.get("torch")
    if _forked:
        return 1
    if torch is not None:
        return int(torch.get_num_threads())
    chosen = os.environ.get("OMP_NUM_THREADS", "")
    return int(chosen) if chosen.isdecimal() and int(chosen) else len(os.sched_getaffinity(0))


_forked: list[bool] = []  # OpenMP's threads do not live on in a forked process
os.register_at_fork(after_in_child=lambda: _forked.append(True))

_kernels: dict[tuple[str, str], Kernel | None] = {}


def kernel(kind: str, dtype: str) -> Kernel | None:
    """The compiled code; None, after a warning the first time, where it cannot be compiled."""
    if (kind, dtype) not in _kernels:
        try:
            _kernels[kind, dtype] = _compiled(kind, dtype)
        except NoCompilerError as problem:
            _kernels[kind, dtype] = None
            warnings.warn(
                f"The fused gradients are computed by manual_bp instead, several times slower: "
                f"{problem}. Install gcc or clang, or name a compiler in CC.",
                RuntimeWarning,
                stacklevel=4,
            )
    return _kernels[kind, dtype]


def _compiled(kind: str, dtype: str) -> Kernel:
    plan = program(kind, dtype)
    names = wanted(kind, dtype)
    return loaded(plan, {name: plan.outputs.index(value) for name, value in names.items()})


def loaded(
    plan: emit_c.Program, places: Mapping[str, int], forms: Mapping[str, str] = FORMS
) -> Kernel:
    """A program as code in memory. Raises NoCompilerError."""
    run = library(emit_c.source(plan, forms)).run
    size, pointer = ctypes.c_int64, ctypes.c_void_p
    run.argtypes = (size, size, pointer, pointer, pointer, pointer, ctypes.c_int)
    return Kernel(places, run)


@cache
def sample(kind: str) -> "Callable[..., tuple[dict[str, float], float]]":
    """The same for one sample of Python floats; the number beside them is as in `emit_python`."""
    outputs, looked_at = wanted(kind, "float64"), watched(kind, "float64")
    return emit_python.function(ARGUMENTS, outputs, looked_at)
