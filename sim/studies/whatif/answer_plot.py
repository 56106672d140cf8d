"""The variants of a named what-if as stacked bars."""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

from sim.output.plots.headings import heading
from sim.output.plots.style import INK, Kind, figure, look, plain, save
from sim.studies.whatif.compare import axis_label, figures, unit_of
from sim.studies.whatif.named import Answer
from sim.studies.whatif.parts import Cause, in_order
from sim.studies.whatif.plots import LEGEND, legend
from sim.studies.whatif.waterfall import COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAME = {"column": 20, "paper": 44, "slide": 36}  # characters of a variant in a line


def plot_answer(answer: Answer, stem: Path, kind: Kind = "paper") -> list[Path]:
    """Write the picture as PNG and SVG."""
    with look():
        fig = draw_answer(answer, kind)
    return save(fig, stem)


def draw_answer(answer: Answer, kind: Kind = "paper") -> Figure:
    """A bar a variant, by state, with its speed-up over what it is compared with."""
    bars = [(o, o.breakdown) for o in answer.outcomes if o.breakdown is not None]
    unit, size = unit_of([b.total for _, b in bars])
    names = ["\n".join(wrap(plain(o.variant.name), _NAME[kind])) for o, _ in bars]
    states = in_order({Cause(c.state) for _, b in bars for c in b.parts})
    lines = sum(name.count("\n") for name in names)
    height = 0.85 + 0.24 * len(bars) + 0.13 * (lines + 1)
    fig = figure(kind, height + 0.16 * -(-len(states) // LEGEND[kind]))
    ax = fig.add_subplot()
    for row, (outcome, breakdown) in enumerate(bars):
        left, parts = 0.0, breakdown.by("state")
        for cause in in_order(parts):
            width = float(parts[cause] * size)
            ax.barh(row, width, 0.68, left=left, color=COLOURS[cause.state], linewidth=0)
            left += width
        faster = answer.speed_up(outcome)
        speed = f" ({faster:.2f} x)" if row and faster else ""
        ax.text(left, row, f" {figures(left)}{speed}", va="center", fontsize=7, color=INK)
    ax.set_yticks(range(len(bars)), names)
    ax.set_ylim(len(bars) - 0.4, -0.6)
    longest = max(float(b.total * size) for _, b in bars)
    ax.set_xlim(0, longest * (1.45 if kind == "column" else 1.17))
    ax.grid(axis="x")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(axis_label(answer.what.metric, unit))
    heading(fig, f"{answer.what.title}: {answer.outcomes[0].name}", kind)
    legend(fig, states, kind)
    return fig
