"""The machine's limit, and the loop a C programmer would write: compiled on the spot.

Two floors are measured in the run: memory, a copy that moves as many bytes as the peers must, and
arithmetic, the exponentials of as many numbers, read from memory and added up. Nobody is faster
than the larger of the two, and nobody reaches it: it leaves all other work out.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

import manual_bp
from torch_ref.benchmark.batch import Batch
from torch_ref.native.compiler import FLAGS, NoCompilerError, find_compiler, library

Step = Callable[[], dict[str, Any]]
MEMORY, ARITHMETIC = "limit: memory", "limit: arithmetic"
SMALL = 4096  # samples; below, threads cost more than they save

SOURCE = """
#include <math.h>
#include <string.h>

void copy(long count, const T *from, T *to, int threads) {
  #pragma omp parallel for num_threads(threads) if(parallel: threads > 1)
  for (int part = 0; part < threads; part++) {
    const long start = count * part / threads, end = count * (part + 1) / threads;
    memcpy(to + start, from + start, (end - start) * sizeof(T));
  }
}

T exponentials(long count, const T *from, int threads) {
  T sum = 0;
  #pragma omp parallel for simd reduction(+:sum) num_threads(threads) if(parallel: threads > 1)
  for (long i = 0; i < count; i++) sum += EXP(from[i]);
  return sum;
}

#define FORWARD \\
    const T x1=X1[i], x2=X2[i], t=R[i]; \\
    const T z3=w13*x1+w23*x2+b3, x3=1/(1+EXP(-z3)); \\
    const T z4=w34*x3+b4, x4=1/(1+EXP(-z4)); \\
    const T z5=w35*x3+b5, x5=1/(1+EXP(-z5)); \\
    const T z6=w36*x3+w46*x4+w56*x5+b6, x6=z6*z6;
#define LOSS const T ratio=t/x6; loss+=ratio-LOG(ratio)-1;
#define BACKWARD \\
    const T dz6=(x6-t)/(x6*x6)*2*z6; \\
    const T dz5=dz6*w56*x5*(1-x5), dz4=dz6*w46*x4*(1-x4); \\
    const T dz3=(dz6*w36+dz5*w35+dz4*w34)*x3*(1-x3); \\
    g0+=dz3*x1; g1+=dz3*x2; g2+=dz3; g3+=dz4*x3; g4+=dz4; g5+=dz5*x3; g6+=dz5; \\
    g7+=dz6*x3; g8+=dz6*x4; g9+=dz6*x5; g10+=dz6;
#define LOOP(NAME, BODY) \\
void NAME(long n, const T *p, const T *X1, const T *X2, const T *R, double *means, int threads) { \\
  const T w13=p[0],w23=p[1],b3=p[2],w34=p[3],b4=p[4],w35=p[5],b5=p[6]; \\
  const T w36=p[7],w46=p[8],w56=p[9],b6=p[10]; \\
  double loss=0,g0=0,g1=0,g2=0,g3=0,g4=0,g5=0,g6=0,g7=0,g8=0,g9=0,g10=0; \\
  _Pragma("omp parallel for simd reduction(+:loss,g0,g1,g2,g3,g4,g5,g6,g7,g8,g9,g10) \\
          num_threads(threads) if(parallel: threads > 1)") \\
  for (long i = 0; i < n; i++) { BODY } \\
  const double all[12]={loss,g0,g1,g2,g3,g4,g5,g6,g7,g8,g9,g10}; \\
  for (int k=0; k<12; k++) means[k]=all[k]/n; \\
}
LOOP(forward, FORWARD LOSS)
LOOP(gradients, FORWARD BACKWARD)
LOOP(both, FORWARD LOSS BACKWARD)
"""
RETURNED = {  # of what a loop adds up, loss first: what the step gives
    "forward": slice(0, 1),
    "gradients": slice(1, 12),
    "both": slice(0, 12),
}


def no_compiler(batch: Batch) -> str:
    """Why there is no C loop here; "" where there is one."""
    if batch.device != "cpu":
        return "it is C for the CPU"
    try:
        find_compiler()
        _library("float32")
    except NoCompilerError as problem:
        return f"{problem}: install gcc or clang, or name a compiler in CC"
    return ""


@cache
def _library(dtype: str) -> ctypes.CDLL:
    types = {"float32": ("float", "expf", "logf"), "float64": ("double", "exp", "log")}[dtype]
    names = zip(("T", "EXP", "LOG"), types, strict=True)
    defined = "".join(f"#define {name} {meaning}\n" for name, meaning in names)
    loaded = library(defined + SOURCE, (*FLAGS, "-ffast-math"))
    # A library linked with -ffast-math makes the processor flush subnormal numbers to zero, in the
    # whole thread that loads it: that would be a wrong environment for everything else.
    torch.set_flush_denormal(False)
    loaded.exponentials.restype = ctypes.c_float if dtype == "float32" else ctypes.c_double
    return loaded


def plain_loop(batch: Batch, work: str) -> Step:
    """The loop of that name; sums are added up in double."""
    run = getattr(_library(_name(batch.dtype)), work)
    order = manual_bp.PARAMETERS
    parameters = torch.stack([batch.parameters[name] for name in order])
    arrays = [parameters, *batch.inputs.values()]
    means = (ctypes.c_double * 12)()
    fixed = (ctypes.c_long(batch.size), *map(_address, arrays), means, _threads(batch.size))
    names = ("loss", *order)[RETURNED[work]]

    def step(kept: list[Tensor] = arrays) -> dict[str, Any]:  # the memory lives as long as this
        run(*fixed)
        return dict(zip(names, means[RETURNED[work]], strict=True))

    return step


def floors(batch: Batch, moved: int) -> dict[str, Step]:
    """What the limit is measured by; moved: numbers that a peer reads and writes, a sample.

    Without a C compiler, and on CUDA, torch's own copy and exponential are measured.
    """
    x = torch.cat(list(batch.inputs.values()))
    # A copy reads and writes: half of the numbers moves as many bytes as reading all of them.
    source = torch.ones(max(1, moved * batch.size // 2), dtype=batch.dtype, device=batch.device)
    target = torch.zeros_like(source)
    if no_compiler(batch):
        result = torch.empty_like(x)
        return {
            MEMORY: lambda: {"": target.copy_(source)},
            ARITHMETIC: lambda: {"": torch.exp(x, out=result)},
        }
    run, threads = _library(_name(batch.dtype)), _threads(batch.size)
    copied = (ctypes.c_long(source.numel()), _address(source), _address(target), threads)
    read = (ctypes.c_long(x.numel()), _address(x), threads)
    kept = (x, source, target)
    return {
        MEMORY: lambda: {"": (run.copy(*copied), kept)},
        ARITHMETIC: lambda: {"": (run.exponentials(*read), kept)},
    }


def _address(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _threads(size: int) -> int:
    return torch.get_num_threads() if size >= SMALL else 1
