"""The worker of a replica with several pipeline stages: batches of different requests in flight.

A batch leaves one stage for the next as soon as both are ready. The first stage takes the next
batch when it is free and fewer than pp batches are under way. A request that decodes waits until
its batch is back. Chunks of one prompt follow one another, since a stage needs only the keys and
values of earlier chunks that it computed itself. To share the work among the stages, a batch takes
at most ceil(running / pp) decoding requests, those that wait longest first.

Hidden states travel as flows over the links of the replica: those of two batches that are on their
way at once share them. A stage that waits for hidden states is in `link` while they travel, and in
`bubble` before. If
several chunks of a prompt are under way together, the request's time belongs to the first until
that is back, and from then on to the next.
"""

from __future__ import annotations

from collections import deque
from functools import reduce
from typing import NamedTuple

import msgspec

from sim.cost.pass_cost import PassCost, add
from sim.engine.flows import Transfers
from sim.engine.fluid import Loads
from sim.engine.processes import Engine, Event, Process
from sim.mapping.plan import hidden_bytes, sends
from sim.mapping.priced import exchange_step
from sim.serve.decoding import StaggeredDecoding
from sim.serve.live import Live, StageRow
from sim.serve.policies import Work
from sim.serve.queue import RequestQueue
from sim.serve.replica import Replica, ReplicaParts, prefills_of
from sim.serve.single_stage import step_row
from sim.states import Ticks

States = tuple[int, int, int, int, int]  # ticks of compute, hbm, sram, link, launch


class Handover(NamedTuple):
    """Hidden states that go to the next stage: see `sim.engine.flows.Transfers.start`."""

    latency: int
    duration: int
    loads: Loads


class Flight(msgspec.Struct):
    """A batch on its way through the stages.

    number: of the step. last: the requests whose prompts end with it. per_token: ticks of all
    stages per token. states: ticks of all stages and hand-overs by state. parts: what happens from
    which tick on, stage by stage and hand-over by hand-over.
    """

    number: int
    start: int
    work: Work
    decoded: list[Live]
    last: frozenset[Live]
    per_token: int
    states: States
    parts: list[tuple[int, States]] = msgspec.field(default_factory=list)

    def slowed(self, tick: int, ticks: int) -> None:
        """From `tick` on a hand-over took so many ticks more than alone on its links."""
        compute, hbm, sram, link, launch = self.states
        self.states = (compute, hbm, sram, link + ticks, launch)
        self.parts.append((tick, (0, 0, 0, ticks, 0)))

    def states_after(self, tick: int) -> States:
        """Its states from `tick` on; inside a stage they come in their written order."""
        if tick <= self.start:
            return self.states
        left = [0] * 5
        for begin, states in self.parts:
            gone = max(0, tick - begin)
            for i, part in enumerate(states):
                left[i] += max(0, part - gone)
                gone = max(0, gone - part)
        return (left[0], left[1], left[2], left[3], left[4])


