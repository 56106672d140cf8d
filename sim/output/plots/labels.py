"""Names beside the things that they name, none on top of another."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from sim.output.plots.style import FAINT, INK, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

_STEPS = 16  # directions that are tried around a mark
_ON = (0.2, 0.4, 0.6, 0.8)  # of the way to a name
_FONT = 7.0
_NEAR = 5.0  # points between a mark and its name that need no line


def place(
    ax: Axes,
    names: list[tuple[str, int]],
    marks: list[tuple[float, float, float]],
    others: list[tuple[float, float]],
    texts: list[Text],
) -> None:
    """Write each (name, number of its mark) where it covers no mark, text or other point.

    Marks are (x, y, area in square points). The figure must have been laid out. A name for
    which there is no room near by is left out.
    """
    from matplotlib.transforms import Bbox

    dot = ax.figure.dpi / 72  # pixels per point
    written = [text.get_window_extent() for text in texts]
    occupied: list[Bbox] = list(written)
    for x, y, area in marks:
        cx, cy = ax.transData.transform((x, y))
        radius = _radius(area) * dot
        occupied.append(Bbox.from_extents(cx - radius, cy - radius, cx + radius, cy + radius))
    for x, y in others:
        cx, cy = ax.transData.transform((x, y))
        occupied.append(Bbox.from_extents(cx - dot, cy - dot, cx + dot, cy + dot))
    inside = ax.get_window_extent()
    for name, number in names:
        x, y, area = marks[number]
        width, height = _size(ax, name)
        cx, cy = ax.transData.transform((x, y))
        centre = float(cx), float(cy)
        own = occupied[len(texts) + number]
        marked = occupied[len(texts) : len(texts) + len(marks)]
        block = written + [other for other in marked if not other.overlaps(own)]
        mark = Mark(centre, _radius(area) * dot, dot)
        box = _free_box(mark, (width, height), occupied, block, inside)
        if box is None:
            continue
        occupied.append(box)
        written.append(box)
        at = ((box.x0 + box.x1) / 2 - centre[0]) / dot, ((box.y0 + box.y1) / 2 - centre[1]) / dot
        line = {
            "arrowstyle": "-",
            "color": FAINT,
            "lw": 0.5,
            "shrinkA": 1,
            "shrinkB": _radius(area),
        }
        near = box.padded(_NEAR * dot).overlaps(own)
        ax.annotate(
            plain(name),
            (x, y),
            at,
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=_FONT,
            color=INK,
            arrowprops=None if near else line,
            zorder=4,
        )


def _radius(area: float) -> float:
    """Points from the middle of a marker to its tips: a diamond's are its diagonal's."""
    return math.sqrt(area / 2)


def _size(ax: Axes, name: str) -> tuple[float, float]:
    """Pixels that a name takes."""
    text = ax.text(0.5, 0.5, plain(name), fontsize=_FONT, transform=ax.transAxes)
    box = text.get_window_extent()
    text.remove()
    return box.width, box.height


class Mark(NamedTuple):
    """A marker: its centre and radius, and the size of a point, in pixels."""

    centre: tuple[float, float]
    radius: float
    point: float


def _free_box(
    mark: Mark,
    size: tuple[float, float],
    occupied: list[Bbox],
    block: list[Bbox],
    inside: Bbox,
) -> Bbox | None:
    """The nearest free place for a name of `size` (width, height); the line to it crosses nothing
    of `block`."""
    from matplotlib.transforms import Bbox

    (centre, radius, dot), (width, height) = mark, size
    for gap in (2, 8, 16, 26, 38, 52, 70, 90, 115):
        for step in range(_STEPS):
            angle = 2 * math.pi * step / _STEPS
            away = radius + gap * dot
            x = centre[0] + math.cos(angle) * (away + width / 2)
            y = centre[1] + math.sin(angle) * (away + height / 2)
            box = Bbox.from_extents(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
            within = inside.x0 < box.x0 and box.x1 < inside.x1
            within = within and inside.y0 < box.y0 and box.y1 < inside.y1
            if not within or any(box.overlaps(other) for other in occupied):
                continue
            line = [(centre[0] + f * (x - centre[0]), centre[1] + f * (y - centre[1])) for f in _ON]
            if not any(other.contains(*point) for other in block for point in line):
                return box
    return None


def spread(wanted: list[float], gap: float, low: float, high: float) -> list[float]:
    """Places in the order of `wanted`, at least `gap` apart, as near to the wanted as can be."""
    # With i * gap taken off, "apart" is "not falling": pool neighbours that fall to their mean.
    pools: list[tuple[float, int]] = []
    for i, x in enumerate(wanted):
        mean, count = x - i * gap, 1
        while pools and pools[-1][0] > mean:
            before, many = pools.pop()
            mean = (before * many + mean * count) / (many + count)
            count += many
        pools.append((mean, count))
    room = max(low, high - (len(wanted) - 1) * gap)
    flat = [min(max(mean, low), room) for mean, count in pools for _ in range(count)]
    return [x + i * gap for i, x in enumerate(flat)]
