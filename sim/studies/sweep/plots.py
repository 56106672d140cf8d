"""Pictures of sweeps: a Pareto front among all points, and memory-wall maps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sim.output.plots.headings import heading
from sim.output.plots.labels import place
from sim.output.plots.style import FAINT, INK, SERIES, Kind, figure, look, plain, save
from sim.studies.sweep.fronts import Metric, Record, pareto
from sim.studies.sweep.labels import HEADS, name_of
from sim.studies.sweep.levels import has_level, meeting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_COLOURS, MOST_NAMES = 8, 14
AREA = 14.0  # of a marker, in square points
AXES = {
    "tokens_per_s_per_user": "tokens/s/user",
    "tokens_per_s_per_device": "tokens/s/device",
}
SCALES = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6))  # units of times


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
    """The figure of `plot_front`. Colours tell the values of the first axis that has a few; points
    that miss the service level are grey."""
    drawn = [r for r in records if all(r.get(m.name) is not None for m in metrics)]
    good = meeting(drawn)
    late = [r for r in drawn if not r["slo_met"]] if has_level(drawn) else []
    sides = [Side.of(metric, good or late) for metric in metrics]
    fig = figure(kind, 3.6)
    ax = fig.add_subplot()
    axis, colours = _colours(good, axes)
    groups = [(late, FAINT, 0.5, "misses the SLO")] if late else []
    for value, colour in colours.items():
        mine = [r for r in good if axis is None or repr(r[axis]) == value]
        label = f"{axis} {value.strip(chr(39))}" if axis else ""
        groups.append((mine, colour, 0.75, label))
    for order, (some, colour, alpha, label) in enumerate(groups):
        ax.scatter(
            [sides[0].at(r) for r in some],
            [sides[1].at(r) for r in some],
            s=AREA,
            color=colour,
            alpha=alpha,
            linewidths=0,
            label=plain(label) or None,
            zorder=1 + order / 10,
        )
    line = sorted(pareto(good, *metrics), key=lambda r: r[metrics[0].name])
    ax.plot(*([side.at(r) for r in line] for side in sides), color=INK, lw=1.0, zorder=3)
    for side, axle in zip(sides, (ax.xaxis, ax.yaxis), strict=True):
        if side.log:
            (ax.set_xscale if axle is ax.xaxis else ax.set_yscale)("log")
        axle.set_label_text(plain(side.label))
    ax.grid(True, which="major")
    heading(fig, title, kind, bold=True)
    if ax.get_legend_handles_labels()[0]:
        fig.legend(*ax.get_legend_handles_labels(), loc="outside right center")
    _name(fig, ax, (line, [*good, *late]), axes, sides)
    return fig


class Side(NamedTuple):
    """An axis of a front: its metric, the unit in which times read well, and its scale."""

    metric: Metric
    unit: str
    size: float
    log: bool

    @classmethod
    def of(cls, metric: Metric, records: Sequence[Record]) -> Side:
        """The axis for these points."""
        values = [float(r[metric.name]) for r in records]
        log = bool(values) and min(values) > 0 and max(values) / min(values) > 30
        is_time = metric.name.endswith(("_s", "_ps")) and "_per_" not in metric.name
        if not is_time:
            return cls(metric, "", 1.0, log)
        seconds = 1e-12 if metric.name.endswith("_ps") else 1.0
        middle = sorted(values)[len(values) // 2] * seconds if values else 1.0
        unit, size = next((s for s in SCALES if middle >= 2 * s[1]), SCALES[-1])
        return cls(metric, unit, size / seconds, log)

    @property
    def label(self) -> str:
        """The metric, its unit, and which way is better."""
        name = self.metric.name
        unit = f" ({self.unit})" if self.unit else ""
        better = "more" if self.metric.sense == "max" else "less"
        return f"{AXES.get(name, HEADS.get(name, name))}{unit}, {better} is better"

    def at(self, record: Record) -> float:
        """Where a point stands."""
        return float(record[self.metric.name]) / self.size


def _colours(records: Sequence[Record], axes: list[str]) -> tuple[str | None, dict[str, str]]:
    """(axis, colour by the value's text) of the first axis of 2 to 8 values."""
    for axis in axes:
        values = list(dict.fromkeys(repr(r[axis]) for r in records))
        if 2 <= len(values) <= MOST_COLOURS:
            return axis, dict(zip(values, SERIES, strict=False))
    return None, {"": SERIES[0]}


def _name(
    fig: Figure,
    ax: Axes,
    records: tuple[list[Record], list[Record]],
    axes: list[str],
    sides: list[Side],
) -> None:
    """Names at points of the front, spread over its length, where they cover no other point.
    `records`: those of the front, and all."""
    line, drawn = records
    fig.draw_without_rendering()
    varied = [n for n in axes if len({repr(r[n]) for r in line}) > 1] or axes[:1]
    step = max(1, -(-len(line) // MOST_NAMES))
    x, y = sides
    marks = [(x.at(r), y.at(r), AREA) for r in line]
    others = [(x.at(r), y.at(r), AREA) for r in drawn]
    names = [(name_of({n: line[i][n] for n in varied}), i) for i in range(0, len(line), step)]
    place(ax, names, [*marks, *others], along(ax, marks), [])


def along(ax: Axes, marks: Sequence[tuple[float, ...]]) -> list[tuple[float, float]]:
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
