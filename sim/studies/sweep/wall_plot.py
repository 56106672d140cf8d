"""Pictures of memory-wall maps: one or several side by side, with the line of the crossing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim.output.plots.style import (
    FAINT,
    INK,
    STATE_COLOURS,
    STATE_NAMES,
    Kind,
    figure,
    look,
    plain,
    save,
)
from sim.studies.sweep.plots import edges, is_log
from sim.studies.sweep.report import heading_of
from sim.studies.sweep.wall import WallMap, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_FIGURES = 160  # cells that still have room for their number
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
    colours = LinearSegmentedColormap.from_list("wall", ["#FFFFFF", colour])
    fig = figure(kind, 3.4)
    panels = fig.subplots(1, len(maps), squeeze=False)[0]
    for ax, one in zip(panels, maps, strict=True):
        mesh = _panel(ax, one, colours, len(maps))
    name = "memory" if wall == "memory" else STATE_NAMES[wall]
    bar = fig.colorbar(mesh, ax=list(panels), shrink=0.9, pad=0.02)
    bar.set_label(f"share of the device time: {name}")
    bar.ax.yaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
    if title:
        fig.suptitle(plain(title), x=0.01, ha="left", fontsize=8.5, fontweight="bold")
    fig.draw_without_rendering()
    for ax, one in zip(panels, maps, strict=True):
        if len(one.x.values) * len(one.y.values) <= MOST_FIGURES // len(maps):
            _figures(ax, one)
    return fig


def _figures(ax: Axes, one: WallMap) -> None:
    """The share of each cell in per cent, where neither the line nor a name covers it."""
    from matplotlib.transforms import Bbox

    occupied = [text.get_window_extent() for text in ax.texts]
    reach = 5 * ax.figure.dpi / 72
    for line in ax.lines:
        for x, y in ax.transData.transform(line.get_xydata()):
            occupied.append(Bbox.from_extents(x - reach, y - reach, x + reach, y + reach))
    xs, ys = _places(one.x.values)[0], _places(one.y.values)[0]
    for y, row in zip(ys, one.share, strict=True):
        for x, value in zip(xs, row, strict=True):
            if value is None:
                continue
            text = ax.text(x, y, f"{100 * value:.0f}", ha="center", va="center", fontsize=6)
            box = text.get_window_extent()
            if any(box.overlaps(other) for other in occupied):
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
    impossible = [
        (x, y)
        for y, row in zip(ys, one.status, strict=True)
        for x, status in zip(xs, row, strict=True)
        if status != "ok"
    ]
    if impossible:
        across, up = ([place[i] for place in impossible] for i in (0, 1))
        ax.scatter(across, up, marker="x", s=14, color=FAINT, lw=0.8)
    _line(ax, one, ys, 7.0 if count == 1 else 6.2)
    about = plain(heading_of(one.sweep, skip=(one.x.name, one.y.name)))
    if one.phase != "all":
        about += f", {one.phase}"
    ax.set_title(f"{about} (x: cannot be)" if impossible else about, fontsize=7.5)
    return mesh


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


def _line(ax: Axes, one: WallMap, ys: list[float], size: float) -> None:
    """The crossing through the rows that have one, with its value at both ends."""
    height = dict(zip(map(repr, one.y.values), ys, strict=True))
    for computes in (True, False):
        mine = [c for c in one.crossings if c.computes is computes]
        if not mine:
            continue
        at = [(float(c.x), height[repr(c.y)]) for c in mine]
        ax.plot(*zip(*at, strict=True), color=INK, lw=1.4, marker="o", ms=3, zorder=4)
        ends = {0: mine[0], len(mine) - 1: mine[-1]}
        for i, crossing in ends.items():
            right = _share_of(ax, at[i][0]) < 0.45
            ax.annotate(
                one.words(crossing).partition(",")[0],
                at[i],
                (5 if right else -5, 0),
                textcoords="offset points",
                ha="left" if right else "right",
                va="center",
                fontsize=size,
                color=INK,
                bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none"},
                zorder=5,
            )


def _share_of(ax: Axes, x: float) -> float:
    """How far along the axis a value lies, from 0 to 1."""
    pixel = ax.transData.transform((x, ax.get_ylim()[0]))
    return float(ax.transAxes.inverted().transform(pixel)[0])
