"""A close look at a timeline: a window, a layer, some devices, and the critical path drawn in."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from sim.account.critical import Leg, critical_path
from sim.account.timeline import Span
from sim.errors import InputError
from sim.output.plots.headings import heading
from sim.output.plots.lane_art import STATE, TimeAxis
from sim.output.plots.lane_data import Lane, Window, lay_out, pass_window
from sim.output.plots.style import (
    INK,
    WIDTHS,
    Kind,
    figure,
    look,
    save,
    shown,
    state_handles,
    unit_of,
)
from sim.output.plots.style import title as scenario_title
from sim.output.plots.timeline import (
    INCH,
    NAMES_PAD,
    NOTE,
    default_passes,
    draw_lanes,
    height_of,
    name_operators,
    state_legend,
)
from sim.simulation import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARGIN = {"column": 1.0, "paper": 1.3, "slide": 1.3}  # inches beside the axes
_ABOVE = 0.12  # of the states, where the critical path runs
FULL_LANES, MOST_LANES = 4, 32


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What is shown: ticks from and until, or a layer of a pass, or a pass; of which devices.

    number: the pass, else the first that decodes (or the only one). critical: draw the path.
    """

    window: Window | None = None
    number: int | None = None
    layer: int | None = None
    devices: tuple[int, ...] = ()
    critical: bool = True


def plot_view(result: Result, stem: Path, view: View, kind: Kind = "paper") -> list[Path]:
    """Write the picture as PNG and SVG. Raises InputError for what the run does not have."""
    with look():
        fig = draw_view(result, view, kind)
    return save(fig, stem)


