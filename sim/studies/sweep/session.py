"""The work of the commands: read the scenario, sweep with progress, print, write."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from sim.errors import InputError
from sim.inputs.documents import read_document
from sim.inputs.overlay import overlay
from sim.output.export import write_json, write_table
from sim.output.folder import REPORT, ResultKind, check_replaceable, replacing
from sim.output.html.page import add_report, check_report
from sim.output.options import OutputFolder, Pictures, Report, TableFormat
from sim.output.terminal import print_document, terminal
from sim.scenario import MachineName, Scenario
from sim.serve.knobs import E2eBound, Positive, TpotBound, TtftBound
from sim.studies.sweep.changes import changed
from sim.studies.sweep.fronts import Metric, check_having, pareto, ranked, usable
from sim.studies.sweep.grid import Sweep, described, sweep_of
from sim.studies.sweep.kinds import STATUS
from sim.studies.sweep.levels import BOUNDS, meeting
from sim.studies.sweep.recommend import Verdict, splits, verdicts
from sim.studies.sweep.registry import kind_of
from sim.studies.sweep.report import heading, print_sweep
from sim.studies.sweep.study import Swept, Watch, run_sweep
from sim.studies.sweep.tables import print_map, print_verdicts
from sim.studies.sweep.wall import WallMap, map_of, map_wall
from workloads.model import Record

TABLE = "sweep"
SWEEP_RESULT = ResultKind(
    "sweep", (f"{TABLE}.csv", f"{TABLE}.parquet", "config.json", REPORT, "front.png", "front.svg")
)
MAP_RESULT = ResultKind("map", ("map.json", "map.png", "map.svg"))
RUN_KEYS = Scenario.__struct_fields__
Words = tuple[str, ...]
DaskAddress = Annotated[
    str | None, Meta(description="Scheduler of a Dask cluster, tcp://HOST:PORT")
]


class SweepStudy(Record, frozen=True, kw_only=True):
    """Options of every study of many scenarios. `set` holds texts KEY=VALUE."""

    on: MachineName | None = None
    grid: Annotated[
        Words,
        Meta(
            description="KEY=VALUES of any key of a scenario, once per key: tp=1,2,4, "
            "batch=1:256:x2, prompt=0:8192:+1024, hbm.bandwidth_GBps=2000,3350"
        ),
    ] = ()
    set: Annotated[
        Words,
        Meta(
            description="KEY=VALUE of any key, as for `run`. A plain flag does the same: --tp 4",
            extra={"group": "machine"},
        ),
    ] = ()
    workers: Annotated[
        Positive | None, Meta(description="Local processes; all cores if not given")
    ] = None


class SweepOptions(SweepStudy, frozen=True, kw_only=True):
    """Options of `sweep`. With a folder `out` of an earlier sweep, that sweep continues."""

    where: Annotated[str, Meta(description="Condition on points: tp*pp <= 8 and batch >= tp")] = ""
    objective: Annotated[
        str | None, Meta(description="Column to find the best of: tpot_s or max:mfu")
    ] = None
    having: Annotated[
        str, Meta(description="Condition on results of the best and the front: ttft_s <= 0.5")
    ] = ""
    pareto: Annotated[
        str | None,
        Meta(
            description="Columns FIRST,SECOND of the front; else tokens/s per user and per device"
        ),
    ] = None
    max_rate_under_slo: Annotated[
        bool, Meta(description="Find the highest rate that meets the SLO, per point of serving")
    ] = False
    out: OutputFolder = None
    table_format: TableFormat = "csv"
    pictures: Pictures = True
    report: Report = False
    dask: DaskAddress = None


class MapOptions(SweepStudy, frozen=True, kw_only=True):
    """Options of `map`."""

    wall: Annotated[str, Meta(description="memory, hbm, sram, link, bubble, launch or idle")] = (
        "memory"
    )
    phase: Annotated[str, Meta(description="all, prefill or decode")] = "all"
    out: OutputFolder = None
    pictures: Pictures = True


class RecommendOptions(SweepStudy, frozen=True, kw_only=True):
    """Options of `recommend`. The bounds are in seconds."""

    devices: Annotated[int, Meta(ge=1, le=4096, description="Most devices to use")]
    ttft_s: TtftBound = None
    tpot_s: TpotBound = None
    e2e_s: E2eBound = None
    out: OutputFolder = None
    dask: DaskAddress = None


def base_of(
    scenario: str, on: str | None, changes: Sequence[str], grids: Sequence[str]
) -> tuple[str, dict[str, Any]]:
    """(run or serve, document) of a scenario with `changes` (KEY=VALUE) over it.

    The name of a model is a run, unless a change or the grid has a key that only serving has.
    """
    keys = [text.partition("=")[0].strip() for text in (*grids, *changes)]
    path = Path(scenario)
    serving = False
    if path.suffix == ".toml" and path.is_file():
        from sim.serve.config import Serving

        document = read_document(path)
        serving = any(k in document for k in Serving.__struct_fields__ if k not in RUN_KEYS)
    static = kind_of("run").keys
    if not serving and any(key not in static and "." not in key for key in keys):
        serving = any(key in kind_of("serve").keys for key in keys if key not in static)
    flags: dict[str, Any] = {"on": on or _first(changes, "on") or _first(grids, "on")}
    if not serving:
        return "run", changed("run", overlay(scenario, flags, Scenario), changes)
    from sim.serve.config import Serving

    document = changed("serve", overlay(scenario, flags, Serving), changes)
    document["keep_steps"] = False  # a sweep does not use the rows of steps
    return "serve", document


def _first(grids: Sequence[str], key: str) -> str | None:
    """The first value of an axis, for a scenario that leaves it to the grid."""
    for text in grids:
        name, _, values = text.partition("=")
        if name.strip() == key:
            return values.split(",")[0].strip()
    return None


def sweep_scenario(scenario: str, options: SweepOptions) -> Swept:
    """Sweep, print the tables, write the folder if one is named. After Ctrl-C the same with what
    is finished, and a KeyboardInterrupt."""
    name, base = base_of(scenario, options.on, options.set, options.grid)
    kind, out, having = kind_of(name), options.out, options.having
    max_rate = options.max_rate_under_slo
    if max_rate and name != "serve":
        raise InputError("--max-rate-under-slo: this is no serving run; give arrivals or a trace")
    request = sweep_of(name, base, options.grid, options.where, "max-rate" if max_rate else "")
    best = "max_rate" if max_rate else kind.front[1]
    metric = Metric(options.objective or best, kind.columns, "--objective")
    front = front_of(options.pareto, kind.front, request)
    check_having(having, {a.name: a.values[0] for a in request.axes}, {**STATUS, **kind.columns})
    check_report(options.report, out)
    check_replaceable(out, SWEEP_RESULT, [scenario])
    with progress("points") as watch:
        swept = run_sweep(
            request, folder=out, workers=options.workers, dask=options.dask, watch=watch
        )
    console = terminal()
    if out:  # files first: printing may fail
        write_sweep(swept, out, options.table_format, front, having, options.pictures)
        if options.report:
            from sim.studies.sweep.page import sweep_page

            add_report(out, SWEEP_RESULT, sweep_page)
    print_sweep(swept, console, metric, front, having)
    if out:
        console.print(f"  written to {out}/")
    print_document("sweep", lambda: sweep_document(swept, metric, front, having))
    if swept.interrupted:
        left = sum(row is None for row in swept.rows)
        again = "the same command goes on from here" if out else "with --out one can go on"
        console.print(f"  interrupted: {left:,} points are left; {again}")
        raise KeyboardInterrupt
    return swept


def sweep_document(
    swept: Swept, metric: Metric, front: tuple[Metric, Metric], having: str
) -> dict[str, Any]:
    """A sweep as plain data: its request, every point, the front, and the best point."""
    good = meeting(usable(swept.records(), having))
    return {
        "request": described(swept.sweep),
        "points": swept.records(),
        "objective": f"{metric.sense}:{metric.name}",
        "best": next(iter(ranked(good, metric)), None),
        "front": pareto(good, *front),
        "interrupted": swept.interrupted,
    }


def front_of(text: str | None, default: tuple[str, str], request: Sweep) -> tuple[Metric, Metric]:
    """The two metrics of a front, from --pareto."""
    names = text.split(",") if text else list(default)
    if len(names) != 2:
        raise InputError(f"--pareto {text!r}: two columns, e.g. tpot_s,tokens_per_s_per_device")
    columns = kind_of(request.kind).columns
    first, second = (Metric(name.strip(), columns, "--pareto") for name in names)
    return first, second


def write_sweep(
    swept: Swept,
    out: Path,
    table_format: str,
    front: tuple[Metric, Metric] | None,
    having: str,
    pictures: bool = True,
) -> None:
    """The request, the table in the order of the grid, and the picture of the front.

    The metrics of the front and the condition on results stand beside the request, for a report.
    Without `front` there is no picture, and a report shows the usual one of this kind of points.
    """
    good = usable(swept.records(), having)  # before anything is written: it may refuse `having`
    with replacing(out, SWEEP_RESULT) as new:
        shown = {"pareto": [metric.text for metric in front or ()], "having": having}
        write_json(new / "config.json", {**described(swept.sweep), **shown})
        write_table(swept.table(), new / f"{TABLE}.{table_format}")
        if front and pictures and len(good) > 1:
            from sim.studies.sweep.plots import plot_front

            names = [axis.name for axis in swept.sweep.axes]
            plot_front(good, names, front, heading(swept), new / "front")


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


def map_scenario(scenario: str, options: MapOptions) -> WallMap:
    """Compute a memory-wall map, print it, draw it if a folder is named."""
    name, base = base_of(scenario, options.on, options.set, options.grid)
    request, out = sweep_of(name, base, options.grid), options.out
    check_replaceable(out, MAP_RESULT, [scenario])
    with progress("points") as watch:
        wall_map = map_wall(
            request,
            options.wall,
            options.phase,
            folder=out,
            workers=options.workers,
            watch=watch,
        )
    if out:  # files first: printing may fail
        with replacing(out, MAP_RESULT) as new:
            write_json(new / "map.json", map_of(wall_map))
            if options.pictures:
                from sim.studies.sweep.wall_plot import plot_walls

                plot_walls([wall_map], new / "map")
    console = terminal()
    print_map(wall_map, console)
    if out:
        console.print(f"  written to {out}/")
    print_document("map", lambda: map_of(wall_map))
    return wall_map


def recommend_scenario(scenario: str, options: RecommendOptions) -> list[Verdict]:
    """Try every split, print which is the cheapest that meets the bounds and why others lose."""
    given = {key: getattr(options, key) for key in BOUNDS}
    bounds = {key: bound for key, bound in given.items() if bound is not None}
    for key, bound in bounds.items():
        if not bound > 0:  # nan, too
            raise InputError(f"--slo-{key.removesuffix('_s')} {bound:g}: seconds above 0")
    name, base = base_of(scenario, options.on, options.set, options.grid)
    out, devices = options.out, options.devices
    if name == "serve":
        base["slo"] = {**(base.get("slo") or {}), **bounds}
        bounds = {k: v for k, v in base["slo"].items() if k in BOUNDS and v is not None}
    if not bounds:
        raise InputError("a recommendation needs a bound: --slo-ttft, --slo-tpot or --slo-e2e")
    more = sweep_of(name, base, options.grid).axes
    request = splits(name, base, more, devices)
    check_replaceable(out, SWEEP_RESULT, [scenario])
    with progress("splits") as watch:
        swept = run_sweep(
            request, folder=out, workers=options.workers, dask=options.dask, watch=watch
        )
    judged = verdicts(swept, bounds)
    if out:
        met = "" if name == "serve" else " and ".join(f"{k} <= {v!r}" for k, v in bounds.items())
        write_sweep(swept, out, "csv", None, met)
    console = terminal()
    print_verdicts(swept, judged, bounds, devices, console)
    if out:
        console.print(f"  written to {out}/")
    print_document("recommend", lambda: {"bounds": bounds, "splits": msgspec.to_builtins(judged)})
    if swept.interrupted:
        console.print("  interrupted: not all splits were tried")
        raise KeyboardInterrupt
    return judged
