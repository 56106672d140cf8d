"""Serve a stream of requests: the configuration, the run, and what it leaves."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from sim.catalogue import Value
from sim.clock import ticks
from sim.errors import InputError, hint
from sim.inputs import checked
from sim.mapping import Parallelism, check_devices
from sim.scenario import Resolved, Scenario, resolve
from sim.serve.columns import RequestColumns, StepColumns
from sim.serve.live import Finished, Outcome, StepRow
from sim.serve.memory import Blocks, Capacity, kv_capacity
from sim.serve.pipelined import PipelinedReplica
from sim.serve.policies import ORDERS, policy
from sim.serve.pricing import Pricer
from sim.serve.replica import Knobs, Replica
from sim.serve.routing import Feedback, dispatch, router
from sim.serve.summary import Slo
from sim.traces import read_trace
from workloads.block import Lowering
from workloads.model import Record
from workloads.request import Request
from workloads.synthetic import ClosedLoop, parse_arrivals, parse_lengths, synthetic

Positive = Annotated[int, msgspec.Meta(gt=0, le=2**31)]
# Below this many requests a second process costs more than it saves.
WORTH_PROCESSES = 20_000


class Traffic(Record, frozen=True, kw_only=True):
    """Where requests come from: a trace file, or an arrival process with lengths.

    With a trace, `arrivals` replaces its times. `window` is in seconds of the trace's clock.
    """

    trace: str | None = None
    arrivals: str | None = None
    prompt: str = "fixed:512"
    output: str = "fixed:128"
    num_requests: Positive = 1000
    window: tuple[float, float] | None = None
    rate_scale: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    limit: Positive | None = None
    shuffle: bool = False
    on_bad_row: Literal["fail", "skip"] = "fail"


class Serving(Record, frozen=True, kw_only=True):
    """Everything that decides a serving run.

    host_time_us is what the engine's host adds to every step: 0 to 2000 in engines of 2025,
    25,000 to 40,000 in vLLM of 2023 (../shared/reference/accuracy.md point 9).
    """

    model: str
    on: str
    traffic: Traffic = msgspec.field(default_factory=Traffic)
    scheduler: str = "chunked"
    order: str = "fcfs"
    router: str = "round-robin"
    replicas: Positive = 1
    parallelism: Parallelism = msgspec.field(default_factory=Parallelism)
    lowering: Lowering = msgspec.field(default_factory=Lowering)
    knobs: Knobs = msgspec.field(default_factory=Knobs)
    slo: Slo = msgspec.field(default_factory=Slo)
    dtype: str | None = None
    kv_dtype: str | None = None
    gpu_memory_utilization: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.9
    kv_blocks: Positive | None = None
    host_time_us: Annotated[float, msgspec.Meta(ge=0, le=1e9)] = 0.0
    shortcuts: bool = True
    keep_steps: bool = True
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 42
    set: dict[str, Value] = msgspec.field(default_factory=dict)


class Served(msgspec.Struct):
    """What a run left. `refused` are requests that can never fit, by index."""

    serving: Serving
    resolved: Resolved
    capacity: Capacity
    requests: RequestColumns
    steps: list[StepColumns]
    outcomes: list[Outcome]
    refused: list[int]
    skipped: int
    failures: int  # requests that the trace itself records as failed
    reasons: tuple[str, ...]
    interrupted: bool
    scratch: tempfile.TemporaryDirectory[str] | None = None  # parts that did not stay in memory

    @property
    def makespan(self) -> int:
        """Ticks until the last replica fell silent."""
        return max((o.end for o in self.outcomes), default=0)


Progress = Callable[[int, float], None]  # (finished requests, simulated seconds)


def serve(serving: Serving, progress: Progress | None = None) -> Served:
    """Serve the traffic. Ctrl-C ends the run early; what is finished is returned."""
    setup = Setup(serving)
    independent = serving.router == "round-robin" and not setup.feedback
    cores = min(os.cpu_count() or 1, serving.replicas)
    if independent and cores > 1 and setup.expected() >= WORTH_PROCESSES:
        return _in_processes(setup, cores, progress)
    with interruptible() as stop:
        shard = setup.run(list(range(serving.replicas)), progress, stop)
    return setup.served([shard])


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C raises a flag that is looked at between steps, so that every account is whole;
    a second one ends the program."""
    asked: list[bool] = []

    def note(*_: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(True)

    try:
        before = signal.signal(signal.SIGINT, note)
    except ValueError:  # not in the main thread: nobody can press Ctrl-C here
        yield lambda: False
        return
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)


class Shard(msgspec.Struct):
    """What some of the replicas did."""

    requests: RequestColumns
    steps: list[StepColumns]
    outcomes: list[Outcome]
    refused: list[int]
    skipped: int
    failures: int
    reasons: tuple[str, ...]
    interrupted: bool


