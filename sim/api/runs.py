"""`run`: a static point, and its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim import simulation
from sim.api.scenarios import document_of
from sim.api.shown import Plots, Shown
from sim.inputs.documents import convert
from sim.output.export import frame_of, run_document, write_result
from sim.output.report import print_result, title
from sim.output.tables import operators, passes, time_account
from sim.scenario import Resolved, Scenario
from sim.simulation import Progress, Result

if TYPE_CHECKING:
    import polars as pl
    from rich.console import Console


class RunResult(Result, Shown):
    """A finished run that shows itself."""

    schema = "run"

    def __repr__(self) -> str:
        metrics = self.metrics
        return f"<RunResult {title(self)}: {metrics.makespan_s * 1e3:.4g} ms>"

    def show(self, console: Console) -> None:
        """Print what `memorywall run` prints, without the runs in which a resource is free."""
        print_result(self, console, counterfactual=False)

    def content(self) -> Mapping[str, Any]:
        """The scenario, the summary, and the account by phase and class."""
        return run_document(self)

    def tables(self) -> Mapping[str, Callable[[], pl.DataFrame]]:
        """`operators`, `account` and `passes`, as in the result folder."""
        return {
            "operators": lambda: frame_of(operators(self)),
            "account": lambda: frame_of(time_account(self)),
            "passes": lambda: frame_of(passes(self)),
        }

    def save(self, folder: str | Path, **options: Any) -> list[Path]:
        """Write the result folder; the options are those of `sim.output.export.write_result`."""
        return write_result(self, Path(folder), **options)

    @property
    def plot(self) -> Plots:
        """`timeline()`, `account()`, `roofline()`, and `view(View(...))` of a part of the run."""
        from sim.output.plots.account import draw_account
        from sim.output.plots.roofline import draw_roofline
        from sim.output.plots.timeline import draw_timeline
        from sim.output.plots.timeline_view import draw_view

        draws: dict[str, Callable[..., Any]] = {
            "timeline": draw_timeline,
            "account": draw_account,
            "roofline": draw_roofline,
            "view": draw_view,
        }
        return Plots({name: _bound(draw, self) for name, draw in draws.items()})


def _bound(draw: Callable[..., Any], result: Result) -> Callable[..., Any]:
    def drawn(*args: Any, **options: Any) -> Any:
        return draw(result, *args, **options)

    drawn.__doc__ = draw.__doc__
    return drawn


def shown(result: Result) -> RunResult:
    """A result of `sim.simulation` that shows itself."""
    return RunResult(result.resolved, result.record, result.memory, result.rewrite)


def run(
    scenario: Scenario | str,
    progress: Progress | None = None,
    *,
    on: str | None = None,
    **keys: Any,
) -> RunResult:
    """Simulate a scenario, or a model by name with keys: `run("gpt2", on="l4", batch=8)`.

    keys: every key of a scenario, and `set`, a mapping of hardware and model keys to values or
    factors: `set={"hbm.bandwidth_GBps": "*2"}`. Raises InputError, Infeasible or OutOfMemory.
    """
    if not isinstance(scenario, Scenario) or on or keys:
        _, document = document_of(scenario, on, keys, kind="run")
        scenario = convert(document, Scenario, "run")
    return shown(simulation.run(scenario, progress))


def simulate(resolved: Resolved, **options: Any) -> RunResult:
    """Simulate a resolved scenario, made by `sim.assemble` from parts; the options are those of
    `sim.simulation.simulate`."""
    return shown(simulation.simulate(resolved, **options))
