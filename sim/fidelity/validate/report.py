"""Tables of errors on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Table

from sim.fidelity.validate.score import reasons, scores
from sim.output.terminal import FoldingTable

NUMBERS = ("rows", "coverage_pct", "median_pct", "mean_pct", "p90_pct", "bias_pct")
MOST_SHOWN = 200  # rows of a table; a stranger's file may name any number of sets
HEADS = ("rows", "coverage", "median", "mean", "p90", "bias")


def print_scores(points: pl.DataFrame, console: Console, detail: bool = True) -> None:
    """Errors by set, device and number format; then by regime; then what was not predicted."""
    by = ["set", "quantity", "device", "dtype", "shapes"]
    console.print(_table("Absolute error, %", scores(points, by), by))
    if detail:
        by = ["set", "device", "dtype", "regime"]
        console.print(_table("By regime", scores(points.sort("set", "regime"), by), by))
    missing = reasons(points)
    if len(missing):
        table = FoldingTable("set", "rows", "not predicted, because", title="Left out")
        for name, reason, rows in missing.head(MOST_SHOWN).iter_rows():
            table.add_row(name, f"{rows:,}", reason)
        _tell_rest(table, missing)
        console.print(table)


def _table(title: str, frame: pl.DataFrame, by: list[str]) -> Table:
    kept = [c for c in by if frame[c].n_unique() > 1 or c in ("set", "device")]
    table = FoldingTable(title=title)
    for name in kept:
        table.add_column(name, overflow="fold")
    for head in HEADS:
        table.add_column(head, justify="right")
    for row in frame.head(MOST_SHOWN).iter_rows(named=True):
        names = [Path(str(row[c])).stem if c == "device" else str(row[c]) for c in kept]
        table.add_row(*names, *(_cell(c, row[c]) for c in NUMBERS))
    _tell_rest(table, frame)
    return table


def _tell_rest(table: Table, frame: pl.DataFrame) -> None:
    """A last row about the rows of `frame` beyond those that are shown."""
    if len(frame) > MOST_SHOWN:
        table.add_row(f"and {len(frame) - MOST_SHOWN:,} more")


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name == "rows":
        return f"{value:,}"
    return (
        f"{value:.0f} %"
        if name == "coverage_pct"
        else f"{value:+.1f}"
        if name == "bias_pct"
        else f"{value:.1f}"
    )
