"""`memorywall compare` and its like: the flags of questions about a change."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sim.cli_sweep import On, Pictures

OPEN = {"allow_extra_args": True, "ignore_unknown_options": True}
Subject = Annotated[
    str,
    typer.Argument(
        help="A model as of `run`, the TOML of a run or of a serving run, or a result folder"
    ),
]
Change = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="KEY=VALUE of any key: hbm.bandwidth_GBps=*2, batch=16, launch.overhead_us=-50%, "
        "dtype=w4a16. A plain flag does the same: --batch 16",
    ),
]
With = Annotated[list[str] | None, typer.Option("--with", help="KEY=VALUE of both")]
Out = Annotated[Path | None, typer.Option(help="Folder of the results")]
Size = Annotated[str, typer.Option(help="Of the picture: column, paper or slide")]


def compare(
    context: typer.Context,
    before: Subject,
    after: Annotated[
        str | None, typer.Argument(help="The same; left out: BEFORE with the changes")
    ] = None,
    on: On = None,
    change: Change = None,
    both: With = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="tpot, ttft, e2e, makespan, pass:N; of serving e2e, ttft, tpot (mean, :p99, "
            ":request=N), makespan"
        ),
    ] = None,
    out: Out = None,
    pictures: Pictures = True,
    size: Size = "paper",
) -> None:
    """Explain a difference: which state and which operators make it, exactly."""
    from sim.whatif.changes import from_flags
    from sim.whatif.session import compare_scenarios

    given = list(context.args)
    if after and after.startswith("--"):
        given, after = [after, *given], None
    compare_scenarios(
        before,
        after,
        on=on,
        metric=metric,
        both=both or [],
        changes=[*(change or []), *from_flags(given)],
        out=out,
        pictures=pictures,
        size=size,
    )


def sensitivity(
    context: typer.Context,
    scenario: Subject,
    on: On = None,
    change: Change = None,
    metric: Annotated[str | None, typer.Option(help="As of `compare`")] = None,
    out: Out = None,
    pictures: Pictures = True,
    size: Size = "paper",
) -> None:
    """What a metric hangs on: its elasticity to each resource, and what is left if it were free."""
    from sim.whatif.changes import from_flags
    from sim.whatif.session import sense_scenario

    sense_scenario(
        scenario,
        on=on,
        metric=metric,
        changes=[*(change or []), *from_flags(context.args)],
        out=out,
        pictures=pictures,
        size=size,
    )
