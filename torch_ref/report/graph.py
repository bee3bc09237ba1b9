"""A layered drawing of the named quantities, top to bottom, narrow enough for a phone.

Layers by the longest path, as far as the width allows (after Coffman and Graham); their order by
barycentres (Sugiyama, Tagawa and Toda, IEEE Trans. Syst. Man Cybern. 11(2), 1981). What a long edge
passes through gets a lane, which all long edges of one quantity share. An input that only one
quantity uses is drawn in that quantity's box; inputs that the same quantities use share one.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

WIDTH = 330.0  # px: what fits a phone of 375
LETTER, LINE, PADDING, GAP, BETWEEN, LANE = 7.3, 20.0, 7.0, 12.0, 26.0, 10.0
SWEEPS = 8
Edges = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Label:
    """An input in the box of what it is used for; x, y from that box's left upper corner, px."""

    name: str
    x: float
    y: float
    width: float


@dataclass
class Box:
    """A quantity with the inputs that only it uses; x, y its left upper corner, in px.

    chips: these inputs, placed from that corner. A box without a name is a lane; one of inputs that
    have the same uses has the name of the first, which is `shared`: among its chips, too.
    """

    name: str
    width: float = LANE
    height: float = 0.0
    chips: list[Label] = field(default_factory=list)
    shared: bool = False
    x: float = 0.0
    y: float = 0.0

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


@dataclass(frozen=True)
class Drawing:
    """boxes and arrows (SVG path data; the last stretch of each with a head), and the size, px."""

    boxes: tuple[Box, ...]
    lines: tuple[str, ...]
    arrows: tuple[str, ...]
    width: float
    height: float


def drawing(quantities: Sequence[str], edges: Edges, texts: dict[str, str]) -> Drawing:
    """Place the quantities, which come in topological order; `texts` is what each box shows."""
    home = _homes(quantities, edges)
    inside: defaultdict[str, list[str]] = defaultdict(list)
    for name, box in home.items():
        inside[box].append(name)
    boxes = {
        name: _box(name, inside[name], texts) for name in quantities if home.get(name, name) == name
    }
    kept = [(a, b) for a, b in dict.fromkeys(edges) if a in boxes and b in boxes]
    layer = _layers(boxes, kept)
    rows, links = _with_lanes(boxes, kept, layer)
    _order(rows, links)
    _place_across(rows, links)
    height = _place_down(rows)
    width = max((box.x + box.width for row in rows for box in row), default=0.0)
    lines, arrows = _paths(links)
    return Drawing(tuple(boxes.values()), lines, arrows, width, height)


def nearest(quantities: Sequence[str], edges: Edges, start: str, most: int) -> tuple[str, ...]:
    """At most so many quantities, those with the fewest edges to `start`, in their order."""
    beside: defaultdict[str, list[str]] = defaultdict(list)
    for a, b in edges:
        beside[a].append(b)
        beside[b].append(a)
    found = [start]
    for name in found:  # which grows on the way
        found += [other for other in dict.fromkeys(beside[name]) if other not in found]
        if len(found) >= most:
            break
    chosen = set(found[:most])
    return tuple(name for name in quantities if name in chosen)


def _homes(quantities: Sequence[str], edges: Edges) -> dict[str, str]:
    """The box of each input that has none of its own: its only consumer's, or that of the first
    input with the same consumers."""
    consumers: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for a, b in edges:
        consumers[a][b] = None
    computed = {b for _, b in edges}
    alike: defaultdict[frozenset[str], list[str]] = defaultdict(list)
    for name in quantities:
        if name not in computed and consumers[name]:
            alike[frozenset(consumers[name])].append(name)
    return {
        name: next(iter(uses)) if len(uses) == 1 else names[0]
        for uses, names in alike.items()
        for name in names
        if len(uses) == 1 or len(names) > 1
    }


# boxes -------------------------------------------------------------------------------------------


def _box(name: str, inputs: Sequence[str], texts: dict[str, str]) -> Box:
    shared = name in inputs
    own = 0.0 if shared else _width(texts[name])
    chips: list[Label] = []
    x, y, widest = PADDING, PADDING + LINE * (not shared), own
    most = min(WIDTH, max(own, 210.0))
    for other in inputs:
        width = _width(texts[other])
        if x > PADDING and x + width + PADDING > most:
            x, y = PADDING, y + LINE + 5
        chips.append(Label(other, x, y, width))
        x += width + 5
        widest = max(widest, x - 5 + PADDING)
    height = y + LINE + PADDING if chips else LINE + 6
    return Box(name, widest, height, chips, shared)


def _width(text: str) -> float:
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return LETTER * (len(text) + wide) + 2 * PADDING


# layers ------------------------------------------------------------------------------------------


def _layers(boxes: dict[str, Box], edges: Edges) -> dict[str, int]:
    """The layer of each box: below all that it is computed from, where there is room."""
    before: defaultdict[str, list[str]] = defaultdict(list)
    after: defaultdict[str, list[str]] = defaultdict(list)
    for a, b in edges:
        before[b].append(a)
        after[a].append(b)
    used: defaultdict[int, float] = defaultdict(float)
    layer: dict[str, int] = {}
    for name, box in boxes.items():
        if before[name] or not after[name]:
            first = 1 + max((layer.get(source, 0) for source in before[name]), default=0)
            layer[name] = _with_room(used, box, first, 1)
    for name, box in boxes.items():  # inputs of several quantities: as near as there is room
        if name not in layer:
            last = min(layer[other] for other in after[name]) - 1
            layer[name] = _with_room(used, box, last, -1)
    return layer