def draw_view(result: Result, view: View, kind: Kind = "paper") -> Figure:
    """The figure of `plot_view`."""
    from matplotlib.lines import Line2D

    number = _number(result, view)
    lanes = _lanes(result, view, number)
    window, layer = _window(result, view, lanes, number)
    if layer:
        lanes = [lane for lane in lanes if lane.stage == layer[0].stage] or lanes
    full = len(lanes) <= FULL_LANES
    unit, size = unit_of(window[1] - window[0])
    origin = window[0] if layer else 0
    height = 1.1 + INCH * height_of(lanes, full) + 0.14 + (0.75 if layer else 0)
    columns = 3 if kind == "column" else 8
    seen = {s for lane in lanes for s, t in lane.states.items() if len(t.between(window).begin)}
    height += 0.17 * -(-(len(seen) + 1) // columns)
    fig = figure(kind, height)
    ax = fig.add_subplot()
    axis = TimeAxis(window, origin, size)
    top, places = draw_lanes(ax, result, lanes, axis, full)
    name = _name(view, layer, number, window, size, unit)
    ax.set_title(name, pad=NAMES_PAD if layer else None)
    if layer:
        tall = INCH * height_of(lanes, full)
        lift = tall / (tall + float(fig.get_figheight()) - height)
        name_operators(ax, layer, axis, top, WIDTHS[kind] - _MARGIN[kind], lift)
    handles, words = state_handles(seen)
    ax.set_ylim(-0.15, top + 2 * _ABOVE)
    heights = {
        (lane.replica, lane.stage): y + STATE + _ABOVE
        for lane, y in zip(lanes, places, strict=True)
    }
    if view.critical and _draw_path(ax, critical_path(result.record), heights, axis):
        handles.append(Line2D([], [], color=INK, lw=1.6))
        words.append("critical path")
    since = "the layer" if layer else "the run"
    ax.set_xlabel(f"time since {since} began ({unit})")
    heading(fig, scenario_title(result.resolved), kind)
    state_legend(fig, handles, words, columns, "" if kind == "column" else NOTE)
    return fig


def _number(result: Result, view: View) -> int:
    count = len(result.resolved.passes)
    if view.number is None:
        return default_passes(result)[-1]
    if not 0 <= view.number < count:
        raise InputError(f"--pass {view.number}: the run has the passes 0 to {count - 1}")
    return view.number


def _lanes(result: Result, view: View, number: int) -> list[Lane]:
    """Lanes of the selected devices; without a selection, of the first rank of each stage."""
    record = result.record
    split = record.compiled.plan.split
    passes: Iterable[int] = [number] if view.window is None else range(len(result.resolved.passes))
    if not view.devices:
        lanes = lay_out(record, passes)
        return lanes if len(lanes) <= MOST_LANES else [*lanes[: MOST_LANES - 1], lanes[-1]]
    lanes = []
    for device in view.devices:
        if not 0 <= device < split.devices:
            raise InputError(f"--device {device}: the run has the devices 0 to {split.devices - 1}")
        rest, rank = divmod(device, split.tp)
        replica, stage = divmod(rest, split.pp)
        rank = rank if rank in record.compiled.ranks else 0  # folded: all ranks do the same
        by_lane = lay_out(record, passes, replica, rank)
        lanes += [lane for lane in by_lane if lane.stage == stage]
    return lanes


def _window(
    result: Result, view: View, lanes: list[Lane], number: int
) -> tuple[Window, list[Span]]:
    """What is shown, and the steps of a layer if one is."""
    if view.window is not None:
        begin, end = view.window
        if not 0 <= begin < end or begin >= result.makespan:
            span = f"0 to {result.makespan / 1e9:g} ms"
            raise InputError(f"--window: it lies outside the run, which takes {span}")
        return (begin, min(end, result.makespan)), []
    if view.layer is None:
        return pass_window(lanes, number), []
    spans = [
        span
        for lane in lanes
        for span in lane.spans
        if span.number == number and span.micro == 0 and span.placed and span.step
    ]
    layer = [s for s in spans if s.placed and s.placed.layer == view.layer]
    if not layer:
        have = sorted({s.placed.layer for s in spans if s.placed and s.placed.layer >= 0})
        known = f"{have[0]} to {have[-1]}" if have else "none"
        raise InputError(f"--layer {view.layer}: these devices run the layers {known} of this pass")
    one = [s for s in layer if s.placed and layer[-1].placed and s.stage == layer[0].stage]
    stack = one[-1].placed.stack if one[-1].placed else ""
    one = [s for s in one if s.placed and s.placed.stack == stack]
    return (one[0].begin, one[-1].end), one


def _name(
    view: View, layer: list[Span], number: int, window: Window, size: float, unit: str
) -> str:
    length = f"{shown(window[1] - window[0], size)} {unit}"
    if layer:
        at = layer[0].placed
        assert at is not None
        return f"{layer[0].phase}, pass {number}, {at.stack} layer {at.layer}: {length}"
    return f"part of the run: {length}" if view.window else f"pass {number}: {length}"


def _draw_path(
    ax: Axes, path: list[Leg], heights: dict[tuple[int, int], float], axis: TimeAxis
) -> bool:
    """Draw the critical path above the states of the stage that it is on, at `heights` of
    (replica, stage). Returns whether any of it lies in the window."""
    drawn, window = False, axis.window
    for leg in path:
        ends = (leg.replica, leg.stage), (leg.replica, leg.to)
        if leg.end <= window[0] or leg.begin >= window[1] or not all(e in heights for e in ends):
            continue
        ax.plot(
            [axis.at(leg.begin), axis.at(leg.end)],
            [heights[ends[0]], heights[ends[1]]],
            color=INK,
            lw=1.6,
            solid_capstyle="butt",
            zorder=4,
        )
        drawn = True
    for earlier, later in itertools.pairwise(path):
        # Without a transfer in between the path changes lanes at once.
        a, b = (earlier.replica, earlier.to), (later.replica, later.stage)
        if a != b and a in heights and b in heights and window[0] <= later.begin <= window[1]:
            x = axis.at(later.begin)
            ax.plot([x, x], [heights[a], heights[b]], color=INK, lw=1.6, zorder=4)
    return drawn
