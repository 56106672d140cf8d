"""Serve a stream of requests: in this process, or independent replicas over the cores."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, wait
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

import msgspec

from sim.scenario import Resolved
from sim.serve.columns import RequestColumns, StageColumns, StepColumns
from sim.serve.config import Serving
from sim.serve.live import MOST_REFUSED, Outcome, Refused
from sim.serve.memory import Capacity
from sim.serve.setup import Setup
from sim.serve.shard import Progress, Reached, Shard, run_shard

# Below so many requests, another process costs more than it saves.
WORTH_PROCESSES = 20_000


class Served(msgspec.Struct):
    """What a run left. `refused` are the first of the requests that can never fit."""

    serving: Serving
    resolved: Resolved
    capacity: Capacity
    requests: RequestColumns
    steps: list[StepColumns]
    stages: list[StageColumns]  # none with one pipeline stage, where steps say it all
    outcomes: list[Outcome]
    refused: list[Refused]
    skipped: int
    failures: int  # requests that the trace itself records as failed
    reasons: tuple[str, ...]
    interrupted: bool
    scratch: tempfile.TemporaryDirectory[str] | None = None  # parts that did not stay in memory

    @property
    def refusals(self) -> int:
        """How many requests can never fit."""
        return sum(o.refused for o in self.outcomes)

    @property
    def makespan(self) -> int:
        """Ticks until the last replica finished."""
        return max((o.end for o in self.outcomes), default=0)


def serve(serving: Serving, progress: Progress | None = None) -> Served:
    """Serve the traffic. Ctrl-C ends the run early; what is finished is returned."""
    setup = Setup(serving)
    serving = setup.serving
    independent = serving.router == "round-robin" and not setup.source.feedback
    cores = min(os.cpu_count() or 1, serving.replicas)
    if independent and cores > 1 and setup.source.expected() >= WORTH_PROCESSES:
        with suppress(OSError, NotImplementedError, BrokenExecutor):  # go on in this process
            return _in_processes(setup, cores, progress)
    # Beyond that many requests rows go to parts on disk, so that memory stays bounded.
    long = setup.source.expected() >= WORTH_PROCESSES
    scratch = tempfile.TemporaryDirectory(prefix="memorywall-") if long else None
    folder = Path(scratch.name) if scratch else None
    with interruptible() as stop:
        shard = run_shard(setup, list(range(serving.replicas)), progress, stop, folder)
    served = put_together(setup, [shard])
    served.scratch = scratch
    return served


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C raises a flag that is looked at between steps, so that every account is whole;
    a second one ends the program."""
    interrupts: list[bool] = []

    def note(*_: object) -> None:
        if interrupts:
            raise KeyboardInterrupt
        interrupts.append(True)

    try:
        before = signal.signal(signal.SIGINT, note)
    except ValueError:  # not in the main thread: nobody can press Ctrl-C here
        yield lambda: False
        return
    try:
        yield lambda: bool(interrupts)
    finally:
        signal.signal(signal.SIGINT, before)


def put_together(setup: Setup, shards: list[Shard]) -> Served:
    """Shards put together."""
    first = shards[0].requests
    for shard in shards[1:]:
        first.absorb(shard.requests)
    return Served(
        setup.serving,
        setup.resolved,
        setup.capacity,
        first,
        sorted(chain.from_iterable(s.steps for s in shards), key=lambda c: c.replica),
        sorted(chain.from_iterable(s.stages for s in shards), key=lambda c: c.replica),
        sorted(chain.from_iterable(s.outcomes for s in shards), key=lambda o: o.number),
        sorted(chain.from_iterable(s.refused for s in shards), key=lambda r: r.index)[
            :MOST_REFUSED
        ],
        sum(s.skipped for s in shards),
        sum(s.failures for s in shards),
        tuple(chain.from_iterable(s.reasons for s in shards)),
        any(s.interrupted for s in shards),
    )


def _in_processes(setup: Setup, cores: int, progress: Progress | None) -> Served:
    """Independent replicas over the cores. A stop file tells the workers of Ctrl-C."""
    numbers = list(range(setup.serving.replicas))
    scratch = tempfile.TemporaryDirectory(prefix="memorywall-")
    flag = Path(scratch.name) / "stop"
    with ProcessPoolExecutor(cores, initializer=_ignore_interrupts) as pool:
        jobs = [
            pool.submit(_work, setup.serving, numbers[i::cores], scratch.name) for i in range(cores)
        ]
        try:
            while wait(jobs, timeout=0.5).not_done:
                if progress:
                    progress(_reached(Path(scratch.name)))
        except KeyboardInterrupt:
            flag.touch()
        try:
            shards = [job.result() for job in jobs]
        except BrokenExecutor:
            if flag.exists():  # the signal that stopped this run ended its workers, too
                raise KeyboardInterrupt from None
            raise
    served = put_together(setup, shards)
    served.scratch = scratch
    return served


def _reached(folder: Path) -> Reached:
    """What the workers last wrote of their progress, put together."""
    parts = [Reached(0, 0.0, 0)]
    for path in folder.glob("progress-*"):
        with suppress(ValueError, TypeError):  # a file that is being written
            count, simulated, bytes_read = path.read_text().split()
            parts.append(Reached(int(count), float(simulated), int(bytes_read)))
    return Reached(
        sum(p.finished for p in parts),
        max(p.simulated for p in parts),
        max(p.bytes_read for p in parts),
    )


def _ignore_interrupts() -> None:
    """Leave signals to the parent, which tells the workers by a file."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _work(serving: Serving, numbers: list[int], scratch: str) -> Shard:
    folder, flag = Path(scratch), os.path.join(scratch, "stop")
    calls = 0

    def stop() -> bool:  # called between steps; it looks at the file system once in 256 calls
        nonlocal calls
        calls += 1
        return not calls & 255 and os.path.exists(flag)

    last = 0.0

    def tell(at: Reached) -> None:
        nonlocal last
        if time.monotonic() - last > 0.5:
            last = time.monotonic()
            (folder / f"progress-{numbers[0]}").write_text(" ".join(map(str, at)))

    return run_shard(Setup(serving), numbers, tell, sticky(stop), folder)


def sticky(condition: Callable[[], bool]) -> Callable[[], bool]:
    """Once true, always true."""
    held = False

    def stop() -> bool:
        nonlocal held
        held = held or condition()
        return held

    return stop
