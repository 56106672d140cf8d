"""What the commands do with a scenario: merge flags, run with progress, print, write."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from sim.errors import InputError
from sim.inputs.documents import convert
from sim.inputs.overlay import overlay
from sim.mapping.parallelism import Parallelism
from sim.output.files import whole
from sim.output.progress import progress_bar
from sim.scenario import Scenario, Workload, save_scenario
from sim.simulation import Result, run

# Below these a run is over before a progress bar could be read.
LONG_RUN = {"passes planned": 1000, "tasks simulated": 100_000}


def scenario_of(model: str, flags: dict[str, Any], changes: list[str]) -> Scenario:
    """A scenario from a file or a model name, with flags that were given laid over it."""
    stages = flags.get("parallelism", {}).get("stages")
    if isinstance(stages, str):
        flags["parallelism"]["stages"] = _layers(stages)
    return convert(overlay(model, flags, changes, Scenario), Scenario, "command line")


def _layers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--stages {text!r}: write layers a stage, e.g. 10,12,10") from None


def run_scenario(
    scenario: Scenario,
    *,
    out: Path | None,
    table_format: str,
    pictures: bool,
    what_if: bool,
    save: Path | None = None,
) -> Result:
    """Run, print the tables, and write the result folder if one is named."""
    from sim.output.report import print_result, terminal

    if save:
        save.parent.mkdir(parents=True, exist_ok=True)
        moved = {
            key: os.path.relpath(ref, save.parent)
            for key, ref in (("model", scenario.model), ("on", scenario.on))
            if os.path.exists(ref)
        }
        with whole(save) as path:
            save_scenario(msgspec.structs.replace(scenario, **moved), path)
    console = terminal()
    with progress_bar() as progress:
        result = run(scenario, progress)
    print_result(result, console, counterfactual=what_if)
    if out:
        from sim.output.export import write_result

        write_result(
            result, out, table_format=table_format, pictures=pictures, counterfactual=what_if
        )
        console.print(f"  written to {out}/")
    return result


TOUR = (
    Scenario(model="bert-base", on="h100-sxm", workload=Workload(batch=8, seq=512)),
    Scenario(model="gpt2", on="h100-sxm", workload=Workload(prompt=128, output=128)),
    Scenario(model="llama-3.1-8b", on="h100-sxm", workload=Workload(prompt=2048, output=128)),
    Scenario(
        model="llama-3.1-70b",
        on="hgx-h100",
        workload=Workload(batch=8, prompt=1024, output=16),
        parallelism=Parallelism(tp=4, pp=2, microbatches=4),
    ),
)


def take_tour(out: Path) -> None:
    """Run the four scenarios of the tour, each into a folder of its own."""
    for number, scenario in enumerate(TOUR, 1):
        folder = out / f"{number}-{scenario.model}-on-{scenario.on}"
        run_scenario(scenario, out=folder, table_format="csv", pictures=True, what_if=True)
