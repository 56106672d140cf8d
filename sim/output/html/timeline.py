"""The timeline of a run as a chart, from the trace in its result folder.

An operator is a bar in the colour of the state that takes most of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from sim.output.html.charts import (
    AROUND,
    GRID,
    Chart,
    Trace,
    View,
    axis,
    colour_of,
    layout,
    micro,
    text,
)
from sim.output.html.charts import name_of as state_name
from sim.output.html.page import Section
from sim.output.html.tables import spread_out
from sim.output.html.trace_bars import Bar, Rows, read_trace, rows_of
from sim.output.report import duration
from sim.states import STATES

MOST_OF_A_PASS, MOST_IN_ALL = 4000, 10_000  # bars; more make a browser slow
ROW = 34  # pixels
HALF = 0.42  # of the height of a row
HOVER = (
    "<b>%{customdata[1]}</b> on %{customdata[0]}<br>%{customdata[2]}<br>"
    "from %{base:.6~g} ms, %{customdata[3]}<br>%{customdata[4]}<extra></extra>"
)


def timeline_section(folder: Path) -> Section:
    """The part of the page with the timeline, or the reason why there is none."""
    path = folder / "trace.json.gz"
    if not path.is_file():
        return Section("Timeline", ["The result has no trace.json.gz, so no timeline is shown."])
    trace = read_trace(path)
    rows = rows_of(trace.traceEvents)
    numbers = sorted({bar.number for bars in rows.values() for bar in bars})
    chosen = list(_choose(rows, numbers))
    said = trace.otherData.get("passes", "")
    note = f"Passes in the trace: {said}." if said else ""
    if len(chosen) < len(numbers):
        note += f" {len(chosen)} of these {len(numbers)} passes are shown, to keep the page small."
    data, views = [], []
    for place, (number, shown, left_out) in enumerate(chosen):
        data += [{**t, "meta": place, "visible": place == 0} for t in _traces(shown)]
        phase = next((b.about.split(", ")[0] for bars in shown.values() for b in bars), "")
        views.append(View(f"{number} ({phase})" + (", its begin" if left_out else "")))
        if left_out:
            note += f" Of pass {number} the first {MOST_OF_A_PASS:,} operators are shown."
    chart = Chart(
        "timeline",
        "Operators over time, in the colour of the state that takes most of each",
        data,
        layout(
            AROUND + 60 + ROW * len(rows),
            barmode="overlay",
            bargap=0.15,
            hovermode="closest",
            dragmode="zoom",
            xaxis=axis("time (ms)"),
            yaxis={
                **GRID,
                "fixedrange": True,
                "range": [len(rows) - 0.5, -0.5],
                "tickvals": list(range(len(rows))),
                "ticktext": [text(row) for row in rows],
            },
        ),
        note.strip(),
        views,
        "pass",
    )
    how = "Drag to zoom, double-click to see all; hover an operator to read its numbers."
    return Section("Timeline", [how], charts=[chart])


def _choose(rows: Rows, numbers: Sequence[int]) -> Iterator[tuple[int, Rows, bool]]:
    """(pass, its bars, whether some are left out): the first passes of those that are to be shown
    lie at equal distances, so that the page stays small."""
    of_pass: dict[int, int] = defaultdict(int)
    for bars in rows.values():
        for bar in bars:
            of_pass[bar.number] += 1
    typical = min(MOST_OF_A_PASS, max(of_pass.values(), default=1))
    many = max(2, MOST_IN_ALL // typical)
    for i in spread_out(len(numbers), many):
        number = numbers[i]
        mine = {row: [b for b in bars if b.number == number] for row, bars in rows.items()}
        left_out = of_pass[number] > MOST_OF_A_PASS
        if left_out:
            until = sorted(b.begin for bars in mine.values() for b in bars)[MOST_OF_A_PASS]
            mine = {row: [b for b in bars if b.begin < until] for row, bars in mine.items()}
        yield number, mine, left_out


def _traces(rows: Mapping[str, Sequence[Bar]]) -> Iterator[Trace]:
    """Rectangles of each state in one shape, and bars that are not seen but tell their numbers.

    Plotly widens thin bars to a pixel, and where there are thousands the last drawn would hide all
    others. A shape keeps its width, and thin ones blend.
    """
    at = {row: float(place) for place, row in enumerate(rows)}
    for state in STATES:
        found = [(at[row], b) for row, bars in rows.items() for b in bars if b.state == state]
        x: list[float | None] = []
        y: list[float | None] = []
        for middle, bar in found:
            begin, end = (rounded_ms(t) for t in (bar.begin, bar.begin + bar.lasts))
            x += [begin, end, end, begin, None]
            y += [middle - HALF, middle - HALF, middle + HALF, middle + HALF, None]
        if found:
            yield {
                "type": "scatter",
                "mode": "lines",
                "name": state_name(state),
                "x": x,
                "y": y,
                "fill": "toself",
                "fillcolor": colour_of(state),
                "line": {"width": 0, "simplify": False, "color": colour_of(state)},
                "hoverinfo": "skip",
            }
    every = [(row, b) for row, bars in rows.items() for b in bars]
    yield {
        "type": "bar",
        "orientation": "h",
        "showlegend": False,
        "marker": {"opacity": 0, "color": [colour_of(b.state) for _, b in every]},
        "y": [at[row] for row, _ in every],
        "base": [rounded_ms(b.begin) for _, b in every],
        "x": [rounded_ms(b.lasts) for _, b in every],
        "customdata": [
            [text(row), text(b.name), text(b.about), micro(duration(b.lasts / 1e6)), text(b.states)]
            for row, b in every
        ],
        "hovertemplate": HOVER,
    }


def rounded_ms(micros: float) -> float:
    """Milliseconds, to the nanosecond."""
    return round(micros / 1e3, 6)
