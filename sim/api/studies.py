"""`sweep`, `recommend`, `compare` and `sensitivity`: questions about many scenarios."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from sim.api.runs import RunResult
from sim.api.scenarios import document_of, grid_texts
from sim.api.served import ServeResult
from sim.api.shown import Plots, Shown
from sim.errors import InputError
from sim.output.export import frame_of
from sim.studies.sweep.fronts import Metric, usable
from sim.studies.sweep.grid import sweep_of
from sim.studies.sweep.levels import BOUNDS
from sim.studies.sweep.recommend import Verdict, splits, verdicts
from sim.studies.sweep.registry import kind_of
from sim.studies.sweep.report import heading, print_sweep
from sim.studies.sweep.session import front_of, sweep_document, write_sweep
from sim.studies.sweep.study import Swept, run_sweep
from sim.studies.sweep.tables import print_verdicts
from sim.studies.whatif.compare import Comparison
from sim.studies.whatif.compare import compare as explain
from sim.studies.whatif.report import (
    described,
    described_sensitivity,
    print_comparison,
    print_sensitivity,
)
from sim.studies.whatif.sensitivity import Sensitivity
from sim.studies.whatif.sensitivity import sensitivity as sense
from sim.studies.whatif.session import table_of
from sim.studies.whatif.subjects import RunSubject, ServeSubject, Subject, subject_of, tables_of

if TYPE_CHECKING:
    import polars as pl
    from rich.console import Console

Grid = Mapping[str, Sequence[Any] | str]


class SweepResult(Shown):
    """The points of a sweep. `swept` holds the request and the rows."""

    schema = "sweep"

    def __init__(self, swept: Swept, objective: str | None, having: str) -> None:
        kind = kind_of(swept.sweep.kind)
        self.swept, self.having = swept, having
        self.objective = Metric(objective or kind.front[1], kind.columns, "objective")
        self.front = front_of(None, kind.front, swept.sweep)

    def __repr__(self) -> str:
        return f"<SweepResult {heading(self.swept)}: {len(self.swept.points):,} points>"

    def show(self, console: Console) -> None:
        """Print what `memorywall sweep` prints."""
        print_sweep(self.swept, console, self.objective, self.front, self.having)

    def content(self) -> Mapping[str, Any]:
        """The request, the points, the front and the best point."""
        return sweep_document(self.swept, self.objective, self.front, self.having)

    def tables(self) -> Mapping[str, Callable[[], pl.DataFrame]]:
        """`points`: one row per point."""
        return {"points": lambda: frame_of(self.swept.table())}

    def save(self, folder: str | Path, table_format: str = "csv", pictures: bool = True) -> None:
        """Write the result folder."""
        front = self.front if pictures else None
        write_sweep(self.swept, Path(folder), table_format, front, self.having)

    @property
    def plot(self) -> Plots:
        """`front()`: all points and the Pareto front."""
        from sim.studies.sweep.plots import draw_front

        good = usable(self.swept.records(), self.having)
        axes = [axis.name for axis in self.swept.sweep.axes]
        return Plots({"front": lambda: draw_front(good, axes, self.front, heading(self.swept))})


class Recommendation(Shown):
    """The splits that were tried, the cheapest that meets the bounds first."""

    schema = "recommend"

    def __init__(self, swept: Swept, bounds: dict[str, float], devices: int) -> None:
        self.swept, self.bounds, self.devices = swept, bounds, devices
        self.verdicts: list[Verdict] = verdicts(swept, bounds)

    def __repr__(self) -> str:
        met = sum(verdict.meets for verdict in self.verdicts)
        return f"<Recommendation {heading(self.swept)}: {met} of {len(self.verdicts)} splits meet>"

    @property
    def best(self) -> dict[str, Any] | None:
        """The cheapest point that meets the bounds; None if none does."""
        first = self.verdicts[0] if self.verdicts else None
        return dict(first.record) if first and first.meets else None

    def show(self, console: Console) -> None:
        """Print what `memorywall recommend` prints."""
        print_verdicts(self.swept, self.verdicts, self.bounds, self.devices, console)

    def content(self) -> Mapping[str, Any]:
        """The bounds, and each split with its cost and why it loses."""
        return {"bounds": self.bounds, "splits": msgspec.to_builtins(self.verdicts)}

    def tables(self) -> Mapping[str, Callable[[], pl.DataFrame]]:
        """`points`: one row per split."""
        return {"points": lambda: frame_of(self.swept.table())}


class ComparisonResult(Shown):
    """A metric before and after, explained state by state. `comparison` holds exact amounts."""

    schema = "compare"

    def __init__(self, comparison: Comparison, names: tuple[str, str]) -> None:
        self.comparison, self.names = comparison, names

    def __repr__(self) -> str:
        return f"<ComparisonResult {self.comparison.sentence()}>"

    def show(self, console: Console) -> None:
        """Print what `memorywall compare` prints."""
        print_comparison(self.comparison, self.names, console)

    def content(self) -> Mapping[str, Any]:
        """Both totals, the change, and its parts."""
        return described(self.comparison, self.names)

    def tables(self) -> Mapping[str, Callable[[], pl.DataFrame]]:
        """`causes`: one row per state and class of operators, picoseconds."""
        return {"causes": lambda: frame_of(table_of(self.comparison))}

    @property
    def plot(self) -> Plots:
        """`waterfall()`."""
        from sim.studies.whatif.plots import draw_waterfall

        return Plots({"waterfall": lambda: draw_waterfall(self.comparison, self.names)})


class SensitivityResult(Shown):
    """What a metric depends on. `sensitivity` holds exact amounts."""

    schema = "sensitivity"

    def __init__(self, result: Sensitivity) -> None:
        self.sensitivity = result

    def __repr__(self) -> str:
        return f"<SensitivityResult {self.sensitivity.sentence()}>"

    def show(self, console: Console) -> None:
        """Print what `memorywall sensitivity` prints."""
        print_sensitivity(self.sensitivity, console)

    def content(self) -> Mapping[str, Any]:
        """The elasticity of each resource, and the metric if it were free."""
        return described_sensitivity(self.sensitivity)

    def tables(self) -> Mapping[str, Callable[[], pl.DataFrame]]:
        """`resources`: one row per resource."""
        import polars as pl

        rows = [{k: v for k, v in row.items() if k != "values"} for row in self._rows()]
        return {"resources": lambda: pl.DataFrame(rows, infer_schema_length=None)}

    def _rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = described_sensitivity(self.sensitivity)["resources"]
        return rows

    @property
    def plot(self) -> Plots:
        """`tornado()`."""
        from sim.studies.whatif.tornado import draw_tornado

        return Plots({"tornado": lambda: draw_tornado(self.sensitivity)})


def sweep(
    scenario: Any,
    grid: Grid,
    *,
    on: str | None = None,
    where: str = "",
    having: str = "",
    objective: str | None = None,
    folder: str | Path | None = None,
    workers: int | None = None,
    **keys: Any,
) -> SweepResult:
    """Every point of a grid: `sweep("gpt2", {"batch": [1, 2, 4]}, on="l4")`.

    grid: values by key, or a range such as "1:64:x2". keys: as for `run` and `serve`, which the
    keys and the grid decide between. folder: of an earlier sweep, which continues. Raises
    InputError; KeyboardInterrupt where Ctrl-C ended it early.
    """
    texts = grid_texts(grid)
    kind, document = document_of(scenario, on, keys, grids=texts)
    swept = run_sweep(
        sweep_of(kind, document, texts, where),
        folder=Path(folder) if folder else None,
        workers=workers,
    )
    if swept.interrupted:
        raise KeyboardInterrupt
    return SweepResult(swept, objective, having)


def recommend(
    scenario: Any,
    devices: int,
    *,
    on: str | None = None,
    ttft_s: float | None = None,
    tpot_s: float | None = None,
    e2e_s: float | None = None,
    **keys: Any,
) -> Recommendation:
    """The cheapest split over at most so many devices that meets the bounds, in seconds."""
    given = zip(BOUNDS, (ttft_s, tpot_s, e2e_s), strict=True)
    bounds = {name: bound for name, bound in given if bound is not None}
    if not bounds or not all(bound > 0 for bound in bounds.values()):
        raise InputError("recommend: give ttft_s, tpot_s or e2e_s, in seconds above 0")
    kind, document = document_of(scenario, on, keys)
    if kind == "serve":
        document["slo"] = {**(document.get("slo") or {}), **bounds}
    swept = run_sweep(splits(kind, document, (), devices))
    if swept.interrupted:
        raise KeyboardInterrupt
    return Recommendation(swept, bounds, devices)


def compare(before: Any, after: Any, metric: str | None = None) -> ComparisonResult:
    """Explain the difference between two results of `run` or `serve`, or two scenarios.

    metric: tpot, ttft, e2e, makespan, or pass:N; the usual one of both if None.
    """
    first, second = _subject(before), _subject(after)
    if first.kind != second.kind:
        raise InputError(f"compare: one is a {first.kind}, the other a {second.kind}")
    usual = first.default if first.default == second.default else "makespan"
    name = metric or usual
    comparison = explain(first.break_down(name), second.break_down(name))
    return ComparisonResult(comparison, (first.name, second.name))


def sensitivity(
    scenario: Any, metric: str | None = None, *, on: str | None = None, **keys: Any
) -> SensitivityResult:
    """The elasticity of a metric by each resource, and its value if the resource were free."""
    kind, document = document_of(scenario, on, keys)
    return SensitivityResult(sense(kind, document, metric))


def _subject(one: Any) -> Subject:
    """A result at hand, or a scenario that is still to be simulated."""
    if isinstance(one, RunResult):
        subject = RunSubject(one.resolved)
        subject.result = one
        return subject
    if isinstance(one, ServeResult):
        return ServeSubject(repr(one), tables_of(one.served), None)
    return subject_of(*document_of(one, None, {}))
