"""Pictures of sweeps: a Pareto front among all points, and memory-wall maps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim.output.plots.labels import place
from sim.output.plots.style import FAINT, INK, SERIES, Kind, figure, look, plain, save
from sim.studies.sweep.fronts import Metric, Record, pareto
from sim.studies.sweep.labels import HEADS, name_of
from sim.studies.sweep.levels import has_level, meeting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_COLOURS, MOST_NAMES = 8, 14
AXES = {
    "tokens_per_s_per_user": "tokens/s/user",
    "tokens_per_s_per_device": "tokens/s/device",
}
UNITS = {"ttft_s": "s", "tpot_s": "s", "makespan_ps": "ps"}


def plot_front(
    records: Sequence[Record],
    axes: list[str],
    metrics: tuple[Metric, Metric],
    title: str,
    stem: Path,
    kind: Kind = "paper",
) -> list[Path]:
    """Every point by two metrics, the front as a line with the names of its points."""
    with look():
        fig = draw_front(records, axes, metrics, title, kind)
    return save(fig, stem)


def draw_front(
    records: Sequence[Record],
    axes: list[str],
    metrics: tuple[Metric, Metric],
    title: str,
    kind: Kind = "paper",
) -> Figure:
    """The figure of `plot_front`. Colours tell the values of the first axis that has a few."""
    x, y = metrics
    shown = [r for r in records if r.get(x.name) is not None and r.get(y.name) is not None]
    edge = pareto(meeting(shown), x, y)
    fig = figure(kind, 3.6)
    ax = fig.add_subplot()
    if has_level(shown):
        late = [r for r in shown if not r["slo_met"]]
        ax.scatter(
            [r[x.name] for r in late],
            [r[y.name] for r in late],
            s=14,
            color=FAINT,
            alpha=0.5,
            linewidths=0,
            label="misses the SLO",
            zorder=1,
        )
        shown = meeting(shown)
    axis, colours = _colours(shown, axes)
    for value, colour in colours.items():
        mine = [r for r in shown if axis is None or repr(r[axis]) == value]
        ax.scatter(
            [r[x.name] for r in mine],
            [r[y.name] for r in mine],
            s=14,
            color=colour,
            alpha=0.75,
            linewidths=0,
            label=plain(f"{axis} {value.strip(chr(39))}") if axis else None,
            zorder=2,
        )
    line = sorted(edge, key=lambda r: r[x.name])
    ax.plot([r[x.name] for r in line], [r[y.name] for r in line], color=INK, lw=1.0, zorder=3)
    for side, metric in (("x", x), ("y", y)):
        values = [r[metric.name] for r in shown]
        if values and min(values) > 0 and max(values) / min(values) > 30:
            (ax.set_xscale if side == "x" else ax.set_yscale)("log")
        unit = f" ({UNITS[metric.name]})" if metric.name in UNITS else ""
        better = "more" if metric.sense == "max" else "less"
        name = AXES.get(metric.name, HEADS.get(metric.name, metric.name))
        label = f"{name}{unit}, {better} is better"
        (ax.set_xlabel if side == "x" else ax.set_ylabel)(plain(label))
    ax.grid(True, which="major")
    ax.set_title(plain(title))
    if ax.get_legend_handles_labels()[0]:
        fig.legend(*ax.get_legend_handles_labels(), loc="outside right upper", title="")
    _name(fig, ax, line, axes, (x, y))
    return fig


def _colours(records: Sequence[Record], axes: list[str]) -> tuple[str | None, dict[str, str]]:
    """(axis, colour by the value's text) of the first axis of 2 to 8 values."""
    for axis in axes:
        values = list(dict.fromkeys(repr(r[axis]) for r in records))
        if 2 <= len(values) <= MOST_COLOURS:
            return axis, dict(zip(values, SERIES, strict=False))
    return None, {"": SERIES[0]}


def _name(
    fig: Figure, ax: Axes, line: list[Record], axes: list[str], metrics: tuple[Metric, Metric]
) -> None:
    """Names at points of the front, spread over its length, where there is room."""
    fig.draw_without_rendering()
    varied = [n for n in axes if len({repr(r[n]) for r in line}) > 1] or axes[:1]
    step = max(1, -(-len(line) // MOST_NAMES))
    marks = [(r[metrics[0].name], r[metrics[1].name], 14.0) for r in line]
    names = [(name_of({n: line[i][n] for n in varied}), i) for i in range(0, len(line), step)]
    place(ax, names, marks, _along(ax, marks), [])


def _along(ax: Axes, marks: list[tuple[float, float, float]]) -> list[tuple[float, float]]:
    """Points on the line through the marks, close enough that no name fits between two."""
    from_data, to_data = ax.transData, ax.transData.inverted()
    line: list[tuple[float, float]] = []
    for a, b in itertools.pairwise(marks):
        (ax0, ay0), (ax1, ay1) = from_data.transform((a[:2], b[:2]))
        steps = max(2, round(math.hypot(ax1 - ax0, ay1 - ay0) / 6))
        for i in range(steps):
            share = i / steps
            x, y = to_data.transform((ax0 + share * (ax1 - ax0), ay0 + share * (ay1 - ay0)))
            line.append((float(x), float(y)))
    return line


def edges(values: Sequence[float], log: bool) -> list[float]:
    """Borders of the cells around values, half-way between neighbours."""
    at = [math.log(v) for v in values] if log else list(map(float, values))
    if len(at) == 1:
        borders = [at[0] - 0.5, at[0] + 0.5]
    else:
        inner = [(a + b) / 2 for a, b in itertools.pairwise(at)]
        borders = [2 * at[0] - inner[0], *inner, 2 * at[-1] - inner[-1]]
    return [math.exp(v) for v in borders] if log else borders


def is_log(values: Sequence[Any]) -> bool:
    """Whether the values spread over a decade or so, and all lie above 0."""
    return bool(min(values) > 0 and max(values) / min(values) >= 8)
