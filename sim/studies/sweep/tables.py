"""What `map` and `recommend` print."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from sim.output.report import counted, plain_table
from sim.studies.sweep.labels import HEADS, cell
from sim.studies.sweep.recommend import Verdict, chance
from sim.studies.sweep.registry import kind_of
from sim.studies.sweep.report import heading_of
from sim.studies.sweep.study import Swept
from sim.studies.sweep.wall import WallMap, shown

MOST_COLUMNS, MOST_VERDICTS = 14, 12
SHORT = {"microbatches": "micro"}


def print_map(wall_map: WallMap, console: Console) -> None:
    """The shares as a table of figures, and the crossings as sentences."""
    console.print()
    what = "all of the run" if wall_map.phase == "all" else wall_map.phase
    console.print(heading_of(wall_map.sweep), style="bold")
    step = max(1, -(-len(wall_map.x.values) // MOST_COLUMNS))
    title = f"Share of the device time on {wall_map.wall}, {what}, by {wall_map.x.name} (across)"
    heads = [shown(v) for v in wall_map.x.values[::step]]
    console.print(f"  {title}")
    table = plain_table("", wall_map.y.name or " ", heads)
    for value, row in zip(wall_map.y.values, wall_map.share, strict=True):
        cells = ["x" if v is None else f"{v:.0%}" for v in row[::step]]
        table.add_row(shown(value) if wall_map.y.name else "", *cells)
    console.print(table)
    if any(v is None for row in wall_map.share for v in row):
        console.print("  x: not possible (it does not fit, or does not divide)")
    for crossing in wall_map.crossings:
        console.print(f"  {wall_map.sentence(crossing)}")
    if not wall_map.crossings:
        console.print(f"  arithmetic and {wall_map.wall} do not change places on this map")


def print_verdicts(
    swept: Swept,
    judged: list[Verdict],
    bounds: dict[str, float],
    devices: int,
    console: Console,
) -> None:
    """The choice in a sentence, then the table of what was tried."""
    names = [a.name for a in swept.sweep.axes if len(a.values) > 1]
    bounds_text = ", ".join(
        f"{k.removesuffix('_s').upper()} <= {cell(k, v)}" for k, v in bounds.items()
    )
    console.print()
    console.print(heading_of(swept.sweep), style="bold")
    met = sum(v.meets for v in judged)
    console.print(f"  {len(judged)} splits of at most {devices} devices; {met} meet {bounds_text}")
    if met:
        best = judged[0]
        said = ", ".join(f"{n} {best.record[n]}" for n in names if best.record[n] != 1)
        cost = cell("_s", best.cost)
        console.print(
            f"  take {said or 'one device as it is'}: {counted(best.record['devices'], 'device')}, "
            f"{cost} of device time per token"
        )
    else:
        console.print("  no split meets them; the nearest come first")
    console.print(verdict_table(swept, judged, names, bounds))
    never = [v for v in judged if v.cost is None]
    if never:
        numbers = dict.fromkeys(dict.fromkeys(v.record["status"] for v in never), 0)
        for verdict in never:
            numbers[verdict.record["status"]] += 1
        failures = ", ".join(f"{count} {status}" for status, count in numbers.items())
        console.print(f"  not possible: {failures}; the first: {never[0].reason}")


def verdict_table(
    swept: Swept, judged: list[Verdict], names: list[str], bounds: dict[str, float]
) -> Table:
    """A row a split: its latencies, the chance that it meets the bounds, its cost, why it loses."""
    tried = [v for v in judged if v.cost is not None][:MOST_VERDICTS]
    kind = kind_of(swept.sweep.kind)
    shown_ = [n for n in kind.shown if not n.startswith("tokens")]
    shown_ = [n for n in shown_ if any(v.record.get(n) is not None for v in tried)]
    sure = [_percent(chance(v.record, bounds)) for v in tried] if kind.name == "run" else []
    heads = [
        *(SHORT.get(n, n) for n in names[1:]),
        "devices",
        *(HEADS.get(n, n) for n in shown_),
        *(["chance"] if any(sure) else []),
        "cost/token",
    ]
    first = names[0] if names else "split"
    table = plain_table("Splits, the cheapest first", first, heads, keys=max(1, len(names)))
    table.add_column("why it loses", justify="left")
    for i, verdict in enumerate(tried):
        r = verdict.record
        table.add_row(
            *(cell(n, r[n]) for n in names),
            str(r["devices"]),
            *(cell(n, r.get(n)) for n in shown_),
            *([sure[i]] if any(sure) else []),
            cell("_s", verdict.cost),
            verdict.reason or ("the choice" if verdict is judged[0] and verdict.meets else ""),
        )
    return table


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"
