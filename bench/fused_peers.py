"""The fused gradients against their peers: `python bench/fused_peers.py [--threads N] [SIZE ...]`.

Every peer computes the mean loss's gradient for the 11 parameters; the fused ones the loss, too,
and they look at the values. The peers take turns in one process; shown are the median and the
least time of a turn, in nanoseconds a sample, and how many times as long as the fused ones a peer
takes.
"""

import argparse
import ctypes
import os
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.func import functional_call

import manual_bp
from torch_ref import AssignmentNet, ItakuraSaitoLoss
from torch_ref.fused import fused_gradients
from torch_ref.fused.compiler import FLAGS, find_compiler

Step = Callable[[], Any]

LOOP = """
#include <math.h>
void gradients(long n, const float *p, const float *X1, const float *X2, const float *T,
               double *sums) {
  const float w13=p[0],w23=p[1],b3=p[2],w34=p[3],b4=p[4],w35=p[5],b5=p[6];
  const float w36=p[7],w46=p[8],w56=p[9],b6=p[10];
  double L=0,g0=0,g1=0,g2=0,g3=0,g4=0,g5=0,g6=0,g7=0,g8=0,g9=0,g10=0;
  #pragma omp parallel for simd reduction(+:L,g0,g1,g2,g3,g4,g5,g6,g7,g8,g9,g10)
  for (long i = 0; i < n; i++) {
    const float x1=X1[i], x2=X2[i], t=T[i];
    const float z3=w13*x1+w23*x2+b3, x3=1/(1+expf(-z3));
    const float z4=w34*x3+b4, x4=1/(1+expf(-z4));
    const float z5=w35*x3+b5, x5=1/(1+expf(-z5));
    const float z6=w36*x3+w46*x4+w56*x5+b6, x6=z6*z6;
    const float dz6=(x6-t)/(x6*x6)*2*z6;
    const float dz5=dz6*w56*x5*(1-x5), dz4=dz6*w46*x4*(1-x4);
    const float dz3=(dz6*w36+dz5*w35+dz4*w34)*x3*(1-x3);
    LOSS
    g0+=dz3*x1; g1+=dz3*x2; g2+=dz3; g3+=dz4*x3; g4+=dz4; g5+=dz5*x3; g6+=dz5;
    g7+=dz6*x3; g8+=dz6*x4; g9+=dz6*x5; g10+=dz6;
  }
  double all[12]={L,g0,g1,g2,g3,g4,g5,g6,g7,g8,g9,g10};
  for (int i=0;i<12;i++) sums[i]=all[i]/n;
}
"""


def plain_loop(parameters: dict, inputs: dict, *, loss: bool) -> Step:
    """A loop as one writes it by hand, with -ffast-math; sums in float32 lanes are its own risk."""
    import subprocess
    import tempfile

    text = LOOP.replace("LOSS", "const float r=t/x6; L+=r-logf(r)-1;" if loss else "")
    folder = tempfile.mkdtemp()
    path = f"{folder}/loop.so"
    command = [*find_compiler(), "-O3", "-fPIC", "-shared", "-march=native", "-ffast-math"]
    command += ["-mprefer-vector-width=512", "-fopenmp", "-x", "c", "-", "-o", path, "-lm"]
    subprocess.run(command, input=text, text=True, check=True)
    run = ctypes.CDLL(path).gradients
    sums = (ctypes.c_double * 12)()
    p = np.array([float(v) for v in parameters.values()], np.float32)
    arrays = [np.ascontiguousarray(v.numpy()) for v in inputs.values()]
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in (p, *arrays)]
    count = ctypes.c_long(arrays[0].size)

    def step() -> list[float]:
        run(count, *pointers, sums)
        return list(sums)[1:]

    step.keep = (p, arrays)
    return step