class PipelineWorker:
    """Runs the batches of a replica on several stages.

    free_at: when the last batch leaves each stage. begun: the number of the batch that began each
    stage last. overtook: batches that reached a stage before the one ahead of them. clocks: ticks
    of each stage by state. present: ticks in which some request was in the replica, up to `since`,
    from when one is there without a break (-1: none is). block_ticks, flown: blocks in use times
    ticks, and ticks, with a batch under way. hold: nothing can be planned before a batch is back or
    a request arrives.
    """

    def __init__(self, parts: ReplicaParts) -> None:
        self.pricer, self.host = parts.pricer, parts.host
        count = parts.pricer.split.pp
        self.decoding = StaggeredDecoding(parts.blocks, count)
        self.free_at = [0] * count
        self.clocks = [[0] * 5 for _ in range(count)]
        self.flights: deque[Flight] = deque()
        self.begun = [-1] * count
        self.overtook: dict[tuple[int, int], Event] = {}
        self.present, self.since = 0, -1
        self.block_ticks = self.flown = 0
        self.hold = False
        self.links: Transfers  # of a run
        self.handovers: dict[tuple[int, int], Handover] = {}  # by stage and tokens

    def arrived(self, now: int) -> None:
        self.hold = False
        if self.since < 0:
            self.since = now

    def finished_at(self, live: Live, now: int) -> None:
        live.account[6] += now - live.request.arrival - sum(live.account)

    def stages(self, end: int) -> tuple[Ticks, ...]:
        present = self.present + (end - self.since if self.since >= 0 else 0)
        return tuple(
            (c[0], c[1], c[2], c[3], c[4], present - sum(c), end - present) for c in self.clocks
        )

    def held(self) -> tuple[int, int]:
        return self.block_ticks, self.flown

    def process(self, replica: Replica, engine: Engine) -> Process:
        queue = replica.queue
        capacity = [bandwidth for _, bandwidth in self.pricer.network.fabric.links]
        self.links = Transfers(engine, capacity)
        while True:
            if queue.wake > engine.now:
                yield engine.wait(queue.wake - engine.now) | replica.change()
            while not self._ready(queue, engine.now):
                yield replica.change()
            if not engine.settled:
                yield engine.settle(replica.rank)
            if replica.stop():
                return
            self._pass(queue, engine.now)
            work = replica.plan()
            if work.chunks or work.decode:
                self._send(replica, work)
            elif self.flights:
                self.hold = True
            elif work.wake > queue.now:
                queue.wake = work.wake
            else:
                raise replica.idle_policy()

    def _ready(self, queue: RequestQueue, now: int) -> bool:
        """Whether a batch may set out."""
        room = len(self.flights) < len(self.free_at) and self.free_at[0] <= now
        return room and not self.hold and queue.outstanding > 0

    def _pass(self, queue: RequestQueue, now: int) -> None:
        """Let time pass in which no block is taken or given back."""
        if self.flights:
            self.block_ticks += queue.blocks.used * (now - queue.now)
            self.flown += now - queue.now
        queue.now = now

    # -- batches ----------------------------------------------------------------------------

    def _send(self, replica: Replica, work: Work) -> None:
        """Price a batch and send it off."""
        queue, decoding = replica.queue, self.decoding
        decoded = decoding.due() if work.decode else []
        chunks = [live for live, _ in work.chunks]
        costs = self.pricer.step([live.computed + 1 for live in decoded], prefills_of(work))
        prefill = sum(size for _, size in work.chunks)
        tokens = prefill + len(decoded)
        extra = self.host.added(costs[0].duration, len(decoded), bool(chunks))
        costs[0] = add(costs[0], PassCost(link=queue.swap_ticks, launch=extra))
        queue.swap_ticks = 0
        handovers = [self._handover(stage, tokens) for stage in range(len(costs) - 1)]
        cost = add(
            reduce(add, costs), PassCost(link=sum(h.latency + h.duration for h in handovers))
        )
        per_token, rest = divmod(sum(cost[:5]), tokens)
        queue.running[0].share += rest
        replica.flops += cost[5]
        replica.hbm_bytes += cost[6]
        duration = sum(costs[0][:5])
        if replica.recorder.on_step:
            replica.recorder.on_step(step_row(queue, duration, (prefill, len(decoded)), cost))
        decoding.send(decoded, chunks)
        last = []
        for live, size in work.chunks:
            live.computed += size
            if live.computed == live.target:
                queue.filling.remove(live)
                last.append(live)
        flight = Flight(
            replica.steps, queue.now, work, decoded, frozenset(last), per_token, cost[:5]
        )
        self.flights.append(flight)
        self.free_at[0] = queue.now + duration
        replica.engine.start(self._fly(replica, flight, costs, handovers))
        replica.steps += 1

    def _fly(
        self,
        replica: Replica,
        flight: Flight,
        costs: list[PassCost],
        handovers: list[Handover],
    ) -> Process:
        """Take a batch through the stages, each behind the batch before it."""
        engine, number = replica.engine, flight.number
        parts = flight.parts
        parts.append((engine.now, costs[0][:5]))
        rows = [self._stage_row(number, 0, engine.now, 0, costs[0])]
        yield engine.wait(self.free_at[0] - engine.now)
        replica.notify()
        for stage, handover in enumerate(handovers, 1):
            left, alone = engine.now, handover.latency + handover.duration
            parts.append((left, (0, 0, 0, alone, 0)))
            if alone:
                yield self.links.start(*handover)
            arrived = engine.now
            travel = arrived - left
            if travel > alone:
                flight.slowed(left + alone, travel - alone)
            while self.begun[stage] < number - 1:  # a smaller batch has overtaken one on the links
                yield self._turn(stage, number, engine)
            cost, free = costs[stage], self.free_at[stage]
            begin = engine.now
            if begin < free:
                begin = free
            waited = min(travel, arrived - free) if begin == arrived else 0
            parts.append((begin, cost[:5]))
            rows.append(self._stage_row(number, stage, begin, waited, cost))
            self.free_at[stage] = begin + sum(cost[:5])
            self.begun[stage] = number
            if (stage, number + 1) in self.overtook:
                self.overtook.pop((stage, number + 1)).succeed()
            yield engine.wait(self.free_at[stage] - engine.now)
        if replica.recorder.on_stage:
            for row in rows:
                replica.recorder.on_stage(row)
        self._land(replica)

    def _turn(self, stage: int, number: int, engine: Engine) -> Event:
        """An event when the batch before this one has begun a stage."""
        event = self.overtook[stage, number] = engine.signal()
        return event

    def _stage_row(
        self, step: int, stage: int, begin: int, waited: int, cost: PassCost
    ) -> StageRow:
        """Book a batch to a stage that waited so long for its hidden states."""
        states = (cost[0], cost[1], cost[2], cost[3] + waited, cost[4])
        for i, part in enumerate(states):
            self.clocks[stage][i] += part
        return StageRow(step, stage, begin - waited, states, cost[5], cost[6])

    def _handover(self, stage: int, tokens: int) -> Handover:
        """The hidden states of a batch on their way to the next stage."""
        known = self.handovers.get((stage, tokens))
        if known is None:
            pricer = self.pricer
            nbytes = hidden_bytes(pricer.model, pricer.precision, tokens)
            sent = pricer.network.send(tuple(sends(pricer.split, 0, stage, stage + 1, nbytes)))
            step = exchange_step("send", sent, pricer.costs)
            assert step.exchange is not None
            known = self.handovers[stage, tokens] = Handover(
                step.duration - step.exchange.duration, step.exchange.duration, step.exchange.loads
            )
        return known

    def _land(self, replica: Replica) -> None:
        """A batch is back: its requests move on."""
        queue, decoding = replica.queue, self.decoding
        self._pass(queue, replica.engine.now)
        self.hold = False
        flight = self.flights.popleft()
        for live in (*flight.decoded, *(live for live, _ in flight.work.chunks)):
            decoding.land(live)
            for i, part in enumerate(flight.states_after(live.back)):
                live.account[1 + i] += part
            live.back = queue.now
        for live in flight.decoded:
            live.computed += 1
            live.generated += 1
            live.share += flight.per_token
            if live.generated >= live.request.output:
                replica.finish(live)
        for live, size in flight.work.chunks:
            live.share += size * flight.per_token
            if live in flight.last:
                queue.filling.append(live)
                replica.computed(live)
        if not queue.outstanding:
            self.present += queue.now - self.since
            self.since = -1
        replica.notify()