def _with_room(used: dict[int, float], box: Box, at: int, step: int) -> int:
    while used[at] and used[at] + box.width > WIDTH:
        at += step
    used[at] += box.width + GAP
    return at


Links = list[tuple[Box, Box, bool]]  # from, to, and whether an arrow ends there


def _with_lanes(
    boxes: dict[str, Box], edges: Edges, layer: dict[str, int]
) -> tuple[list[list[Box]], Links]:
    """The rows, with lanes in them where an edge passes, and what is joined to what."""
    levels = sorted(set(layer.values()))
    place = {level: index for index, level in enumerate(levels)}
    rows: list[list[Box]] = [[] for _ in levels]
    for name, box in boxes.items():
        rows[place[layer[name]]].append(box)
    lanes: dict[tuple[str, int], Box] = {}
    links: Links = []
    for a, b in edges:
        above = boxes[a]
        for at in range(place[layer[a]] + 1, place[layer[b]]):
            if (a, at) not in lanes:
                lanes[a, at] = Box("")
                rows[at].append(lanes[a, at])
                links.append((above, lanes[a, at], False))
            above = lanes[a, at]
        links.append((above, boxes[b], True))
    return rows, links


# across and down ---------------------------------------------------------------------------------


def _neighbours(links: Links) -> tuple[dict[int, list[Box]], dict[int, list[Box]]]:
    """By box: those above and those below."""
    above: defaultdict[int, list[Box]] = defaultdict(list)
    below: defaultdict[int, list[Box]] = defaultdict(list)
    for a, b, _ in links:
        above[id(b)].append(a)
        below[id(a)].append(b)
    return above, below


def _order(rows: list[list[Box]], links: Links) -> None:
    """Each row by the mean place of what its boxes are joined to, down and up by turns; the order
    with the fewest crossings stays."""
    above, below = _neighbours(links)
    best, fewest = [list(row) for row in rows], _crossings(rows, links)
    for sweep in range(SWEEPS):
        beside, turns = (below, rows[::-1]) if sweep % 2 else (above, rows)
        for row in turns:
            place = {id(box): at / len(r) for r in rows for at, box in enumerate(r)}
            mean = {
                id(box): _mean([place[id(other)] for other in beside[id(box)]], place[id(box)])
                for box in row
            }
            row.sort(key=lambda box: mean[id(box)])
        found = _crossings(rows, links)
        if found < fewest:
            best, fewest = [list(row) for row in rows], found
    rows[:] = best


def _crossings(rows: list[list[Box]], links: Links) -> int:
    place = {id(box): (level, at) for level, row in enumerate(rows) for at, box in enumerate(row)}
    by_level: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for a, b, _ in links:
        level, at = place[id(a)]
        by_level[level].append((at, place[id(b)][1]))
    return sum(
        (one[0] - two[0]) * (one[1] - two[1]) < 0
        for ends in by_level.values()
        for index, one in enumerate(ends)
        for two in ends[:index]
    )


def _place_across(rows: list[list[Box]], links: Links) -> None:
    """Boxes side by side, and then as near to the middle of their neighbours as there is room."""
    above, below = _neighbours(links)
    for row in rows:
        _spread(row, [0.0] * len(row))
    for sweep in range(2 * SWEEPS):
        beside, turns = (below, rows[::-1]) if sweep % 2 else (above, rows)
        for row in turns:
            _spread(row, [_mean([o.middle for o in beside[id(b)]], b.middle) for b in row])
    left = min((box.x for row in rows for box in row), default=0.0)
    for row in rows:
        for box in row:
            box.x -= left


def _spread(row: list[Box], wanted: list[float]) -> None:
    """Put each box where it is wanted; those that would overlap share what is left over."""
    groups: list[list[float]] = []  # start wanted in all, boxes, width
    members: list[list[Box]] = []
    for box, middle in zip(row, wanted, strict=True):
        groups.append([middle - box.width / 2, 1, box.width])
        members.append([box])
        while len(groups) > 1 and _start(groups[-2]) + groups[-2][2] + GAP > _start(groups[-1]):
            last = groups.pop()
            offset = groups[-1][2] + GAP
            groups[-1][0] += last[0] - offset * last[1]
            groups[-1][1] += last[1]
            groups[-1][2] += GAP + last[2]
            merged = members.pop()
            members[-1] += merged
    for group, boxes in zip(groups, members, strict=True):
        x = _start(group)
        for box in boxes:
            box.x = x
            x += box.width + GAP


def _start(group: list[float]) -> float:
    return group[0] / group[1]


def _place_down(rows: list[list[Box]]) -> float:
    y = 0.0
    for row in rows:
        tallest = max(box.height for box in row)
        for box in row:
            if not box.name:
                box.height = tallest
            box.y = y + (tallest - box.height) / 2
        y += tallest + BETWEEN
    return max(y - BETWEEN, 0.0)


def _mean(values: list[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _paths(links: Links) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Stretches between two rows, and those that end in an arrow's head."""
    lines: dict[str, None] = {}
    arrows: dict[str, None] = {}
    for a, b, ends in links:
        start, end = a.y + a.height, b.y - (4 if ends else 0)
        half = (start + end) / 2
        path = f"M{a.middle:.0f} {start:.0f}C{a.middle:.0f} {half:.0f} {b.middle:.0f} {half:.0f} "
        path += f"{b.middle:.0f} {end:.0f}"
        if not ends:
            path += f"V{b.y + b.height:.0f}"
        (arrows if ends else lines)[path] = None
    return tuple(lines), tuple(arrows)
