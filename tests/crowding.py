"""What a reader would not like about a figure: text off the edge, text on text, text on points."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from sim.output.plots.style import look, settle

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SLACK = 1.5  # pixels that boxes may share: letters do not fill them


def faults(fig: Figure) -> list[str]:
    """One sentence per fault of a figure; none of a good one. It is laid out as for its file."""
    with look():
        settle(fig)
        fig.draw_without_rendering()
        return [*_off_the_edge(fig), *_on_text(fig), *_on_axes(fig)]


def texts_of(fig: Figure) -> list[Text]:
    """All text outside of legends."""
    found = list(fig.texts)
    for ax in fig.axes:
        titles = [ax.title, ax._left_title, ax._right_title]  # type: ignore[attr-defined]
        found += [*titles, *ax.texts, ax.xaxis.label, ax.yaxis.label]
    return [t for t in found if t.get_visible() and t.get_text().strip() and _in_view(t)]


def box_of(text: Text) -> Bbox:
    """The pixels of a text, without the line of an annotation to its point."""
    return (
        Text.get_window_extent(text) if isinstance(text, Annotation) else text.get_window_extent()
    )


def overlap(a: Bbox, b: Bbox) -> bool:
    """Whether two boxes share more than the slack."""
    width = min(a.x1, b.x1) - max(a.x0, b.x0)
    height = min(a.y1, b.y1) - max(a.y0, b.y0)
    return width > _SLACK and height > _SLACK


def _in_view(text: Text) -> bool:
    return bool(text.axes is None or text.axes.get_visible())


def _ticks(fig: Figure) -> list[Text]:
    """Numbers and names of the axes that are drawn: those inside the limits."""
    found = []
    for ax in (ax for ax in fig.axes if ax.get_visible()):
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            drawn = [t for t in axis.get_major_ticks() if low <= t.get_loc() <= high]
            found += [t.label1 for t in drawn if t.label1.get_visible() and t.label1.get_text()]
    return found


def _legends(fig: Figure) -> list[tuple[str, Bbox]]:
    inside = [legend for ax in fig.axes if (legend := ax.get_legend())]
    return [("a legend", legend.get_window_extent()) for legend in [*fig.legends, *inside]]


def _off_the_edge(fig: Figure) -> list[str]:
    edge = fig.bbox.padded(1)
    boxes = [(t.get_text(), box_of(t)) for t in texts_of(fig)] + _legends(fig)
    boxes += [(t.get_text(), box_of(t)) for t in _ticks(fig) if t.get_rotation() == 0]
    return [
        f"{name!r} runs off the edge: {box.extents.round()} in {edge.extents}"
        for name, box in boxes
        if box.x0 < edge.x0 or box.x1 > edge.x1 or box.y0 < edge.y0 or box.y1 > edge.y1
    ]


def _on_text(fig: Figure) -> list[str]:
    """Text on text, on a legend or on a number of an axis. Boxes of slanted names are no bounds."""
    level = [t for t in texts_of(fig) if t.get_rotation() in (0, 90)]
    boxes = [(t.get_text(), box_of(t)) for t in level] + _legends(fig)
    said = [
        f"{a!r} lies on {b!r}"
        for (a, x), (b, y) in itertools.combinations(boxes, 2)
        if overlap(x, y)
    ]
    outside = [
        (t.get_text(), box_of(t))
        for t in level
        if t not in {x for ax in fig.axes for x in ax.texts}
    ]
    for name, box in [*outside, *_legends(fig)]:
        said += [
            f"{name!r} lies on the tick {t.get_text()!r}"
            for t in _ticks(fig)
            if overlap(box, box_of(t))
        ]
    return said


def _on_axes(fig: Figure) -> list[str]:
    """Legends on a panel."""
    return [
        "a legend lies on a panel"
        for _, box in _legends(fig)
        for ax in fig.axes
        if ax.get_visible() and overlap(box, ax.get_window_extent())
    ]
