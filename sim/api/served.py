"""`serve`: a stream of requests, and its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim.api.scenarios import document_of
from sim.api.shown import Plots, Shown
from sim.inputs.documents import convert
from sim.serve import serving as serving_module
from sim.serve.config import Serving
from sim.serve.output import ServeFiles
from sim.serve.serving import Served
from sim.serve.session import (
    heading,
    record_of,
    serve_document,
    show_served,
    summary,
    ticks_of,
    write_result,
)

if TYPE_CHECKING:
    import polars as pl
    from rich.console import Console


class ServeResult(Shown):
    """A finished serving run that shows itself. `served` holds its records."""

    schema = "serve"

    def __init__(self, served: Served) -> None:
        self.served = served

    def __repr__(self) -> str:
        count, seconds = self.summary["requests"], self.summary["makespan_s"]
        return f"<ServeResult {heading(self.served)}: {count:,} requests in {seconds:.4g} s>"

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The numbers of `summary.json`."""
        return summary(self.served)

    def show(self, console: Console) -> None:
        """Print what `memorywall serve` prints."""
        show_served(self.served, self.summary, console)

    def content(self) -> Mapping[str, Any]:
        """The scenario and the summary."""
        return serve_document(self.served, self.summary)

    def tables(self) -> Mapping[str, Callable[[], pl.DataFrame]]:
        """`requests` and, where they were kept, `steps`."""
        import polars as pl

        tables: dict[str, Callable[[], pl.DataFrame]] = {"requests": self.served.requests.frame}
        if self.served.steps:
            tables["steps"] = lambda: pl.concat([c.frame() for c in self.served.steps])
        return tables

    def save(
        self,
        folder: str | Path,
        table_format: str = "csv",
        pictures: bool = True,
        trace_window: tuple[float, float] | None = None,
    ) -> list[Path]:
        """Write the result folder, with a Perfetto trace of `trace_window` (seconds)."""
        bounds = self.served.serving.slo.bounds
        window = ticks_of(trace_window)
        files = ServeFiles(table_format, pictures, heading(self.served), window, bounds)
        return write_result(self.served, self.summary, Path(folder), files)

    @property
    def plot(self) -> Plots:
        """`latencies()`, `requests()` and, where the steps were kept, `time()`."""
        from sim.serve.plots import draw_latencies, draw_requests, draw_time

        served, name = self.served, heading(self.served)
        pictures: dict[str, Callable[..., Any]] = {
            "latencies": lambda: draw_latencies(served.requests, name, served.serving.slo.bounds),
            "requests": lambda: draw_requests(served.requests, name),
        }
        if served.steps:
            end = self.summary["makespan_ps"]
            pictures["time"] = lambda: draw_time(record_of(served), end, name)
        return Plots(pictures)


def serve(scenario: Serving | str, *, on: str | None = None, **keys: Any) -> ServeResult:
    """Serve requests: `serve("gpt2", on="l4", arrivals="poisson:20", num_requests=200)`.

    keys: every key of a serving run, and `set`, as for `run`. Raises InputError, Infeasible or
    OutOfMemory; KeyboardInterrupt where Ctrl-C ended it early.
    """
    if not isinstance(scenario, Serving) or on or keys:
        _, document = document_of(scenario, on, keys, kind="serve")
        scenario = convert(document, Serving, "serve")
    served = serving_module.serve(scenario)
    if served.interrupted:
        raise KeyboardInterrupt
    return ServeResult(served)
