"""How far a sweep is: a bar with the rate and the time left, on a terminal and nowhere else."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from torch_ref.sweep.ledger import Ledger

BETWEEN = 0.5  # seconds between two looks at what all ranks have done


class _Rate(ProgressColumn):
    """Cases a second, of all ranks together."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} cases/s" if speed else "")


@contextmanager
def progress(ledger: Ledger, console: Console) -> Iterator[Callable[[], None]]:
    """What is to be called after each shard; rank 0 then shows what all ranks have done."""
    hidden = ledger.ranks.rank > 0 or not console.is_terminal
    columns = (BarColumn(), TaskProgressColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task("", total=ledger.plan.cases, completed=ledger.done)
        looked = 0.0

        def tell() -> None:
            nonlocal looked
            if hidden or time.monotonic() - looked < BETWEEN:
                return
            looked = time.monotonic()
            ledger.refresh()
            bar.update(task, completed=ledger.done)

        yield tell
