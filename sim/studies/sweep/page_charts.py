"""Charts of a sweep's report: the front among all points, and a map over two axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from sim.output.html.charts import AROUND, Chart, Trace, View, axis, layout, micro, text
from sim.output.html.tables import spread_out
from sim.output.plots.style import INK, SERIES
from sim.studies.sweep.axes import Axis
from sim.studies.sweep.fronts import Metric, Record
from sim.studies.sweep.plots import AXES
from sim.studies.sweep.report import HEADS, PERCENT, cell, name_of, shares

GREY, PALE = "#BDBDBD", "#EDEDED"
MOST_POINTS = 3000  # of a chart; the points of the front are always among them
MOST_LABELS = 400  # cells of a map with their value in them
SPREAD = 30  # largest over smallest value from which on a scale is logarithmic


def scale_of(name: str) -> float:
    """What a metric is multiplied with to be in the unit of `label_of`."""
    if name in PERCENT:
        return 100.0
    return 1000.0 if name.endswith("_s") and "_per_" not in name else 1.0


def label_of(name: str) -> str:
    """A metric with its unit."""
    head = AXES.get(name, HEADS.get(name, name))
    if name in PERCENT:
        return f"{head} (%)"
    if name.endswith("_ps"):
        return f"{head} (ps)"
    return f"{head} (ms)" if scale_of(name) > 1 else head


def front_chart(
    records: Sequence[Record],
    fine: set[int],
    edge: Sequence[Record],
    axes: list[str],
    metrics: tuple[Metric, Metric],
) -> Chart:
    """Every point by two metrics; hovering one shows its scenario."""
    x, y = metrics
    shown = [r for r in records if r.get(x.name) is not None and r.get(y.name) is not None]
    some = [shown[i] for i in spread_out(len(shown), MOST_POINTS)]
    groups = (
        ("misses the bounds", [r for r in some if r["point"] not in fine], GREY, "markers"),
        ("points", [r for r in some if r["point"] in fine], SERIES[0], "markers"),
        ("front", sorted(edge, key=lambda r: r[x.name]), INK, "lines+markers"),
    )
    data = [
        _points(name, rows, (colour, mode), axes, metrics)
        for name, rows, colour, mode in groups
        if rows
    ]
    sides = {
        f"{side}axis": axis(label_of(m.name), **_scale([r[m.name] for r in some]))
        for side, m in (("x", x), ("y", y))
    }
    note = "Better is " + ", ".join(
        f"{'more' if m.sense == 'max' else 'less'} {label_of(m.name)}" for m in metrics
    )
    if len(some) < len(shown):
        note += f". {len(some):,} of {len(shown):,} points are drawn, and all of the front"
    absent = len(records) - len(shown)
    note += f". {absent:,} without these numbers are in the table alone." if absent else "."
    return Chart(
        "front", "The front among all points", data, layout(440, hovermode="closest", **sides), note
    )


def scale_type(values: Sequence[float]) -> str:
    """`log` for values above 0 that spread far."""
    return "log" if values and min(values) > 0 and max(values) > SPREAD * min(values) else "linear"


def _scale(values: Sequence[float]) -> dict[str, str]:
    kind = scale_type(values)
    return {"type": kind, **({"dtick": "D2"} if kind == "log" else {})}  # ticks at 1, 2 and 5


def _points(
    name: str,
    rows: Sequence[Record],
    look: tuple[str, str],
    axes: list[str],
    metrics: tuple[Metric, Metric],
) -> Trace:
    colour, mode = look
    x, y = (m.name for m in metrics)
    return {
        "type": "scatter",
        "mode": mode,
        "name": name,
        "x": [r[x] * scale_of(x) for r in rows],
        "y": [r[y] * scale_of(y) for r in rows],
        "customdata": [described(r, axes, (x, y)) for r in rows],
        "marker": {"color": colour, "size": 8 if mode == "lines+markers" else 6},
        "line": {"color": colour, "width": 1.2},
        "hovertemplate": "%{customdata}<extra></extra>",
    }


def described(record: Record, axes: Sequence[str], metrics: Sequence[str]) -> str:
    """The scenario of a point, its metrics and its largest states, as a hover shows them."""
    lines = [f"<b>{text(name_of({n: record[n] for n in axes}))}</b>"]
    lines += [micro(text(f"{HEADS.get(n, n)} {cell(n, record.get(n))}")) for n in metrics]
    if record["status"] != "ok":
        return "<br>".join([lines[0], text(record["status"]), *_wrapped(record["reason"] or "")])
    part = shares(record)
    largest = sorted(part, key=lambda s: -part[s])[:3]
    return "<br>".join([*lines, ", ".join(f"{s} {part[s]:.0%}" for s in largest if part[s])])


def _wrapped(reason: str) -> list[str]:
    from textwrap import wrap

    return [text(line) for line in wrap(reason, 80)]


def map_chart(
    records: Sequence[Record], fine: set[int], long: Sequence[Axis], metrics: Sequence[str]
) -> Chart:
    """A metric over the first two axes of several values; the others stand at their first."""
    x, y = long[:2]
    rest = {a.name: _key(a.values[0]) for a in long[2:]}
    kept = [r for r in records if all(_key(r[n]) == v for n, v in rest.items())]
    at = {(_key(r[x.name]), _key(r[y.name])): r for r in kept}
    names = [a.name for a in long]
    grid = [[at.get((_key(a), _key(b))) for a in x.values] for b in y.values]
    sides = [[text(_key(v)) for v in axis_.values] for axis_ in (x, y)]
    data: list[Trace] = []
    for number, metric in enumerate(metrics):
        for grey in (True, False):
            chosen = [
                [r if r and (r["point"] not in fine) is grey else None for r in row] for row in grid
            ]
            trace = _cells(chosen, metric, names, grey)
            data.append(
                {**trace, "x": sides[0], "y": sides[1], "meta": number, "visible": number == 0}
            )
    title = f"Over {x.name} and {y.name}"
    if rest:
        title += " at " + ", ".join(f"{n.rpartition('.')[2]} {v}" for n, v in rest.items())
    kind = {"type": "category", "showgrid": False, "constrain": "domain"}
    look = layout(
        AROUND + max(120, min(700, 34 * len(y.values))),
        hovermode="closest",
        xaxis=axis(text(x.name), **kind),
        yaxis=axis(text(y.name), **kind),
    )
    note = "Darker is more. In grey: points that cannot be (x), or that miss the bounds."
    return Chart("map", title, data, look, note, [View(label_of(m)) for m in metrics])


def _key(value: Any) -> str:
    """A value of an axis; 1 and 1.0, of which a table makes one, are the same."""
    return f"{value:.12g}" if isinstance(value, int | float) else str(value)


def _cells(
    grid: Sequence[Sequence[Record | None]], metric: str, axes: Sequence[str], grey: bool
) -> Trace:
    """Those cells of a map that are grey, or those that are not."""
    values = [[r.get(metric) if r else None for r in row] for row in grid]
    flat = [float(v) for row in values for v in row if v is not None]
    log = scale_type(flat) == "log"

    def height(r: Record | None, value: Any) -> float | None:
        if grey:
            return 0.0 if r else None
        return None if value is None else math.log10(value) if log else float(value)

    def said(r: Record | None, value: Any) -> str:
        if r is None:
            return ""
        return "x" if value is None else micro(text(cell(metric, value)))

    pairs = [list(zip(a, b, strict=True)) for a, b in zip(grid, values, strict=True)]
    colours = [[0, PALE], [1, PALE]] if grey else [[0, "#E8F1F8"], [1, SERIES[0]]]
    trace: Trace = {
        "type": "heatmap",
        "z": [[height(r, v) for r, v in row] for row in pairs],
        "text": [[said(r, v) for r, v in row] for row in pairs],
        "customdata": [[described(r, axes, [metric]) if r else "" for r in row] for row in grid],
        "colorscale": colours,
        "showscale": False,
        "xgap": 1,
        "ygap": 1,
        "hoverongaps": False,
        "hovertemplate": "%{customdata}<extra></extra>",
    }
    if sum(len(row) for row in grid) <= MOST_LABELS:
        trace["texttemplate"] = "%{text}"
    return trace
