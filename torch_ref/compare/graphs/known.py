"""The graphs of one side that are known, by what was asked for and how the inputs lie in memory."""

from dataclasses import dataclass, field

from torch_ref.compare.graphs.recording import Recorded
from torch_ref.compare.layout import integers, layout
from torch_ref.compare.twin import Values

MOST = 1000  # graphs for integers of their own


@dataclass
class Graphs:
    """Graphs, or why there is none; those that ask for integers are kept by these as well, and are
    all dropped where they become too many."""

    _known: dict[object, Recorded | str] = field(default_factory=dict)
    _counting: set[object] = field(default_factory=set)  # keys of what asks for integers

    def find(self, names: tuple[str, ...], wide: Values) -> Recorded | str | None:
        """The graph for these quantities and inputs; None where nothing is known yet."""
        return self._known.get(self._key(names, wide))

    def keep(self, names: tuple[str, ...], wide: Values, graph: Recorded | str) -> None:
        if isinstance(graph, Recorded) and graph.counted:
            self._counting.add((names, layout(wide)))
            if len(self._known) > MOST:
                self._known.clear()
        self._known[self._key(names, wide)] = graph

    def forget(self, why: str) -> None:
        """Forget where there is none for this reason."""
        self._known = {key: graph for key, graph in self._known.items() if graph != why}

    def _key(self, names: tuple[str, ...], wide: Values) -> object:
        key = (names, layout(wide))
        return (key, integers(wide)) if key in self._counting else key
