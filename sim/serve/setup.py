"""A serving run made ready, and the running of some of its replicas."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec

from sim.clock import ticks
from sim.errors import InputError, hint
from sim.inputs.documents import checked
from sim.inputs.traces import read_trace
from sim.mapping.parallelism import check_devices
from sim.scenario import Scenario, resolve
from sim.serve.columns import RequestColumns, StageColumns, StepColumns
from sim.serve.config import Serving, Traffic
from sim.serve.host import host_of, load_engine
from sim.serve.live import Finished, Outcome, Refused, StageRow, StepRow
from sim.serve.memory import Blocks, kv_capacity
from sim.serve.pipelined import PipelinedReplica
from sim.serve.policies import ORDERS, policy
from sim.serve.pricing import Pricer
from sim.serve.replica import Replica
from sim.serve.routing import Feedback, dispatch, router
from workloads.request import Request
from workloads.synthetic import (
    ClosedLoop,
    Constant,
    Empirical,
    Lengths,
    Pairs,
    parse_arrivals,
    parse_lengths,
    synthetic,
)

Progress = Callable[[int, float], None]  # (finished requests, simulated seconds)


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
        self.host = host_of(load_engine(serving.engine), serving.host_time_us)
        self.route = router(serving.router)
        traffic = serving.traffic
        self.arrivals = (
            checked("--arrivals", lambda: parse_arrivals(traffic.arrivals or ""))
            if traffic.arrivals
            else None
        )
        if not traffic.trace and self.arrivals is None:
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
            if not self.trace and getattr(traffic, name) != getattr(Traffic(), name)
        ]
        if unused:
            raise InputError(f"{', '.join(unused)}: said of a trace, but no --trace is given")
        made = [
            name
            for name in ("prompt", "output", "num_requests")
            if self.trace is not None and getattr(traffic, name) != getattr(Traffic(), name)
        ]
        if made:
            raise InputError(
                f"{', '.join(made)}: said of synthetic traffic, but --trace brings lengths of its "
                "own (to draw from them, give --arrivals and --prompt trace:FILE instead)"
            )

    def expected(self) -> int:
        """A guess at the number of requests."""
        traffic = self.serving.traffic
        if not traffic.trace:
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
            arrivals, encoder = self.arrivals, self.resolved.model.decoder is None
            found = checked(
                "--prompt and --output",
                lambda: synthetic(
                    traffic.num_requests, arrivals, *self._lengths(encoder), serving.seed
                ),
            )
        if self.resolved.model.decoder is None:
            return (msgspec.structs.replace(q, output=0) for q in found)
        return found

    def _lengths(self, encoder: bool) -> tuple[Lengths | Pairs, Lengths | None]:
        """Prompts and outputs; `trace:FILE` draws both of one and the same request of a trace."""
        traffic = self.serving.traffic
        kind, found, path = traffic.prompt.partition(":")
        if kind == "trace" and found:
            # Its own times are not looked at, so that a trace of lengths alone will do.
            rows = read_trace(path, on_bad_row=traffic.on_bad_row, arrivals=Constant(1.0))
            pairs = [(q.prompt, q.output) for q in rows]
            prompts, outputs = zip(*pairs, strict=True) if pairs else ((), ())
            return (Empirical(prompts), None) if encoder else (Pairs(prompts, outputs), None)
        prompt = parse_lengths(traffic.prompt)
        return prompt, None if encoder else parse_lengths(traffic.output)

    def replica(
        self,
        number: int,
        pricer: Pricer,
        on_step: Callable[[StepRow], None] | None,
        on_finish: Callable[[Finished], None],
        on_stage: Callable[[StageRow], None] | None = None,
    ) -> Replica:
        """A fresh replica."""
        serving, knobs = self.serving, self.serving.knobs
        kind: Callable[..., Replica] = Replica
        if serving.parallelism.pp > 1:
            kind = partial(PipelinedReplica, on_stage=on_stage)
        made = kind(
            pricer,
            policy(serving.scheduler),
            knobs,
            Blocks(self.capacity.blocks, knobs.block_size, knobs.enable_prefix_caching),
            host=self.host,
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
        requests, refused = RequestColumns(), list[Refused]()
        steps = [StepColumns(n) for n in numbers] if serving.keep_steps else []
        piped = serving.keep_steps and serving.parallelism.pp > 1
        stages = [StageColumns(n) for n in numbers] if piped else []
        if folder:
            requests.spill(folder / f"requests-{numbers[0]}")
            for columns in (*steps, *stages):
                columns.spill(folder / columns.stem)
        totals = {n: [0, 0] for n in numbers}

        def finished(row: Finished) -> None:
            requests.append(row)
            totals[row.replica][0] += row.prompt
            totals[row.replica][1] += row.output
            if progress and not len(requests) & 255:
                progress(len(requests), row.last_token * 1e-12)

        pricer = Pricer(self.resolved, exact_graph=not serving.shortcuts)
        replicas = [
            self.replica(
                n,
                pricer,
                steps[i].append if steps else None,
                finished,
                stages[i].add if stages else None,
            )
            for i, n in enumerate(numbers)
        ]
        stream = self.requests()
        whole = len(numbers) == serving.replicas

        def refuse(request: Request) -> None:
            tokens = request.prompt + request.output
            refused.append(Refused(request.index, request.id, tokens))

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
            stages,
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
