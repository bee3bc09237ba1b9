"""The third way: DistributedDataParallel on gloo ranks, each a process with its share of a batch.

`python -m torch_ref.experiments.ranks FOLDER RANK` is one rank; `by_ranks` starts them all.
"""

import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

import torch
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel

from torch_ref.experiments.trajectory import WORLD, Descent, descend, named
from torch_ref.module import AssignmentNet

PATIENCE = 120  # seconds until ranks that never end are given up


class RankError(RuntimeError):
    """A rank died or never ended; the message has what it said."""


def by_ranks(given: Descent) -> Tensor:
    """The trajectory of shape (steps + 1, 11), which every rank found to the bit. Raises RankError.

    The ranks talk over the loopback device of this machine and nothing else.
    """
    with TemporaryDirectory(prefix="gradtwin-ranks-") as name:
        folder = Path(name)
        _store(folder / "descent.safetensors", {**_tensors(given)})
        _run_all(folder)
        first, *others = (_read(folder / f"{rank}.safetensors") for rank in range(WORLD))
    if not all(torch.equal(first["trajectory"], other["trajectory"]) for other in others):
        raise RankError("the ranks hold different parameters: their gradients were not shared.")
    return first["trajectory"]


def _run_all(folder: Path) -> None:
    """Start the ranks and wait; as soon as one has died the others, who wait for it, are ended."""
    loopback = "lo" if sys.platform == "linux" else "lo0"
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": loopback, "OMP_NUM_THREADS": "1"}
    logs = [folder / f"{rank}.log" for rank in range(WORLD)]
    processes = [_started(folder, rank, environment, log) for rank, log in enumerate(logs)]
    try:
        until = time.monotonic() + PATIENCE
        while any(process.poll() is None for process in processes):
            if time.monotonic() > until or any(process.poll() for process in processes):
                break
            time.sleep(0.02)
        codes = [process.poll() for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for rank, code in enumerate(codes):
        if code:
            raise RankError(f"rank {rank} ended with code {code}: {logs[rank].read_text()}")
    if None in codes:
        said = "".join(log.read_text() for log in logs) or "they said nothing"
        raise RankError(f"the ranks did not end within {PATIENCE} seconds: {said}")


def _started(
    folder: Path, rank: int, environment: dict[str, str], log: Path
) -> "subprocess.Popen[bytes]":
    with log.open("wb") as file:
        return subprocess.Popen(_command(folder, rank), env=environment, stdout=file, stderr=file)


def _command(folder: Path, rank: int) -> list[str]:
    return [sys.executable, "-m", __name__, str(folder), str(rank)]


def run_as_rank(folder: Path, rank: int) -> None:
    """Take the descent in the folder, and leave the trajectory there."""
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    wait = timedelta(seconds=PATIENCE / 2)  # then the rank itself says what it waited for
    distributed.init_process_group(
        "gloo", init_method=store, timeout=wait, rank=rank, world_size=WORLD
    )
    read = _read(folder / "descent.safetensors")
    rate = read.pop("learning_rate").item()
    given = Descent(**read, learning_rate=float(rate))
    trajectory = _descended(given, rank)
    _store(folder / f"{rank}.safetensors", {"trajectory": trajectory})
    leave()


def leave() -> NoReturn:
    """End this rank once every rank has come so far: with code 0, and at once.

    What a rank found is in its file by now. Taking the process group down, or the interpreter with
    its threads in it, now and then ends in std::terminate or hangs (pytorch#190489).
    """
    distributed.barrier()
    os._exit(0)


def _descended(given: Descent, rank: int) -> Tensor:
    """The trajectory through DistributedDataParallel."""
    net = AssignmentNet(dtype=torch.float64)
    net.load_state_dict(named(given.start))
    parallel = DistributedDataParallel(net)
    return descend(parallel, given, lambda step: given.part(step, rank))


def _tensors(given: Descent) -> dict[str, Tensor]:
    rate = torch.tensor(given.learning_rate, dtype=torch.float64)
    return {**vars(given), "learning_rate": rate}


def _store(path: Path, tensors: dict[str, Tensor]) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = load_file(path)
    return tensors


if __name__ == "__main__":
    run_as_rank(Path(sys.argv[1]), int(sys.argv[2]))
