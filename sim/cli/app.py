"""The command line. Flags build the same `Scenario` that a file holds."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from sim.cli.catalogue import catalogue_app
from sim.cli.measure import measure
from sim.cli.serve import serve
from sim.cli.sweep import map_, recommend, sweep
from sim.cli.timeline import timeline
from sim.cli.validate import calibrate, validate
from sim.cli.whatif import OPEN, compare, sensitivity, trend, what_if
from sim.errors import InputError, MemorywallError, one_line

# ClickException, of the click that this typer uses: its own copy or the installed one.
FlagError: Any = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="memorywall",
    help="Where does the time of a transformer go? A simulator whose account of time adds up.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for kind in ("model", "device", "system"):
    app.add_typer(catalogue_app(kind), name=f"{kind}s")


app.command()(serve)
app.command()(sweep)
app.command()(validate)
app.command()(calibrate)
app.command()(measure)
app.command("map")(map_)
app.command()(recommend)
app.command(context_settings=OPEN)(compare)
app.command(context_settings=OPEN)(sensitivity)
app.command()(trend)
app.command(context_settings=OPEN)(timeline)
app.add_typer(what_if, name="what-if")


@app.command()
def run(
    model: Annotated[
        str,
        typer.Argument(
            help="A model of the catalogue, a config.json (or its folder), a model TOML, "
            "or a scenario TOML"
        ),
    ],
    on: Annotated[str | None, typer.Option(help="A device or a system: name or TOML")] = None,
    batch: Annotated[int | None, typer.Option(help="Sequences; 1 if left out")] = None,
    seq: Annotated[int | None, typer.Option(help="Tokens an encoder reads; 512")] = None,
    prompt: Annotated[int | None, typer.Option(help="Tokens a decoder reads first; 512")] = None,
    output: Annotated[int | None, typer.Option(help="Tokens a decoder generates; 32")] = None,
    tp: Annotated[int | None, typer.Option(help="Tensor parallel ranks")] = None,
    pp: Annotated[int | None, typer.Option(help="Pipeline stages")] = None,
    dp: Annotated[int | None, typer.Option(help="Replicas; the batch is spread over them")] = None,
    microbatches: Annotated[int | None, typer.Option(help="Micro-batches of a replica")] = None,
    stages: Annotated[str | None, typer.Option(help="Layers a stage, e.g. 10,12,10")] = None,
    collective: Annotated[
        str | None,
        typer.Option(help="auto, ring, bidirectional, direct, doubling, tree or hierarchical"),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="bf16, fp16, fp8, int8, ..., or wXaY such as w4a16")
    ] = None,
    kv_dtype: Annotated[str | None, typer.Option(help="Format of the KV cache")] = None,
    attention: Annotated[str | None, typer.Option(help="flash or materialised")] = None,
    projections: Annotated[str | None, typer.Option(help="fused or separate QKV")] = None,
    fusion: Annotated[bool | None, typer.Option(help="Fuse element-wise operators")] = None,
    routing: Annotated[
        str | None, typer.Option(help="Tokens an expert: uniform, balanced or power-law:1.2")
    ] = None,
    prefetch: Annotated[
        bool | None, typer.Option(help="Launch the next operator and load its first weights early")
    ] = None,
    detail: Annotated[str | None, typer.Option(help="op or tile")] = None,
    shortcuts: Annotated[
        bool | None, typer.Option(help="Fold equal ranks and uncontended runs of operators")
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="KEY=VALUE, e.g. hbm.bandwidth_GBps=6700, model.num_hidden_layers=8"
        ),
    ] = None,
    allow_oom: Annotated[
        bool | None, typer.Option("--allow-oom", help="Go on if it does not fit into memory")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Recorded with the result")] = None,
    what_if: Annotated[bool, typer.Option(help="Run again with each resource free")] = True,
    out: Annotated[Path | None, typer.Option(help="Write the result folder here")] = None,
    table_format: Annotated[str, typer.Option("--format", help="csv or parquet")] = "csv",
    pictures: Annotated[bool, typer.Option(help="Draw PNG and SVG into --out")] = True,
    save_scenario: Annotated[
        Path | None, typer.Option(help="Write the scenario as TOML and go on")
    ] = None,
) -> None:
    """Simulate a model on a device or a system, and account for its time."""
    from sim.cli.run import run_scenario, scenario_of

    if table_format not in ("csv", "parquet"):
        raise InputError(f"--format {table_format!r}: use csv or parquet")
    changes = list(change or [])
    if prefetch is not None:
        changes.append(f"device.prefetch={str(prefetch).lower()}")
    flags: dict[str, Any] = {
        "on": on,
        "dtype": dtype,
        "kv_dtype": kv_dtype,
        "detail": detail,
        "shortcuts": shortcuts,
        "allow_oom": allow_oom,
        "seed": seed,
        "workload": {"batch": batch, "seq": seq, "prompt": prompt, "output": output},
        "parallelism": {
            "tp": tp,
            "pp": pp,
            "dp": dp,
            "microbatches": microbatches,
            "stages": stages,
            "collective": collective,
        },
        "lowering": {
            "attention": attention,
            "projections": projections,
            "fusion": fusion,
            "routing": routing,
        },
    }
    scenario = scenario_of(model, flags, changes)
    run_scenario(
        scenario,
        out=out,
        table_format=table_format,
        pictures=pictures,
        what_if=what_if,
        save=save_scenario,
    )


@app.command()
def paper(
    out: Annotated[Path | None, typer.Option(help="Write the pictures here")] = None,
    pictures: Annotated[bool, typer.Option(help="Draw the figures")] = True,
) -> None:
    """Recompute the tables and figures of "AI and Memory Wall" and its survey, side by side."""
    from sim.output.report import terminal
    from sim.studies.paper import print_report, reproduce

    report = reproduce(out or (Path("out") / "paper"), pictures)
    print_report(report, terminal())
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def tour(
    out: Annotated[Path, typer.Option(help="Where results go")] = Path("out"),
) -> None:
    """BERT-Base, GPT-2 and Llama-3.1-8B on one H100, then Llama-3.1-70B with tp 4 and pp 2."""
    from sim.cli.run import take_tour

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
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _refused(f"{where}{error.strerror or error}")
    except typer.Abort:
        raise KeyboardInterrupt from None


def _refused(sentence: str) -> int:
    sys.stderr.write(f"memorywall: {one_line(sentence)}\n")
    return 2