def steps(size: int, dtype: torch.dtype, wanted: list[str]) -> dict[str, Step]:
    generator = np.random.default_rng(0)
    parameters = {n: torch.as_tensor(v).to(dtype) for n, v in manual_bp.init_parameters(0).items()}
    x1, x2, t = (torch.as_tensor(generator.normal(size=size)).to(dtype) for _ in range(3))
    inputs = {"x1": x1, "x2": x2, "t": t.exp()}
    net = AssignmentNet(dtype=dtype)
    criterion = ItakuraSaitoLoss()
    x = torch.stack((x1, x2), dim=-1)

    def loss(p: dict) -> torch.Tensor:
        return criterion(functional_call(net, p, (x,)), inputs["t"])

    def loss_of_columns(p: dict, x1: Any, x2: Any, t: Any) -> Any:
        s = torch.sigmoid
        x3 = s(p["w13"] * x1 + p["w23"] * x2 + p["b3"])
        x4, x5 = s(p["w34"] * x3 + p["b4"]), s(p["w35"] * x3 + p["b5"])
        z6 = p["w36"] * x3 + p["w46"] * x4 + p["w56"] * x5 + p["b6"]
        ratio = t / (z6 * z6)
        return (ratio - torch.log(ratio) - 1).mean()

    net.load_state_dict(parameters)
    named = dict(net.named_parameters())

    def eager() -> list[float]:
        return list(torch.autograd.grad(criterion(net(x), inputs["t"]), list(named.values())))

    torch.compiler.reset()
    compiled = torch.compile(torch.func.grad(loss_of_columns), dynamic=False)
    both = torch.compile(torch.func.grad_and_value(loss_of_columns), dynamic=False)
    hand = torch.compile(
        lambda p, i: manual_bp.gradients(p, i, check_values=False)[1], dynamic=False
    )
    arrays = {n: v.numpy() for n, v in inputs.items()}
    numbers = {n: v.numpy() for n, v in parameters.items()}
    found: dict[str, Step] = {
        "fused, torch": lambda: list(fused_gradients(parameters, inputs)[1].values()),
        "fused, NumPy": lambda: list(fused_gradients(numbers, arrays)[1].values()),
        "autograd, eager": eager,
        "autograd, compiled": lambda: list(compiled(parameters, **inputs).values()),
        "autograd, compiled, loss": lambda: list(both(parameters, **inputs)[0].values()),
        "manual_bp, compiled": lambda: list(hand(parameters, inputs).values()),
        "manual_bp, NumPy": lambda: list(
            manual_bp.gradients(numbers, arrays, check_values=False)[1].values()
        ),
    }
    if dtype == torch.float32:
        found["C loop, gradient only"] = plain_loop(parameters, inputs, loss=False)
        found["C loop, with loss"] = plain_loop(parameters, inputs, loss=True)
    if size == 1:
        fp = {n: float(v) for n, v in parameters.items()}
        fi = {n: float(v[0]) for n, v in inputs.items()}
        found["fused, floats"] = lambda: list(fused_gradients(fp, fi)[1].values())
    jaxed = _jax(numbers, arrays)
    if jaxed is not None:
        found["jax.jit(jax.grad)"] = jaxed
    return {n: s for n, s in found.items() if not wanted or n in wanted}


def _jax(parameters: dict, inputs: dict) -> Step | None:
    try:
        import jax
        import jax.numpy as jnp
    except ImportError:
        return None
    jax.config.update("jax_enable_x64", True)

    def loss(p: dict, x1: Any, x2: Any, t: Any) -> Any:
        s = jax.nn.sigmoid
        x3 = s(p["w13"] * x1 + p["w23"] * x2 + p["b3"])
        x4, x5 = s(p["w34"] * x3 + p["b4"]), s(p["w35"] * x3 + p["b5"])
        z6 = p["w36"] * x3 + p["w46"] * x4 + p["w56"] * x5 + p["b6"]
        ratio = t / (z6 * z6)
        return (ratio - jnp.log(ratio) - 1).mean()

    gradient = jax.jit(jax.grad(loss))
    p = {n: jnp.asarray(v) for n, v in parameters.items()}
    arrays = [jnp.asarray(v) for v in inputs.values()]
    return lambda: [jax.block_until_ready(gradient(p, *arrays))[n] for n in parameters]


def race(
    peers: dict[str, Step], seconds: float, clock: Callable[[], float]
) -> dict[str, list[float]]:
    truth = None
    for name, step in peers.items():
        for _ in range(3):
            got = np.array([float(v) for v in step()])
        truth = got if truth is None else truth
        worst = float(np.abs(got - truth).max() / np.abs(truth).max())
        if not worst < 1e-3:
            print(f"{name} is off by {worst:.1e}: {got} {truth}")
    repeats = {}
    for name, step in peers.items():
        start = time.perf_counter()
        step()
        repeats[name] = max(1, int(2e-3 / (time.perf_counter() - start)))
    times: dict[str, list[float]] = {name: [] for name in peers}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[name]) < 7:
        order = list(peers.items())
        random.shuffle(order)  # what one leaves behind in caches and threads hits any other
        for name, step in order:
            start = clock()
            for _ in range(repeats[name]):
                step()
            times[name].append((clock() - start) / repeats[name])
    return times


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sizes", nargs="*", type=float)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--cpu-time", action="store_true", help="for one thread, if others run")
    parser.add_argument("--peers", nargs="*", default=[])
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(
        f"{given.threads} threads, {given.dtype}, load {os.getloadavg()[0]:.1f}; {' '.join(FLAGS)}"
    )
    for size in map(int, given.sizes or (1, 1e3, 1e4, 1e5, 1e6, 1e7)):
        peers = steps(size, getattr(torch, given.dtype), given.peers)
        times = race(
            peers, given.seconds, time.process_time if given.cpu_time else time.perf_counter
        )
        base = next(n for n in ("fused, floats", "fused, torch", "fused, NumPy") if n in times)
        middle, least = ({n: f(t) for n, t in times.items()} for f in (statistics.median, min))
        for name in times:
            print(
                f"{size:>10,} {name:24s} median {middle[name] / size * 1e9:10.2f} ns/sample "
                f"least {least[name] / size * 1e9:10.2f};  {middle[name] / middle[base]:6.2f} x "
                f"{least[name] / least[base]:6.2f} x",
                flush=True,
            )


if __name__ == "__main__":
    main()
