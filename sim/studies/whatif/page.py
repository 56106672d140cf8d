"""The report of a comparison, from the file that `compare` wrote."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from sim.inputs.documents import read_document
from sim.output.html.charts import Chart, Trace, axis, bar_look, micro, text
from sim.output.html.page import Fact, Page, Section
from sim.output.html.tables import Column, DataTable, rounded_rows
from sim.serve.plots import PART_NAMES
from sim.studies.whatif.compare import Comparison, metric_name, signed, unit_of
from sim.studies.whatif.parts import Breakdown, in_order
from sim.studies.whatif.report import share, signed_time, time
from sim.studies.whatif.waterfall import (
    COLOURS,
    Step,
    axis_begin,
    comparison_of,
    steps_by_class,
    steps_by_state,
)

MICRO = Fraction(1, 10**6)  # microseconds per tick


def compare_page(folder: Path) -> Page:
    """The page of a comparison: the two, the sentence, the waterfalls, every part."""
    document = read_document(folder / "compare.json")
    comparison, names = comparison_of(document)
    metric, total = metric_name(comparison.metric), comparison.change.total
    likely = document.get("after_is_shorter_in")
    more = (
        f"the second is shorter in {likely:.0%} of random draws"
        if likely is not None and total
        else ""
    )
    relative = share(total, comparison.before.total)
    facts = [
        Fact(f"{metric} before", micro(time(comparison.before.total))),
        Fact(f"{metric} after", micro(time(comparison.after.total))),
        Fact("change", micro(signed_time(total)) + (f" ({relative})" if relative else ""), more),
    ]
    charts = [
        waterfall("by-state", "The difference by state", comparison, steps_by_state(comparison))
    ]
    if any(cause.kind for cause in comparison.change.parts):
        title = "The difference by operator class"
        charts.append(waterfall("by-class", title, comparison, steps_by_class(comparison)))
    told = [f"{word}: {name}" for word, name in zip(("Before", "After"), names, strict=True)]
    sections = [
        Section("Summary", [*told, micro(comparison.sentence())], facts),
        Section("Where the difference comes from", charts=charts),
        Section("Parts", tables=[part_table(comparison)]),
    ]
    # The file does not tell which version compared, so none but this one is named.
    source = f"memorywall {version('memorywall')}"
    return Page(f"{metric}: compare", source, sections)


def waterfall(name: str, title: str, comparison: Comparison, steps: Sequence[Step]) -> Chart:
    """Both wholes as stacks of their states, the parts of the change between them."""
    unit, size = unit_of([comparison.before.total, comparison.after.total])
    shown = micro(f" {unit}").strip()
    bars = list(_bars(comparison, steps))
    rows = list(dict.fromkeys(bar.row for bar in bars))
    low, high = _ends(bars, rows)
    begin = axis_begin(low, high)
    heading = f"{metric_name(comparison.metric)} ({shown})"
    x = axis(heading, range=[float(begin * size), float((high + (high - begin) / 8) * size)])
    look = bar_look(heading, len(rows))
    look |= {"barmode": "overlay", "xaxis": x}
    look["yaxis"] |= {"categoryorder": "array", "categoryarray": rows}
    note = "From top to bottom, each bar begins where the one above it ends."
    note += " The axis does not begin at 0." if begin else ""
    labels = _labels(bars, rows, size)
    return Chart(name, title, [*_traces(bars, size, shown), labels], look, note)


class _Bar(NamedTuple):
    """A bar from `begin` on, and whether it is a change. Ticks."""

    row: str
    step: Step
    begin: Fraction
    changes: bool = False

    @property
    def ends(self) -> tuple[Fraction, Fraction]:
        other = self.begin + self.step.change
        return min(self.begin, other), max(self.begin, other)


def _bars(comparison: Comparison, steps: Sequence[Step]) -> Iterator[_Bar]:
    yield from _whole("before", comparison.before)
    at = comparison.before.total
    for step in steps:
        yield _Bar(text(step.label), step, at, changes=True)
        at += step.change
    yield from _whole("after", comparison.after)


def _whole(row: str, breakdown: Breakdown) -> Iterator[_Bar]:
    at, parts = Fraction(), breakdown.by("state")
    for cause in in_order(parts):
        yield _Bar(row, Step(row, cause.state, parts[cause], COLOURS[cause.state]), at)
        at += parts[cause]


def _ends(bars: Sequence[_Bar], rows: Sequence[str]) -> tuple[Fraction, Fraction]:
    """The least that must be seen, which is the end of a bar, and the most."""
    wholes = [_total(bars, row) for row in (rows[0], rows[-1])]
    ends = [end for bar in bars if bar.changes for end in bar.ends]
    return min(ends + wholes), max(ends + wholes)


def _total(bars: Sequence[_Bar], row: str) -> Fraction:
    return sum((bar.step.change for bar in bars if bar.row == row), Fraction())


def _traces(bars: Sequence[_Bar], size: Fraction, unit: str) -> Iterator[Trace]:
    """One trace a state, so that the legend names each once."""
    for state in dict.fromkeys(bar.step.state for bar in bars):
        mine = [bar for bar in bars if bar.step.state == state]
        name = PART_NAMES.get(state, state) or "the rest"
        amounts = [float(bar.step.change * size) for bar in mine]
        said = [
            f"{a:+.4g} {unit}" if bar.changes else f"{a:.4g} {unit}"
            for bar, a in zip(mine, amounts, strict=True)
        ]
        yield {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "y": [bar.row for bar in mine],
            "base": [float(bar.begin * size) for bar in mine],
            "x": amounts,
            "customdata": said,
            "marker": {"color": mine[0].step.colour},
            "hovertemplate": f"%{{y}}<br>{name}: %{{customdata}}<extra></extra>",
        }


def _labels(bars: Sequence[_Bar], rows: Sequence[str], size: Fraction) -> Trace:
    """The total of each row, behind it."""
    ends = [max(bar.ends[1] for bar in bars if bar.row == row) for row in rows]
    totals = [_total(bars, row) * size for row in rows]
    edges = (rows[0], rows[-1])
    return {
        "type": "scatter",
        "mode": "text",
        "showlegend": False,
        "hoverinfo": "skip",
        "cliponaxis": False,
        "x": [float(end * size) for end in ends],
        "y": list(rows),
        "text": [
            f" {float(x):,.4g}" if row in edges else f" {signed(x)}"
            for row, x in zip(rows, totals, strict=True)
        ],
        "textposition": "middle right",
    }


def part_table(comparison: Comparison) -> DataTable:
    """Every cause before, after and the change, in microseconds; the largest change first."""
    rows = [
        [c.label, c.kind, *(float(x * MICRO) for x in amounts)]
        for c, *amounts in sorted(
            comparison.rows("state", "what", "kind"), key=lambda row: -abs(row[3])
        )
    ]
    heads = ("state", "operator class", "before (µs)", "after (µs)", "change (µs)")
    return DataTable("parts", [*map(Column, heads)], rounded_rows(rows))
