"""The operators of a run under the roofline of its device (Williams et al. 2009)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from sim.cost.model import matrix_rate, vector_rate
from sim.output.plots.headings import heading
from sim.output.plots.labels import place
from sim.output.plots.style import FAINT, INK, SERIES, figure, look, save, title
from sim.simulation import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Line = tuple[list[float], list[float]]

MOST_LABELS = 40
NEAR = 16.0  # typographic points between points that count as one place
_MARKERS = {"encode": "s", "prefill": "o", "decode": "D", "mixed": "^"}

# The order decides the colour, so that a class has the same one in every picture.
KINDS = (
    *("ffn", "projection", "attention", "head", "residual", "norm", "rotary", "experts"),
    *("activation", "embedding", "softmax", "router"),
)


class RooflinePoint(msgspec.Struct, frozen=True):
    """All runs of one operator of one phase, on one device each."""

    phase: str
    kind: str
    name: str
    flops: int
    hbm_bytes: int
    ticks: int  # launch included

    @property
    def intensity(self) -> float:
        return self.flops / self.hbm_bytes

    @property
    def rate(self) -> float:
        """FLOP/s of one device."""
        return self.flops / self.ticks * 1e12


def points(result: Result) -> tuple[list[RooflinePoint], int]:
    """(operators that compute and move something, by time; ticks of all steps together)."""
    sums: dict[tuple[str, str, str], list[int]] = {}
    seen: dict[tuple[str, int], list[int]] = {}
    steps = {}
    for job in result.record.compiled.plan.jobs:
        for work in job.work:
            for step in work.block.steps:
                steps[id(step)] = step
                seen.setdefault((job.phase, id(step)), [0])[0] += 1
    all_ticks = 0
    for (phase, key), (count,) in seen.items():
        step = steps[key]
        all_ticks += count * step.duration
        if step.cost and step.cost.flops and step.cost.hbm_bytes and step.duration:
            parts = (step.cost.flops, step.cost.hbm_bytes, step.duration)
            total = sums.setdefault((phase, step.kind, step.name), [0, 0, 0])
            total[:] = [a + count * b for a, b in zip(total, parts, strict=True)]
    drawn = [RooflinePoint(*key, *values) for key, values in sums.items()]
    return sorted(drawn, key=lambda p: (-p.ticks, p.phase, p.name)), all_ticks


def plot_roofline(result: Result, stem: Path) -> list[Path]:
    """Write the picture as PNG and SVG."""
    with look():
        fig = draw_roofline(result)
    return save(fig, stem)


def draw_roofline(result: Result) -> Figure:
    """The figure: roofs of the datasheet, dashed what kernels reach, and the operators."""
    drawn, total = points(result)
    fig = figure("paper", 4.6)
    ax = fig.subplots()
    ax.set_xscale("log")
    ax.set_yscale("log")
    plan = result.record.compiled.plan
    peak = matrix_rate(plan.device, plan.precision.activations)
    ridge = peak / plan.device.hbm.bandwidth
    xs = [p.intensity for p in drawn] or [ridge]
    low, high = min([*xs, ridge / 30]) / 2.5, max([*xs, ridge * 8]) * 2.5
    bottom = min([p.rate for p in drawn] or [peak / 1e3]) / 3
    ax.set_xlim(low, high)
    ax.set_ylim(bottom, peak * 4)
    roofs = _roofs(ax, result, low, high)
    kinds = sorted(
        {p.kind for p in drawn}, key=lambda k: -sum(p.ticks for p in drawn if p.kind == k)
    )
    colour = {kind: SERIES[KINDS.index(kind) % len(SERIES)] for kind in kinds}
    for p in reversed(drawn):
        ax.scatter(
            p.intensity,
            p.rate,
            s=_area(p, total),
            marker=_MARKERS.get(p.phase, "o"),
            facecolor=colour[p.kind],
            edgecolor="white",
            linewidth=0.6,
            alpha=0.9,
            zorder=3,
        )
    ax.set_xlabel("operational intensity (FLOP / HBM byte)")
    ax.set_ylabel("FLOP/s of a device, launch included; more is better")
    ax.grid(which="major")
    heading(fig, title(result.resolved))
    phases = [ph for ph in _MARKERS if any(p.phase == ph for p in drawn)]
    _legend(fig, colour, phases, len(roofs) > 2)
    fig.canvas.draw()  # text can only be kept apart once the layout is known
    marks = [(p.intensity, p.rate, _area(p, total)) for p in drawn]
    place(ax, _names(ax, drawn[:MOST_LABELS]), marks, _sampled(roofs), list(ax.texts))
    return fig


def _names(ax: Axes, drawn: list[RooflinePoint]) -> list[tuple[str, int]]:
    """(names, number of the point) where points that lie on one another are named together."""
    named: dict[int, list[str]] = {}
    dot = ax.figure.dpi / 72
    places = [ax.transData.transform((p.intensity, p.rate)) for p in drawn]
    for i, p in enumerate(drawn):
        near = [k for k in named if np.hypot(*(places[i] - places[k])) < NEAR * dot]
        named.setdefault(near[0] if near else i, []).append(p.name)
    return [("\n".join(dict.fromkeys(names)), k) for k, names in named.items()]


def _area(p: RooflinePoint, total: int) -> float:
    """Of a marker, in square points: its share of the time."""
    return 12 + 700 * p.ticks / total


def _sampled(roofs: list[Line]) -> list[tuple[float, float]]:
    """Points along the roofs, for labels to keep clear of."""
    samples: list[tuple[float, float]] = []
    for x, y in roofs:
        for a in range(len(x) - 1):
            for f in np.linspace(0, 1, 250):
                at = x[a] ** (1 - f) * x[a + 1] ** f, y[a] ** (1 - f) * y[a + 1] ** f
                samples.append((float(at[0]), float(at[1])))
    return samples


def _roofs(ax: Axes, result: Result, low: float, high: float) -> list[Line]:
    plan = result.record.compiled.plan
    device, dtype = plan.device, plan.precision.activations
    reached = device.efficiency
    peak, bandwidth = matrix_rate(device, dtype), device.hbm.bandwidth
    lines = [(peak, bandwidth, "-", INK)]
    if reached.matrix < 1 or reached.hbm < 1:
        lines.append((peak * reached.matrix, bandwidth * reached.hbm, "--", FAINT))
    drawn: list[Line] = []
    for top, slope, dash, ink in lines:
        drawn.append(([low, top / slope, high], [low * slope, top, top]))
        ax.plot(*drawn[-1], dash, color=ink, lw=1.1, zorder=2)
    vector = vector_rate(device)
    ax.plot([vector / bandwidth, high], [vector, vector], ":", color=INK, lw=1.1, zorder=2)
    drawn.append(([vector / bandwidth, high], [vector, vector]))
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85}
    notes = [
        (peak * 1.12, f"{dtype} matrix peak {peak / 1e12:,.0f} TFLOP/s", "bottom"),
        (vector * 0.88, f"vector peak {vector / 1e12:,.0f} TFLOP/s", "top"),
    ]
    for y, text, va in notes:
        ax.text(high / 1.08, y, text, ha="right", va=va, fontsize=7, bbox=box, zorder=2.5)
    return drawn


def _legend(fig: Figure, colour: dict[str, str], phases: list[str], sustained: bool) -> None:
    from matplotlib.artist import Artist
    from matplotlib.lines import Line2D

    handles: list[Artist] = [
        Line2D([], [], marker="o", linestyle="", color=c, markersize=6, label=kind)
        for kind, c in colour.items()
    ]
    handles += [
        Line2D([], [], marker=_MARKERS[ph], linestyle="", color=FAINT, markersize=5, label=ph)
        for ph in phases
    ]
    handles.append(Line2D([], [], color=INK, lw=1.1, label="peak"))
    if sustained:
        handles.append(Line2D([], [], color=FAINT, lw=1.1, ls="--", label="sustained"))
    fig.legend(handles=handles, loc="outside right center")
