"""A serving run in three pictures: latencies, what happened over time, where requests waited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sim.clock import TICKS_PER_SECOND
from sim.output.plots.headings import heading
from sim.output.plots.style import (
    INK,
    SERIES,
    STATE_COLOURS,
    STATE_NAMES,
    figure,
    look,
    save,
    shown,
    state_handles,
    unit_of,
)
from sim.serve.busy_periods import busy_periods, held_until
from sim.serve.columns import (
    PART_COLUMNS,
    STATE_COLUMNS,
    Column,
    RequestColumns,
    Rows,
    StepRows,
)
from sim.serve.latency import latencies
from sim.serve.live import PARTS
from sim.serve.record import ServeRecord
from sim.states import STATES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Values = NDArray[np.float64]

# Two more causes that only a request has; the others are those of the devices.
PART_COLOURS: dict[str, str] = {
    "queue": "#F0E442",
    **{p: STATE_COLOURS[p] for p in PARTS if p in STATE_COLOURS},
    "preempted": "#7F3C8D",
}
PART_NAMES = {"queue": "queue", **STATE_NAMES, "preempted": "preempted"}
GROUPS = ((0, 50), (50, 90), (90, 99), (99, 100))  # percentiles of e2e
BINS = 240
NO_BOUNDS: Mapping[str, float] = {}
_DRAWN = ("ttft", "tpot", "e2e")
_MARKS = (50, 90, 99)
_WHITE_ON = {"compute", "hbm", "link", "bubble", "preempted"}
_POINTS = 1000  # of a distribution's line: more cannot be seen, and makes the file large


def plot_latencies(
    requests: RequestColumns, stem: Path, title: str = "", bounds: Mapping[str, float] = NO_BOUNDS
) -> list[Path]:
    """Distributions of TTFT, TPOT and E2E, as PNG and SVG.

    bounds: those of the service level, in seconds, by `ttft`, `tpot` and `e2e`.
    """
    with look():
        fig = draw_latencies(requests, title, bounds)
    return save(fig, stem)


def draw_latencies(
    requests: RequestColumns, title: str = "", bounds: Mapping[str, float] = NO_BOUNDS
) -> Figure:
    """The figure of `plot_latencies`."""
    fig = figure("paper", 2.5)
    by_name = {n: x[~np.isnan(x)] for n, x in latencies(requests).items() if n in _DRAWN}
    names = [n for n in _DRAWN if len(by_name[n])]  # encoders have no TPOT
    axes = fig.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for ax, name in zip(axes, names, strict=True):
        bound = bounds[name] * TICKS_PER_SECOND if name in bounds else None
        _distribution(ax, by_name[name].astype(float), name.upper(), bound)
    axes[0].set_ylabel("share of requests")
    heading(fig, title)
    return fig


def _distribution(ax: Axes, ticks: Values, name: str, bound: float | None) -> None:
    """The share of the requests below each time, and the bound of the service level (ticks)."""
    ax.set_ylim(0, 1.0)
    ax.yaxis.set_major_formatter(lambda y, _: f"{y:.0%}")
    levels = np.linspace(0, 1, min(_POINTS, len(ticks)) + 1)
    line = np.quantile(ticks, levels)
    marks = np.percentile(ticks, _MARKS)
    # A tail far beyond the median would press the bulk against the axis.
    longest = max(line[-1], bound or 0.0)
    logarithmic = line[0] > 0 and longest > 10 * marks[0]
    unit, size = unit_of(float(marks[0]))
    ax.plot(line / size, levels, color=SERIES[0], linewidth=1.2, clip_on=False)
    if logarithmic:
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        ax.xaxis.set_minor_formatter(lambda *_: "")
    else:
        ax.set_xlim(left=0)
    for level, value in zip(_MARKS, marks, strict=True):
        ax.plot(value / size, level / 100, "o", color=INK, markersize=3, clip_on=False)
    values = [f"p{p}: {shown(v, size)}" for p, v in zip(_MARKS, marks, strict=True)]
    ax.set_xlabel(f"{name} ({unit}), less is better\n" + "   ".join(values), fontsize=7.5)
    ax.grid()
    if bound is not None:
        _bound(ax, bound / size, f"{bound / size:g} {unit}", float((ticks <= bound).mean()))


def _bound(ax: Axes, at: float, value: str, met: float) -> None:
    """The bound of the service level as a line. Its name stands above the axes, where no curve
    is, and keeps between their ends."""
    ax.axvline(at, color=INK, linewidth=1.0, linestyle="--")
    pixel = ax.transData.transform((at, 0.0))
    share = float(ax.transAxes.inverted().transform(pixel)[0])
    side = "left" if share < 0.3 else "right" if share > 0.7 else "center"
    text = f"SLO {value}, met by {100 * met:.3g}%"
    edge = {"left": 0.0, "right": 1.0}.get(side, share)
    ax.text(edge, 1.02, text, ha=side, va="bottom", fontsize=7.5, transform=ax.transAxes)


def plot_time(record: ServeRecord, makespan_ps: int, stem: Path, title: str = "") -> list[Path]:
    """Running and waiting requests, KV use, and the account of device time, over time."""
    with look():
        fig = draw_time(record, makespan_ps, title)
    return save(fig, stem)


def draw_time(record: ServeRecord, makespan_ps: int, title: str = "") -> Figure:
    """The figure of `plot_time`."""
    from matplotlib.ticker import MaxNLocator

    edges = np.linspace(0, max(1, makespan_ps), BINS + 1)
    series = binned(record.requests, record.steps or (), edges, record.split.pp)
    lines = [
        ("running", "running\nrequests", SERIES[0]),
        ("waiting", "waiting\nrequests", SERIES[5]),
    ]
    if record.kv_blocks_total:
        series["kv_blocks"] /= record.kv_blocks_total
        lines.append(("kv_blocks", "KV blocks\nin use", SERIES[2]))
    fig = figure("paper", 2.2 + 0.85 * len(lines))
    axes = fig.subplots(len(lines) + 1, 1, sharex=True, height_ratios=[*(0.55 for _ in lines), 1])
    unit, size = unit_of(makespan_ps)
    middle = (edges[1:] + edges[:-1]) / 2 / size
    for ax, (name, label, colour) in zip(axes, lines, strict=False):
        ax.plot(middle, series[name], color=colour, linewidth=1.0)
        ax.set_ylabel(label)
        least = 0.01 if name == "kv_blocks" else 1.0  # no drama about half a request
        ax.set_ylim(0, max(least, 1.12 * float(series[name].max())))
        per_device = name != "kv_blocks"
        ax.yaxis.set_major_locator(MaxNLocator(3, integer=per_device, steps=[1, 2, 5, 10]))
        if not per_device:
            ax.yaxis.set_major_formatter(lambda y, _: f"{100 * y:.3g}%")
        ax.grid()
    _stacked(axes[-1], edges / size, series)
    axes[-1].set_xlabel(f"time ({unit})")
    axes[-1].set_xlim(0, edges[-1] / size)
    fig.align_ylabels(axes)
    seen = {s for s in STATES if float(series[s].max()) > 1e-9}
    fig.legend(*state_handles(seen), loc="outside lower center", ncols=7, handlelength=1.2)
    heading(fig, title)
    return fig


def _stacked(ax: Axes, edges: Values, series: Mapping[str, Values]) -> None:
    base = np.zeros(len(edges) - 1)
    for state in STATES:
        top = base + series[state]
        ax.stairs(top, edges, baseline=base, fill=True, color=STATE_COLOURS[state], linewidth=0)
        base = top
    ax.set_ylim(0, 1)
    ax.set_ylabel("device time")
    ax.yaxis.set_major_formatter(lambda y, _: f"{y:.0%}")


def binned(
    requests: Rows, steps: Sequence[StepRows], edges: Values, stages: int = 1
) -> dict[str, Values]:
    """Means over the bins: requests and KV blocks of all replicas, shares of the states.

    A step's states are spread evenly over it. What is left of a bin is idle; with several stages
    it is a bubble as long as a request is in the replica, and what a step found there holds until
    the next. Requests that wait while no step runs are counted too.
    """
    width = np.diff(edges)
    names = ("running", "waiting", "kv_blocks")
    sums = {name: np.zeros(len(width)) for name in (*names, *STATES)}
    device_ticks = width * stages * max(1, len(steps))
    for store in steps:
        start, lasts = store.column("start_ps"), store.column("duration_ps")
        present = busy_periods(requests, store.replica)
        until = held_until(start, start + lasts, present) if stages > 1 else start + lasts
        for name in names:
            value = store.column(name).astype(float)
            sums[name] += _spread(start, until - start, value, edges) / width
        for state, name in zip(STATES, STATE_COLUMNS, strict=False):
            rate = store.column(name) / np.maximum(1, lasts)
            sums[state] += _spread(start, lasts, rate, edges) / device_ticks
        if stages > 1:
            begin, end = present
            sums["bubble"] += (
                _spread(begin, end - begin, np.ones(len(begin)), edges) * stages / device_ticks
            )
    came, went = requests.column("arrival_ps"), requests.column("scheduled_ps")
    queued = _spread(came, went - came, np.ones(len(came)), edges) / width
    sums["waiting"] = np.maximum(sums["waiting"], queued)
    worked = sum((sums[s] for s in STATES[:5]), np.zeros(len(width)))
    sums["bubble"] = np.maximum(0, sums["bubble"] - worked) if stages > 1 else sums["bubble"]
    sums["idle"] = np.maximum(0, 1 - worked - sums["bubble"])
    over = np.maximum(1, worked + sums["bubble"])  # transfers between stages are nobody's time
    return {n: v if n in names else v / over for n, v in sums.items()}


def _spread(start: Column, lasts: Column, value: Values, edges: Values) -> Values:
    """The integral over each bin of steps of constant `value`, which may overlap."""
    begin, total = start.astype(float), np.zeros(len(edges))
    for times, sign in ((begin, 1.0), (begin + lasts, -1.0)):
        order = np.argsort(times, kind="stable")
        times, height = times[order], value[order]
        heights = np.concatenate([[0.0], np.cumsum(height)])
        moments = np.concatenate([[0.0], np.cumsum(height * times)])
        before = np.searchsorted(times, edges, side="right")
        total += sign * (heights[before] * edges - moments[before])
    return np.maximum(0, np.diff(total))


def plot_requests(requests: RequestColumns, stem: Path, title: str = "") -> list[Path]:
    """Where the time of requests went, by percentile group of their end-to-end time."""
    with look():
        fig = draw_requests(requests, title)
    return save(fig, stem)


def draw_requests(requests: RequestColumns, title: str = "") -> Figure:
    """The figure of `plot_requests`."""
    bars = request_bars(requests)
    fig = figure("paper", 2.3)
    left, right = fig.subplots(1, 2, sharey=True)
    longest = max(sum(parts.values()) for _, _, parts in bars)
    unit, size = unit_of(longest)
    for row, (_, _, parts) in enumerate(bars):
        total = sum(parts.values())
        _bar(left, row, parts, size, longest / size)
        left.text(total / size, row, f" {shown(total, size)}", va="center", fontsize=7)
        _bar(right, row, parts, max(1.0, total), 1.0)
    left.set_yticks(range(len(bars)), [_group(name, count) for name, count, _ in bars])
    left.set_ylim(len(bars) - 0.4, -0.6)
    left.set_xlim(0, longest / size * 1.15)
    left.set_xlabel(f"mean time of a request ({unit}), less is better")
    left.set_ylabel("percentiles of E2E")
    right.set_xlabel("share of its time")
    right.set_xlim(0, 1)
    right.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
    for ax in (left, right):
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="x")
    fig.legend(*_part_handles(bars), loc="outside lower center", ncols=8, handlelength=1.2)
    heading(fig, title)
    return fig


def _group(name: str, count: int) -> str:
    return f"{name}\n{count:,} request{'s' if count > 1 else ''}"


def request_bars(requests: Rows) -> list[tuple[str, int, dict[str, float]]]:
    """(percentile group of e2e, requests in it, mean ticks by part); empty groups are left out."""
    e2e = requests.column("last_token_ps") - requests.column("arrival_ps")
    # Equal times are told apart by the index, so the groups do not depend on who ended first.
    order = np.lexsort((requests.column("index"), e2e))
    columns = {p: requests.column(c)[order] for p, c in zip(PARTS, PART_COLUMNS, strict=True)}
    bars = []
    for low, high in GROUPS:
        begin, end = len(order) * low // 100, len(order) * high // 100
        if end > begin:
            means = {p: float(v[begin:end].mean()) for p, v in columns.items()}
            bars.append((f"{low}–{high} %", end - begin, means))  # noqa: RUF001
    return bars


def _bar(ax: Axes, row: int, parts: Mapping[str, float], size: float, reach: float) -> None:
    at = 0.0
    for part, ticks in parts.items():
        width = ticks / size
        ax.barh(row, width, 0.72, left=at, color=PART_COLOURS[part], linewidth=0)
        if width > 0.09 * reach:
            colour = "white" if part in _WHITE_ON else INK
            share = ticks / sum(parts.values())
            label = f"{share:.0%}"
            ax.text(at + width / 2, row, label, ha="center", va="center", color=colour, fontsize=6)
        at += width


def _part_handles(bars: Sequence[tuple[str, int, Mapping[str, float]]]) -> tuple[Any, Any]:
    from matplotlib.patches import Patch

    seen = [p for p in PARTS if any(parts[p] for _, _, parts in bars)]
    return [Patch(facecolor=PART_COLOURS[p]) for p in seen], [PART_NAMES[p] for p in seen]
