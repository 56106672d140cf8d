"""A map of a sweep over two axes, as a chart of its report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from sim.output.html.charts import AROUND, Chart, Trace, View, axis, layout, micro, text
from sim.output.html.tables import rounded, spread_out
from sim.output.plots.style import SERIES
from sim.studies.sweep.axes import Axis
from sim.studies.sweep.fronts import Record
from sim.studies.sweep.labels import cell
from sim.studies.sweep.page_charts import MISSED, label_of, scale_type

PALE, FAINT_BLUE = "#EDEDED", "#E8F1F8"
MOST_VALUES = 60  # of an axis; more cells make the page large
MOST_LABELS = 400  # cells with their value in them
_Grid = Sequence[Sequence[Record | None]]


def map_chart(
    records: Sequence[Record], fine: set[int], long: Sequence[Axis], metrics: Sequence[str]
) -> Chart:
    """A metric over the first two axes of several values; the others stand at their first.

    fine: numbers of the points that can be and that meet the bounds.
    """
    x, y = long[:2]
    rest = {a.name: key_of(a.values[0]) for a in long[2:]}
    kept = [r for r in records if all(key_of(r[n]) == v for n, v in rest.items())]
    at = {(key_of(r[x.name]), key_of(r[y.name])): r for r in kept}
    across, up = ([a.values[i] for i in spread_out(len(a.values), MOST_VALUES)] for a in (x, y))
    grid = [[at.get((key_of(a), key_of(b))) for a in across] for b in up]
    sides = {"x": [text(key_of(v)) for v in across], "y": [text(key_of(v)) for v in up]}
    data: list[Trace] = []
    for number, metric in enumerate(metrics):
        shown = {**sides, "meta": number, "visible": number == 0}
        data += [
            {**cells, **shown} for cells in (_grey(grid, fine, metric), _fine(grid, fine, metric))
        ]
    title = f"Over {x.name} and {y.name}"
    if rest:
        title += " at " + ", ".join(f"{n.rpartition('.')[2]} {v}" for n, v in rest.items())
    kind = {"type": "category", "showgrid": False, "constrain": "domain"}
    look = layout(
        AROUND + max(120, min(700, 34 * len(up))),
        hovermode="closest",
        xaxis=axis(text(x.name), **kind),
        yaxis=axis(text(y.name), **kind),
    )
    note = "Darker is more. In grey: points that are not possible (x) or that miss the bounds."
    if len(across) < len(x.values) or len(up) < len(y.values):
        note += f" Of an axis {MOST_VALUES} values at most are shown, at equal distances."
    return Chart("map", title, data, look, note, [View(label_of(m)) for m in metrics])


def key_of(value: Any) -> str:
    """A value of an axis; 1 and 1.0, of which a table makes one, are the same."""
    return f"{value:.12g}" if isinstance(value, int | float) else str(value)


def _fine(grid: _Grid, fine: set[int], metric: str) -> Trace:
    """The cells of points that meet the bounds, in the colour of their value."""
    values = [[r.get(metric) if r and r["point"] in fine else None for r in row] for row in grid]
    log = scale_type([float(v) for row in values for v in row if v is not None]) == "log"

    def height(value: Any) -> Any:
        if value is None:
            return None
        return rounded(math.log10(value) if log else float(value), 5)

    z = [[height(v) for v in row] for row in values]
    told = [["" if v is None else micro(text(cell(metric, v))) for v in row] for row in values]
    return _cells(z, told, [[0, FAINT_BLUE], [1, SERIES[0]]], metric)


def _grey(grid: _Grid, fine: set[int], metric: str) -> Trace:
    """The other cells. What has no value has a cross."""

    def told(r: Record | None) -> str:
        if r is None or r["point"] in fine:
            return ""
        value = r.get(metric)
        return "x" if value is None else micro(text(cell(metric, value)))

    def why(r: Record | None) -> str:
        if r is None or r["point"] in fine:
            return ""
        return text(r["status"]) if r["status"] != "ok" else MISSED

    z = [[0 if r and r["point"] not in fine else None for r in row] for row in grid]
    texts = [[told(r) for r in row] for row in grid]
    cells = _cells(z, texts, [[0, PALE], [1, PALE]], metric)
    if any(map(any, texts)):
        cells["customdata"] = [[why(r) for r in row] for row in grid]
        cells["hovertemplate"] = cells["hovertemplate"].replace(
            "<extra>", "<br>%{customdata}<extra>"
        )
    return cells


def _cells(z: Any, told: list[list[str]], colours: Any, metric: str) -> Trace:
    label = label_of(metric).partition(" (")[0]  # the text of a cell has its unit
    trace: Trace = {
        "type": "heatmap",
        "z": z,
        "text": told,
        "colorscale": colours,
        "showscale": False,
        "xgap": 1,
        "ygap": 1,
        "hoverongaps": False,
        "hovertemplate": f"%{{x}} across, %{{y}} up<br>{label} %{{text}}<extra></extra>",
    }
    if sum(map(len, told)) <= MOST_LABELS:
        trace["texttemplate"] = "%{text}"
    return trace
