"""The command line. Flags build the same `Scenario` that a file holds."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from sim.cli.catalogue import catalogue_app
from sim.cli.completion import models
from sim.cli.help import HelpfulCommand, HelpfulGroup
from sim.cli.measure import measure
from sim.cli.options import OPEN, flags_of, record_of, with_options
from sim.cli.report import report
from sim.cli.serve import serve
from sim.cli.sweep import map_, recommend, sweep
from sim.cli.timeline import timeline
from sim.cli.traces import app as traces
from sim.cli.validate import calibrate, validate
from sim.cli.whatif import SESSION, compare, sensitivity, trend, what_if
from sim.errors import MemorywallError, is_text, one_line, quoted
from sim.output.folder import claimed

# ClickException, of the click that this typer uses: its own copy or the installed one.
FlagError: Any = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="memorywall",
    help="Where does the time of a transformer go? A simulator whose account of time adds up.",
    no_args_is_help=True,
    cls=HelpfulGroup,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for kind in ("model", "device", "system"):
    app.add_typer(catalogue_app(kind), name=f"{kind}s")


SERVING = ("sim.serve.config:Serving", "sim.serve.session:ServeOutput")
SWEEPS = "sim.studies.sweep.session"
app.command(cls=with_options(*SERVING))(serve)
app.command(context_settings=OPEN, cls=with_options(f"{SWEEPS}:SweepOptions"))(sweep)
app.command(cls=with_options("sim.fidelity.validate.session:ValidateOptions"))(validate)
app.command(cls=with_options("sim.fidelity.calibrate.session:CalibrateOptions"))(calibrate)
app.command(cls=with_options("sim.fidelity.measure.plan:MeasurementPlan"))(measure)
app.command("map", context_settings=OPEN, cls=with_options(f"{SWEEPS}:MapOptions"))(map_)
app.command(context_settings=OPEN, cls=with_options(f"{SWEEPS}:RecommendOptions"))(recommend)
app.command(context_settings=OPEN, cls=with_options(f"{SESSION}:CompareOptions"))(compare)
app.command(context_settings=OPEN, cls=with_options(f"{SESSION}:Measured"))(sensitivity)
app.command(context_settings=OPEN, cls=with_options(f"{SESSION}:TrendOptions"))(trend)
app.command(context_settings=OPEN, cls=with_options(f"{SESSION}:TimelineOptions"))(timeline)
app.command(cls=HelpfulCommand)(report)
app.add_typer(what_if, name="what-if")
app.add_typer(traces, name="traces")


@app.command(cls=with_options("sim.scenario:Scenario", "sim.cli.run:RunOutput"))
def run(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            autocompletion=models,
            help="A model of the catalogue, a config.json (or its folder), a model TOML, "
            "or a scenario TOML",
        ),
    ],
    prefetch: Annotated[
        bool | None,
        typer.Option(
            "--prefetch/--no-prefetch",
            rich_help_panel="machine",
            help="Launch the next operator and load its first weights early: --set device.prefetch",
        ),
    ] = None,
) -> None:
    """Simulate a model on a device or a system, and account for its time."""
    from sim.cli.run import RunOutput, run_scenario, scenario_of
    from sim.scenario import Scenario

    flags = flags_of(context, Scenario)
    if prefetch is not None:
        flags.setdefault("set", []).append(f"device.prefetch={str(prefetch).lower()}")
    scenario = scenario_of(model, flags)
    output = record_of(context, RunOutput)
    run_scenario(scenario, output, (model, scenario.model, scenario.on))


@app.command(cls=HelpfulCommand)
def paper(
    out: Annotated[Path | None, typer.Option(help="Write the pictures here")] = None,
    pictures: Annotated[bool, typer.Option(help="Draw the figures")] = True,
) -> None:
    """Recompute the tables and figures of "AI and Memory Wall" and its survey, side by side."""
    from sim.output.terminal import print_document, terminal
    from sim.studies.paper import print_report, reproduce

    folder = out or (Path("out") / "paper")
    with claimed(folder if pictures else None):
        report = reproduce(folder, pictures)
    print_report(report, terminal())
    print_document(
        "paper",
        lambda: {"ok": report.ok, "sections": msgspec.to_builtins(report.sections)},
    )
    if not report.ok:
        raise typer.Exit(1)


@app.command(cls=HelpfulCommand)
def tour(
    out: Annotated[Path, typer.Option(help="Where results go")] = Path("out"),
) -> None:
    """BERT-Base, GPT-2 and Llama-3.1-8B on one H100, then Llama-3.1-70B with tp 4 and pp 2."""
    from sim.cli.run import take_tour

    with claimed(out):
        take_tour(out)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Show the version")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"memorywall {installed('memorywall')}")
        raise typer.Exit


def answer() -> int:
    """Run the command of `sys.argv`: its exit code, and for a user's mistake one sentence."""
    # It would tell that it keeps its cache elsewhere if the home folder cannot be written.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    for number, word in enumerate(sys.argv[1:], 1):
        if not is_text(word):
            return _refused(f"argument {number} = {quoted(word)}: not UTF-8 text")
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
        if code == 130:  # how typer passes on Ctrl-C
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except FlagError as error:
        return _refused(error.format_message() or "see memorywall --help")
    except (MemorywallError, msgspec.ValidationError) as error:
        return _refused(str(error))
    except MemoryError:
        return _refused(
            "memory is short: take fewer --workers, points, requests or layers, or --no-steps; "
            "what was written is whole"
        )
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _refused(f"{where}{error.strerror or error}")
    except typer.Abort:
        raise KeyboardInterrupt from None


def _refused(sentence: str) -> int:
    sys.stderr.write(f"memorywall: {one_line(sentence)}\n")
    return 2
