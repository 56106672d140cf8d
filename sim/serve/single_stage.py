"""The worker of a replica with one pipeline stage: one step after another.

Between two scheduling events a batch that only decodes repeats with growing contexts. `_leap`
runs all steps of this kind up to the next tick at which a request may arrive, as one timeout; it
ends at the same picosecond as step by step, and can be switched off.
"""

from __future__ import annotations

from collections.abc import Callable

from sim.engine.processes import Engine, Process
from sim.serve.curve import DecodeCurve
from sim.serve.decoding import LockstepDecoding
from sim.serve.host import Host
from sim.serve.live import Live, StepRow
from sim.serve.policies import Work
from sim.serve.prices import FREE, Price, add
from sim.serve.queue import RequestQueue
from sim.serve.replica import Replica, ReplicaParts, prefills_of
from sim.states import Ticks


class SingleStage:
    """Runs the batches of a replica on one stage."""

    def __init__(self, parts: ReplicaParts) -> None:
        self.pricer, self.host = parts.pricer, parts.host
        self.leaps = parts.leap
        self.decoding = LockstepDecoding(parts.blocks)
        pricer = parts.pricer
        self.curves = {
            a: DecodeCurve(pricer.costs, a, pricer.precision) for a, _ in pricer.attentions
        }
        self.summed = pricer.tabled and not any(a.window for a, _ in pricer.attentions)
        self.decodes: dict[int, Callable[[int], Price]] = {}  # by requests that decode

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
            if not engine.settled:
                yield engine.settle(replica.rank)
            if replica.stop():
                return
            queue.now = now = engine.now
            queue.blocked = False
            gone = replica.finished + queue.preempted
            work = replica.plan()
            if not work.chunks and not work.decode:
                if work.wake <= now:
                    raise replica.idle_policy()
                yield engine.wait(work.wake - now) | replica.change()
                continue
            self._step(replica, work)
            if self.leaps and not queue.filling:
                # After a request has left, one that did not fit may fit.
                same = queue.blocked and replica.finished + queue.preempted == gone
                if not queue.waiting or (same and not work.chunks):
                    while decoding.requests and self._leap(replica) and not queue.waiting:
                        pass
            yield engine.wait(queue.now - now)

    # -- steps ------------------------------------------------------------------------------

    def _step(self, replica: Replica, work: Work) -> None:
        """Price a step, let its time pass, and do what it does."""
        queue, decoding = replica.queue, self.decoding
        count, prefill = len(decoding) if work.decode else 0, 0
        if self.summed and not work.chunks:
            price = self._decode_price(count)(decoding.tokens + count)
        else:
            price = self._price(count, work)
            host = self.host.added(price, count, bool(work.chunks))
            price = add(price, (0, 0, 0, 0, host, 0, 0))
        if queue.swap_ticks:
            price = add(price, (0, 0, 0, queue.swap_ticks, 0, 0, 0))
            queue.swap_ticks = 0
        for _, size in work.chunks:
            prefill += size
        duration = price[0] + price[1] + price[2] + price[3] + price[4]
        per_token, rest = divmod(duration, count + prefill)
        queue.running[0].share += rest  # the oldest request bears the rest
        self._book(replica, price, 1)
        if replica.recorder.on_step:
            replica.recorder.on_step(step_row(queue, duration, (prefill, count), price))
        queue.now += duration
        if count:  # before requests whose prompts end here join the decoding ones
            decoding.stepped(count, per_token)
        for live, size in work.chunks:
            live.computed += size
            live.share += size * per_token
            if live.computed == live.target:
                replica.computed(live)
        for live in decoding.due():
            replica.finish(live)

    def _price(self, count: int, work: Work) -> Price:
        """The price of a step with prompts, or of one that sums do not describe."""
        decoding, prefills = self.decoding, prefills_of(work)
        if not self.summed:
            contexts = [live.base + decoding.turn + 1 for live in decoding] if count else []
            return self.pricer.step(contexts, prefills)[0]
        seen = decoding.tokens + count if count else 0
        return self.pricer.summed_step(count, lambda _: seen, prefills)[0]

    def _book(self, replica: Replica, price: Price, steps: int) -> None:
        """Add the price of so many steps to the account of the replica."""
        clocks = self.decoding.clocks
        clocks[0] += price[0]
        clocks[1] += price[1]
        clocks[2] += price[2]
        clocks[3] += price[3]
        clocks[4] += price[4]
        replica.flops += price[5]
        replica.hbm_bytes += price[6]
        replica.steps += steps

    def _leap(self, replica: Replica) -> int:
        """Decode steps until a request ends, memory runs out or a request may arrive.

        The same as `_step` after `_step`, with the sums in local names. Returns their number.
        """
        horizon = replica.horizon()
        queue, decoding = replica.queue, self.decoding
        count, last = len(decoding), decoding.next_end()
        price, blocks, growing = self._decode_price(count), queue.blocks, decoding.growing
        size, on_step = blocks.size, replica.recorder.on_step
        now, turn, tokens = queue.now, decoding.turn, decoding.tokens
        sums, all_per_token, all_rest, steps = FREE, 0, 0, 0
        while now < horizon and turn < last:
            need = growing[-turn % size]
            if need > blocks.total - blocks.used:
                break
            if need:
                blocks.take(need)
            one = price(tokens + count)
            duration = one[0] + one[1] + one[2] + one[3] + one[4]
            per_token, rest = divmod(duration, count)
            if on_step:
                queue.now = now
                on_step(step_row(queue, duration, (0, count), one))
            sums = add(sums, one)
            all_per_token += per_token
            all_rest += rest
            steps += 1
            now += duration
            turn += 1
            tokens += count
        queue.now, decoding.turn, decoding.tokens = now, turn, tokens
        decoding.per_token += all_per_token
        queue.running[0].share += all_rest
        self._book(replica, sums, steps)
        for live in decoding.due():
            replica.finish(live)
        return steps

    def _decode_price(self, count: int) -> Callable[[int], Price]:
        """The price of a step that decodes `count` requests, by the tokens that they see."""
        if not self.summed:
            return lambda seen: self._price_one_by_one(seen - count - self.decoding.tokens)
        if count in self.decodes:
            return self.decodes[count]
        host = self.host.step + self.host.sequence * count
        base = add(self.pricer.linear(count, count)[0], (0, 0, 0, 0, host, 0, 0))
        curves = [(self.curves[a], n[0]) for a, n in self.pricer.attentions]
        first, times = curves[0]
        price = first.at(count, base, times)
        for curve, more in curves[1:]:
            price = _sum(price, curve.at(count), more)
        if self.host.decode_share:
            price = _stretched(price, self.host, host)
        self.decodes[count] = price
        return price

    def _price_one_by_one(self, more: int) -> Price:
        """A decode step in which every request has `more / count` tokens more than now."""
        decoding = self.decoding
        steps = more // max(1, len(decoding))
        contexts = [live.base + decoding.turn + 1 + steps for live in decoding]
        price = self.pricer.step(contexts, [])[0]
        host = self.host.added(price, len(decoding), False)
        return add(price, (0, 0, 0, 0, host, 0, 0))


def step_row(queue: RequestQueue, duration: int, tokens: tuple[int, int], price: Price) -> StepRow:
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
        price[:5],
        price[5],
        price[6],
    )


def _sum(
    a: Callable[[int], Price], b: Callable[[int], Price], times: int
) -> Callable[[int], Price]:
    return lambda seen: add(a(seen), b(seen), times)


def _stretched(price: Callable[[int], Price], host: Host, fixed: int) -> Callable[[int], Price]:
    """Prices that hold `fixed` ticks of the host, and its share of the kernels' time."""

    def longer(seen: int) -> Price:
        p = price(seen)
        kernels = p[0] + p[1] + p[2] + p[3] + p[4] - fixed
        return (*p[:4], p[4] + round(host.decode_share * kernels), *p[5:])

    return longer
