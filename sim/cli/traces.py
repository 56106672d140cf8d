"""`memorywall traces list|show`: samples of public traces, and what a trace holds."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from sim.cli.completion import traces as samples
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
    from sim.inputs.traces.samples import samples as shipped

    rows = [[name, f"{one.rows:,}", one.about] for name, one in shipped().items()]
    print_table("traces", ["sample", "requests", "of"], rows)


@app.command(cls=HelpfulCommand)
def show(
    trace: Annotated[
        str, typer.Argument(autocompletion=samples, help="A sample of the list, or a file")
    ],
    on_bad_row: Annotated[
        str, typer.Option(help="What to do with a bad row: fail, or skip")
    ] = "fail",
) -> None:
    """Show the rate, the burstiness, the lengths and the source of a trace."""
    from sim.inputs.documents import checked
    from sim.inputs.traces import FORMATS, Selection, read_trace
    from sim.inputs.traces.profile import PERCENTILES, profile_of
    from sim.inputs.traces.samples import samples as shipped
    from sim.output.report import counted, duration, plain_table
    from sim.output.terminal import print_document, terminal
    from workloads.synthetic import Constant

    selection = Selection(on_bad_row=on_bad_row)  # type: ignore[arg-type]
    # A trace of lengths alone has no arrivals; these are drawn and not shown.
    opened = read_trace(trace, selection, arrivals=None, lengths_alone=Constant(1.0))
    timed = FORMATS[opened.format].timed
    profile = checked(trace, lambda: profile_of(opened, timed=timed))
    console = terminal()
    console.print(f"{trace}: {counted(profile.requests, 'request')}, format {opened.format}")
    if profile.rate is not None:
        console.print(
            f"  {duration(profile.span_s)}, {profile.rate:.3g} requests/s, burstiness "
            f"{profile.burstiness:.2f} (deviation of the gaps over their mean; Poisson: 1)"
        )
    else:
        console.print("  no arrival times; give --arrivals, e.g. poisson:6")
    if profile.sessions:
        console.print(f"  {counted(profile.sessions, 'session')} of several requests")
    if profile.shared_prompt is not None:
        console.print(f"  {profile.shared_prompt:.1%} of the prompt tokens repeat earlier prefixes")
    if opened.skipped:
        console.print(f"  {counted(opened.skipped, 'bad row')} left out")
    table = plain_table("", "tokens per request", ["mean", *(f"p{p}" for p in PERCENTILES)])
    table.title = None
    table.add_column("largest", justify="right", no_wrap=True)
    for name, x in (("prompt", profile.prompt), ("output", profile.output)):
        percentiles = (f"{p:,.0f}" for p in x.percentiles)
        table.add_row(name, f"{x.mean:,.1f}", *percentiles, f"{x.largest:,}")
    console.print(table)
    if sample := shipped().get(trace):
        console.print(f"  source: {sample.source}")
        console.print(f"  licence: {sample.licence}")
        console.print(f"  all: {sample.whole}")
    named = {"trace": trace, "format": opened.format, "skipped_rows": opened.skipped}
    print_document("trace", lambda: {**named, **msgspec.to_builtins(profile)})
