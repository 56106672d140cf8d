"""The worker of a replica with one pipeline stage: one step after another.

Between two scheduling events a batch that only decodes repeats with growing contexts. `_decode`
runs all steps of this kind up to the next tick at which a request may arrive without planning each.
No step before that tick needs an event. Both shortcuts end at the same picosecond as step by step,
and can be switched off.
"""

from __future__ import annotations

from collections.abc import Callable

from sim.cost.pass_cost import Amounts, PassCost
from sim.engine.processes import Engine, Process
from sim.serve.decoding import LockstepDecoding
from sim.serve.host import launched
from sim.serve.live import Live, StepRow
from sim.serve.policies import Work
from sim.serve.queue import RequestQueue
from sim.serve.replica import Replica, ReplicaParts, prefills_of
from sim.states import Ticks


class SingleStageWorker:
    """Runs the batches of a replica on one stage."""

    def __init__(self, parts: ReplicaParts) -> None:
        self.pricer, self.host = parts.pricer, parts.host
        self.leaps = parts.leap
        self.decoding = LockstepDecoding(parts.blocks)
        pricer = parts.pricer
        self.summed = pricer.tabled and not any(a.window for a, _ in pricer.attentions)
        self.decodes: dict[int, Callable[[int], Amounts]] = {}  # by requests that decode

    def arrived(self, now: int) -> None:
        """The process sees it in the queue."""

    def finished_at(self, live: Live, now: int) -> None:
        """Its account is complete: each step was booked as it ran."""

    def stages(self, end: int) -> tuple[Ticks, ...]:
        c = self.decoding.clocks
        return ((c[0], c[1], c[2], c[3], c[4], 0, end - sum(c)),)

    def held(self) -> None:
        return None

    def process(self, replica: Replica, engine: Engine) -> Process:
        queue, decoding = replica.queue, self.decoding
        while True:
            while not queue.running and not queue.waiting:
                yield replica.change()
            tick = engine.now  # of the clock, which stands still while steps are leapt over
            if queue.now <= tick and not engine.settled:
                yield engine.settle(replica.rank)
            if replica.stop():
                return
            queue.now = now = max(queue.now, tick)
            queue.blocked = False
            preempted = queue.preempted
            work = replica.plan()
            if not work.chunks and not work.decode:
                if work.wake <= now:
                    raise replica.idle_policy()
                yield engine.wait(work.wake - tick) | replica.change()
                continue
            if work.chunks or queue.swap_ticks:
                self._step(replica, work)
            else:
                same = queue.blocked and queue.preempted == preempted
                steady = self.leaps and not queue.filling and (same or not queue.waiting)
                self._decode(replica, replica.horizon() if steady else now, planned=True)
            # After a request has left, one that did not fit may fit.
            if self.leaps and not queue.waiting and not queue.filling:
                while decoding.requests and queue.now < (horizon := replica.horizon()):
                    if not self._decode(replica, horizon) or queue.waiting:
                        break
            # Steps before the next arrival need no event between them.
            if not (self.leaps and queue.outstanding and queue.now < replica.horizon()):
                yield engine.wait(queue.now - tick)

    # -- steps ------------------------------------------------------------------------------

    def _step(self, replica: Replica, work: Work) -> None:
        """Price a step with prompts or swaps, let its time pass, and do what it does."""
        queue, decoding = replica.queue, self.decoding
        count, prefill = len(decoding) if work.decode else 0, 0
        compute, hbm, sram, link, launch, flops, nbytes = self._price(count, work)
        kernels = compute + hbm + sram + link + launch
        link, queue.swap_ticks = link + queue.swap_ticks, 0
        launch += self.host.added(kernels, count, bool(work.chunks))
        cost = (compute, hbm, sram, link, launch, flops, nbytes)
        for _, size in work.chunks:
            prefill += size
        duration = compute + hbm + sram + link + launch
        per_token, rest = divmod(duration, count + prefill)
        queue.running[0].share += rest  # the oldest request bears the rest
        self._book(replica, cost, 1)
        if replica.recorder.on_step:
            replica.recorder.on_step(step_row(queue, duration, (prefill, count), cost))
        queue.now += duration
        if count:  # before requests whose prompts end here join the decoding ones
            decoding.stepped(count, per_token)
        for live, size in work.chunks:
            live.computed += size
            live.share += size * per_token
            if live.computed == live.target:
                replica.computed(live)
        if decoding.ends and decoding.ends[0][0] <= decoding.turn:
            for live in decoding.due():
                replica.finish(live)

    def _price(self, count: int, work: Work) -> PassCost:
        """The cost of a step with prompts, or of one that sums do not describe."""
        decoding, prefills = self.decoding, prefills_of(work)
        if not self.summed:
            contexts = [live.base + decoding.turn + 1 for live in decoding] if count else []
            return self.pricer.step(contexts, prefills)[0]
        seen = decoding.tokens + count if count else 0
        return self.pricer.summed_step(count, lambda _: seen, prefills)[0]

    def _book(self, replica: Replica, cost: Amounts, steps: int) -> None:
        """Add the cost of so many steps to the account of the replica."""
        clocks = self.decoding.clocks
        clocks[0] += cost[0]
        clocks[1] += cost[1]
        clocks[2] += cost[2]
        clocks[3] += cost[3]
        clocks[4] += cost[4]
        replica.flops += cost[5]
        replica.hbm_bytes += cost[6]
        replica.steps += steps

    def _decode(self, replica: Replica, horizon: int, *, planned: bool = False) -> int:
        """Decode steps until a request ends, memory runs out or a request may arrive (`horizon`).

        planned: the first step was planned, so that its blocks are taken and it runs in any case.
        The same as `_step` after `_step`, with the sums in local names. Returns their number.
        """
        queue, decoding = replica.queue, self.decoding
        count, last = len(decoding), decoding.next_end()
        cost, blocks, growing = self._decode_price(count), queue.blocks, decoding.growing
        size, on_step = blocks.size, replica.recorder.on_step
        start, turn, tokens = queue.now, decoding.turn, decoding.tokens
        now, first = start, turn
        compute = hbm = sram = link = launch = flops = moved = per_token = 0
        while planned or (now < horizon and turn < last):
            if planned:
                planned = False
            elif need := growing[-turn % size]:
                if need > blocks.total - blocks.used:
                    break
                blocks.take(need)
            tokens += count
            one = cost(tokens)
            a, b, c, d, e, f, g = one
            duration = a + b + c + d + e
            if on_step:
                queue.now = now
                on_step(step_row(queue, duration, (0, count), one))
            compute += a
            hbm += b
            sram += c
            link += d
            launch += e
            flops += f
            moved += g
            per_token += duration // count
            now += duration
            turn += 1
        steps = turn - first
        queue.now, decoding.turn, decoding.tokens = now, turn, tokens
        decoding.per_token += per_token
        queue.running[0].share += now - start - count * per_token  # the oldest bears the rest
        self._book(replica, (compute, hbm, sram, link, launch, flops, moved), steps)
        if decoding.ends and decoding.ends[0][0] <= decoding.turn:
            for live in decoding.due():
                replica.finish(live)
        return steps

    def _decode_price(self, count: int) -> Callable[[int], Amounts]:
        """The cost of a step that decodes `count` requests, by the tokens that they see."""
        if not self.summed:
            return lambda seen: self._price_one_by_one(seen - count - self.decoding.tokens)
        if count not in self.decodes:
            self.decodes[count] = self.host.around(self.pricer.decode(count), count)
        return self.decodes[count]

    def _price_one_by_one(self, more: int) -> PassCost:
        """A decode step in which every request has `more / count` tokens more than now."""
        decoding = self.decoding
        steps = more // max(1, len(decoding))
        contexts = [live.base + decoding.turn + 1 + steps for live in decoding]
        cost = self.pricer.step(contexts, [])[0]
        return launched(cost, self.host.added(cost.duration, len(decoding), False))


def step_row(queue: RequestQueue, duration: int, tokens: tuple[int, int], cost: Amounts) -> StepRow:
    """A row of `steps` that begins at `queue.now`; `tokens` of prompts and of decoding requests."""
    prefill, decode = tokens
    return StepRow(
        queue.now,
        duration,
        prefill,
        decode,
        len(queue.running),
        len(queue.waiting),
        queue.blocks.used,
        cost[:5],
        cost[5],
        cost[6],
    )
