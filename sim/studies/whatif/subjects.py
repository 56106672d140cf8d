"""What is compared: result folders and scenarios, of a run or of a serving run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hw_models.device import Device
from hw_models.system import Link, System
from sim.errors import InputError
from sim.inputs.catalogue import Machine
from sim.inputs.documents import checked, convert, read_document
from sim.output.folder import check_whole
from sim.output.plots.style import title
from sim.output.progress import progress_bar
from sim.output.reading import as_written, read_table, table_path
from sim.scenario import Resolved, Scenario, make_passes, resolve
from sim.simulation import Result, simulate
from sim.studies.sweep.session import base_of
from sim.studies.whatif import runs, served
from sim.studies.whatif.changes import changed
from sim.studies.whatif.parts import Breakdown
from workloads.model import Model
from workloads.precision import Precision

if TYPE_CHECKING:
    from sim.serve.config import Serving
    from sim.serve.serving import Served


class RunSubject:
    """A static point. It is simulated at its first use."""

    kind = "run"

    def __init__(self, resolved: Resolved) -> None:
        self.resolved = resolved

    @property
    def name(self) -> str:
        return title(self.resolved)

    @property
    def default(self) -> str:
        """The metric of questions that name none."""
        return runs.metrics_of(self.result)[0]

    @cached_property
    def result(self) -> Result:
        with progress_bar() as progress:
            return simulate(self.resolved, progress=progress)

    def break_down(self, metric: str) -> Breakdown:
        return runs.break_down(self.result, metric)


class ServeSubject:
    """A serving run, from its tables."""

    kind = "serve"
    default = "e2e"

    def __init__(
        self, name: str, tables: served.ServedTables | None, serving: Serving | None
    ) -> None:
        self.name, self._tables, self.serving = name, tables, serving

    @cached_property
    def tables(self) -> served.ServedTables:
        if self._tables:
            return self._tables
        from sim.serve.serving import serve
        from sim.serve.session import progress_lines

        serving = self.serving
        assert serving is not None
        with progress_lines(serving.traffic) as progress:
            done = serve(serving, progress)
        if done.interrupted:
            raise KeyboardInterrupt
        return tables_of(done)

    def break_down(self, metric: str) -> Breakdown:
        return served.break_down(self.tables, metric)


Subject = RunSubject | ServeSubject


def subject(ref: str, on: str | None = None, changes: Sequence[str] = ()) -> Subject:
    """A result folder, the TOML of a run or of a serving run, or a model's name; with changes
    (KEY=VALUE) laid over a scenario. Raises InputError."""
    folder = Path(ref)
    if folder.is_dir():
        check_whole(folder)
    if (folder / "summary.json").is_file():
        if changes or on:
            raise InputError(f"{ref}: a result is as it is; changes go with a scenario")
        with as_written(folder):
            served_one = table_path(folder, "requests")
            return serve_folder(folder) if served_one else run_folder(folder)
    return subject_of(*document_of(ref, on, changes))


def document_of(
    ref: str, on: str | None = None, changes: Sequence[str] = ()
) -> tuple[str, dict[str, Any]]:
    """(run or serve, document) of a scenario, also of the one that a run's folder records, with
    changes laid over it."""
    recorded = Path(ref) / "scenario.toml"
    ref = str(recorded) if recorded.is_file() else ref
    kind, base = base_of(ref, on, [], list(changes))
    base.pop("keep_steps", None)
    return kind, changed(kind, base, changes)


def subject_of(kind: str, document: dict[str, Any]) -> Subject:
    """From the document of a scenario."""
    if kind == "run":
        return RunSubject(resolve(convert(document, Scenario, "scenario")))
    from sim.serve.config import Serving

    serving = convert(document, Serving, "scenario")
    what = serving.traffic.trace or serving.traffic.arrivals or ""
    name = f"{serving.model} on {serving.on} · {serving.scheduler} · {Path(what).name}"
    return ServeSubject(name, None, serving)


def run_folder(folder: Path) -> RunSubject:
    """The run that a result folder records, repeated from its resolved input alone.

    Raises InputError if this version does not come to the makespan that is on record.
    """
    resolved = read_document(folder / "resolved.json")
    where = str(folder / "resolved.json")
    try:
        system = resolved["system"]
        links = tuple(convert(link, Link, where) for link in system["links"])
        built = checked(
            where,
            lambda: System(system["name"], system["devices"], tuple(system["switches"]), links),
        )
        device = convert(resolved["device"], Device, where)
        scenario = convert(resolved["scenario"], Scenario, where)
        model = convert(resolved["model"], Model, where)
        precision = convert(resolved["precision"], Precision, where)
    except KeyError as error:
        raise InputError(
            f"{where}: key `{error.args[0]}` is missing; not a result of run"
        ) from None
    name = device.name if not links and system["devices"] == 1 else system["name"]
    passes, context = make_passes(model, scenario.workload)
    machine = Machine(name, built, device)
    one = RunSubject(Resolved(scenario, model, machine, precision, passes, context))
    noted = read_document(folder / "summary.json").get("makespan_ps")
    if one.result.makespan != noted:
        raise InputError(
            f"{folder}: records a makespan of {noted} ps, and this version comes to "
            f"{one.result.makespan} ps (it was written by memorywall "
            f"{resolved.get('memorywall')}); run it again"
        )
    return one


def serve_folder(folder: Path) -> ServeSubject:
    """The tables of a serving run's folder."""
    summary = read_document(folder / "summary.json")
    if summary.get("interrupted"):
        raise InputError(
            f"{folder}: the run was interrupted, and its result is a part; run it again"
        )
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    requests, steps = table_path(folder, "requests"), table_path(folder, "steps")
    assert requests is not None
    parallelism = config["serving"]["parallelism"]
    name = f"{config['model']['name']} on {config['serving']['on']} · {folder.name}"
    return ServeSubject(
        name,
        served.ServedTables(
            read_table(requests),
            read_table(steps) if steps else None,
            summary["account_ps"],
            summary["devices"],
            parallelism["pp"],
        ),
        None,
    )


def tables_of(done: Served) -> served.ServedTables:
    """The tables of a serving run at hand."""
    import polars as pl

    from sim.serve.session import summary

    metrics = summary(done)
    return served.ServedTables(
        done.requests.frame(),
        pl.concat([columns.frame() for columns in done.steps]) if done.steps else None,
        metrics["account_ps"],
        metrics["devices"],
        done.serving.parallelism.pp,
    )
