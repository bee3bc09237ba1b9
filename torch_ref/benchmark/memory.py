"""Peak memory of a peer: what one step needs beyond the inputs, measured in a process of its own.

The high-water mark of the process's resident memory (Linux, proc(5): VmHWM, reset by writing 5 to
clear_refs) while the step runs for the second time, less what was resident before; so libraries,
compiled code and the inputs do not count.
"""

import ctypes
import gc
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
UNKNOWN = "peak memory is measured on Linux only (/proc/self/clear_refs)"


def can_be_measured() -> bool:
    return STATUS.exists() and os.access(CLEAR, os.W_OK)


def peak(work: str, peer: str, size: int, dtype: str, threads: int) -> dict[str, Any]:
    """Bytes: "inputs", and "beyond_inputs" at the peak; raises RuntimeError where that fails."""
    command = [sys.executable, "-m", __spec__.name, work, peer, str(size), dtype, str(threads)]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        last = next(iter(reversed(done.stderr.strip().splitlines())), "it said nothing")
        raise RuntimeError(f"{peer}: its process ended with {done.returncode}: {last}")
    found: dict[str, Any] = json.loads(done.stdout)
    return {"work": work, "peer": peer, "size": size, "dtype": dtype, **found}


def _resident(field: str) -> int:
    """Bytes, of VmRSS (now) or VmHWM (the most so far)."""
    found = re.search(rf"{field}:\s+(\d+) kB", STATUS.read_text())
    if found is None:
        raise RuntimeError(f"/proc/self/status has no {field}.")
    return int(found[1]) * 1024


def _measured(work: str, name: str, size: int, dtype: str, threads: int) -> dict[str, int]:
    import torch

    from torch_ref.benchmark.batch import Batch
    from torch_ref.benchmark.peers import named, ready

    torch.set_num_threads(threads)
    batch = Batch(size, getattr(torch, dtype))
    step = ready(named(work, name), batch)
    step()
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's own
    if trim is not None:
        trim(0)
    CLEAR.write_text("5")
    before = _resident("VmRSS")
    step()
    return {
        "inputs": 3 * size * batch.dtype.itemsize,
        "beyond_inputs": max(0, _resident("VmHWM") - before),
    }


def main() -> None:
    work, name, size, dtype, threads = sys.argv[1:]
    print(json.dumps(_measured(work, name, int(size), dtype, int(threads))))


if __name__ == "__main__":
    main()
