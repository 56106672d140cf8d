"""The work of `run` and `tour`: merge flags, run with progress, print, write."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from sim.inputs.documents import convert
from sim.inputs.overlay import overlay
from sim.mapping.parallelism import Parallelism
from sim.output.files import atomic_write
from sim.output.options import Output, Report
from sim.output.progress import progress_bar
from sim.scenario import Scenario, Workload, save_scenario
from sim.simulation import Result, run

# Below these a run is over before a progress bar could be read.
LONG_RUN = {"passes planned": 1000, "tasks simulated": 100_000}


class RunOutput(Output, frozen=True, kw_only=True):
    """What `run` prints and writes."""

    report: Report = False
    what_if: Annotated[
        bool, Meta(description="Run again with each resource free", extra={"group": "output"})
    ] = True
    save_scenario: Annotated[
        Path | None,
        Meta(
            description="File: write the scenario as TOML, then run it", extra={"group": "output"}
        ),
    ] = None


def scenario_of(model: str, flags: dict[str, Any]) -> Scenario:
    """A scenario from a file or from the name of a model, with the given flags over it."""
    return convert(document_of("run", model, flags, Scenario), Scenario, "command line")


def document_of(
    kind: str, model: str, flags: dict[str, Any], record: type[msgspec.Struct]
) -> dict[str, Any]:
    """The document of a run or of a serving run with the flags over it, those of --set last."""
    changes = flags.get("set", ())
    document = overlay(model, {k: v for k, v in flags.items() if k != "set"}, record)
    if not changes:
        return document
    from sim.studies.sweep.changes import changed

    return changed(kind, document, changes)


def run_scenario(scenario: Scenario, output: RunOutput, inputs: Iterable[str] = ()) -> Result:
    """Run, print the tables, and write the folder of results if one is named.

    `inputs`: names or files that the scenario came from; the results do not replace one of them.
    """
    from sim.output.export import RUN_RESULT, run_document, write_result
    from sim.output.folder import check_replaceable
    from sim.output.html.page import add_report, check_report
    from sim.output.report import print_result
    from sim.output.terminal import print_document, terminal

    check_report(output.report, output.out)
    check_replaceable(output.out, RUN_RESULT, inputs)
    if output.save_scenario:
        _save(scenario, output.save_scenario)
    with progress_bar() as progress:
        result = run(scenario, progress)
    if output.out:  # files first: printing may fail
        write_result(
            result,
            output.out,
            table_format=output.table_format,
            pictures=output.pictures,
            counterfactual=output.what_if,
        )
        if output.report:
            from sim.output.html.run_page import run_page

            add_report(output.out, RUN_RESULT, run_page)
    console = terminal()
    print_result(result, console, counterfactual=output.what_if)
    if output.out:
        console.print(f"  written to {output.out}/")
    print_document("run", lambda: run_document(result, output.what_if))
    return result


def _save(scenario: Scenario, save: Path) -> None:
    """Write a scenario whose paths hold from where it lies."""
    save.parent.mkdir(parents=True, exist_ok=True)
    moved = {
        key: os.path.relpath(ref, save.parent)
        for key, ref in (("model", scenario.model), ("on", scenario.on))
        if os.path.exists(ref)
    }
    with atomic_write(save) as path:
        save_scenario(msgspec.structs.replace(scenario, **moved), path)


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
    from sim.output.export import run_document
    from sim.output.terminal import mode, print_document, printing

    results = []
    with printing("quiet" if mode() == "json" else mode()):
        for number, scenario in enumerate(TOUR, 1):
            folder = out / f"{number}-{scenario.model}-on-{scenario.on}"
            results.append(run_scenario(scenario, RunOutput(out=folder)))
    print_document("tour", lambda: {"runs": [run_document(result) for result in results]})
