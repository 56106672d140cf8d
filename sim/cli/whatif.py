"""`memorywall compare` and its like: the flags of questions about a change."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

On = Annotated[str | None, typer.Option(help="Device or system: a name of the catalogue or a TOML")]
Pictures = Annotated[bool, typer.Option(help="Draw PNG and SVG into --out")]
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
        help="KEY=VALUE of any key: hbm.bandwidth_GBps=*2, batch=16, matrix.TFLOPS.bf16=-50%, "
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
    from sim.studies.whatif.changes import from_flags
    from sim.studies.whatif.session import compare_scenarios

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
    from sim.studies.whatif.changes import from_flags
    from sim.studies.whatif.session import sense_scenario

    sense_scenario(
        scenario,
        on=on,
        metric=metric,
        changes=[*(change or []), *from_flags(context.args)],
        out=out,
        pictures=pictures,
        size=size,
    )


def trend(
    scenarios: Annotated[
        list[str] | None,
        typer.Argument(help="Models or scenario TOMLs; left out: two that read, two that write"),
    ] = None,
    on: On = None,
    change: Change = None,
    metric: Annotated[str | None, typer.Option(help="tpot, ttft, e2e or pass:N")] = None,
    flops: Annotated[float, typer.Option(help="Growth of FLOP/s in two years")] = 3.0,
    hbm: Annotated[float, typer.Option(help="Growth of HBM bandwidth")] = 1.6,
    link: Annotated[float, typer.Option(help="Growth of link bandwidth")] = 1.4,
    fixed: Annotated[
        float, typer.Option(help="By which launches and latencies shrink; 1: they stay")
    ] = 3.0,
    years: Annotated[float, typer.Option(help="How far")] = 10.0,
    step: Annotated[float, typer.Option(help="Years from point to point")] = 1.0,
    out: Out = None,
    pictures: Pictures = True,
    size: Size = "paper",
) -> None:
    """Carry a device along the paper's rates: when each workload meets the memory wall."""
    from sim.inputs.documents import convert
    from sim.studies.whatif.session import trend_scenarios
    from sim.studies.whatif.trend import Rates

    trend_scenarios(
        scenarios or [],
        on=on,
        changes=change or [],
        metric=metric,
        rates=convert(
            {"flops": flops, "hbm": hbm, "link": link, "fixed": fixed}, Rates, "command line"
        ),
        years=years,
        step=step,
        out=out,
        pictures=pictures,
        size=size,
    )


what_if = typer.Typer(help="Named questions: quantised, pruned, speculative, tiered, ...")


@what_if.command("list")
def list_() -> None:
    """Names and questions."""
    from sim.studies.whatif.session import list_what_ifs

    list_what_ifs()


@what_if.command()
def show(name: Annotated[str, typer.Argument(help="A name of the list")]) -> None:
    """The TOML of a question, to read, to copy and to change."""
    from sim.studies.whatif.session import show_what_if

    show_what_if(name)


@what_if.command(context_settings=OPEN)
def run(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A name of the list, or a TOML of your own")],
    model: Annotated[str | None, typer.Option(help="Another model")] = None,
    on: On = None,
    change: Change = None,
    out: Out = None,
    pictures: Pictures = True,
    size: Size = "paper",
) -> None:
    """Run every variant of a question, and put the numbers that others claim beside ours."""
    from sim.studies.whatif.changes import from_flags
    from sim.studies.whatif.session import answer_what_if

    answer_what_if(
        name,
        model=model,
        on=on,
        changes=[*(change or []), *from_flags(context.args)],
        out=out,
        pictures=pictures,
        size=size,
    )
