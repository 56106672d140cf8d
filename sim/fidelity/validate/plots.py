"""Predicted against measured time, on logarithmic axes: one panel a set."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from sim.output.plots.style import FAINT, INK, SERIES, Kind, figure, look, plain, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3
MOST_SETS = 60  # panels
MOST_POINTS = 4000  # a panel; more would only be a blot
UNITS = ((1e-3, "µs", 1e6), (1.0, "ms", 1e3), (float("inf"), "s", 1.0))


def plot_sets(points: pl.DataFrame, stem: Path, kind: Kind = "paper") -> list[Path]:
    """Write `stem`.png and .svg of all predicted points."""
    with look():
        fig = draw_sets(points, kind)
    return save(fig, stem)


def draw_sets(points: pl.DataFrame, kind: Kind = "paper") -> Figure:
    """One panel a set, colours by device and number format; lines at equality and 20 % off."""
    from matplotlib.lines import Line2D

    shown = points.filter(pl.col("error").is_not_null())
    sets = shown["set"].unique(maintain_order=True).to_list()[:MOST_SETS]
    rows = max(1, -(-len(sets) // COLUMNS))
    fig = figure(kind, 0.5 + 2.3 * rows)
    grid = fig.subplots(rows, COLUMNS, squeeze=False)
    series = _series(shown)
    per_row = 1 if kind == "column" else 3
    for number, ax in enumerate(grid.flat):
        if number < len(sets):
            _panel(ax, shown.filter(pl.col("set") == sets[number]), sets[number], series)
        else:
            ax.set_visible(False)
    found = [ax.get_legend_handles_labels() for ax in grid.flat if ax.get_visible()]
    by_name = {name: h for hs, names in found for h, name in zip(hs, names, strict=True)}
    if by_name:
        ordered = [name for name in series if name in by_name]
        lines = [Line2D([], [], color=INK, lw=0.8), Line2D([], [], color=FAINT, lw=0.6, ls="--")]
        handles = [*(by_name[n] for n in ordered), *lines]
        words = [*ordered, "predicted = measured", "20 % off"]
        fig.legend(handles, words, loc="outside lower center", ncols=per_row, markerscale=2.5)
    return fig


def _series(points: pl.DataFrame) -> dict[str, str]:
    """Colour by "device dtype", in a fixed order."""
    pairs = points.select("device", "dtype").unique().sort("device", "dtype").rows()
    names = [plain(f"{Path(d).stem} {t}".strip()) for d, t in pairs]
    return {name: SERIES[i % len(SERIES)] for i, name in enumerate(dict.fromkeys(names))}


def _panel(ax: Axes, points: pl.DataFrame, title: str, series: dict[str, str]) -> None:
    longest = float(points["measured_s"].median())  # type: ignore[arg-type]
    unit, scale = next((u, s) for bound, u, s in UNITS if longest < bound)
    for (device, dtype), part in points.group_by("device", "dtype", maintain_order=True):
        name = plain(f"{Path(str(device)).stem} {dtype}".strip())
        if len(part) > MOST_POINTS:
            part = part.gather_every(-(-len(part) // MOST_POINTS))
        ax.scatter(
            part["measured_s"].to_numpy() * scale,
            part["predicted_s"].to_numpy() * scale,
            s=3,
            color=series[name],
            alpha=0.35,
            linewidths=0,
            label=name,
            rasterized=True,
        )
    ax.set_xscale("log")
    ax.set_yscale("log")
    low = min(float(points[c].min()) for c in ("measured_s", "predicted_s")) * scale / 1.3  # type: ignore[arg-type]
    high = max(float(points[c].max()) for c in ("measured_s", "predicted_s")) * scale * 1.3  # type: ignore[arg-type]
    ax.plot([low, high], [low, high], color=INK, lw=0.8, zorder=3)
    for off in (0.8, 1.2):
        ax.plot([low, high], [low * off, high * off], color=FAINT, lw=0.6, ls="--", zorder=3)
    ax.set_xlim(low, high)
    ax.set_ylim(low, high)
    ax.set_aspect("equal")
    ax.grid(True, which="major")
    median = float(points["error"].abs().median()) * 100  # type: ignore[arg-type]
    ax.set_title(f"{plain(_short(title))}\nmedian {median:.1f} % of {len(points):,}")
    ax.set_xlabel(f"measured ({unit})")
    ax.set_ylabel(f"predicted ({unit})")


def _short(name: str) -> str:
    return "\n".join(textwrap.wrap(name, 26)[:2])
