"""The waterfall of a difference."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from sim.output.plots.headings import heading
from sim.output.plots.style import FAINT, INK, Kind, figure, look, save
from sim.serve.plots import PART_NAMES
from sim.studies.whatif.compare import Comparison, axis_label, signed, unit_of
from sim.studies.whatif.parts import Cause, Parts, in_order
from sim.studies.whatif.waterfall import COLOURS, axis_begin, steps_by_state

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEGEND = {"column": 3, "paper": 7, "slide": 7}  # names in a row


def plot_waterfall(
    comparison: Comparison, names: tuple[str, str], stem: Path, kind: Kind = "paper"
) -> list[Path]:
    """Write the picture as PNG and SVG: from the first to the second, part by part."""
    with look():
        fig = draw_waterfall(comparison, names, kind)
    return save(fig, stem)


def draw_waterfall(comparison: Comparison, names: tuple[str, str], kind: Kind = "paper") -> Figure:
    """The figure of `plot_waterfall`."""
    bars = [(s.label, s.change, s.colour) for s in steps_by_state(comparison)]
    unit, size = unit_of([comparison.before.total, comparison.after.total])
    states = comparison.before.by("state") | comparison.after.by("state")
    rows = -(-len(states) // LEGEND[kind])
    height = 0.85 + 0.22 * (len(bars) + 2) + 0.16 * rows
    fig = figure(kind, height)
    ax = fig.add_subplot()
    cut = _draw(ax, comparison, bars, size, kind)
    note = "; the axis is cut" if cut else ""
    ax.set_xlabel(f"{axis_label(comparison.metric, unit)}{note}")
    heading(fig, f"before: {names[0]}\nafter: {names[1]}", kind)
    legend(fig, in_order(states), kind)
    return fig


def legend(fig: Figure, states: Sequence[Cause], kind: Kind) -> None:
    """The states below a figure."""
    from matplotlib.patches import Patch

    handles = [Patch(facecolor=COLOURS[c.state]) for c in states]
    names = [PART_NAMES.get(c.state, c.state) for c in states]
    fig.legend(handles, names, loc="outside lower center", ncols=LEGEND[kind], handlelength=1.2)


def _draw(
    ax: Axes,
    comparison: Comparison,
    bars: list[tuple[str, Fraction, str]],
    size: Fraction,
    kind: Kind,
) -> bool:
    """Both wholes as stacks of their states, the parts of the change between them. Returns
    whether the axis had to be cut."""
    before, after = comparison.before.total, comparison.after.total
    _stack(ax, 0, comparison.before.by("state"), size)
    at = before
    lows, highs = [before, after], [before, after]
    for row, (_, x, colour) in enumerate(bars, 1):
        low, high = min(at, at + x), max(at, at + x)
        ax.barh(row, float((high - low) * size), 0.66, left=float(low * size), color=colour, lw=0)
        ax.plot([float(at * size)] * 2, [row - 1.33, row - 0.33], color=FAINT, lw=0.6)
        ax.text(float(high * size), row, f" {signed(x * size)}", va="center", fontsize=7, color=INK)
        lows.append(low)
        highs.append(high)
        at += x
    last = len(bars) + 1
    ax.plot([float(at * size)] * 2, [last - 1.33, last - 0.33], color=FAINT, lw=0.6)
    _stack(ax, last, comparison.after.by("state"), size)
    for row, total in ((0, before), (last, after)):
        ax.text(float(total * size), row, f" {float(total * size):,.4g}", va="center", fontsize=7)
    ax.set_yticks(range(last + 1), ["before", *(label for label, _, _ in bars), "after"])
    ax.set_ylim(last + 0.6, -0.6)
    low, high = min(lows), max(highs)
    begin = axis_begin(low, high)
    room = 1.3 if kind == "column" else 1.12
    left, right = float(begin * size), float(high * size)
    ax.set_xlim(left, left + (right - left or 1.0) * room)
    ax.grid(axis="x")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    return begin > 0


def _stack(ax: Axes, row: int, states: Parts, size: Fraction) -> None:
    left = 0.0
    for cause in in_order(states):
        width = float(states[cause] * size)
        ax.barh(row, width, 0.66, left=left, color=COLOURS[cause.state], linewidth=0)
        left += width
