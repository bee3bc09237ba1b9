"""What there is to say about a twin besides its numbers: each thing once, as they came."""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields


@dataclass
class Said:
    """Dicts without values, which keep an order as sets do not.

    order: the quantities that the hand gave, in backward order. refused: those among them that
    cannot be compared (a wrong shape, dtype or device). unbounded: those of whose rounding too
    little is known to say that they agree. failures, notes, missing: as in the report.
    """

    order: dict[str, None] = field(default_factory=dict)
    refused: dict[str, None] = field(default_factory=dict)
    unbounded: dict[str, None] = field(default_factory=dict)
    failures: dict[str, None] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)
    missing: dict[str, None] = field(default_factory=dict)

    def say(self, **what: Iterable[str]) -> None:
        """Add some, by the names of the fields."""
        for name, those in what.items():
            known: dict[str, None] = getattr(self, name)
            known |= dict.fromkeys(those)

    def note(self, text: str) -> None:
        self.notes[text] = None

    def add(self, other: "Said") -> None:
        """Add what another one says."""
        self.say(**other.as_lists())

    def clear(self) -> None:
        for one in fields(self):
            getattr(self, one.name).clear()

    def as_lists(self) -> dict[str, list[str]]:
        """By the names of the fields."""
        return {one.name: list(getattr(self, one.name)) for one in fields(self)}
