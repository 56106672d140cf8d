"""A replica of several pipeline stages: batches of different requests in flight at once.

A batch leaves the first stage for the next as soon as both are ready; the first stage takes the
next batch when it is free and fewer than pp batches are under way. A request that decodes waits for
its batch; chunks of one prompt follow one another, since a stage needs but the keys and values that
it made itself of the chunks before. So that the stages share the work, a batch takes at most its
share of the decoding requests, ceil(running / pp), the longest-waiting first.

A stage that waits for hidden states under way is in `link` while they travel, and in `bubble`
before. Of chunks of a prompt that are under way together, the request's time belongs to the first
until that is back, and from then on to the next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from sim.cost.collectives import Send
from sim.serve.live import Live, Outcome, StageRow
from sim.serve.policies import Work
from sim.serve.prices import Price
from sim.serve.replica import Replica
from sim.states import Ticks
from workloads.precision import packed

Five = tuple[int, int, int, int, int]  # compute, hbm, sram, link, launch


class Flight(msgspec.Struct, frozen=True):
    """A batch on its way: when it is back, and what it then does.

    parts: what it does from when on, stage by stage and hand-over by hand-over.
    last: the chunks that end their prompts.
    """

    start: int
    end: int
    work: Work
    decoded: list[Live]
    last: frozenset[Live]
    each: int
    price: Five
    parts: tuple[tuple[int, Five], ...]

    def after(self, t: int) -> Five:
        """Its states from tick `t` on; inside a stage they come in their written order."""
        if t <= self.start:
            return self.price
        found = [0] * 5
        for begin, states in self.parts:
            gone = max(0, t - begin)
            for i, part in enumerate(states):
                found[i] += max(0, part - gone)
                gone = max(0, gone - part)
        return (found[0], found[1], found[2], found[3], found[4])


class PipelinedReplica(Replica):
    """The loop with pp > 1. Decoding requests are kept one by one; there is nothing to leap."""

    def __init__(
        self, *args: Any, on_stage: Callable[[StageRow], None] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.on_stage = on_stage
        self.leap = False
        stages = self.pricer.split.pp
        self.free_at = [0] * stages
        self.stage_clocks = [[0] * 5 for _ in range(stages)]
        self.flights: deque[Flight] = deque()
        self.away: dict[Live, int] = {}  # batches that a request is in
        self.chosen: list[Live] = []
        self.present = 0  # ticks in which some request was in the replica
        self.since = -1
        self.block_ticks = self.flown = 0  # blocks in use times ticks, and ticks, with a flight

    # -- time -------------------------------------------------------------------------------

    def push(self, request: Any) -> bool:
        taken = super().push(request)
        if taken and self.since < 0:
            self.since = max(self.now, request.arrival)
        return taken

    @property
    def next_at(self) -> int:
        start = max(self.now, self.wake, self.free_at[0])
        if not self.flights:
            return start
        back = self.flights[0].end
        return back if len(self.flights) == len(self.free_at) else min(start, back)

    @property
    def landing(self) -> bool:
        return bool(self.flights) and self.flights[0].end == self.next_at

    def advance(self, until: int) -> None:
        """Take back one batch, or send one off, or wait for what comes next."""
        at = self.next_at
        if self.landing and at <= until:
            self._land()
            return
        self._pass(min(at, until))
        if at >= until:
            return
        work = self._plan()
        if work.chunks or work.decode:
            self._run(work)
        elif self.flights:
            self.wake = self.flights[0].end
        elif work.wake > self.now:
            self.wake = work.wake
        else:
            raise self.idle_policy()

    def _pass(self, to: int) -> None:
        """Let time pass in which no block is taken or given back."""
        if self.flights:
            self.block_ticks += self.blocks.used * (to - self.now)
            self.flown += to - self.now
        self.now = to

    def _plan(self) -> Work:
        self.chosen = self._choose()
        return super()._plan()

    def drain(self) -> None:
        super().drain()
        self.now = max([self.now, *self.free_at])

    def outcome(self, tokens_in: int, tokens_out: int) -> Outcome:
        # A run that was broken off has batches under way, which are booked to their end.
        self._pass(max([self.now, *self.free_at]))
        return super().outcome(tokens_in, tokens_out)

    def _held(self) -> tuple[int, int]:
        return self.block_ticks, self.flown

    def _stages(self) -> tuple[Ticks, ...]:
        present = self.present + (self.now - self.since if self.since >= 0 else 0)
        found = []
        for c in self.stage_clocks:
            busy = sum(c)
            found.append((c[0], c[1], c[2], c[3], c[4], present - busy, self.now - present))
        return tuple(found)

    # -- decoding requests one by one -------------------------------------------------------

    def _choose(self) -> list[Live]:
        """The decoding requests that the next batch takes, before anything is admitted to it."""
        here = [live for live in self.decoding if live not in self.away]
        share = -(-len(self.running) // len(self.free_at))
        return here[:share]

    def _due(self) -> list[Live]:
        """The chosen ones, less those that were preempted since."""
        return [live for live in self.chosen if live in self.decoding]

    def has_decoded(self, live: Live) -> bool:
        return live in self.decoding and (live.computed > live.target or live in self.away)

    def decode_need(self) -> int:
        return sum(live.computed % self.knobs.block_size == 0 for live in self._due())

    def take_decode(self) -> bool:
        due = self._due()
        for live in due:
            more = self.growth(live, 1)
            self.blocks.take(more)
            live.blocks += more
        return bool(due)

    def make_room(self, more: int, live: Live | None) -> bool:
        """As with one stage, but nobody in flight is preempted. Neither is the oldest request nor
        `live`: they wait for what is in flight, else two could preempt each other for ever.
        """
        while self.decode_need() + more > self.blocks.free:
            here = [one for one in self.running[1:] if one not in self.away]
            if not here or here[-1] is live:
                self.chosen = self.chosen if live else []
                return False
            self._preempt(here[-1])
        return True

    def _start_decoding(self, live: Live) -> None:
        self.decoding[live] = None

    def _stop_decoding(self, live: Live) -> None:
        del self.decoding[live]

    def _generated(self, live: Live) -> int:
        return live.generated

    def _book(self, live: Live) -> None:
        """Its own batches were booked as they landed; the rest of its time is bubbles."""

    # -- batches ----------------------------------------------------------------------------

    def _run(self, work: Work) -> None:
        due = self._due() if work.decode else []
        prefills = self._prefills(work)
        prices = self.pricer.step([live.computed + 1 for live in due], prefills)
        tokens = len(due) + sum(size for _, size in work.chunks)
        start = self.now
        states, parts, end = self._through(prices, tokens, len(due), bool(work.chunks))
        first = self.free_at[0] - start
        spent = sum(states)
        each, rest = divmod(spent, tokens)
        self.running[0].share += rest
        self._record(states, first, tokens - len(due), len(due), prices)
        for live in due:  # the next batch takes others
            del self.decoding[live]
            self.decoding[live] = None
        last = []
        for live, size in work.chunks:
            live.computed += size
            if live.computed == live.target:
                self.filling.remove(live)
                last.append(live)
        for live in (*due, *(live for live, _ in work.chunks)):
            self.away[live] = self.away.get(live, 0) + 1
        self.flights.append(Flight(start, end, work, due, frozenset(last), each, states, parts))

    def _through(
        self, prices: list[Price], tokens: int, sequences: int, prompts: bool
    ) -> tuple[Five, tuple[tuple[int, Five], ...], int]:
        """Send a batch through the stages: (its states, where they lie, when it is out)."""
        clock, flight, total = self.now, 0, [0] * 5
        parts: list[tuple[int, Five]] = []
        for stage, price in enumerate(prices):
            begin = max(clock, self.free_at[stage])
            states = list(price[:5])
            if stage == 0:
                states[3] += self.swapping
                states[4] += self.host.added(price, sequences, prompts)
                self.swapping = 0
            own: Five = (states[0], states[1], states[2], states[3], states[4])
            # Hidden states were under way for `flight` ticks; for some of them the stage waited.
            waited = min(flight, begin - self.free_at[stage]) if begin == clock else 0
            states[3] += waited
            for i, part in enumerate(states):
                self.stage_clocks[stage][i] += part
                total[i] += own[i]
            if self.on_stage:
                found = (states[0], states[1], states[2], states[3], states[4])
                self.on_stage(
                    StageRow(self.steps, stage, begin - waited, found, price[5], price[6])
                )
            parts.append((begin, own))
            clock = begin + sum(own)
            self.free_at[stage] = clock
            if stage + 1 < len(prices):
                flight = self._handover(stage, tokens)
                parts.append((clock, (0, 0, 0, flight, 0)))
                total[3] += flight
                clock += flight
        return (total[0], total[1], total[2], total[3], total[4]), tuple(parts), clock

    def _handover(self, stage: int, tokens: int) -> int:
        """Ticks that hidden states take to the next stage."""
        pricer = self.pricer
        nbytes = packed(tokens * pricer.model.hidden, pricer.precision.activation_bits)
        split = pricer.split
        sends = tuple(
            Send(split.device(0, stage, rank), split.device(0, stage + 1, rank), nbytes)
            for rank in range(split.tp)
        )
        sent = pricer.network.send(sends)
        return sent.time + (0 if sent.library else pricer.costs.launch)

    def _record(
        self,
        states: tuple[int, int, int, int, int],
        duration: int,
        prefill: int,
        decode: int,
        prices: list[Price],
    ) -> None:
        flops, moved = sum(p[5] for p in prices), sum(p[6] for p in prices)
        self.flops += flops
        self.hbm_bytes += moved
        self.steps += 1
        if self.on_step:
            self._report((*states, flops, moved), duration, decode, prefill)

    def _land(self) -> None:
        """A batch is back: its requests move on."""
        self._pass(self.flights[0].end)
        flight = self.flights.popleft()
        for live in (*flight.decoded, *(live for live, _ in flight.work.chunks)):
            self.away[live] -= 1
            if not self.away[live]:
                del self.away[live]
            for i, part in enumerate(flight.after(live.back)):
                live.account[1 + i] += part
            live.back = self.now
        for live in flight.decoded:
            live.computed += 1
            live.generated += 1
            live.share += flight.each
            if live.generated >= live.request.output:
                self._finish(live)
        for live, size in flight.work.chunks:
            live.share += size * flight.each
            if live in flight.last:
                self.filling.append(live)
                self._prefilled(live)
        if not self.outstanding:
            self.present += self.now - self.since
            self.since = -1

    def _finish(self, live: Live) -> None:
        spent = sum(live.account)
        live.account[6] += self.now - live.request.arrival - spent
        super()._finish(live)
