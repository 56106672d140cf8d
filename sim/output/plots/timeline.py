"""What every device does when: states and lanes of chosen passes, and one layer close up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sim.account.lanes import LANES
from sim.account.timeline import Span
from sim.output.plots.headings import heading
from sim.output.plots.labels import spread
from sim.output.plots.lane_art import PART, STATE, TimeAxis, draw_part, draw_states
from sim.output.plots.lane_data import Lane, Window, lay_out, one_layer, pass_window
from sim.output.plots.style import (
    FAINT,
    INK,
    figure,
    look,
    save,
    shown,
    state_handles,
    title,
    unit_of,
)
from sim.simulation import Result

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FULL_STAGES, MOST_STAGES = 2, 16
_GAP = 0.5  # between stages, in units of height
INCH = 0.135  # of a unit of height
_LABEL_GAP = 0.155  # inches between slanted names
AXES_INCHES = 5.0  # width of the axes of a figure of full width
NAMES_PAD = 56  # points that slanted names take
NOTE = "height: share of the time; inside an operator the order of states is a convention"


def plot_timeline(
    result: Result,
    stem: Path,
    passes: Sequence[int] | None = None,
    window: Window | None = None,
) -> list[Path]:
    """Write the picture as PNG and SVG.

    `passes`: numbers of the passes, else the first and the first decode pass. `window`: two
    ticks, to see that part of the run and nothing else.
    """
    with look():
        fig = draw_timeline(result, passes, window)
    return save(fig, stem)


def default_passes(result: Result) -> list[int]:
    """The first pass, and the first that decodes."""
    phases = [one.phase for one in result.resolved.passes]
    return [0] + ([phases.index("decode")] if "decode" in phases[1:] else [])


def draw_timeline(
    result: Result, passes: Sequence[int] | None = None, window: Window | None = None
) -> Figure:
    """The figure: a panel a pass with all stages, and under it one layer of its first stage."""
    numbers = list(passes) if passes is not None else default_passes(result)
    lanes = lay_out(result.record, range(len(result.resolved.passes)) if window else numbers)
    many = lanes if len(lanes) <= MOST_STAGES else [*lanes[: MOST_STAGES - 1], lanes[-1]]
    full = len(many) <= FULL_STAGES
    heights = [height_of(many, full)]
    if not window:
        heights = [*heights, height_of(lanes[:1], True)] * len(numbers)
    layers = [] if window else [one_layer(lanes[0], n) for n in numbers]
    extra = 1.05 + sum(0.55 if i % 2 == 0 else 1.3 for i in range(len(heights)))
    fig = figure("paper", extra + INCH * sum(heights))
    axes = fig.subplots(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    if window:
        _overview(axes[0], result, many, window, full)
        axes[0].set_title("part of the run")
    for i, (number, layer) in enumerate(zip(numbers, layers, strict=False)):
        span = pass_window(many, number)
        _overview(axes[2 * i], result, many, span, full)
        phase = result.resolved.passes[number].phase
        length, size = span[1] - span[0], unit_of(span[1] - span[0])
        name = phase if phase == "encode" else f"{phase}, pass {number}"
        axes[2 * i].set_title(f"{name}: {shown(length, size[1])} {size[0]}")
        _close_up(axes[2 * i + 1], result, lanes[0], layer)
    seen = {s for lane in many for s, t in lane.states.items() if len(t.begin)}
    heading(fig, title(result.resolved))
    handles, words = state_handles(seen)
    state_legend(fig, handles, words, 7, NOTE)
    return fig


def state_legend(
    fig: Figure, handles: Sequence[Artist], words: Sequence[str], columns: int, note: str
) -> None:
    """The states below a timeline, with a note on how to read it."""
    fig.legend(
        handles,
        words,
        loc="outside lower center",
        ncols=columns,
        handlelength=1.2,
        title=note,
        title_fontsize=7,
    )


def _parts(lanes: list[Lane]) -> list[str]:
    """Lanes that any of the stages uses."""
    return [p for p in LANES if any(len(lane.busy[p].begin) for lane in lanes)]


def height_of(lanes: list[Lane], full: bool) -> float:
    parts = _parts(lanes) if full else []
    return len(lanes) * (STATE + PART * len(parts) + _GAP)


def _overview(ax: Axes, result: Result, lanes: list[Lane], window: Window, full: bool) -> None:
    unit, size = unit_of(window[1] - window[0])
    draw_lanes(ax, result, lanes, TimeAxis(window, 0, size), full)
    ax.set_xlabel(f"time since the run began ({unit})")


def _close_up(ax: Axes, result: Result, lane: Lane, layer: list[Span]) -> None:
    window = layer[0].begin, layer[-1].end
    unit, size = unit_of(window[1] - window[0])
    axis = TimeAxis(window, window[0], size)
    top, _ = draw_lanes(ax, result, [lane], axis, True)
    name_operators(ax, layer, axis, top, AXES_INCHES)
    at = layer[0].placed
    assert at is not None
    name = f"{layer[0].phase}, {at.stack} layer {at.layer}"
    name += f": {shown(window[1] - window[0], size)} {unit}"
    ax.set_title(name, y=1.0, pad=NAMES_PAD)
    ax.set_xlabel(f"time since the layer began ({unit})")


def name_operators(
    ax: Axes,
    layer: list[Span],
    axis: TimeAxis,
    top: float,
    inches: float,
    lift: float = 1.0,
) -> None:
    """Slanted names of operators above the lanes of an axis `inches` wide; `lift` is less than 1
    where the axis is stretched."""
    width = axis.at(axis.window[1])
    gap = _LABEL_GAP / inches * width
    layer = sorted(layer, key=lambda s: s.begin + s.end)  # spans of several streams overlap
    centres = [axis.at((s.begin + s.end) / 2) for s in layer]
    places = spread(centres, gap, gap / 2, width)
    for span, centre, place in zip(layer, centres, places, strict=True):
        edge = axis.at(span.end)
        ax.plot([edge, edge], [0, top], color="white", lw=0.5, zorder=3)
        ax.plot(
            [centre, centre, place],
            [top, top + 0.25 * lift, top + 1.1 * lift],
            color=FAINT,
            lw=0.5,
            clip_on=False,
        )
        assert span.step is not None
        ax.text(
            place,
            top + 1.2 * lift,
            span.step.name.rpartition(".")[2],
            rotation=38,
            rotation_mode="anchor",
            ha="left",
            va="bottom",
            fontsize=6.5,
        )


def draw_lanes(
    ax: Axes,
    result: Result,
    lanes: list[Lane],
    axis: TimeAxis,
    full: bool,
) -> tuple[float, list[float]]:
    """Draw lanes from top to bottom. Returns the height of the top edge, and the height at which
    the states of each lane begin."""
    ends = [axis.at(end) for end in axis.window]
    parts = _parts(lanes) if full else []
    top = y = height_of(lanes, full) - _GAP
    ticks: list[float] = []
    labels: list[str] = []
    places: list[float] = []
    for lane in lanes:
        y -= STATE
        places.append(y)
        draw_states(ax, lane, axis, y)
        ticks.append(y + STATE / 2)
        labels.append(_name(result, lane))
        for part in parts:
            y -= PART
            draw_part(ax, lane, part, axis, y + 0.08)
            ax.plot(ends, [y + 0.08] * 2, color="#CFCFCF", lw=0.4, zorder=1)
            ticks.append(y + PART / 2)
            labels.append(part)
        y -= _GAP
    ax.set_yticks(ticks, labels)
    for tick, label in zip(ax.get_yticklabels(), labels, strict=True):
        tick.set_fontsize(6.5 if label in LANES else 7.5)
        tick.set_color(FAINT if label in LANES else INK)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xlim(*ends)
    ax.set_ylim(-0.15, top)
    return top, places


def _name(result: Result, lane: Lane) -> str:
    split = result.record.compiled.plan.split
    first = split.device(lane.replica, lane.stage, 0)
    last = split.device(lane.replica, lane.stage, split.tp - 1)
    devices = f"gpu{first}" if first == last else f"gpu{first}–{last}"  # noqa: RUF001
    place = [f"replica {lane.replica}"] if split.dp > 1 else []
    place += [f"stage {lane.stage}"] if split.pp > 1 else []
    return f"{', '.join(place)}\n({devices})" if place else devices
