"""`memorywall traces list|show`: samples of public traces, and what a trace holds."""

from __future__ import annotations

from typing import Annotated

import typer

from sim.cli.help import HelpfulCommand, HelpfulGroup

app = typer.Typer(
    cls=HelpfulGroup,
    help="Request traces: samples by name, and what a trace holds.",
)


@app.callback(invoke_without_command=True)
def default(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        list_them()


@app.command("list", cls=HelpfulCommand)
def list_them() -> None:
    """List the samples that come with the program."""
    from sim.cli.catalogue import print_table
    from sim.inputs.traces.samples import samples

    rows = [[name, f"{one.rows:,}", one.about] for name, one in samples().items()]
    print_table(["sample", "requests", "of"], rows)


@app.command(cls=HelpfulCommand)
def show(
    trace: Annotated[str, typer.Argument(help="A sample of the list, or a file")],
    on_bad_row: Annotated[
        str, typer.Option(help="What to do with a bad row: fail, or skip")
    ] = "fail",
) -> None:
    """Show the rate, the burstiness, the lengths and the source of a trace."""
    from sim.cli.catalogue import print_table
    from sim.inputs.documents import checked
    from sim.inputs.traces import FORMATS, Selection, read_trace
    from sim.inputs.traces.profile import PERCENTILES, profile_of
    from sim.inputs.traces.samples import samples
    from sim.output.report import counted, duration
    from workloads.synthetic import Constant

    selection = Selection(on_bad_row=on_bad_row)  # type: ignore[arg-type]
    # A trace of lengths alone has no arrivals; these are drawn and not shown.
    opened = read_trace(trace, selection, arrivals=None, lengths_alone=Constant(1.0))
    timed = FORMATS[opened.format].timed
    profile = checked(trace, lambda: profile_of(opened, timed=timed))
    typer.echo(f"{trace}: {counted(profile.requests, 'request')}, format {opened.format}")
    if profile.rate is not None:
        typer.echo(
            f"  {duration(profile.span_s)}, {profile.rate:.3g} requests/s, burstiness "
            f"{profile.burstiness:.2f} (deviation of the gaps over their mean; Poisson: 1)"
        )
    else:
        typer.echo("  no arrival times; give --arrivals, e.g. poisson:6")
    if profile.sessions:
        typer.echo(f"  {counted(profile.sessions, 'session')} of several requests")
    if profile.shared_prompt is not None:
        typer.echo(f"  {profile.shared_prompt:.1%} of the prompt tokens repeat earlier prefixes")
    if opened.skipped:
        typer.echo(f"  {counted(opened.skipped, 'bad row')} left out")
    heads = ["tokens per request", "mean", *(f"p{p}" for p in PERCENTILES), "largest"]
    print_table(
        heads,
        [
            [name, f"{x.mean:,.1f}", *(f"{p:,.0f}" for p in x.percentiles), f"{x.largest:,}"]
            for name, x in (("prompt", profile.prompt), ("output", profile.output))
        ],
    )
    if sample := samples().get(trace):
        typer.echo(f"  source: {sample.source}\n  licence: {sample.licence}\n  all: {sample.whole}")
