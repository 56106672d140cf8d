"""The tornado of a sensitivity: the metric at half and at twice of each resource, and free."""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

from sim.output.plots.headings import heading
from sim.output.plots.style import (
    FAINT,
    INK,
    STATE_COLOURS,
    Kind,
    figure,
    look,
    plain,
    save,
)
from sim.studies.whatif.compare import axis_label, unit_of
from sim.studies.whatif.sensitivity import Sensitivity, SensitivityRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A resource has the colour of the state that waits for it; capacities and the host are grey.
COLOURS = {"FLOP/s": "compute", "HBM bandwidth": "hbm", "SRAM capacity": "sram"}
COLOURS |= {"SRAM bandwidth": "sram", "link bandwidth": "link", "link latency": "link"}
COLOURS |= {"launch overhead": "launch"}
_NOTE = {"column": 34, "paper": 76, "slide": 60}  # characters of a line below the axis


def plot_tornado(result: Sensitivity, stem: Path, kind: Kind = "paper") -> list[Path]:
    """Write the picture as PNG and SVG."""
    with look():
        fig = draw_tornado(result, kind)
    return save(fig, stem)


def draw_tornado(result: Sensitivity, kind: Kind = "paper") -> Figure:
    """The widest bar on top; resources that change nothing are named below."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    rows = sorted((r for r in result.rows if _reach(r, result)), key=lambda r: -_reach(r, result))
    still = [r.resource.name for r in result.rows if r not in rows]
    unit, size = unit_of([result.base])
    note = wrap(f"no effect: {', '.join(still)}", _NOTE[kind]) if still else []
    fig = figure(kind, 1.1 + 0.26 * max(1, len(rows)) + 0.14 * (1 + len(note)))
    ax = fig.add_subplot()
    base = float(result.base * size)
    for at, row in enumerate(rows):
        colour = STATE_COLOURS.get(COLOURS.get(row.resource.name, ""), FAINT)
        # A resource that is better is a rate doubled, or a time halved.
        good, bad = (row.double, row.half) if row.resource.better > 0 else (row.half, row.double)
        for value, alpha in ((good, 1.0), (bad, 0.45)):
            if value is not None:
                width = float(value * size) - base
                ax.barh(at, width, 0.66, left=base, color=colour, alpha=alpha, linewidth=0)
        if row.free is not None:
            ax.plot([float(row.free * size)], [at], marker="D", ms=4, color=INK, ls="")
    ax.axvline(base, color=INK, lw=0.8)
    ax.set_yticks(range(len(rows)), [plain(r.resource.name) for r in rows])
    ax.set_ylim(max(1, len(rows)) - 0.4, -0.6)
    ax.set_xlim(left=0)
    ax.margins(x=0.04)
    ax.grid(axis="x")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel("\n".join([axis_label(result.metric, unit), *note]))
    heading(fig, result.name, kind)
    handles = [
        Patch(facecolor=FAINT),
        Patch(facecolor=FAINT, alpha=0.45),
        Line2D([], [], marker="D", ms=4, color=INK, ls=""),
        Line2D([], [], color=INK, lw=0.8),
    ]
    words = ["twice as good", "half as good", "free", "as it is"]
    columns = 2 if kind == "column" else 4
    fig.legend(handles, words, loc="outside lower center", ncols=columns, handlelength=1.2)
    return fig


def _reach(row: SensitivityRow, result: Sensitivity) -> float:
    """How far a row moves the metric, as a share of it."""
    values = [x for x in (row.double, row.half, row.free) if x is not None]
    return max((abs(float(x / result.base) - 1) for x in values), default=0.0)
