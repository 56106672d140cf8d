"""One replica: requests come in, a scheduler makes batches of them, a worker runs the batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from sim.clock import seconds
from sim.engine.processes import Engine, Event, Process
from sim.errors import InputError
from sim.serve.decoding import Decoding
from sim.serve.host import HostTime
from sim.serve.knobs import Knobs
from sim.serve.live import Finished, Live, Outcome, StageRow, StepRow
from sim.serve.memory import Blocks
from sim.serve.policies import Policy, Work
from sim.serve.pricing import Prefill, Pricer
from sim.serve.queue import RequestQueue
from sim.states import Ticks
from workloads.request import Request

ARRIVALS = 0  # ranks of what happens at the end of a tick: requests arrive, then replicas plan
REPLICAS = 1


class ReplicaParts(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a replica. kv_bytes: bytes of a KV block over all layers."""

    pricer: Pricer
    policy: Policy
    knobs: Knobs
    blocks: Blocks
    host: HostTime = HostTime()
    order: Callable[[Request], float] = lambda request: 0.0
    leap: bool = True
    kv_bytes: int = 0


class Recorder(msgspec.Struct):
    """Callbacks for steps, for finished requests and for the steps of pipeline stages."""

    on_step: Callable[[StepRow], None] | None = None
    on_finish: Callable[[Finished], None] | None = None
    on_stage: Callable[[StageRow], None] | None = None


class Worker(Protocol):
    """What runs the batches of a replica, and in which of its states each stage was."""

    @property
    def decoding(self) -> Decoding:
        """The decoding requests, as the worker keeps them."""

    def process(self, replica: Replica, engine: Engine) -> Process:
        """The process of the replica; it ends when the run is stopped."""

    def arrived(self, now: int) -> None:
        """A request has arrived."""

    def finished_at(self, live: Live, now: int) -> None:
        """A request is about to leave: complete its account."""

    def stages(self, end: int) -> tuple[Ticks, ...]:
        """The seven states of each stage; they sum to `end`."""

    def held(self) -> tuple[int, int] | None:
        """See `Outcome.held`."""


class Replica:
    """A queue of requests, a scheduler and a worker."""

    def __init__(
        self, parts: ReplicaParts, worker: Worker, recorder: Recorder, number: int = 0
    ) -> None:
        self.parts, self.worker, self.recorder, self.number = parts, worker, recorder, number
        self.blocks, self.knobs = parts.blocks, parts.knobs
        self.queue = RequestQueue(
            parts.knobs, parts.blocks, parts.order, worker.decoding, parts.kv_bytes
        )
        self.stop: Callable[[], bool] = lambda: False  # checked between steps
        self.finished = self.flops = self.hbm_bytes = self.steps = 0
        self.engine = Engine()
        self.horizon: Callable[[], int] = lambda: 0  # a tick before which no request arrives
        self._change: Event | None = None

    def start(self, engine: Engine, next_arrival: Callable[[], int] | None = None) -> None:
        """Run as a process of `engine` from now on.

        next_arrival: a tick before which no request arrives, where more is known of it than that
        nothing happens before the engine's horizon.
        """
        self.engine, self._change = engine, None
        self.horizon = next_arrival or (lambda: engine.horizon)
        engine.start(self.worker.process(self, engine))

    def push(self, request: Request) -> bool:
        """A request arrives now. False if it can never fit into the KV memory."""
        accepted = self.queue.push(request)
        if accepted:
            self.worker.arrived(max(self.now, request.arrival))
            self.notify()
        return accepted

    def change(self) -> Event:
        """An event that occurs when a request arrives or a worker calls `notify`."""
        self._change = self.engine.signal()
        return self._change

    def notify(self) -> None:
        """Wake the process if it waits for a change."""
        change, self._change = self._change, None
        if change:
            change.succeed()

    @property
    def rank(self) -> tuple[int, int]:
        """Its place among what happens at the end of a tick."""
        return REPLICAS, self.number

    @property
    def now(self) -> int:
        """The tick at which the last step ends."""
        return self.queue.now

    @property
    def outstanding(self) -> int:
        """Requests that wait or run."""
        return self.queue.outstanding

    @property
    def refused(self) -> int:
        """Requests that could never fit."""
        return self.queue.refused

    @property
    def preempted(self) -> int:
        """How often a request was preempted."""
        return self.queue.preempted

    def outcome(self, tokens_in: int, tokens_out: int) -> Outcome:
        """The account of the replica so far."""
        return Outcome(
            number=self.number,
            end=self.now,
            stages=self.worker.stages(self.now),
            steps=self.steps,
            finished=self.finished,
            refused=self.refused,
            preempted=self.preempted,
            flops=self.flops,
            hbm_bytes=self.hbm_bytes,
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            held=self.worker.held(),
        )

    # -- what workers have in common --------------------------------------------------------

    def plan(self) -> Work:
        """What the scheduler wants to do now; again if it did no more than swap or preempt."""
        queue = self.queue
        while True:
            before = len(queue.running), queue.preempted
            queue.decoding.choose(len(queue.running))
            work = self.parts.policy.plan(queue)
            if work.chunks or work.decode or before == (len(queue.running), queue.preempted):
                return work

    def idle_policy(self) -> InputError:
        """The mistake of a scheduler that would stand still for ever."""
        policy = self.parts.policy
        return InputError(
            f"scheduler {getattr(policy, 'name', type(policy).__name__)} planned nothing at "
            f"{seconds(self.now):g} s although {self.outstanding} requests are there; a `Work` "
            "needs chunks, decode, or a `wake` to come"
        )

    def computed(self, live: Live) -> None:
        """The prompt of a request is computed: a token comes out, and it decodes on if it is to."""
        if self.blocks.caching and live.request.hashes:
            self._publish(live)
        if live.request.output:
            live.generated += 1
        if live.first < 0:
            live.first = self.queue.now
        if live.generated >= live.request.output:
            self.finish(live)
            return
        self.queue.filling.remove(live)
        self.queue.decoding.add(live)

    def _publish(self, live: Live) -> None:
        """Offer the full blocks of the prompt to requests that start with the same tokens."""
        request = live.request
        hashes = request.hashes[: request.prompt // request.hash_tokens]
        for one in hashes[len(live.shared) :]:
            if self.blocks.publish(one):  # else it keeps a copy of its own
                live.blocks -= self.blocks.per_hash(request)
                live.shared += (one,)

    def finish(self, live: Live) -> None:
        """A request has put out its last token."""
        now = self.queue.now
        self.worker.finished_at(live, now)
        self.queue.leave(live)
        self.finished += 1
        if self.recorder.on_finish:
            r = live.request
            self.recorder.on_finish(
                Finished(
                    index=r.index,
                    id=r.id,
                    replica=self.number,
                    arrival=r.arrival,
                    scheduled=live.scheduled,
                    first_token=live.first,
                    last_token=now,
                    prompt=r.prompt,
                    output=r.output,
                    preemptions=live.preemptions,
                    prefix_hit_tokens=live.hits,
                    device_share=live.share,
                    account=tuple(live.account),
                )
            )


def prefills_of(work: Work) -> list[Prefill]:
    """The chunks of a batch as they are priced; padded ones are as long as the longest."""
    longest = max((size for _, size in work.chunks), default=0) if work.padded else 0
    return [
        Prefill(longest or size, live.computed, live.computed + size == live.target)
        for live, size in work.chunks
    ]
