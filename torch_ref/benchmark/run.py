"""The benchmark itself: for every batch, peers are checked, timed in turns, and checked again."""

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch

from torch_ref.benchmark import memory
from torch_ref.benchmark.batch import Batch
from torch_ref.benchmark.judge import Judge, WrongPeerError
from torch_ref.benchmark.limit import ARITHMETIC, MEMORY, floors
from torch_ref.benchmark.peers import BASE, MOVED, WORKS, Peer, Step, ready
from torch_ref.benchmark.timing import Spread, race, ratios

Result = dict[str, Any]
LARGEST_SAMPLES = 1_000_000  # samples whose 21 gradients, and their bounds, are kept for the check


@dataclass(frozen=True)
class Plan:
    """What is timed: kinds of work (of WORKS), batch sizes, dtypes; how long: seconds a batch and
    work, and at least so many turns. brief: without peers that are variants of another."""

    works: Sequence[str]
    sizes: Sequence[int]
    dtypes: Sequence[str]
    device: str
    seconds: float
    least_turns: int
    brief: bool


def measured(plan: Plan, tell: Callable[[str], None]) -> tuple[list[Result], dict[str, str]]:
    """One entry a work, dtype and size, in that order; and why peers are skipped, by name.

    tell is called with what is being done. Raises WrongPeerError where eager autograd, to which all
    ratios are, is wrong; other peers that are wrong are left out and named in their entry.
    """
    entries: list[Result] = []
    skipped: dict[str, str] = {}
    judges: dict[object, Judge] = {}
    for work in plan.works:
        for dtype in plan.dtypes:
            for size in plan.sizes:
                if work == "per-sample" and size > LARGEST_SAMPLES:
                    continue
                batch = Batch(size, getattr(torch, dtype), plan.device)
                tell(f"{work}, {dtype}, {size:,} samples")
                peers, missing = _available(work, batch, brief=plan.brief)
                skipped |= missing
                judge = _judge(judges, work, batch)
                found = entry(work, batch, peers, judge, plan.seconds, plan.least_turns)
                entries.append({"work": work, "dtype": dtype, "size": size, **found})
    return entries, skipped


def _judge(known: dict[object, Judge], work: str, batch: Batch) -> Judge:
    """Means are judged alike forward and backward, so their judges are kept."""
    if work == "per-sample":
        return Judge.of_samples(batch)
    if batch not in known:
        known[batch] = Judge.of(batch)
    return known[batch]


def _available(work: str, batch: Batch, *, brief: bool) -> tuple[list[Peer], dict[str, str]]:
    """The peers that can run, and why the others cannot."""
    fitting = [
        peer
        for peer in WORKS[work]
        if not (peer.largest and batch.size > peer.largest) and not (brief and peer.variant)
    ]
    missing = {peer.name: reason for peer in fitting if (reason := why_not(peer, batch))}
    return [peer for peer in fitting if peer.name not in missing], missing


def why_not(peer: Peer, batch: Batch) -> str:
    """One reason, or "": what is missing, or threads that cannot be made comparable."""
    reason = peer.missing(batch)
    cores, threads = len(os.sched_getaffinity(0)), torch.get_num_threads()
    if not reason and "jax" in peer.name and threads != cores:
        return f"JAX uses all {cores} cores, whatever it is told, and {threads} threads are timed"
    return reason


def entry(
    work: str,
    batch: Batch,
    peers: Sequence[Peer],
    judge: Judge,
    seconds: float,
    least_turns: int,
) -> Result:
    """Times and ratios of the peers that are right, and what the others get wrong."""
    torch.compiler.reset()  # its caches are of a limited number of shapes
    limits = floors(batch, MOVED[work])
    steps, refused = _verified(peers, batch, judge)
    _check_base(work, refused)
    times = race({**steps, **limits}, seconds, least_turns)
    refused |= _wrong(steps, judge)
    _check_base(work, refused)
    limit = [max(pair) for pair in zip(times[MEMORY], times[ARITHMETIC], strict=True)]
    own = {peer.name: peer for peer in peers}
    return {
        "turns": len(limit),
        "limits": {name: asdict(Spread.of(times[name])) for name in limits},
        "peers": {
            name: {
                "returns": own[name].returns,
                "own": own[name].own,
                "seconds": asdict(Spread.of(times[name])),
                "speed_to_eager": asdict(ratios(times[BASE[work]], times[name])),
                "time_to_limit": asdict(ratios(times[name], limit)),
            }
            for name in steps
            if name not in refused
        },
        "refused": refused,
    }


def _check_base(work: str, refused: Mapping[str, str]) -> None:
    """Raise WrongPeerError where what all ratios are to is wrong."""
    if BASE[work] in refused:
        raise WrongPeerError(refused[BASE[work]])


def _verified(
    peers: Sequence[Peer], batch: Batch, judge: Judge
) -> tuple[dict[str, Step], dict[str, str]]:
    """Steps that are right, called twice and so compiled; the others by name, with the mistake."""
    steps: dict[str, Step] = {}
    refused: dict[str, str] = {}
    for peer in peers:
        with _quiet():
            step = ready(peer, batch)
            step()
        wrong = _wrong({peer.name: step}, judge)
        refused |= wrong
        if not wrong:
            steps[peer.name] = step
    return steps, refused


def _wrong(steps: Mapping[str, Step], judge: Judge) -> dict[str, str]:
    refused = {}
    for name, step in steps.items():
        try:
            judge.check(name, step())
        except WrongPeerError as error:
            refused[name] = str(error)
    return refused


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch says of manual_bp's libraries while it compiles: it changes no number."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Dynamo detected a call to a .functools.lru_cache.")
        warnings.filterwarnings("ignore", ".torch.jit.script_method. is deprecated")
        yield


def peaks(plan: Plan, tell: Callable[[str], None]) -> tuple[list[Result], dict[str, str]]:
    """Peak memory of the gradients' peers at the largest batch, and why it is not known."""
    if plan.device != "cpu" or not memory.can_be_measured():
        return [], {"peak memory": memory.UNKNOWN if plan.device == "cpu" else "CPU only"}
    rows, size = [], max(plan.sizes)
    reasons: dict[str, str] = {}
    for dtype in plan.dtypes:
        peers, _ = _available("gradients", Batch(size, getattr(torch, dtype)), brief=plan.brief)
        for peer in peers:
            tell(f"peak memory, {dtype}, {size:,} samples: {peer.name}")
            threads = torch.get_num_threads()
            try:
                rows.append(memory.peak("gradients", peer.name, size, dtype, threads))
            except RuntimeError as error:  # killed for its memory, say: the times are kept
                reasons[f"peak memory, {dtype}, {peer.name}"] = str(error)
    return rows, reasons
