"""Places for text: the pixels that rectangles cover."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.drawing.primitives import Occupancy, label_position
from pipeline.structures.rectangle import Rectangle

WIDTH, HEIGHT = 40, 30
EDGES = st.integers(-10, 50)
SIDES = st.integers(1, 20)
RECTANGLES = st.builds(
    lambda left, top, width, height: Rectangle(left, top, left + width, top + height),
    EDGES,
    EDGES,
    SIDES,
    SIDES,
)
CANVAS = Rectangle(0, 0, WIDTH, HEIGHT)


def on_canvas(rectangle):
    return (
        rectangle.left >= 0 and rectangle.top >= 0 and rectangle.right <= WIDTH and rectangle.bottom <= HEIGHT
    )


@given(RECTANGLES, st.lists(RECTANGLES, max_size=6))
def test_a_place_is_free_if_it_is_on_the_canvas_and_overlaps_nothing(place, others):
    occupied = Occupancy((HEIGHT, WIDTH, 3), others)
    expected = on_canvas(place) and all(place.distance(other) >= 0 for other in others)
    assert occupied.is_free(place) == expected


def test_a_label_stands_above_its_box_or_beside_it_or_nowhere():
    box, size = Rectangle(10, 10, 14, 14), {"height": 7, "width": 12}
    occupied = Occupancy((HEIGHT, WIDTH))
    seen = []
    while (position := label_position(box, **size, occupied=occupied)) is not None:
        seen.append((position.left, position.top))
        occupied.add(position)
    assert seen == [(10, 3), (10, 14)]  # those at its sides would lie over these two
    assert label_position(Rectangle(0, 0, 4, 30), **size, occupied=Occupancy((HEIGHT, WIDTH))).left == 4
