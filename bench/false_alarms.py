"""Right code is never called wrong: `python bench/false_alarms.py [SEEDS]`, 200 seeds by default.

Every twin of the gallery and the assignment's, in float64, float32 and bfloat16; for each seed one
case of every stratum (of the assignment's twin, 1,000). Graphs are shared between seeds and dtypes.
Writes bench/results/false_alarms.json; prints cases, elements, worst error/bound by twin and dtype.
"""

import importlib
import json
import pkgutil
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

import torch_ref.gallery
from torch_ref import Twin, assignment_twin
from torch_ref.compare import DTYPES
from torch_ref.compare.graphs.known import Graphs
from torch_ref.compare.judge import Judge
from torch_ref.report.files import replace_file

NAMES = ("float64", "float32", "bfloat16")
RESULT = Path(__file__).parent / "results" / "false_alarms.json"


def twins() -> list[Twin]:
    """Every twin that is known to be right."""
    found = [assignment_twin()]
    for module in pkgutil.iter_modules(torch_ref.gallery.__path__):
        loaded = importlib.import_module(f"torch_ref.gallery.{module.name}")
        found += [value for value in vars(loaded).values() if isinstance(value, Twin)]
    return found


def run(twin: Twin, seeds: range) -> dict[str, dict[str, Any]]:
    """What the judge says of a twin, by dtype."""
    shared = (Graphs(), Graphs())
    totals = {name: {"cases": 0, "elements": 0, "worst": 0.0, "alarms": []} for name in NAMES}
    for seed in seeds:
        for name, total in totals.items():
            judging = Judge(twin, DTYPES[name], torch.device("cpu"), seed)
            judging.recorder.share_graphs(*shared)
            cases = 1000 if judging.cases.batched else len(judging.cases.strata)
            for batch in judging.cases.batches(cases):
                judging.judge(batch)
            report = judging.report(cases, explain=False)
            total["cases"] += cases
            total["elements"] += sum(tally.elements for tally in judging.tallies.values())
            total["worst"] = max(total["worst"], *(row.worst_ratio or 0.0 for row in report.rows))
            if report.verdict == "differ":
                total["alarms"].append([seed, report.first_wrong, *report.failures])
    return totals


def run_by_place(place: int, seeds: range) -> dict[str, dict[str, Any]]:
    """The same of one of `twins`, which do not travel to another process."""
    return run(twins()[place], seeds)


def main() -> None:
    seeds = range(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
    results: dict[str, Any] = {"seeds": len(seeds), "torch": torch.__version__, "twins": {}}
    names = [twin.name for twin in twins()]
    every = partial(run_by_place, seeds=seeds)
    # a process each: torch's own threads would only be in the way
    with ProcessPoolExecutor(None, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        for twin, totals in zip(names, pool.map(every, range(len(names))), strict=True):
            results["twins"][twin] = totals
            for name, total in totals.items():
                counts = f"{total['cases']:,} cases, {total['elements']:,} elements"
                worst = f"worst error/bound {total['worst']:.3f}, false alarms {total['alarms']}"
                print(f"{twin}, {name}: {counts}, {worst}", flush=True)
    replace_file(RESULT, (json.dumps(results, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
