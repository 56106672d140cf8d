"""`memorywall sweep`, `map` and `recommend`: studies of many scenarios."""

from __future__ import annotations

from typing import Annotated

import typer

from sim.cli.completion import models
from sim.cli.options import open_record_of

Scenario = Annotated[
    str,
    typer.Argument(
        autocompletion=models,
        help="A model as for `run`, or the TOML of a run or of a serving run",
    ),
]


def sweep(context: typer.Context, scenario: Scenario) -> None:
    """Run every point of a grid; an impossible one becomes a row with its reason."""
    from sim.studies.sweep.session import SweepOptions, sweep_scenario

    sweep_scenario(scenario, open_record_of(context, SweepOptions))


def map_(context: typer.Context, scenario: Scenario) -> None:
    """The memory wall over two axes: the first --grid of several values is x, the second y."""
    from sim.studies.sweep.session import MapOptions, map_scenario

    map_scenario(scenario, open_record_of(context, MapOptions))


def recommend(context: typer.Context, scenario: Scenario) -> None:
    """The cheapest split that meets a service level, and why the others lose."""
    from sim.studies.sweep.session import RecommendOptions, recommend_scenario

    recommend_scenario(scenario, open_record_of(context, RecommendOptions))
