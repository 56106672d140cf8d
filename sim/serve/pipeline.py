"""The worker of a replica with several pipeline stages: batches of different requests in flight.

A batch leaves one stage for the next as soon as both are ready. The first stage takes the next
batch when it is free and fewer than pp batches are under way. A request that decodes waits until
its batch is back. Chunks of one prompt follow one another, since a stage needs only the keys and
values of earlier chunks that it computed itself. To share the work among the stages, a batch takes
at most ceil(running / pp) decoding requests, those that wait longest first.

Hidden states travel over the links of the replica: those of two batches that are on their way at
once share them (`sim.serve.stages`). A stage that waits for hidden states is in `link` while they
travel, and in `bubble` before. If several chunks of a prompt are under way together, the request's
time belongs to the first until that is back, and from then on to the next.
"""

from __future__ import annotations

from sim.cost.pass_cost import PassCost, add, total
from sim.engine.processes import Engine, Process
from sim.serve.decoding import StaggeredDecoding
from sim.serve.flight import Flight, Visit
from sim.serve.handovers import Handovers
from sim.serve.live import Live
from sim.serve.policies import Work
from sim.serve.queue import RequestQueue
from sim.serve.replica import Replica, ReplicaParts, prefills_of
from sim.serve.single_stage import step_row
from sim.serve.stages import PipelineStages
from sim.states import Ticks


class PipelineWorker:
    """Runs the batches of a replica on several stages.

    line: the stages. clocks: ticks of each stage by state. present: ticks in which some request was
    in the replica, up to `since`, from when one is there without a break (-1: none is).
    block_ticks, flown: blocks in use times ticks, and ticks, with a batch under way. hold: nothing
    can be planned before a batch is back or a request arrives.
    """

    def __init__(self, parts: ReplicaParts) -> None:
        self.pricer, self.host = parts.pricer, parts.host
        self.plans = parts.leap
        count = parts.pricer.split.pp
        self.decoding = StaggeredDecoding(parts.blocks, count)
        self.handovers = Handovers(parts.pricer)
        self.line: PipelineStages  # of a run
        self.clocks = [[0] * 5 for _ in range(count)]
        self.present, self.since = 0, -1
        self.block_ticks = self.flown = 0
        self.hold = False

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
        self.line = PipelineStages(
            engine, self.handovers, lambda: self._land(replica), plans=self.plans
        )
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
            elif self.line.flights:
                self.hold = True
            elif work.wake > queue.now:
                queue.wake = work.wake
            else:
                raise replica.idle_policy()

    def _ready(self, queue: RequestQueue, now: int) -> bool:
        """Whether a batch may set out."""
        room = not self.line.full and self.line.free_at[0] <= now
        return room and not self.hold and queue.outstanding > 0

    def _pass(self, queue: RequestQueue, now: int) -> None:
        """Let time pass in which no block is taken or given back."""
        if self.line.flights:
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
        prefill = sum([size for _, size in work.chunks])
        tokens = prefill + len(decoded)
        extra = self.host.added(costs[0].duration, len(decoded), bool(chunks))
        costs[0] = add(costs[0], PassCost(link=queue.swap_ticks, launch=extra))
        queue.swap_ticks = 0
        handovers, travel = self.handovers.of(tokens)
        cost = add(total(costs), PassCost(link=travel))
        per_token, rest = divmod(cost.duration, tokens)
        queue.running[0].share += rest
        replica.flops += cost[5]
        replica.hbm_bytes += cost[6]
        duration = costs[0].duration
        if replica.recorder.on_step:
            replica.recorder.on_step(step_row(queue, duration, (prefill, len(decoded)), cost))
        decoding.send(decoded, chunks)
        last = []
        for live, size in work.chunks:
            live.computed += size
            if live.computed == live.target:
                queue.filling.remove(live)
                last.append(live)
        now = queue.now
        flight = Flight(
            number=replica.steps,
            work=work,
            decoded=decoded,
            last=frozenset(last),
            per_token=per_token,
            states=cost[:5],
            costs=costs,
            handovers=handovers,
            alone=travel,
            visits=[Visit(now, now, now, now + duration)],
        )
        replica.steps += 1
        self.line.send(flight)
        self._call(replica)

    def _call(self, replica: Replica) -> None:
        """Let the replica plan as soon as the first stage is free, if there is room for a batch."""
        wait = self.line.free_at[0] - replica.engine.now
        if self.line.full:
            return
        if wait > 0:
            replica.engine.after(wait, lambda _: replica.notify(), 0)
        else:
            replica.notify()

    def _land(self, replica: Replica) -> None:
        """A batch is back: book it, and let its requests move on."""
        queue, decoding = replica.queue, self.decoding
        self._pass(queue, replica.engine.now)
        self.hold = False
        flight = self.line.flights.popleft()
        self._book(replica, flight)
        now, start, whole = queue.now, flight.start, flight.all_states()
        for live in (*flight.decoded, *(live for live, _ in flight.work.chunks)):
            decoding.land(live)
            # Of chunks that are under way together, the time until now belongs to those ahead.
            states = whole if live.back <= start else flight.states_after(live.back)
            account = live.account
            account[1] += states[0]
            account[2] += states[1]
            account[3] += states[2]
            account[4] += states[3]
            account[5] += states[4]
            live.back = now
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
            self.present += now - self.since
            self.since = -1
        self._call(replica)

    def _book(self, replica: Replica, flight: Flight) -> None:
        """Book a batch to the stages that it went through."""
        on_stage = replica.recorder.on_stage
        for row, clock in zip(flight.rows(), self.clocks, strict=True):
            for i, part in enumerate(row.states):
                clock[i] += part
            if on_stage:
                on_stage(row)
