"""Some of the replicas of a deployment, run on an engine of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from sim.clock import seconds, ticks
from sim.engine.processes import Engine
from sim.serve.arrivals import Feedback, OpenStream, Refuse, RoundRobin
from sim.serve.columns import RequestColumns, StageColumns, StepColumns
from sim.serve.live import MOST_REFUSED, Finished, Outcome, Refused
from sim.serve.pricing import Pricer
from sim.serve.replica import Recorder, Replica
from sim.serve.setup import Setup
from workloads.request import Request


class Reached(NamedTuple):
    """How far a run is: finished requests, simulated seconds, bytes of the trace's file read."""

    finished: int
    simulated: float
    bytes_read: int


Progress = Callable[[Reached], None]


class Shard(msgspec.Struct):
    """What some of the replicas did."""

    requests: RequestColumns
    steps: list[StepColumns]
    stages: list[StageColumns]
    outcomes: list[Outcome]
    refused: list[Refused]
    skipped: int
    failures: int
    reasons: tuple[str, ...]
    interrupted: bool


def run_shard(
    setup: Setup,
    numbers: list[int],
    progress: Progress | None,
    stop: Callable[[], bool],
    folder: Path | None = None,
) -> Shard:
    """Run the replicas `numbers` on their part of the stream.

    stop: whether to break off, checked between steps. folder: rows beyond those of a chunk are
    kept there instead of in memory.
    """
    serving = setup.serving
    requests, refused = RequestColumns(), list[Refused]()
    steps = [StepColumns(n) for n in numbers] if serving.keep_steps else []
    piped = serving.keep_steps and serving.parallelism.pp > 1
    stages = [StageColumns(n) for n in numbers] if piped else []
    if folder:
        requests.spill(folder / f"requests-{numbers[0]}")
        for columns in (*steps, *stages):
            columns.spill(folder / columns.stem)
    tokens = {n: [0, 0] for n in numbers}
    trace = setup.source.trace
    at = Reached(0, 0.0, 0)

    def read(bytes_read: int) -> None:
        nonlocal at
        at = at._replace(bytes_read=bytes_read)
        if progress:
            progress(at)

    if trace and progress:
        trace.file.watch = read

    def finished(row: Finished) -> None:
        nonlocal at
        requests.append(row)
        tokens[row.replica][0] += row.prompt
        tokens[row.replica][1] += row.output
        if progress and not len(requests) & 255:
            at = Reached(len(requests), seconds(row.last_token), at.bytes_read)
            progress(at)

    def refuse(request: Request) -> None:
        if len(refused) < MOST_REFUSED:
            refused.append(Refused(request.index, request.id, request.prompt + request.output))

    pricer = Pricer(setup.resolved, exact_graph=not serving.shortcuts)
    replicas = []
    for i, number in enumerate(numbers):
        on_step = steps[i].append if steps else None
        recorder = Recorder(on_step, finished, stages[i].add if stages else None)
        replicas.append(setup.replica(number, pricer, recorder))
        replicas[-1].stop = stop
    engine = Engine()
    arrivals_of(setup, replicas, refuse).start(engine, setup.source)
    engine.run()
    if 0 not in numbers:
        trace = None  # one shard tells of the trace
    return Shard(
        requests,
        steps,
        stages,
        [r.outcome(*tokens[r.number]) for r in replicas],
        refused,
        trace.skipped if trace else 0,
        trace.failures if trace else 0,
        trace.reasons if trace else (),
        stop(),
    )


def arrivals_of(
    setup: Setup, replicas: list[Replica], refuse: Refuse
) -> Feedback | OpenStream | RoundRobin:
    """How the requests of a run come to the replicas."""
    serving, source = setup.serving, setup.source
    if source.feedback:
        closed = source.closed
        users = closed.concurrency if closed else None
        think = ticks(closed.think_s) if closed else 0
        return Feedback(replicas, setup.route, refuse, users, think)
    if serving.router == "round-robin":
        return RoundRobin(replicas, serving.replicas, refuse)
    return OpenStream(replicas, setup.route, refuse)
