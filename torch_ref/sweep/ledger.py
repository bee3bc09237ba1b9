"""A folder that holds what a sweep has found so far: one file a rank, one line a finished shard.

Every rank appends to its own file and reads all of them: what any rank has finished, at any time
and among however many ranks, need not be done again.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch_ref.sweep.identity import KIND, Identity
from torch_ref.sweep.lines import Appender, damaged, is_being_written, line_at, parsed, whole_lines
from torch_ref.sweep.ranks import Ranks
from torch_ref.sweep.shards import Found, Plan


class LedgerError(ValueError):
    """The folder cannot be this sweep's ledger; the message is one clear sentence."""


class Ledger:
    """The ledger in a folder, as one rank uses it.

    identity: as in every file's first line; on `resume` the cases a shard and the judge are the
        ledger's own, where these can be had: see smallest_shard and can_compile.
    cases: how many are wanted; lines of shards that these have not, or only in part, are passed
        over.
    done: the cases of shards that are finished, as far as they have been read; on other ranks than
        0 only of their own shards.

    Raises LedgerError where the folder holds another sweep's ledger, or any without `resume`, and
    LinesError where it cannot be used.
    """

    def __init__(
        self, folder: Path, identity: Identity, cases: int, ranks: Ranks, *, resume: bool,
        smallest_shard: int = 1, can_compile: bool = True,
    ) -> None:  # fmt: skip
        self.folder, self.ranks, self.done = folder, ranks, 0
        self._places: dict[int, tuple[Path, int]] = {}
        self._read: dict[Path, int] = {}
        _make(folder)
        headers = {file: _header(file) for file in self.files()}
        known = [header for header in headers.values() if header]
        if not (resume or ranks.restarted):
            self._must_be_new({file for file, header in headers.items() if header})
        elif known and _is_size(known[0].get("shard"), smallest_shard):
            identity = identity.as_begun(known[0], can_compile=can_compile)
        self.identity, self.plan = identity, Plan(cases, identity.shard)
        for header in known:
            self._must_be_the_same(header)
        self._own = Appender(self.file(ranks.rank))
        try:
            if not self._own.end:
                self._own.append(identity.header())
            self.refresh()
        except ValueError:
            self.close()
            raise

    def file(self, rank: int) -> Path:
        return self.folder / f"rank-{rank}.jsonl"

    def files(self) -> list[Path]:
        return sorted(self.folder.glob("rank-*.jsonl"))

    def append(self, found: Found) -> None:
        """Add what judging a shard found; on the disk when this returns. Raises LinesError."""
        start = self._own.append(found.to_json())
        self._read[self._own.path] = self._own.end
        self._enter(found.shard, found.cases, self._own.path, start)

    def refresh(self) -> None:
        """Read what any rank has appended since the last time. Raises LinesError."""
        for file in self.files():
            for start, line in whole_lines(file, self._read.get(file, 0)):
                value = parsed(file, start, line)
                if start:
                    shard, cases = value.get("shard"), value.get("cases")
                    if not (isinstance(shard, int) and isinstance(cases, int)):
                        raise damaged(file, start)
                    self._enter(shard, cases, file, start)
                else:  # another sweep may have begun it since the headers were looked at
                    self._must_be_the_same(value)
                self._read[file] = start + len(line)

    def missing(self) -> Iterator[int]:
        """The shards that nobody has finished, as far as the files have been read; on other ranks
        than 0 only their own."""
        step, first = (self.ranks.world, self.ranks.rank) if self.ranks.rank else (1, 0)
        return (s for s in range(first, self.plan.shards, step) if s not in self._places)

    def read(self, shard: int) -> Found:
        """What judging a finished shard found. Raises LinesError, or KeyError for another shard."""
        file, start = self._places[shard]
        line = line_at(file, start)
        try:
            return Found.from_json(line)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise damaged(file, start) from error

    def alive(self, rank: int) -> bool:
        """Whether another rank is at work now."""
        return rank != self.ranks.rank and is_being_written(self.file(rank))

    def close(self) -> None:
        """Give the rank's file back."""
        self._own.close()

    def _enter(self, shard: int, cases: int, file: Path, start: int) -> None:
        """The first line of a shard counts; a second one, of another number of ranks, is equal."""
        if shard in self._places or shard < 0 or cases <= 0 or self.plan.count(shard) != cases:
            return
        if self.ranks.rank and not self.ranks.has(shard):  # only rank 0 needs to know of all
            return
        self._places[shard] = file, start
        self.done += cases

    def _must_be_new(self, files: set[Path]) -> None:
        """No file of this rank, nor of one that is not among these ranks: others may have started
        a moment before."""
        others = {self.file(rank) for rank in range(self.ranks.world) if rank != self.ranks.rank}
        if files - others:
            raise LedgerError(
                f"{self.folder} holds a ledger already: add --resume to go on with it, or give "
                "another folder."
            )

    def _must_be_the_same(self, header: dict[str, Any]) -> None:
        difference = self.identity.difference(header)
        if difference:
            raise LedgerError(
                f"{self.folder} holds the ledger of another sweep: {difference}. Give another "
                "folder, or what the ledger was begun with."
            )


def _is_size(size: object, smallest: int) -> bool:
    return isinstance(size, int) and size > 0 and size % smallest == 0


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LedgerError(
            f"{folder} cannot hold a ledger ({error.strerror}): give a folder that is yours."
        ) from None


def _header(file: Path) -> dict[str, Any] | None:
    """A file's first line; None where its writer has not got so far."""
    for start, line in whole_lines(file):
        header = parsed(file, start, line)
        if header.get("ledger") != KIND:
            raise LedgerError(f"{file} is no file of a ledger: give another folder.")
        return header
    return None
