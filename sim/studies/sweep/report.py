"""What a sweep prints: the number of points by status, the best points, the front."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from sim.output.report import STATE_HEADS, counted, plain_table
from sim.output.terminal import FoldingTable
from sim.states import STATES
from sim.studies.sweep.fronts import Metric, Record, pareto, ranked, usable
from sim.studies.sweep.grid import Sweep
from sim.studies.sweep.kinds import Kind
from sim.studies.sweep.labels import HEADS, cell, name_of
from sim.studies.sweep.levels import BOUNDS, exceeded, has_level, margin, meeting
from sim.studies.sweep.registry import kind_of
from sim.studies.sweep.study import Swept

MOST_ROWS = 24
# What tells one reason from another of its sort.
_FIGURES = re.compile(r"[\d,.]+")


def shares(record: Record) -> dict[str, float]:
    """Share of the device time by state."""
    parts = {state: record.get(f"{state}_ps") or 0 for state in STATES}
    total = sum(parts.values())
    return {state: part / total if total else 0.0 for state, part in parts.items()}


def heading(swept: Swept) -> str:
    """The sweep in one line: what, and its axes."""
    return heading_of(swept.sweep)


def heading_of(sweep: Sweep, skip: tuple[str, ...] = ()) -> str:
    """As `heading`; axes named in `skip` are shown elsewhere."""
    axes = [axis for axis in sweep.axes if axis.name not in skip]
    own = {axis.name for axis in sweep.axes}
    base = [_short(sweep.base[key]) for key in ("model", "on") if key not in own]
    fixed = [f"{a.name} {a.values[0]}" for a in axes if len(a.values) == 1]
    sizes = " x ".join(f"{a.name} ({len(a.values)})" for a in axes if len(a.values) > 1)
    said = ", ".join([*fixed, sizes] if sizes else fixed) or ("" if skip else "one point")
    return ": ".join(part for part in (" on ".join(base), said) if part)


def _short(name: Any) -> str:
    """A model or a machine by its name, also where it is a file."""
    path = Path(str(name))
    if path.name == "config.json":
        return path.parent.name
    return path.stem if path.suffix in (".toml", ".json") else path.name


def print_sweep(
    swept: Swept, console: Console, objective: Metric, front: tuple[Metric, Metric], having: str
) -> None:
    """The counts, a table of points, the Pareto front."""
    kind, records = kind_of(swept.sweep.kind), swept.records()
    console.print()
    console.print(heading(swept), style="bold")
    counts = Counter(r["status"] for r in records)
    noun = "point" if len(swept.points) == 1 else "points"
    said = ", ".join(f"{count:,} {status}" for status, count in counts.items()) or "none computed"
    console.print(f"  {len(swept.points):,} {noun}: {said}")
    if swept.known:
        console.print(f"  {swept.known:,} of them were computed before")
    if swept.damaged:
        console.print(
            f"  {counted(swept.damaged, 'damaged line')} of the log left out; the points are "
            "computed again"
        )
    good = usable(records, having)
    if having:
        console.print(f"  {len(good):,} with {having}")
    bounds = bounds_of(swept.sweep)
    late = [r for r in good if r.get("slo_met") is False]
    good = meeting(good)
    names = [axis.name for axis in swept.sweep.axes if len(axis.values) > 1]
    if not records:
        return
    if has_level(records):
        _print_level(console, ranked(good, objective), late, names, bounds)
    order = [*ranked(good, objective), *late, *(r for r in records if r["status"] != "ok")]
    if len(records) <= MOST_ROWS:
        rows = order if has_level(records) and len(order) == len(records) else records
        console.print(point_table("Points", kind, names, rows, objective, bounds))
    elif order:
        best = [r for r in order if r["status"] == "ok"][: MOST_ROWS // 2]
        title = f"The best by {objective.sense} {objective.name}"
        console.print(point_table(title, kind, names, best, objective, bounds))
        rest = counted(len(records) - len(best), "more point")
        console.print(f"  {rest}, and all columns, with --out DIR or --json")
    failed = [r for r in records if r["status"] != "ok"]
    if failed:
        console.print(reason_table(names, failed))
    edge = pareto(good, *front)
    if len(edge) > 1:
        title = f"Pareto front: {front[0].name} against {front[1].name}"
        console.print(point_table(title, kind, names, edge[:MOST_ROWS], objective, {}))


def bounds_of(sweep: Sweep) -> dict[str, float]:
    """The bounds of the service level that all points share, in seconds by `ttft_s`, ..."""
    level = sweep.base.get("slo") or {}
    return {name: level[name] for name in BOUNDS if level.get(name) is not None}


def _print_level(
    console: Console,
    good: list[Record],
    late: list[Record],
    axes: list[str],
    bounds: dict[str, float],
) -> None:
    """How many points meet the service level, and the margin of the best."""
    parts = [f"{n.removesuffix('_s').upper()} <= {cell(n, bound)}" for n, bound in bounds.items()]
    said = f" ({', '.join(parts)})" if parts else ""
    console.print(f"  {len(good):,} of {len(good) + len(late):,} meet the service level{said}")
    if good and bounds:
        best = name_of({n: good[0][n] for n in axes}) or "the point"
        console.print(f"  the best, {best}: {margin(good[0], bounds)}")


def point_table(
    title: str,
    kind: Kind,
    axes: list[str],
    records: list[Record],
    objective: Metric,
    bounds: dict[str, float],
) -> Table:
    """Axes, the columns that people compare, where the time went, and which bounds are missed."""
    shown = [n for n in kind.shown if any(r.get(n) is not None for r in records)]
    shown += [objective.name] if objective.name not in shown and objective.name not in axes else []
    # A state that takes less than a twentieth everywhere is left to the file, as is the fifth. The
    # share of links is shown wherever there are any.
    most = {s: max(shares(r)[s] for r in records) for s in STATES}
    largest = sorted(STATES, key=lambda s: -most[s])[:4]
    states = [s for s in STATES if (s in largest and most[s] >= 0.05) or (s == "link" and most[s])]
    first = axes[0] if axes else "point"
    names = [HEADS.get(n, n) for n in shown]
    heads = [*(a.rpartition(".")[2] for a in axes[1:]), *names, *(STATE_HEADS[s] for s in states)]
    table = plain_table(title, first, heads, keys=max(1, len(axes)))
    misses = [", ".join(exceeded(r, bounds)) or "-" for r in records]
    late = any(r.get("slo_met") is False for r in records)
    if late:
        table.add_column("misses", justify="left")
    for r, miss in zip(records, misses, strict=True):
        values = [cell(n, r[n]) for n in axes] or ["1"]
        if r["status"] != "ok":
            table.add_row(*values, f"({r['status']})")
            continue
        part = shares(r)
        cells = [f"{part[s]:.0%}" if part[s] else "-" for s in states]
        more = [miss] if late else []
        table.add_row(*values, *(cell(n, r.get(n)) for n in shown), *cells, *more)
    return table


def reason_table(axes: list[str], failed: list[Record]) -> Table:
    """Why points are impossible: one row per reason, with the first such point."""
    table = FoldingTable(title="Points that are not possible", box=None)
    for name in ("points", "status", "the first"):
        table.add_column(
            name, justify="right" if name == "points" else "left", no_wrap=name != "the first"
        )
    groups: dict[tuple[str, str], list[Record]] = {}
    for r in failed:
        groups.setdefault((r["status"], _FIGURES.sub("", r["reason"])), []).append(r)
    for (status, _), rows in list(groups.items())[:8]:
        point = name_of({n: rows[0][n] for n in axes})
        table.add_row(f"{len(rows):,}", status, f"{point}: {rows[0]['reason']}")
    return table
