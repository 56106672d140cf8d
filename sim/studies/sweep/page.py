"""The report of a sweep, from the files of its result folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sim.inputs.documents import convert, read_document
from sim.inputs.tables import read_table
from sim.output.html.page import Page, Section
from sim.output.html.tables import Column, DataTable, rounded_rows, spread_out
from sim.output.reading import table_path
from sim.output.report import STATE_HEADS, counted
from sim.states import STATES
from sim.studies.sweep.fronts import Metric, Record, pareto, usable
from sim.studies.sweep.grid import Sweep
from sim.studies.sweep.kinds import STATUS, Kind
from sim.studies.sweep.page_charts import MISSED, front_chart, label_of, scale_of
from sim.studies.sweep.page_map import map_chart
from sim.studies.sweep.registry import kind_of
from sim.studies.sweep.report import heading_of, shares

TABLE = "sweep"
MOST_ROWS = 10_000  # more make the page large and slow
MARK = "point"  # a record's place in the grid


def sweep_page(folder: Path) -> Page:
    """The page of a sweep: the front, a map over two axes, the table of points."""
    config = read_document(folder / "config.json")
    request = {key: config[key] for key in Sweep.__struct_fields__}
    sweep = convert(request, Sweep, str(folder / "config.json"))
    kind, having = kind_of(sweep.kind), config.get("having", "")
    found = table_path(folder, TABLE)
    if found is None:
        raise KeyError(f"{TABLE}.csv")
    table = read_table(found)
    names = config.get("pareto") or kind.front
    first, second = (Metric(name, kind.columns, "--pareto") for name in names)
    axes = [axis.name for axis in sweep.axes]
    table.select(*axes, *STATUS, first.name, second.name)  # or the table is not the sweep's
    records = table.to_dicts()
    for number, record in enumerate(records):
        record[MARK] = number
    good = [r for r in usable(records, having) if r.get("slo_met") is not False]
    edge = pareto(good, first, second)
    fine = {r[MARK] for r in good}
    charts = [front_chart(records, fine, edge, axes, (first, second))]
    long = [axis for axis in sweep.axes if len(axis.values) > 1]
    if len(long) >= 2:
        charts.append(map_chart(records, fine, long, shown_metrics(kind, records)))
    sections = [
        Section("Summary", list(notes(sweep, records, fine, having))),
        Section("Points", charts=charts),
        Section("Table of points", tables=[point_table(kind, axes, records, fine, edge)]),
    ]
    source = f"memorywall {config['memorywall'].partition('+')[0]}"  # a fingerprint follows
    return Page(f"{heading_of(sweep)}: sweep", source, sections)


def notes(sweep: Sweep, records: Sequence[Record], fine: set[int], having: str) -> Iterator[str]:
    """How many points there are of each status, and what makes a point grey."""
    counts = Counter(r["status"] for r in records)
    said = ", ".join(f"{count:,} {status}" for status, count in counts.items())
    yield f"{counted(len(records), 'point')}: {said or 'none computed'}."
    if sweep.where:
        yield f"Only points with {sweep.where}."
    missed = sum(r["status"] == "ok" and r[MARK] not in fine for r in records)
    bounds = having or "the bounds of the SLO"
    if missed:
        yield f"{counted(missed, 'point')} in grey: {bounds} not met."
    elif having:
        yield f"All points meet {having}."


def shown_metrics(kind: Kind, records: Sequence[Record]) -> list[str]:
    """Columns that people compare and that some point has."""
    names = dict.fromkeys((*kind.shown, *kind.front, "mfu", "mbu", "attainment"))
    return [n for n in names if any(r.get(n) is not None for r in records)]


def point_table(
    kind: Kind, axes: list[str], records: list[Record], fine: set[int], edge: list[Record]
) -> DataTable:
    """Axes, the columns that people compare, shares of the states, and why a point fails."""
    metrics = shown_metrics(kind, records)
    best = {r[MARK] for r in edge}
    chosen = [records[i] for i in sorted({*spread_out(len(records), MOST_ROWS), *best})]
    rows = []
    for r in chosen:
        part = shares(r) if r["status"] == "ok" else {}
        told = "front" if r[MARK] in best else r["status"] if r["status"] != "ok" else ""
        if r["status"] == "ok" and r[MARK] not in fine:
            told = MISSED
        rows.append(
            [
                *(cell_of(r[n]) for n in axes),
                told,
                *(_scaled(n, r.get(n)) for n in metrics),
                *(100 * part[s] if s in part else None for s in STATES),
                r["reason"] or "",
            ]
        )
    heads = [*axes, "status", *map(label_of, metrics)]
    heads += [*(f"{STATE_HEADS[s]} (%)" for s in STATES), "reason"]
    note = "In grey: points that are not possible or that miss the bounds."
    if len(chosen) < len(records):
        note += f" {len(chosen):,} of {len(records):,} points are shown: the front, and others at"
        note += " equal distances."
    grey = [i for i, r in enumerate(chosen) if r[MARK] not in fine]
    return DataTable("points", [*map(Column, heads)], rounded_rows(rows), note, grey)


def cell_of(value: Any) -> Any:
    """A value of an axis as a cell."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _scaled(name: str, value: Any) -> Any:
    """A metric in the unit of its label: milliseconds for times, percent for shares."""
    return value if value is None or isinstance(value, str | bool) else value * scale_of(name)
