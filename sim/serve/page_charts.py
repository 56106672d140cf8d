"""Charts of a serving run's report: the latencies, and what happened over time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.output.html.charts import (
    AROUND,
    Chart,
    Trace,
    axis,
    colour_of,
    layout,
    name_of,
)
from sim.output.html.tables import rounded
from sim.output.plots.style import FAINT, INK, SERIES, unit_of
from sim.serve.columns import Column
from sim.serve.latency import PERCENTILES, latencies
from sim.serve.output import NAMES
from sim.serve.plots import BINS, binned
from sim.states import STATES

if TYPE_CHECKING:
    import polars as pl

DRAWN = ("ttft", "tpot", "e2e")
POINTS = 400  # of a distribution's line
GAP = 0.06  # of the width, between panels


class FrameRows:
    """A table that was read back, as the columns of a run."""

    def __init__(self, frame: pl.DataFrame, replica: int = 0) -> None:
        self._frame, self.replica = frame, replica

    def column(self, name: str) -> Column:
        """One column of all rows."""
        return self._frame[name].to_numpy().astype(np.int64)


def spreads_chart(requests: pl.DataFrame, summary: Mapping[str, Any]) -> Chart:
    """The distributions of TTFT, TPOT and E2E with their percentiles, and the bounds of the SLO."""
    by_name = {n: x[~np.isnan(x)] for n, x in latencies(requests).items() if n in DRAWN}
    names = [n for n in DRAWN if len(by_name[n])]
    goal = summary["goodput"]
    bounds = goal["slo"] if goal else {}
    width = (1 - GAP * (len(names) - 1)) / max(1, len(names))
    data: list[Trace] = []
    look = layout(360, showlegend=False, shapes=[], annotations=[])
    look["yaxis"] = axis("share of requests", range=[0, 1.02], tickformat=".0%")
    for i, name in enumerate(names):
        number = "" if i == 0 else str(i + 1)
        rows = summary["latency_s"][name]
        unit, size = unit_of(rows["p50"] * 1e12)
        seconds = size / 1e12  # of a unit
        data += _distribution(by_name[name] / size, rows, name, (unit, seconds), f"x{number}")
        ends = [i * (width + GAP), i * (width + GAP) + width]
        bound = bounds.get(f"{name}_s")
        tail = rows["max"] > 10 * rows["p50"] > 0 and float(by_name[name].min()) > 0
        kind = "log" if tail else "linear"
        look[f"xaxis{number}"] = axis(f"{NAMES[name]} ({unit})", domain=ends, type=kind)
        if bound is not None:
            look["shapes"].append(_bound_line(bound / seconds, f"x{number}"))
            place = np.log10(bound / seconds) if tail else bound / seconds
            look["annotations"].append(_bound_text(float(place), f"x{number}"))
    note = "Marks: " + ", ".join(f"p{p}" for p in PERCENTILES) + "."
    note += " Dashed: the bound of the SLO." if bounds else ""
    return Chart("latencies", "Share of requests up to a latency", data, look, note)


def _distribution(
    values: Any, rows: Mapping[str, float], name: str, unit: tuple[str, float], x: str
) -> Iterator[Trace]:
    levels = np.linspace(0, 1, min(POINTS, len(values)) + 1)
    line = np.quantile(values, levels)
    yield {
        "type": "scatter",
        "mode": "lines",
        "x": [rounded(float(v), 12) for v in line],
        "y": [rounded(float(v), 6) for v in levels],
        "xaxis": x,
        "line": {"color": SERIES[0], "width": 1.5},
        "hovertemplate": f"%{{y:.1%}} up to %{{x:.4~g}} {unit[0]}<extra>{NAMES[name]}</extra>",
    }
    yield {
        "type": "scatter",
        "mode": "markers+text",
        "x": [rows[f"p{p}"] / unit[1] for p in PERCENTILES],
        "y": [p / 100 for p in PERCENTILES],
        "xaxis": x,
        "text": [f"p{p}" if p in (50, 90) else "" for p in PERCENTILES],
        "textposition": "bottom right",
        "cliponaxis": False,
        "marker": {"color": INK, "size": 6},
        "customdata": [f"p{p}" for p in PERCENTILES],
        "hovertemplate": f"%{{customdata}}: %{{x:.4~g}} {unit[0]}<extra>{NAMES[name]}</extra>",
    }


def _bound_line(at: float, x: str) -> dict[str, Any]:
    line = {"color": SERIES[5], "width": 1.5, "dash": "dash"}
    return {"type": "line", "xref": x, "yref": "y", "x0": at, "x1": at, "y0": 0, "y1": 1} | {
        "line": line
    }


def _bound_text(at: float, x: str) -> dict[str, Any]:
    return {
        "xref": x,
        "yref": "y",
        "x": at,
        "y": 1.0,
        "yanchor": "bottom",
        "text": "SLO",
        "showarrow": False,
        "font": {"color": SERIES[5]},
    }


def over_time(
    requests: pl.DataFrame,
    steps: pl.DataFrame,
    makespan: int,
    stages: int,
    kv_blocks: int | None,
) -> Chart:
    """Requests, KV use and the account of the devices over time, with one time axis.

    kv_blocks: of one replica; None where the model keeps no keys and values.
    """
    replicas = sorted(steps["replica"].unique().to_list())
    parts = [FrameRows(steps.filter(steps["replica"] == r), r) for r in replicas]
    edges = np.linspace(0, max(1, makespan), BINS + 1)
    series = binned(FrameRows(requests), parts, edges, stages)
    unit, size = unit_of(makespan)
    x = [rounded(float(t), 5) for t in (edges[1:] + edges[:-1]) / 2 / size]
    data = [
        _line(x, series["running"], "running", SERIES[0], "y2"),
        _line(x, series["waiting"], "waiting", SERIES[5], "y2"),
    ]
    look = layout(
        AROUND + 420,
        hovermode="x",
        xaxis=axis(f"time ({unit})", anchor="y"),
        yaxis=axis("device time", domain=[0, 0.48], range=[0, 1], tickformat=".0%"),
        yaxis2=axis("requests", domain=[0.54, 0.76], rangemode="tozero", fixedrange=True),
    )
    if kv_blocks:
        used = series["kv_blocks"] / (kv_blocks * len(replicas))
        data.append(_line(x, used, "KV in use", SERIES[2], "y3", ":.3~%"))
        look["yaxis3"] = axis(
            "KV", domain=[0.82, 1], rangemode="tozero", tickformat=".3~%", fixedrange=True
        )
    for state in STATES:
        if float(series[state].max()) > 1e-9:
            data.append(
                {
                    **_line(x, series[state], name_of(state), colour_of(state), "y", ":.1%"),
                    "stackgroup": "states",
                    "fillcolor": colour_of(state),
                    "line": {"width": 0, "shape": "hvh", "color": colour_of(state)},
                }
            )
    note = f"Means over {BINS} equal spans of time."
    return Chart("time", "What happened over time", data, look, note)


def _line(x: Any, y: Any, name: str, colour: str, to: str, form: str = ":.4~g") -> Trace:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": x,
        "y": [rounded(float(v), 5) for v in y],
        "yaxis": to,
        "line": {"color": colour or FAINT, "width": 1.3},
        "hovertemplate": f"{name} %{{y{form}}}<extra></extra>",
    }
