"""The drawing of a graph: everything in it, nothing on top of something else, narrow."""

from collections.abc import Iterator
from itertools import combinations, pairwise

import numpy as np
import pytest

from torch_ref.report.graph import LINE, WIDTH, Box, Drawing, drawing, nearest


def random_graph(seed: int) -> tuple[list[str], list[tuple[str, str]]]:
    """Quantities in topological order, each computed from up to 4 earlier ones."""
    generator = np.random.default_rng(seed)
    names = [f"q{i}" + "x" * int(generator.integers(0, 18)) for i in range(2 + 3 * seed)]
    edges = [
        (names[int(a)], names[b])
        for b in range(1, len(names))
        for a in generator.integers(0, b, int(generator.integers(0, 5)))
    ]
    return names, edges


def drawn(names: list[str], edges: list[tuple[str, str]]) -> Drawing:
    return drawing(names, edges, {name: f"✓ {name}" for name in names})


def inside(one: Drawing) -> Iterator[str]:
    """Every quantity that the drawing shows, by its own box or as an input in another."""
    for box in one.boxes:
        if not box.shared:
            yield box.name
        yield from (chip.name for chip in box.chips)


def overlap(one: Box, two: Box) -> bool:
    across = one.x < two.x + two.width and two.x < one.x + one.width
    return across and one.y < two.y + two.height and two.y < one.y + one.height


@pytest.mark.parametrize("seed", range(20))
def test_every_quantity_is_there_once_and_none_hides_another(seed: int) -> None:
    names, edges = random_graph(seed)
    picture = drawn(names, edges)
    assert sorted(inside(picture)) == sorted(names)
    assert not [pair for pair in combinations(picture.boxes, 2) if overlap(*pair)]
    for box in picture.boxes:
        assert box.x >= 0
        assert box.x + box.width <= picture.width
        assert box.y + box.height <= picture.height
        for chip in box.chips:
            assert chip.x + chip.width <= box.width
            assert chip.y + LINE <= box.height


@pytest.mark.parametrize("seed", range(20))
def test_what_is_computed_is_below_what_it_is_computed_from(seed: int) -> None:
    names, edges = random_graph(seed)
    boxes = {box.name: box for box in drawn(names, edges).boxes if not box.shared}
    for a, b in edges:
        if a in boxes and b in boxes:
            assert boxes[a].y + boxes[a].height < boxes[b].y


def test_a_network_fits_a_phone() -> None:
    names = ["x", *(f"{part}{i}" for i in range(20) for part in "whz")]
    edges = [
        edge
        for i in range(20)
        for edge in ((f"w{i}", f"h{i}"), (f"z{i - 1}" if i else "x", f"h{i}"), (f"h{i}", f"z{i}"))
    ]
    assert 0 < drawn(names, edges).width <= WIDTH


def test_branches_that_do_not_fit_side_by_side_stand_in_rows() -> None:
    names = ["x", *(f"a_branch_with_a_name_{i}" for i in range(8)), "y"]
    edges = [edge for name in names[1:-1] for edge in (("x", name), (name, "y"))]
    picture = drawn(names, edges)
    assert len({box.y for box in picture.boxes}) > 4
    assert picture.width < 2 * WIDTH < 8 * min(box.width for box in picture.boxes[1:-1])


def test_inputs_with_the_same_uses_share_a_box() -> None:
    picture = drawn(["a", "b", "y", "z"], [(a, b) for a in "ab" for b in "yz"])
    shared = [box for box in picture.boxes if box.shared]
    assert [[chip.name for chip in box.chips] for box in shared] == [["a", "b"]]
    assert len(picture.arrows) == 2


def test_nothing_is_drawn_of_nothing() -> None:
    assert drawn([], []) == Drawing((), (), (), 0.0, 0.0)


def test_the_nearest_are_kept() -> None:
    names = [f"q{i}" for i in range(9)]
    edges = list(pairwise(names))
    assert nearest(names, edges, "q4", 3) == ("q3", "q4", "q5")
    assert nearest(names, edges, "q0", 99) == tuple(names)
