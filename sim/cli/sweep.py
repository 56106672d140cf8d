"""`memorywall sweep`, `map` and `recommend`: the flags of studies over many scenarios."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sim.errors import InputError

Grid = Annotated[
    list[str] | None,
    typer.Option(
        help="KEY=VALUES of any key of a scenario: tp=1,2,4, batch=1:256:x2, prompt=0:8192:+1024, "
        "hbm.bandwidth_GBps=2000,3350; once a key"
    ),
]
On = Annotated[str | None, typer.Option(help="A device or a system: name or TOML")]
Change = Annotated[list[str] | None, typer.Option("--set", help="As of `run`")]
Out = Annotated[Path | None, typer.Option(help="Folder of the results; a sweep goes on from it")]
Format = Annotated[str, typer.Option("--format", help="csv or parquet")]
Pictures = Annotated[bool, typer.Option(help="Draw PNG and SVG into --out")]
Workers = Annotated[int | None, typer.Option(min=1, help="Local processes; all cores")]
Dask = Annotated[str | None, typer.Option(help="Scheduler of a Dask cluster, tcp://HOST:PORT")]
Scenario = Annotated[
    str, typer.Argument(help="A model as of `run`, or the TOML of a run or of a serving run")
]
Where = Annotated[str, typer.Option(help="Which points: tp*pp <= 8 and batch >= tp")]


def sweep(
    scenario: Scenario,
    on: On = None,
    grid: Grid = None,
    where: Where = "",
    objective: Annotated[
        str | None, typer.Option(help="A column of the table, e.g. tpot_s or max:mfu")
    ] = None,
    having: Annotated[
        str, typer.Option(help="Condition on results, for the best and the front: ttft_s <= 0.5")
    ] = "",
    pareto: Annotated[
        str | None,
        typer.Option(help="Two columns, FIRST,SECOND; tokens/s/user against tokens/s/device"),
    ] = None,
    max_rate_under_slo: Annotated[
        bool, typer.Option(help="At each serving point the highest rate that meets the SLO")
    ] = False,
    change: Change = None,
    out: Out = None,
    table_format: Format = "csv",
    pictures: Pictures = True,
    workers: Workers = None,
    dask: Dask = None,
) -> None:
    """Run every point of a grid; an impossible one becomes a row with its reason."""
    from sim.studies.sweep.session import sweep_scenario

    _check(table_format)
    sweep_scenario(
        scenario,
        on=on,
        grids=grid or [],
        where=where,
        objective=objective,
        having=having,
        pareto=pareto,
        max_rate=max_rate_under_slo,
        changes=change or [],
        out=out,
        table_format=table_format,
        pictures=pictures,
        workers=workers,
        dask=dask,
    )


def _check(table_format: str) -> None:
    if table_format not in ("csv", "parquet"):
        raise InputError(f"--format {table_format!r}: use csv or parquet")


def map_(
    scenario: Scenario,
    on: On = None,
    grid: Grid = None,
    wall: Annotated[
        str, typer.Option(help="memory, hbm, sram, link, bubble, launch or idle")
    ] = "memory",
    phase: Annotated[str, typer.Option(help="all, prefill or decode")] = "all",
    change: Change = None,
    out: Out = None,
    pictures: Pictures = True,
    workers: Workers = None,
) -> None:
    """The memory wall over two axes: the first --grid of several values is x, the second y."""
    from sim.studies.sweep.session import map_scenario

    map_scenario(
        scenario,
        on=on,
        grids=grid or [],
        wall=wall,
        phase=phase,
        changes=change or [],
        out=out,
        pictures=pictures,
        workers=workers,
    )


def recommend(
    scenario: Scenario,
    devices: Annotated[int, typer.Option(min=1, max=4096, help="Devices at most")],
    on: On = None,
    grid: Grid = None,
    slo_ttft: Annotated[float | None, typer.Option(help="Seconds")] = None,
    slo_tpot: Annotated[float | None, typer.Option(help="Seconds")] = None,
    slo_e2e: Annotated[float | None, typer.Option(help="Seconds")] = None,
    change: Change = None,
    out: Out = None,
    workers: Workers = None,
    dask: Dask = None,
) -> None:
    """The cheapest split that meets a service level, and why the others lose."""
    from sim.studies.sweep.session import recommend_scenario

    asked = {"ttft_s": slo_ttft, "tpot_s": slo_tpot, "e2e_s": slo_e2e}
    recommend_scenario(
        scenario,
        on=on,
        grids=grid or [],
        devices=devices,
        bounds={name: bound for name, bound in asked.items() if bound is not None},
        changes=change or [],
        out=out,
        workers=workers,
        dask=dask,
    )
