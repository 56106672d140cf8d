"""`memorywall compare`, `sensitivity`, `trend` and `what-if`: questions about a change."""

from __future__ import annotations

from typing import Annotated

import typer

from sim.cli.completion import models, what_ifs
from sim.cli.help import HelpfulCommand, HelpfulGroup
from sim.cli.options import OPEN, open_record_of, with_options

SESSION = "sim.studies.whatif.session"
Subject = Annotated[
    str,
    typer.Argument(
        autocompletion=models,
        help="A model as for `run`, the TOML of a run or of a serving run, or a result folder",
    ),
]


def compare(
    context: typer.Context,
    before: Subject,
    after: Annotated[
        str | None, typer.Argument(help="The same; if not given: BEFORE with the changes")
    ] = None,
) -> None:
    """Explain a difference: which state and which operators make it, exactly."""
    from sim.studies.whatif.session import CompareOptions, compare_scenarios

    flag = (after,) if after and after.startswith("--") else ()
    options = open_record_of(context, CompareOptions, *flag)
    compare_scenarios(before, None if flag else after, options)


def sensitivity(context: typer.Context, scenario: Subject) -> None:
    """What a metric depends on: its elasticity per resource, and its value if one were free."""
    from sim.studies.whatif.session import Measured, sense_scenario

    sense_scenario(scenario, open_record_of(context, Measured))


def trend(
    context: typer.Context,
    scenarios: Annotated[
        list[str] | None,
        typer.Argument(
            help="Models or scenario TOMLs; if not given, an encoder, a prefill and two decodes"
        ),
    ] = None,
) -> None:
    """Scale a device by the paper's yearly rates: when each workload meets the memory wall."""
    from sim.studies.whatif.session import TrendOptions, trend_scenarios

    names, flags = [], []
    words = list(scenarios or [])
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            names.append(word)
            continue
        flags.append(word)  # typer leaves flags that it does not know among the arguments
        if "=" not in word and words and not words[0].startswith("--"):
            flags.append(words.pop(0))
    trend_scenarios(names, open_record_of(context, TrendOptions, *flags))


what_if = typer.Typer(
    cls=HelpfulGroup,
    help="Named questions: quantised, pruned, speculative, tiered, ...",
)


@what_if.command("list", cls=HelpfulCommand)
def list_() -> None:
    """Names and questions."""
    from sim.studies.whatif.session import list_what_ifs

    list_what_ifs()


@what_if.command(cls=HelpfulCommand)
def show(
    name: Annotated[str, typer.Argument(autocompletion=what_ifs, help="A name of the list")],
) -> None:
    """The TOML of a question, to read, to copy and to change."""
    from sim.studies.whatif.session import show_what_if

    show_what_if(name)


@what_if.command(context_settings=OPEN, cls=with_options(f"{SESSION}:NamedOptions"))
def run(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(autocompletion=what_ifs, help="A name of the list, or a TOML of your own"),
    ],
) -> None:
    """Run every variant of a question, and put the numbers that others claim beside ours."""
    from sim.studies.whatif.session import NamedOptions, answer_what_if

    answer_what_if(name, open_record_of(context, NamedOptions))
