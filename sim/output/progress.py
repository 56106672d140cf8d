"""A progress bar on the error stream, for runs that take long."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sim.simulation import Progress

LONG_RUN = {"passes planned": 1000, "tasks simulated": 100_000}


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
