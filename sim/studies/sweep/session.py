"""What the commands do: read the scenario, sweep with progress, print, write."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sim.errors import InputError
from sim.inputs.documents import read_document
from sim.inputs.overlay import overlay
from sim.output.export import write_json, write_table
from sim.output.files import clear
from sim.output.report import terminal
from sim.scenario import Scenario
from sim.studies.sweep.fronts import Metric, check_having, usable
from sim.studies.sweep.grid import Sweep, described, sweep_of
from sim.studies.sweep.kinds import STATUS
from sim.studies.sweep.recommend import BOUNDS, Verdict, splits, verdicts
from sim.studies.sweep.registry import kind_of
from sim.studies.sweep.report import heading, print_sweep
from sim.studies.sweep.study import Swept, Watch, run_sweep
from sim.studies.sweep.tables import print_map, print_verdicts
from sim.studies.sweep.wall import WallMap, map_of, map_wall

TABLE = "sweep"
MARKS_OF_SERVING = (
    "traffic",
    "scheduler",
    "router",
    "replicas",
    "knobs",
    "slo",
    "engine",
    "host_time_us",
)


def base_of(
    scenario: str, on: str | None, changes: list[str], grids: list[str]
) -> tuple[str, dict[str, Any]]:
    """(kind, document) of a scenario: a model's name is a run, unless a key of the grid is one
    that only serving has."""
    keys = [text.partition("=")[0].strip() for text in grids]
    path = Path(scenario)
    serving = False
    if path.suffix == ".toml" and path.is_file():
        serving = any(mark in read_document(path) for mark in MARKS_OF_SERVING)
    static = kind_of("run").keys
    if not serving and any(key not in static and "." not in key for key in keys):
        serving = any(key in kind_of("serve").keys for key in keys if key not in static)
    flags: dict[str, Any] = {"on": on or _first(grids, "on")}
    if not serving:
        return "run", overlay(scenario, flags, changes, Scenario)
    from sim.serve.config import Serving

    document = overlay(scenario, flags, changes, Serving)
    document["keep_steps"] = False  # rows a step are of no use here
    return "serve", document


def _first(grids: list[str], key: str) -> str | None:
    """The first value of an axis, for a scenario that leaves it to the grid."""
    for text in grids:
        name, _, values = text.partition("=")
        if name.strip() == key:
            return values.split(",")[0].strip()
    return None


def sweep_scenario(
    scenario: str,
    *,
    on: str | None,
    grids: list[str],
    where: str,
    objective: str | None,
    having: str,
    pareto: str | None,
    max_rate: bool,
    changes: list[str],
    out: Path | None,
    table_format: str,
    pictures: bool,
    workers: int | None,
    dask: str | None,
) -> Swept:
    """Sweep, print the tables, write the folder if one is named. After Ctrl-C the same with what
    is finished, and exit code 130."""
    name, base = base_of(scenario, on, changes, grids)
    kind = kind_of(name)
    if max_rate and name != "serve":
        raise InputError("--max-rate-under-slo: this is no serving run; give arrivals or a trace")
    request = sweep_of(name, base, grids, where, "max-rate" if max_rate else "")
    best = "max_rate" if max_rate else kind.front[1]
    metric = Metric(objective or best, kind.columns, "--objective")
    front = front_of(pareto, kind.front, request)
    check_having(having, [axis.name for axis in request.axes] + [*STATUS, *kind.columns])
    with progress("points") as watch:
        swept = run_sweep(request, folder=out, workers=workers, dask=dask, watch=watch)
    console = terminal()
    if out:  # before it is printed: a reader may close the pipe
        write_sweep(swept, out, table_format, front if pictures else None, having)
    print_sweep(swept, console, metric, front, having)
    if out:
        console.print(f"  written to {out}/")
    if swept.interrupted:
        left = sum(row is None for row in swept.rows)
        again = "the same command goes on from here" if out else "with --out one can go on"
        console.print(f"  interrupted: {left:,} points are left; {again}")
        raise SystemExit(130)
    return swept


def front_of(text: str | None, default: tuple[str, str], request: Sweep) -> tuple[Metric, Metric]:
    """The two metrics of a front, from --pareto."""
    names = text.split(",") if text else list(default)
    if len(names) != 2:
        raise InputError(f"--pareto {text!r}: two columns, e.g. tpot_s,tokens_per_s_per_device")
    columns = kind_of(request.kind).columns
    first, second = (Metric(name.strip(), columns, "--pareto") for name in names)
    return first, second


def write_sweep(
    swept: Swept, out: Path, table_format: str, front: tuple[Metric, Metric] | None, having: str
) -> None:
    """The request, the table in the order of the grid, and the picture of the front."""
    drawn = [f"front.{kind}" for kind in ("png", "svg")]
    clear(out, [f"{TABLE}.csv", f"{TABLE}.parquet", *drawn])
    write_json(out / "config.json", described(swept.sweep))
    write_table(swept.table(), out / f"{TABLE}.{table_format}")
    good = usable(swept.records(), having)
    if front and len(good) > 1:
        from sim.studies.sweep.plots import plot_front

        names = [axis.name for axis in swept.sweep.axes]
        plot_front(good, names, front, heading(swept), out / "front")


@contextmanager
def progress(what: str) -> Iterator[Watch | None]:
    """Points done, of how many, and the time to go, on the error stream of a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("to go"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task(what, total=None)

        def watch(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield watch


def map_scenario(
    scenario: str,
    *,
    on: str | None,
    grids: list[str],
    wall: str,
    phase: str,
    changes: list[str],
    out: Path | None,
    pictures: bool,
    workers: int | None,
) -> WallMap:
    """Compute a memory-wall map, print it, draw it if a folder is named."""
    name, base = base_of(scenario, on, changes, grids)
    request = sweep_of(name, base, grids)
    if out:
        clear(out, [f"map.{kind}" for kind in ("json", "png", "svg")])
    with progress("points") as watch:
        found = map_wall(request, wall, phase, folder=out, workers=workers, watch=watch)
    console = terminal()
    print_map(found, console)
    if out:
        write_json(out / "map.json", map_of(found))
        if pictures:
            from sim.studies.sweep.wall_plot import plot_walls

            plot_walls([found], out / "map")
        console.print(f"  written to {out}/")
    return found


def recommend_scenario(
    scenario: str,
    *,
    on: str | None,
    grids: list[str],
    devices: int,
    bounds: dict[str, float],
    changes: list[str],
    out: Path | None,
    workers: int | None,
    dask: str | None,
) -> list[Verdict]:
    """Try every split, print which is the cheapest that meets the bounds and why others lose."""
    for key, bound in bounds.items():
        if not bound > 0:  # nan, too
            raise InputError(f"--slo-{key.removesuffix('_s')} {bound:g}: seconds above 0")
    name, base = base_of(scenario, on, changes, grids)
    if name == "serve":
        base["slo"] = {**(base.get("slo") or {}), **bounds}
        bounds = {k: v for k, v in base["slo"].items() if k in BOUNDS and v is not None}
    if not bounds:
        raise InputError("a recommendation needs a bound: --slo-ttft, --slo-tpot or --slo-e2e")
    more = sweep_of(name, base, grids).axes
    request = splits(name, base, more, devices)
    with progress("splits") as watch:
        swept = run_sweep(request, folder=out, workers=workers, dask=dask, watch=watch)
    found = verdicts(swept, bounds)
    console = terminal()
    print_verdicts(swept, found, bounds, devices, console)
    if out:
        write_sweep(swept, out, "csv", None, "")
        console.print(f"  written to {out}/")
    if swept.interrupted:
        console.print("  interrupted: not all splits were tried")
        raise SystemExit(130)
    return found
