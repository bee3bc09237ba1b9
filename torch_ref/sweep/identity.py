"""What a ledger is of: two sweeps may share one only where every number would come out the same."""

import hashlib
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import manual_bp

KIND = "gradtwin sweep"  # the first line of a ledger's file says so
_ROOT = Path(__file__).parent.parent
_LABELS = {
    "twin": "the twin",
    "source": "the twin's source (SHA-256)",
    "seed": "the seed",
    "dtype": "the dtype",
    "device": "the device",
    "shard": "the cases a shard",
    "judge": "the judge",
    "gradtwin": "gradtwin's version",
    "torch": "torch's version",
    "numpy": "NumPy's version",
}


@dataclass(frozen=True)
class Identity:
    """What every file of a ledger starts with.

    twin: its address, of a file without the folder; source: a hash of the file it is written in.
    shard: cases a shard. judge: "compiled" or "plain", which round otherwise. gradtwin: the
        version, and a hash of the judge's own source.
    """

    twin: str
    source: str
    seed: int
    dtype: str
    device: str
    shard: int
    judge: str
    gradtwin: str
    torch: str
    numpy: str

    @staticmethod
    def of(
        address: str, seed: int, dtype: str, device: str, shard: int, *, compiled: bool
    ) -> "Identity":
        """Of a twin at an address, "" for the assignment's, with the versions that run here."""
        twin, files = _assignment() if not address else _twin_at(address)
        rooms = (_ROOT / "compare", _ROOT / "native")
        judge = _hash(file for room in rooms for file in room.rglob("*.py"))
        return Identity(
            twin,
            _hash(files),
            seed,
            dtype,
            device.partition(":")[0],
            shard,
            "compiled" if compiled else "plain",
            f"{version('gradtwin')} ({judge[:12]})",
            version("torch"),
            version("numpy"),
        )

    def header(self) -> dict[str, Any]:
        return {"ledger": KIND, **asdict(self)}

    def as_begun(self, header: dict[str, Any], *, can_compile: bool) -> "Identity":
        """The same as a ledger was begun for another number of cases: with its own number of cases
        a shard, and its judge, unless that cannot be had here."""
        possible = ("plain", "compiled") if can_compile else ("plain",)
        judge = header["judge"] if header.get("judge") in possible else self.judge
        return replace(self, shard=header.get("shard", self.shard), judge=judge)

    def difference(self, header: dict[str, Any]) -> str:
        """What a file's first line says otherwise, in words; "" where it says the same."""
        return "; ".join(
            f"{_LABELS[key]} is {header.get(key)} there and {value} here"
            for key, value in asdict(self).items()
            if header.get(key) != value
        )


def _assignment() -> tuple[str, list[Path]]:
    hand = Path(manual_bp.__file__).parent.rglob("*.py")
    return "assignment", [*hand, _ROOT / "assignment.py", _ROOT / "module.py"]


def _twin_at(address: str) -> tuple[str, list[Path]]:
    place, _, name = address.rpartition(":")
    if place.endswith(".py") or Path(place).is_file():
        return f"{Path(place).name}:{name}", [Path(place)]
    file = getattr(sys.modules[place], "__file__", None)
    return address, [Path(file)] if file else []


def _hash(files: Iterable[Path]) -> str:
    found = hashlib.sha256()
    for file in sorted(files):
        found.update(hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()
