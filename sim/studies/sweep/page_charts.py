"""The front among all points of a sweep, as a chart of its report."""

from __future__ import annotations

from collections.abc import Sequence

from sim.output.html.charts import Chart, Trace, axis, layout, micro, text
from sim.output.html.tables import spread_out
from sim.output.plots.style import INK, SERIES
from sim.studies.sweep.fronts import Metric, Record
from sim.studies.sweep.labels import HEADS, PERCENT, cell, name_of
from sim.studies.sweep.plots import AXES
from sim.studies.sweep.report import shares

GREY = "#BDBDBD"
MISSED = "misses the bounds"  # how a point is called that a bound rules out
MOST_POINTS = 3000  # of a chart; the points of the front are always among them
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
        (MISSED, [r for r in some if r["point"] not in fine], GREY, "markers"),
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
    note += f". {absent:,} without these numbers are only in the table." if absent else "."
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
