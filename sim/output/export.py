"""A run as a folder of files: its input, its results, tables, pictures, a trace."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import to_builtins

from sim.account.metrics import ends
from sim.output.cells import safe, safe_rows
from sim.output.files import atomic_write
from sim.output.folder import REPORT, ResultKind, replacing
from sim.output.tables import Table, operators, passes, time_account
from sim.scenario import save_scenario
from sim.simulation import Result
from sim.states import STATES

if TYPE_CHECKING:
    import polars as pl

TABLE_FORMATS = ("csv", "parquet")
RUN_FILES = (
    "scenario.toml",
    "resolved.json",
    "summary.json",
    "trace.json.gz",
    REPORT,
    *(f"{name}.{kind}" for name in ("ops", "account", "passes") for kind in TABLE_FORMATS),
    *(f"{name}.{kind}" for name in ("timeline", "account", "roofline") for kind in ("png", "svg")),
)
RUN_RESULT = ResultKind("run", RUN_FILES)


def write_result(
    result: Result,
    folder: Path,
    table_format: str = "csv",
    pictures: bool = True,
    trace: bool = True,
    counterfactual: bool = False,
) -> list[Path]:
    """Write everything that a run tells into `folder`; returns the files in the order of writing.

    The new files take the place of an earlier result together, or not at all; other files stay. The
    same input gives the same bytes. `counterfactual` runs again with each resource free.
    """
    if table_format not in TABLE_FORMATS:
        raise ValueError(f"table format {table_format!r} is not one of {', '.join(TABLE_FORMATS)}")
    with replacing(folder, RUN_RESULT) as new:
        written = list(_write(result, new, table_format, pictures, trace, counterfactual))
    return [folder / path.name for path in written]


def _write(
    result: Result,
    folder: Path,
    table_format: str,
    pictures: bool,
    trace: bool,
    counterfactual: bool,
) -> Iterator[Path]:
    """Write each file and name it."""
    with atomic_write(folder / "scenario.toml") as path:
        save_scenario(result.resolved.scenario, path)
    yield folder / "scenario.toml"
    yield write_json(folder / "resolved.json", resolved(result))
    for name, make in (("ops", operators), ("account", time_account), ("passes", passes)):
        yield write_table(make(result), folder / f"{name}.{table_format}")
    if trace:
        from sim.output.perfetto import write_trace

        yield write_trace(result, folder / "trace.json.gz")
    if pictures:
        from sim.output.plots import plot_account, plot_roofline, plot_timeline

        yield from plot_timeline(result, folder / "timeline")
        yield from plot_account(result, folder / "account", counterfactual)
        yield from plot_roofline(result, folder / "roofline")
    yield write_json(folder / "summary.json", summary(result, counterfactual))


def write_table(table: Table, path: Path) -> Path:
    """A table as CSV or Parquet, by the name of the file."""
    with atomic_write(path) as temporary:
        if path.suffix == ".parquet":
            frame_of(table).write_parquet(temporary)
        else:
            with temporary.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow([safe(name) for name in table.columns])
                writer.writerows(safe_rows(table.rows))
    return path


def frame_of(table: Table) -> pl.DataFrame:
    """A table as a data frame."""
    import polars as pl

    kinds: dict[type, Any] = {int: pl.Int64, float: pl.Float64, str: pl.String}
    schema = {name: kinds[kind] for name, kind in table.columns.items()}
    return pl.DataFrame(table.rows, schema=schema, orient="row")


def resolved(result: Result) -> dict[str, Any]:
    """Everything that decided the result, with names looked up and defaults filled in."""
    one = result.resolved
    system = one.machine.system
    return {
        "memorywall": version("memorywall"),
        "seed": one.scenario.seed,
        "scenario": to_builtins(one.scenario),
        "model": to_builtins(one.model),
        "device": to_builtins(one.machine.device),
        "system": {
            "name": system.name,
            "devices": len(system.devices),
            "switches": list(system.switches),
            "links": to_builtins(system.links),
        },
        "precision": to_builtins(one.precision),
        "context_tokens": one.context,
        "memory_bytes": [
            {**to_builtins(print_), "total": print_.total, "fits": print_.fits}
            for print_ in result.memory
        ],
    }


def summary(result: Result, counterfactual: bool = False) -> dict[str, Any]:
    """The numbers that people compare; units stand in the keys."""
    account = result.account
    metrics: dict[str, Any] = {
        "makespan_ps": result.makespan,
        "devices": account.devices,
        **to_builtins(result.metrics),
        "interval_80": ends(result.metrics, result.intervals),
        "account_ps": dict(zip(STATES, account.total, strict=True)),
        "account_share": {state: account.share(state) for state in STATES},
        "hidden_under_other_streams_ps": sum(account.hidden_by().values()),
    }
    if counterfactual:
        metrics["makespan_ps_if_free"] = dict(result.counterfactual)
    return metrics


def run_document(result: Result, counterfactual: bool = False) -> dict[str, Any]:
    """A run as plain data: its scenario, its summary, and its account by phase and by class."""
    account = result.account

    def by(name: str) -> dict[str, dict[str, int]]:
        rows = account.by(name).items()
        return {str(key[0]): dict(zip(STATES, states, strict=True)) for key, states in rows}

    return {
        "scenario": to_builtins(result.resolved.scenario),
        "summary": summary(result, counterfactual),
        "account_by_phase_ps": by("phase"),
        "account_by_class_ps": by("kind"),
        "memory_bytes": [
            {**to_builtins(print_), "total": print_.total, "fits": print_.fits}
            for print_ in result.memory
        ],
    }


def write_json(path: Path, value: Any) -> Path:
    with atomic_write(path) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
    return path
