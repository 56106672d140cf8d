"""The trend as a table and as a picture."""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

from rich.console import Console

from sim.output.plots.headings import heading as write_heading
from sim.output.plots.headings import panel_title
from sim.output.plots.style import FAINT, INK, SERIES, Kind, figure, look, plain, save
from sim.output.report import duration, plain_table, quantity
from sim.output.tables import Table
from sim.studies.whatif.compare import metric_name
from sim.studies.whatif.trend import EARLIEST, Course, Trend

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHORT = 32  # characters of a name that fits into the table


def print_trend(result: Trend, console: Console) -> None:
    """Now, the year of the wall, and the last year."""
    console.print()
    console.print(heading(result), style="bold")
    last = result.courses[0].moments[-1].year
    heads = ["metric", "now", "HBM", "wall", f"in {last:g} years", "HBM", "has", "needs"]
    table = plain_table(
        "When it meets the memory wall, and the bandwidth it needs", "workload", heads
    )
    for number, course in enumerate(result.courses):
        now, then = course.moments[0], course.moments[-1]
        # A scenario's own name is long: it stands below.
        short = course.name if len(course.name) <= SHORT else f"workload {number + 1}"
        table.add_row(
            short,
            metric_name(course.metric),
            duration(float(now.time) * 1e-12),
            f"{now.shares.get('hbm', 0):.0%}",
            wall(course),
            duration(float(then.time) * 1e-12),
            f"{then.shares.get('hbm', 0):.0%}",
            quantity(then.bandwidth * 1e9, "B/s"),
            quantity(then.needed * 1e9, "B/s"),
        )
    console.print(table)
    for number, course in enumerate(result.courses):
        now, then = course.moments[0], course.moments[-1]
        faster = float(now.time / then.time)
        label = (
            course.name if len(course.name) <= SHORT else f"workload {number + 1}, {course.name}"
        )
        sentence = f"{faster:.1f} times as fast in {then.year:g} years"
        if course.met_at:
            sentence += f"; it reaches the wall at {course.met_at:,.0f} FLOP per byte"
        console.print(f"  {label}: {sentence} (the device has {course.balance:,.0f} now).")


def heading(result: Trend) -> str:
    """The device and its rates."""
    r = result.rates
    return (
        f"{result.machine} carried forward: FLOP/s x {r.flops:g}, HBM x {r.hbm:g}, "
        f"links x {r.link:g}, fixed times / {r.fixed:g} every two years"
    )


def wall(course: Course) -> str:
    """When, in words."""
    if course.wall is not None:
        years = f"{abs(course.wall):.1f} years"
        return f"{years} ago" if course.behind else f"in {years}"
    return f"over {-EARLIEST:g} years ago" if course.behind else "not yet"


def table_of(result: Trend) -> Table:
    """A row a workload and year."""
    columns: dict[str, type] = {
        "workload": str,
        "metric": str,
        "year": float,
        "time_ps": float,
        **{f"{state}_share": float for state in ("compute", "hbm", "sram", "link", "launch")},
        "bandwidth_GBps": float,
        "needed_GBps": float,
        "wall_year": float,
    }
    names = [name.removesuffix("_share") for name in columns if name.endswith("_share")]
    rows = [
        (
            course.name,
            course.metric,
            m.year,
            float(m.time),
            *(m.shares.get(name, 0.0) for name in names),
            m.bandwidth,
            m.needed,
            course.wall,
        )
        for course in result.courses
        for m in course.moments
    ]
    return Table(columns, rows)


def plot_trend(result: Trend, stem: Path, kind: Kind = "paper") -> list[Path]:
    """Write the picture as PNG and SVG."""
    with look():
        fig = draw_trend(result, kind)
    return save(fig, stem)


def draw_trend(result: Trend, kind: Kind = "paper") -> Figure:
    """Share of the time that waits for HBM, and bandwidth that is needed beside what there is."""
    stacked = kind == "column"
    names = len(result.courses) + 2
    rows = names if stacked else -(-names // 2)
    height = (4.2 if stacked else 2.3) + 0.14 + 0.16 * rows
    fig = figure(kind, height)
    shape = (2, 1) if stacked else (1, 2)
    left, right = fig.subplots(*shape, squeeze=False).flat
    for course, colour in zip(result.courses, SERIES, strict=False):
        years = [m.year for m in course.moments]
        left.plot(
            years,
            [100 * m.shares.get("hbm", 0.0) for m in course.moments],
            color=colour,
            label="\n".join(wrap(plain(course.name), 40)),
        )
        right.plot(years, [m.needed for m in course.moments], color=colour)
        if course.wall is not None and 0 <= course.wall <= years[-1]:
            after = next(m for m in course.moments if m.year >= course.wall)
            before = [m for m in course.moments if m.year <= course.wall][-1]
            span = after.year - before.year
            part = (course.wall - before.year) / span if span else 0.0
            a, b = (100 * m.shares.get("hbm", 0.0) for m in (before, after))
            left.plot([course.wall], [a + part * (b - a)], "o", color=colour, ms=5)
    first = result.courses[0].moments
    right.plot(
        [m.year for m in first],
        [m.bandwidth for m in first],
        color=INK,
        ls="--",
        label="bandwidth of the device",
    )
    right.set_yscale("log")
    left.set_ylim(0, 100)
    left.set_ylabel("share of the time (%)")
    right.set_ylabel("HBM bandwidth (GB/s)")
    for ax in (left, right):
        ax.set_xlabel("years from now")
        ax.set_xlim(first[0].year, first[-1].year)
        ax.grid(True, which="major")
    write_heading(fig, heading(result), kind)
    left.plot([], [], "o", color=FAINT, ms=5, label="waits for HBM as long as it computes")
    handles, words = left.get_legend_handles_labels()
    more, other = right.get_legend_handles_labels()
    fig.legend(
        [*handles, *more],
        [*words, *other],
        loc="outside lower center",
        ncols=1 if stacked else 2,
        fontsize=7,
    )
    fig.draw_without_rendering()
    panel_title(left, "time spent waiting for HBM")
    panel_title(right, "bandwidth that keeps arithmetic busy")
    return fig