class Setup:
    """A configuration made ready: names looked up, memory reckoned, policies found."""

    def __init__(self, serving: Serving) -> None:
        self.serving = serving
        split = serving.parallelism
        if split.dp > 1 or split.microbatches > 1:
            raise InputError("serving takes replicas for dp, and makes its own micro-batches")
        self.resolved = resolve(
            Scenario(
                model=serving.model,
                on=serving.on,
                parallelism=split,
                lowering=serving.lowering,
                dtype=serving.dtype,
                kv_dtype=serving.kv_dtype,
                seed=serving.seed,
                set=serving.set,
            )
        )
        machine, model = self.resolved.machine, self.resolved.model
        if model.encoder and model.decoder:
            raise InputError(f"{model.name}: encoder-decoders cannot be served yet; use run")
        check_devices(split, len(machine.system.devices), machine.name)
        knobs = serving.knobs
        self.capacity = kv_capacity(
            self.resolved,
            knobs.max_num_batched_tokens,
            serving.gpu_memory_utilization,
            knobs.block_size,
        )
        if serving.kv_blocks:
            self.capacity = msgspec.structs.replace(
                self.capacity, blocks=serving.kv_blocks, asked=True
            )
        if serving.order not in ORDERS:
            raise InputError(f"order {serving.order!r} is not known{hint(serving.order, ORDERS)}")
        policy(serving.scheduler)
        self.route = router(serving.router)
        traffic = serving.traffic
        self.arrivals = (
            checked("--arrivals", lambda: parse_arrivals(traffic.arrivals or ""))
            if traffic.arrivals
            else None
        )
        if traffic.trace is None and self.arrivals is None:
            raise InputError("give a --trace FILE or --arrivals, e.g. poisson:4")
        self.trace = (
            read_trace(
                traffic.trace,
                on_bad_row=traffic.on_bad_row,
                window=traffic.window,
                rate_scale=traffic.rate_scale,
                limit=traffic.limit,
                shuffle_seed=serving.seed if traffic.shuffle else None,
                arrivals=self.arrivals,
                seed=serving.seed,
            )
            if traffic.trace
            else None
        )
        self.closed = self.arrivals if isinstance(self.arrivals, ClosedLoop) else None
        form = self.trace.format if self.trace else ""
        if self.closed is not None and form == "llmservingsim":
            raise InputError("sessions have an order and pauses of their own; leave closed:N away")
        self.feedback = self.closed is not None or form == "llmservingsim"
        unused = [
            name
            for name in ("window", "rate_scale", "limit", "shuffle")
            if self.trace is None and getattr(traffic, name) != getattr(Traffic(), name)
        ]
        if unused:
            raise InputError(f"{', '.join(unused)}: said of a trace, but no --trace is given")

    def expected(self) -> int:
        """A guess at the number of requests."""
        traffic = self.serving.traffic
        if traffic.trace is None:
            return traffic.num_requests
        # A row of the shortest format takes about 40 bytes.
        return min(traffic.limit or 2**62, Path(traffic.trace).stat().st_size // 40)

    def requests(self) -> Iterator[Request]:
        """The stream, anew at each call."""
        traffic, serving = self.serving.traffic, self.serving
        if self.trace is not None:
            found = iter(self.trace)
        else:
            assert self.arrivals is not None
            prompt = checked("--prompt", lambda: parse_lengths(traffic.prompt))
            output = checked("--output", lambda: parse_lengths(traffic.output))
            encoder = self.resolved.model.decoder is None
            arrivals = self.arrivals
            found = checked(
                "--prompt and --output",
                lambda: synthetic(
                    traffic.num_requests,
                    arrivals,
                    prompt,
                    None if encoder else output,
                    serving.seed,
                ),
            )
        if self.resolved.model.decoder is None:
            return (msgspec.structs.replace(q, output=0) for q in found)
        return found

    def replica(
        self,
        number: int,
        pricer: Pricer,
        on_step: Callable[[StepRow], None] | None,
        on_finish: Callable[[Finished], None],
    ) -> Replica:
        """A fresh replica."""
        serving, knobs = self.serving, self.serving.knobs
        kind = PipelinedReplica if serving.parallelism.pp > 1 else Replica
        made = kind(
            pricer,
            policy(serving.scheduler),
            knobs,
            Blocks(self.capacity.blocks, knobs.block_size, knobs.enable_prefix_caching),
            host=ticks(serving.host_time_us * 1e-6),
            order=ORDERS[serving.order],
            number=number,
            leap=serving.shortcuts,
            on_step=on_step,
            on_finish=on_finish,
        )
        made.kv_bytes = self.capacity.block_bytes
        return made

    def run(
        self,
        numbers: list[int],
        progress: Progress | None,
        stop: Callable[[], bool],
        folder: Path | None = None,
    ) -> Shard:
        """Run some of the replicas on their part of the stream; with a `folder`, rows beyond
        what a chunk holds are kept there instead of in memory."""
        serving = self.serving
        requests, refused = RequestColumns(), list[int]()
        steps = [StepColumns(n) for n in numbers] if serving.keep_steps else []
        if folder:
            requests.spill(folder / f"requests-{numbers[0]}")
            for columns in steps:
                columns.spill(folder / f"steps-{columns.replica}")
        totals = {n: [0, 0] for n in numbers}

        def finished(row: Finished) -> None:
            requests.append(row)
            totals[row.replica][0] += row.prompt
            totals[row.replica][1] += row.output
            if progress and not len(requests) & 255:
                progress(len(requests), row.last_token * 1e-12)

        pricer = Pricer(self.resolved, exact_graph=not serving.shortcuts)
        replicas = [
            self.replica(n, pricer, steps[i].append if steps else None, finished)
            for i, n in enumerate(numbers)
        ]
        stream = self.requests()
        whole = len(numbers) == serving.replicas

        def refuse(request: Request) -> None:
            refused.append(request.index)

        for one in replicas:
            one.stop = stop
        if self.feedback:
            closed = self.closed
            Feedback(
                iter(stream),
                replicas,
                self.route,
                refuse,
                closed.concurrency if closed else None,
                ticks(closed.think_s) if closed else 0,
            ).run(stop)
        elif serving.router == "round-robin":
            self._separately(stream, replicas, refuse, stop)
        else:
            dispatch(stream, replicas, self.route, refuse, stop)
        outcomes = [r.outcome(*totals[r.number]) for r in replicas]
        trace = self.trace
        return Shard(
            requests,
            steps,
            outcomes,
            refused,
            trace.skipped if trace and (whole or 0 in numbers) else 0,
            trace.failures if trace and (whole or 0 in numbers) else 0,
            trace.reasons if trace and (whole or 0 in numbers) else (),
            stop(),
        )

    def _separately(
        self,
        stream: Iterator[Request],
        replicas: list[Replica],
        refuse: Callable[[Request], None],
        stop: Callable[[], bool],
    ) -> None:
        """Round robin: a replica never looks at another, so each runs to its own arrivals."""
        mine = {r.number: r for r in replicas}
        total = self.serving.replicas
        for request in stream:
            if stop():
                return
            one = mine.get(request.index % total)
            if one is None:
                continue
            one.run_until(request.arrival)
            if not one.push(request):
                refuse(request)
        for one in replicas:
            one.drain()

    def served(self, shards: list[Shard]) -> Served:
        """Shards put together."""
        first = shards[0].requests
        for shard in shards[1:]:
            first.absorb(shard.requests)
        return Served(
            self.serving,
            self.resolved,
            self.capacity,
            first,
            sorted(chain.from_iterable(s.steps for s in shards), key=lambda c: c.replica),
            sorted(chain.from_iterable(s.outcomes for s in shards), key=lambda o: o.number),
            sorted(chain.from_iterable(s.refused for s in shards)),
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
                    progress(*_told(Path(scratch.name)))
        except KeyboardInterrupt:
            flag.touch()
        shards = [job.result() for job in jobs]
    served = setup.served(shards)
    served.scratch = scratch
    return served


def _told(folder: Path) -> tuple[int, float]:
    """What the workers last wrote of their progress, put together."""
    finished, simulated = 0, 0.0
    for path in folder.glob("progress-*"):
        count, _, at = path.read_text().partition(" ")
        finished, simulated = finished + int(count or 0), max(simulated, float(at or 0))
    return finished, simulated


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _work(serving: Serving, numbers: list[int], scratch: str) -> Shard:
    folder, flag = Path(scratch), os.path.join(scratch, "stop")
    calls = 0

    def stop() -> bool:  # asked between steps; the file system is asked now and then
        nonlocal calls
        calls += 1
        return not calls & 255 and os.path.exists(flag)

    told = 0.0

    def tell(finished: int, simulated: float) -> None:
        nonlocal told
        if time.monotonic() - told > 0.5:
            told = time.monotonic()
            (folder / f"progress-{numbers[0]}").write_text(f"{finished} {simulated}")

    return Setup(serving).run(numbers, tell, sticky(stop), folder)


def sticky(asked: Callable[[], bool]) -> Callable[[], bool]:
    """Once true, always true."""
    found = False

    def stop() -> bool:
        nonlocal found
        found = found or asked()
        return found

    return stop
