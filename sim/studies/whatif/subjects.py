"""What is compared: result folders and scenarios, of a run or of a serving run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim.errors import InputError, shortened
from sim.inputs.documents import convert
from sim.output.folder import check_whole
from sim.output.plots.style import title
from sim.output.progress import progress_bar
from sim.output.reading import table_path
from sim.scenario import Resolved, Scenario, resolve
from sim.simulation import Result, simulate
from sim.studies.sweep.session import base_of
from sim.studies.whatif import runs, served
from sim.studies.whatif.folders import recorded_run, recorded_tables
from sim.studies.whatif.parts import Breakdown

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
        return serve_folder(folder) if table_path(folder, "requests") else run_folder(folder)
    return subject_of(*document_of(ref, on, changes))


def document_of(
    ref: str, on: str | None = None, changes: Sequence[str] = ()
) -> tuple[str, dict[str, Any]]:
    """(run or serve, document) of a scenario, also of the one that a run's folder records, with
    changes laid over it."""
    recorded = Path(ref) / "scenario.toml"
    ref = str(recorded) if recorded.is_file() else ref
    kind, base = base_of(ref, on, changes, [])
    base.pop("keep_steps", None)
    return kind, base


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
    resolved, noted, version = recorded_run(folder)
    one = RunSubject(resolved)
    if one.result.makespan != noted:
        raise InputError(
            f"{folder}: records a makespan of {noted} ps, and this version comes to "
            f"{one.result.makespan} ps (it was written by memorywall {shortened(version)}); run it "
            "again"
        )
    return one


def serve_folder(folder: Path) -> ServeSubject:
    """The tables of a serving run's folder."""
    name, tables = recorded_tables(folder)
    return ServeSubject(name, tables, None)


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
