"""What the commands do with a scenario: merge flags, run with progress, print, write."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from sim.catalogue import parse_change
from sim.errors import InputError
from sim.files import whole
from sim.inputs import convert, read_document
from sim.mapping import Parallelism
from sim.scenario import Scenario, Workload, save_scenario
from sim.simulation import Progress, Result, run

# Below these a run is over before a progress bar could be read.
LONG_RUN = {"passes planned": 1000, "tasks simulated": 100_000}


def scenario_of(model: str, flags: dict[str, Any], changes: list[str]) -> Scenario:
    """A scenario from a file or a model name, with flags that were given laid over it."""
    stages = flags.get("parallelism", {}).get("stages")
    if isinstance(stages, str):
        flags["parallelism"]["stages"] = _layers(stages)
    return convert(laid_over(model, flags, changes, Scenario), Scenario, "command line")


def laid_over(
    model: str, flags: dict[str, Any], changes: list[str], kind: type[msgspec.Struct]
) -> dict[str, Any]:
    """The document of a scenario file (or of a model's name) with given flags laid over it."""
    path = Path(model)
    if path.suffix == ".toml" and not path.exists():
        raise InputError(
            f"{model}: no such file; give the TOML of a scenario, or a model of `models list`"
        )
    base: dict[str, Any] = {"model": model}
    if path.suffix == ".toml" and path.is_file():
        document = read_document(path)
        if "on" in document or ("model" in document and "architecture" not in document):
            on = flags.get("on") or document.get("on")
            base = msgspec.to_builtins(convert({**document, "on": on}, kind, str(path)))
            for key in ("model", "on"):  # files named in a scenario lie beside it
                beside = path.parent / str(base[key])
                if beside.exists():
                    base[key] = str(beside)
    for key, value in _given(flags).items():
        base[key] = {**base.get(key, {}), **value} if isinstance(value, dict) else value
    if changes:
        base["set"] = {**base.get("set", {}), **dict(parse_change(c) for c in changes)}
    if not base.get("on"):
        raise InputError(f"{model}: say what it runs on, e.g. --on h100-sxm or --on hgx-h100")
    return base


def _given(flags: dict[str, Any]) -> dict[str, Any]:
    found = {k: _given(v) if isinstance(v, dict) else v for k, v in flags.items()}
    return {k: v for k, v in found.items() if v is not None and v != {}}


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
    from sim.report import print_result, terminal

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
        from sim.export import write_result

        write_result(
            result, out, table_format=table_format, pictures=pictures, counterfactual=what_if
        )
        console.print(f"  written to {out}/")
    return result


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar on the error stream that appears only when a run is long."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    bar = Bar(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    jobs: dict[str, Any] = {}

    def report(what: str, done: int, total: int) -> None:
        if total < LONG_RUN[what]:
            return
        if what not in jobs:
            bar.start()
            jobs[what] = bar.add_task(what, total=total)
        bar.update(jobs[what], completed=done)

    try:
        yield report
    finally:
        bar.stop()


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
