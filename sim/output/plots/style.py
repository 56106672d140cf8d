"""One look for all figures: colours, fonts, sizes, and files that come out the same each time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sim.errors import printable
from sim.output.files import atomic_write
from sim.scenario import Resolved
from sim.states import STATES

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

# Okabe and Ito's palette, safe for colour-blind readers; grey where nothing happens.
STATE_COLOURS: dict[str, str] = {
    "compute": "#009E73",
    "hbm": "#D55E00",
    "sram": "#E69F00",
    "link": "#0072B2",
    "launch": "#CC79A7",
    "bubble": "#8C8C8C",
    "idle": "#E4E4E4",
}
STATE_NAMES: dict[str, str] = {
    "compute": "compute",
    "hbm": "HBM wait",
    "sram": "on-chip wait",
    "link": "link wait",
    "launch": "launch",
    "bubble": "bubble",
    "idle": "idle",
}
# For series that are no states, e.g. operator classes.
SERIES: list[str] = [
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#7F3C8D",
    "#B2A100",
    "#8C564B",
    "#5F6B7A",
    "#000000",
    "#A5AA99",
]
INK, FAINT = "#222222", "#6E6E6E"
# Inches: a column of a paper, its full width, and a slide, which is shown about twice as large.
WIDTHS = {"column": 3.5, "paper": 7.2, "slide": 6.4}
SLIDE_HEIGHT = 3.6  # 16:9
DPI = 200
Kind = Literal["column", "paper", "slide"]

_RC: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.0,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "grid.color": "#D9D9D9",
    "grid.linewidth": 0.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "svg.hashsalt": "memorywall",
    "svg.fonttype": "path",
    "path.simplify": True,
}


@contextmanager
def look() -> Iterator[None]:
    """Everything that is drawn and saved inside has the one look."""
    from matplotlib import rc_context, rcdefaults

    with rc_context():
        rcdefaults()  # a user's matplotlibrc must not change the bytes
        with rc_context(_RC):
            yield


def figure(kind: Kind = "paper", height: float = 3.0) -> Figure:
    """An empty figure of the width of its kind, `height` inches high. Call it inside `look`.

    A slide has a fixed height; a figure that needs more keeps what it needs.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tall = max(height, SLIDE_HEIGHT) if kind == "slide" else height
    fig = Figure(figsize=(WIDTHS[kind], tall), dpi=DPI, layout="constrained")
    FigureCanvasAgg(fig)
    return fig


def plain(text: str) -> str:
    """Text from outside as matplotlib draws it: a dollar sign would begin a formula, which may be
    malformed, and other characters may be half of one that it cannot draw."""
    return printable(text).replace("$", r"\$")


def save(fig: Figure, stem: Path) -> list[Path]:
    """Write `stem`.png (200 dpi) and `stem`.svg whole or not at all; the same bytes each time."""
    written = []
    with look():
        settle(fig)
    for suffix, metadata in (
        (".png", {"Software": None}),
        (".svg", {"Date": None, "Creator": None}),
    ):
        path = stem.with_name(stem.name + suffix)
        with look(), atomic_write(path) as temporary:
            fig.savefig(temporary, format=suffix[1:], dpi=DPI, metadata=metadata)
        written.append(path)
    return written


def settle(fig: Figure) -> None:
    """Lay out once, and round: the layout's solver varies in the last bits from run to run."""
    fig.draw_without_rendering()
    fig.set_layout_engine("none")
    for ax in fig.axes:
        place = ax.get_position()
        ax.set_position(
            (round(place.x0, 5), round(place.y0, 5), round(place.width, 5), round(place.height, 5))
        )
    for text in fig.texts:
        x, y = text.get_position()
        text.set_position((round(x, 5), round(y, 5)))


def title(resolved: Resolved) -> str:
    """What a figure is about, in one line."""
    scenario, work = resolved.scenario, resolved.passes[0].batch
    split, p = scenario.parallelism, resolved.precision
    names = {p.weights, p.activations, p.kv}
    dtype = p.activations if len(names) == 1 else f"W {p.weights}, A {p.activations}, KV {p.kv}"
    first = work.groups[0].sequence
    parts = [f"{resolved.model.name} on {resolved.machine.name}", dtype]
    degrees = [("tp", split.tp), ("pp", split.pp), ("dp", split.dp)]
    cut = [f"{name} {n}" for name, n in degrees if n > 1]
    if split.microbatches > 1:
        cut.append(f"{split.microbatches} micro-batches")
    parts += [", ".join(cut)] if cut else []
    parts.append(f"batch {work.size}")
    if resolved.model.decoder is None:
        parts.append(f"seq {first.new}")
    else:
        if first.source:
            parts.append(f"source {first.source}")
        parts += [f"prompt {first.new}", f"output {len(resolved.passes)}"]
    return " · ".join(parts)


def state_handles(states: set[str]) -> tuple[list[Artist], list[str]]:
    """Legend entries of the states that occur, in the order of STATES."""
    from matplotlib.patches import Patch

    shown = [s for s in STATES if s in states]
    return [Patch(facecolor=STATE_COLOURS[s]) for s in shown], [STATE_NAMES[s] for s in shown]


def unit_of(longest: float) -> tuple[str, float]:
    """(unit, ticks a unit) in which a length of `longest` ticks reads well."""
    for unit, size in (("s", 1e12), ("ms", 1e9), ("µs", 1e6)):
        if longest >= 2 * size:
            return unit, size
    return "ns", 1e3


def shown(t: float, unit_ticks: float) -> str:
    """A time with three significant digits."""
    value = t / unit_ticks
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
