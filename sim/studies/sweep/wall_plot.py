"""Pictures of memory-wall maps: one or several side by side, with the line of the crossing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim.output.plots.headings import LINE, heading, lines_of, panel_title
from sim.output.plots.style import (
    INK,
    STATE_COLOURS,
    STATE_NAMES,
    Kind,
    figure,
    look,
    plain,
    save,
)
from sim.studies.sweep.plots import along, edges, is_log
from sim.studies.sweep.report import heading_of
from sim.studies.sweep.wall import WallMap, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

NOT_POSSIBLE = "#D4D4D4"
MOST_FIGURES = 160  # cells that still have room for their number
_AROUND = ((0, 1), (0, -1), (-1, 0), (1, 0), (-1, 1), (1, 1), (-1, -1), (1, -1))
_NARROW = 1.1  # inches of a line of a legend at least
_CELL = (11, 8)  # points that a number needs
_BELOW = 32  # points from a map to its legend: the numbers and the name of the axis
UNITS = {"batch": "sequences", "prompt": "tokens", "seq": "tokens", "output": "tokens"}


def plot_walls(
    maps: Sequence[WallMap], stem: Path, title: str = "", kind: Kind = "paper"
) -> list[Path]:
    """Draw maps of one wall beside one another, on one scale of colours."""
    with look():
        fig = draw_walls(maps, title, kind)
    return save(fig, stem)


def draw_walls(maps: Sequence[WallMap], title: str = "", kind: Kind = "paper") -> Figure:
    """The figure of `plot_walls`."""
    from matplotlib.colors import LinearSegmentedColormap

    wall = maps[0].wall
    colour = STATE_COLOURS["hbm" if wall == "memory" else wall]
    colours = LinearSegmentedColormap.from_list("wall", ["#FFFFFF", colour]).with_extremes(
        bad=NOT_POSSIBLE
    )
    fig = figure(kind, 3.4)
    panels = fig.subplots(1, len(maps), squeeze=False)[0]
    for ax, one in zip(panels, maps, strict=True):
        mesh = _panel(ax, one, colours, len(maps))
    name = "memory" if wall == "memory" else STATE_NAMES[wall]
    bar = fig.colorbar(mesh, ax=list(panels), shrink=0.9, pad=0.02)
    bar.set_label(f"share of the device time: {name}")
    bar.ax.yaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
    if title:
        heading(fig, title, kind, bold=True)
    fig.draw_without_rendering()  # the panels have their widths now
    for ax, one in zip(panels, maps, strict=True):
        _legend(ax, one)
        panel_title(ax, _about(one), 7.5)
    _grow(fig, panels)
    fig.draw_without_rendering()
    for ax, one in zip(panels, maps, strict=True):
        if len(one.x.values) * len(one.y.values) <= MOST_FIGURES // len(maps):
            _figures(ax, one)
    return fig


def _grow(fig: Figure, panels: Sequence[Axes]) -> None:
    """Room for the legends and for titles of several lines, so that the maps keep their height."""
    legends = [ax.get_legend() for ax in panels]
    below = max((legend.get_window_extent().height for legend in legends if legend), default=0.0)
    lines = max(ax.get_title(loc="left").count("\n") for ax in panels)
    width, height = fig.get_size_inches()
    fig.set_size_inches(width, height + below / fig.dpi + LINE * lines)


def _figures(ax: Axes, one: WallMap) -> None:
    """The share of each cell in per cent, beside the line where it crosses the cell. Cells that
    are too small for their numbers have none."""
    import numpy as np
    from matplotlib.transforms import Bbox

    dot = ax.figure.dpi / 72
    occupied: list[Bbox] = []
    for line in ax.lines:
        marks = [(float(x), float(y)) for x, y in np.asarray(line.get_xydata())]
        for points, reach in ((marks, 2.5 * dot), (along(ax, marks), 1.5 * dot)):
            for x, y in ax.transData.transform(points) if points else []:
                occupied.append(Bbox.from_extents(x - reach, y - reach, x + reach, y + reach))
    (xs, log_x), (ys, log_y) = _places(one.x.values), _places(one.y.values)
    across, up = edges(xs, log_x), edges(ys, log_y)
    for row, shares in enumerate(one.share):
        for column, value in enumerate(shares):
            if value is None:
                continue
            corners = [(across[column + i], up[row + i]) for i in (0, 1)]
            cell = Bbox(ax.transData.transform(corners))
            if cell.width < _CELL[0] * dot or cell.height < _CELL[1] * dot:
                continue
            _figure(ax, f"{100 * value:.0f}", cell, occupied)


def _figure(ax: Axes, number: str, cell: Bbox, occupied: list[Bbox]) -> None:
    """A number as near to the middle of its cell as the line lets it."""
    from matplotlib.transforms import IdentityTransform

    text = ax.text(0, 0, number, ha="center", va="center", fontsize=6)
    text.set_transform(IdentityTransform())
    box = text.get_window_extent()
    for share in (0.0, 0.3, 0.5, 0.7, 0.9):
        for right, upward in _AROUND:
            x = (cell.x0 + cell.x1) / 2 + share * right * (cell.width - box.width) / 2
            y = (cell.y0 + cell.y1) / 2 + share * upward * (cell.height - box.height) / 2
            moved = box.translated(x, y)
            if not any(moved.overlaps(other) for other in occupied):
                text.set_transform(ax.transData)
                x, y = ax.transData.inverted().transform((x, y))
                text.set_position((float(x), float(y)))
                return
    text.remove()


def _panel(ax: Axes, one: WallMap, colours: Any, count: int) -> Any:
    import numpy as np

    grid = np.array([[math.nan if v is None else v for v in row] for row in one.share])
    (xs, log_x), (ys, log_y) = _places(one.x.values), _places(one.y.values)
    mesh = ax.pcolormesh(
        edges(xs, log_x), edges(ys, log_y), grid, cmap=colours, vmin=0, vmax=1, rasterized=True
    )
    for log, axis, axle in ((log_x, one.x, ax.xaxis), (log_y, one.y, ax.yaxis)):
        name = axis.name.rpartition(".")[2]
        unit = f" ({UNITS[name]})" if name in UNITS else ""
        (ax.set_xlabel if axle is ax.xaxis else ax.set_ylabel)(plain(f"{name}{unit}"))
        if log:
            (ax.set_xscale if axle is ax.xaxis else ax.set_yscale)("log", base=2)
        places = _places(axis.values)[0]
        step = max(1, -(-len(places) // (10 if axle is ax.yaxis else max(4, 12 // count))))
        axle.set_major_locator(_fixed(places[::step]))
        axle.set_minor_locator(_fixed([]))
        axle.set_major_formatter(_named([plain(shown(v)) for v in axis.values[::step]]))
    if not one.y.name:
        ax.yaxis.set_visible(False)
    _line(ax, one, ys)
    return mesh


def _about(one: WallMap) -> str:
    """What a map is about, but for its axes."""
    about = heading_of(one.sweep, skip=(one.x.name, one.y.name))
    return about if one.phase == "all" else f"{about}, {one.phase}"


def _legend(ax: Axes, one: WallMap) -> None:
    """Below a map, where it covers no cell: what the line means at its ends, and grey."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.transforms import ScaledTranslation

    fig = ax.figure
    inches = max(_NARROW, ax.get_window_extent().width / fig.dpi - 0.3)
    handles: list[Any] = []
    words: list[str] = []
    for computes in (True, False):
        mine = [c for c in one.crossings if c.computes is computes]
        ends = mine if len(mine) < 2 else [mine[0], mine[-1]]
        if ends:
            handles.append(Line2D([], [], color=INK, lw=1.4, marker="o", ms=3))
            said = [lines_of(one.sentence(crossing), inches, 7.0) for crossing in ends]
            words.append("\n".join(line for lines in said for line in lines))
    if any(status != "ok" for row in one.status for status in row):
        handles.append(Patch(facecolor=NOT_POSSIBLE))
        words.append("not possible")
    if handles:
        below = ScaledTranslation(0, -_BELOW / 72, fig.dpi_scale_trans)
        ax.legend(
            handles,
            words,
            loc="upper left",
            bbox_to_anchor=(0, 0),
            bbox_transform=ax.transAxes + below,
            borderaxespad=0,
            fontsize=7,
            handlelength=1.4,
        )


def _places(values: Sequence[Any]) -> tuple[list[float], bool]:
    """Where values stand on an axis: numbers at themselves, names one after another."""
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        return [float(v) for v in values], is_log(values)
    return [float(i) for i in range(len(values))], False


def _fixed(places: list[float]) -> Any:
    from matplotlib.ticker import FixedLocator

    return FixedLocator(places)


def _named(names: list[str]) -> Any:
    from matplotlib.ticker import FixedFormatter

    return FixedFormatter(names)


def _line(ax: Axes, one: WallMap, ys: list[float]) -> None:
    """The crossing through the rows that have one."""
    height = dict(zip(map(repr, one.y.values), ys, strict=True))
    for computes in (True, False):
        mine = [c for c in one.crossings if c.computes is computes]
        if not mine:
            continue
        at = [(float(c.x), height[repr(c.y)]) for c in mine]
        ax.plot(*zip(*at, strict=True), color=INK, lw=1.4, marker="o", ms=3, zorder=4)
