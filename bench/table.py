"""A benchmark run as a Markdown table: `python bench/table.py RUN.json`.

RUN.json is what `pytest bench --benchmark-only --benchmark-json=RUN.json` writes.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path


def table(run: dict) -> str:
    """One row a device, dtype and size: eager autograd's time, and the others relative to it."""
    groups: dict[str, dict[str, float]] = {}
    for one in run["benchmarks"]:
        groups.setdefault(one["group"], {})[one["extra_info"]["peer"]] = one["stats"]["median"]
    base = "autograd, eager"
    torch = version("torch").partition("+")[0]  # without the build
    others = [peer for peer in next(iter(groups.values())) if peer != base]
    lines = [
        "# Mean loss's gradient: manual against autograd",
        "",
        f"Median times in one run, {run['datetime'][:10]}, torch {torch}, "
        f"{run['machine_info']['cpu']['count']} CPU cores. Eager autograd in microseconds, every "
        "other peer as a multiple of its speed.",
        "",
        f"| batch | {base}, µs | {' | '.join(others)} |",
        f"|---|{'---:|' * (len(others) + 1)}",
    ]
    for group, median in groups.items():
        speeds = [f"{median[base] / median[o]:.2f} x" if o in median else "" for o in others]
        lines.append(f"| {group} | {median[base] * 1e6:,.0f} | {' | '.join(speeds)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(json.loads(Path(sys.argv[1]).read_text())))
