"""Help texts: commands and options in groups and in the order of use, each with examples.

Names of options are never cut. Text wraps at the width of the terminal.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

# Commands in the order of use.
COMMANDS = {
    "Simulate": ("run", "serve", "tour"),
    "Ask": ("compare", "sensitivity", "what-if", "trend", "timeline", "report"),
    "Search": ("sweep", "map", "recommend"),
    "Look up": ("models", "devices", "systems", "traces"),
    "Check": ("paper", "validate", "calibrate", "measure"),
}
# Titles of the groups of options, in the order in which they are shown. The key is the first step
# of the option's path in its record, or the group that its field names.
OPTIONS = {
    "machine": "Machine and number formats",
    "workload": "Batch and lengths",
    "traffic": "Requests",
    "parallelism": "Parallelism",
    "memory": "Memory",
    "engine": "Engine",
    "knobs": "Scheduler",
    "slo": "Service level",
    "lowering": "Operators",
    "streams": "Streams",
    "rates": "Yearly rates",
    "reading": "Limits of what is read",
    "output": "Output",
    "program": "Program",
    "": "Options",
}
EXAMPLES = {
    "run": (
        "memorywall run llama-3.1-8b --on h100-sxm --prompt 2048 --output 128",
        "memorywall run llama-3.1-70b --on hgx-h100 --tp 4 --pp 2 --batch 8 --out out/70b",
    ),
    "serve": (
        "memorywall serve llama-3.1-8b --on h100-sxm --trace azure-conv-2023-sample",
        "memorywall serve gpt2 --on l4 --arrivals poisson:20 --num-requests 200 --slo-ttft 0.2",
    ),
    "sweep": (
        "memorywall sweep llama-3.1-8b --on h100-sxm --prompt 512 --grid batch=1:64:x2",
        "memorywall sweep gpt2 --grid on=l4,h100-sxm --grid dtype=bf16,fp16 --objective tpot_s",
    ),
    "map": (
        "memorywall map llama-3.1-8b --on h100-sxm --grid batch=1:256:x4 --grid prompt=128:8192:x4",
        "memorywall map gpt2 --on l4 --wall launch --grid batch=1:64:x4",
    ),
    "recommend": (
        "memorywall recommend llama-3.1-8b --on hgx-h100 --devices 4 --slo-tpot 0.02",
        "memorywall recommend gpt2 --on hgx-h100 --devices 2 --batch 4 --slo-e2e 1",
    ),
    "compare": (
        "memorywall compare llama-3.1-8b --on h100-sxm --set hbm.bandwidth_GBps=*2",
        "memorywall compare gpt2 --on l4 --batch 8",
    ),
    "sensitivity": (
        "memorywall sensitivity llama-3.1-8b --on h100-sxm --metric tpot",
        "memorywall sensitivity bert-large --on a100-sxm-80gb --batch 8",
    ),
    "trend": (
        "memorywall trend",
        "memorywall trend bert-large gpt2 --on h100-sxm --years 5",
    ),
    "timeline": (
        "memorywall timeline gpt2 --on h100-sxm --layer 0 --out layer.png",
        "memorywall timeline llama-3.1-8b --on h100-sxm --window 0:5ms --out start.png",
    ),
    "what-if": ("memorywall what-if list", "memorywall what-if run quantised-weights"),
    "what-if run": (
        "memorywall what-if run quantised-weights",
        "memorywall what-if run quantised-kv --model llama-3.1-8b --on h100-sxm",
    ),
    "report": (
        "memorywall report out/1-bert-base-on-h100-sxm",
        "memorywall report out/1-bert-base-on-h100-sxm --out bert.html",
    ),
    "validate": (
        "memorywall validate measured/ --out out/errors",
        "memorywall validate gemm.csv --device h100-sxm --max-median 15",
    ),
    "calibrate": (
        "memorywall calibrate measured/ --device h100-sxm --out mine.toml",
        "memorywall calibrate benchmarks.csv --engine vllm-0.12 --out engine.toml",
    ),
    "measure": (
        "memorywall measure --quick --out measured",
        "memorywall measure --only gemm,copy --dtype bf16 --out measured",
    ),
    "paper": ("memorywall paper", "memorywall paper --no-pictures"),
    "tour": ("memorywall tour", "memorywall tour --out out/tour"),
    "models": ("memorywall models list", "memorywall models show llama-3.1-8b"),
    "devices": ("memorywall devices list", "memorywall devices show h100-sxm"),
    "systems": ("memorywall systems list", "memorywall systems show hgx-h100"),
    "traces": ("memorywall traces list", "memorywall traces show azure-conv-2023-sample"),
}


class HelpfulCommand(TyperCommand):
    """A command whose help has its options in groups, and examples."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "rich_markup_mode": None})  # boxes would cut names
        self.params = [*self.params, *parameters(PRINTING)]

    def invoke(self, ctx: Any) -> Any:
        """Run the command; what it prints is as --json and --quiet say."""
        from sim.output.terminal import printing

        as_json, quiet = ctx.params.pop("json"), ctx.params.pop("quiet")
        with printing("json" if as_json else "quiet" if quiet else "tables"):
            return super().invoke(ctx)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and options; see `click.Command.format_options`."""
        groups: dict[str, list[tuple[str, str]]] = {"Arguments": []}
        groups |= {title: [] for title in OPTIONS.values()}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            panel = getattr(parameter, "rich_help_panel", None) or ""
            title = OPTIONS.get(panel, panel.capitalize())
            if parameter.param_type_name == "argument":
                title = "Arguments"
            groups.setdefault(title, []).append(record)
        for title, records in groups.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
        write_examples(ctx, formatter)


class HelpfulGroup(TyperGroup):
    """A group whose commands are listed in the order of use."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "rich_markup_mode": None})

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the commands, then the options; see `click.Command.format_options`."""
        titles = COMMANDS if ctx.parent is None else {"Commands": tuple(self.commands)}
        for title, names in titles.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(name, self.commands[name].get_short_help_str(200)) for name in names]
                )
        options = [record for p in self.get_params(ctx) if (record := p.get_help_record(ctx))]
        with formatter.section("Options"):
            formatter.write_dl(options)
        write_examples(ctx, formatter)


def flag(
    name: str, *flags: str, help: str, default: bool, group: str = "output"
) -> inspect.Parameter:
    """A flag as a parameter of a function, for `parameters`."""
    option = typer.Option(*flags, help=help, show_default=False, rich_help_panel=group)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[bool, option]
    )


PRINTING = (
    flag("json", "--json", help="Print one JSON document instead of tables", default=False),
    flag("quiet", "--quiet", "-q", help="Print nothing but errors", default=False),
)


def parameters(options: Iterable[inspect.Parameter]) -> list[Any]:
    """Parameters of a command: typer makes them from a function with the options as signature."""
    app = typer.Typer(add_completion=False)
    function: Any = types.FunctionType((lambda: None).__code__, {})
    function.__signature__ = inspect.Signature(list(options))
    app.command()(function)
    return list(typer.main.get_command(app).params)


def write_examples(ctx: Any, formatter: Any) -> None:
    """Write the examples of a command, each on a line of its own."""
    name = ctx.command_path.partition(" ")[2]
    if name in EXAMPLES:
        with formatter.section("Examples"):
            for line in EXAMPLES[name]:
                formatter.write(f"{'':>{formatter.current_indent}}{line}\n")
