"""One replica: requests come in, steps run, requests leave. Time advances step by step.

Between two scheduling events a batch that only decodes repeats with growing contexts. `_leap`
goes through these steps without planning or touching the requests; it lands on the same
picosecond as step by step, and can be switched off.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

from sim.clock import seconds
from sim.errors import InputError
from sim.serve.curve import DecodeCurve
from sim.serve.host import Host
from sim.serve.knobs import Knobs
from sim.serve.live import Finished, Live, Outcome, StepRow
from sim.serve.memory import Blocks
from sim.serve.policies import Policy, Work
from sim.serve.prices import FREE, Price, add
from sim.serve.pricing import Prefill, Pricer
from sim.serve.seats import Seats
from sim.states import Ticks
from workloads.request import Request

FOREVER = 2**63


def never() -> bool:
    """The run is not to be broken off."""
    return False


class Replica(Seats):
    """The loop of one replica on one pipeline stage."""

    def __init__(
        self,
        pricer: Pricer,
        policy: Policy,
        knobs: Knobs,
        blocks: Blocks,
        *,
        host: Host | int = 0,
        order: Callable[[Request], float] = lambda request: 0.0,
        number: int = 0,
        leap: bool = True,
        on_step: Callable[[StepRow], None] | None = None,
        on_finish: Callable[[Finished], None] | None = None,
    ) -> None:
        super().__init__(knobs, blocks, order)
        self.pricer, self.policy = pricer, policy
        self.host = Host(host) if isinstance(host, int) else host
        self.number, self.leap = number, leap
        self.on_step, self.on_finish = on_step, on_finish
        self.stop: Callable[[], bool] = never  # asked between steps
        self.wake = 0  # there is nothing to do before, unless a request comes
        self.finished = self.flops = self.hbm_bytes = self.steps = 0
        self.curves = {
            a: DecodeCurve(pricer.costs, a, pricer.precision) for a, _ in pricer.attentions
        }
        self.summed = pricer.tabled and not any(a.window for a, _ in pricer.attentions)
        self.decodes: dict[int, Callable[[int], Price]] = {}  # by how many take part

    def outcome(self, tokens_in: int, tokens_out: int) -> Outcome:
        """The account of the replica so far."""
        stages = self._stages()
        return Outcome(
            self.number,
            self.now,
            stages,
            self.steps,
            self.finished,
            self.refused,
            self.preempted,
            self.flops,
            self.hbm_bytes,
            tokens_in,
            tokens_out,
            self._held(),
        )

    def _held(self) -> tuple[int, int] | None:
        """See `Outcome.held`."""
        return None

    def _stages(self) -> tuple[Ticks, ...]:
        """The seven states of each stage; they sum to `now`."""
        c = self.clocks
        return ((c[0], c[1], c[2], c[3], c[4], 0, self.now - sum(c)),)

    def run_until(self, until: int) -> None:
        """Run all steps that start before `until`; idle if there is nothing to do."""
        while self.now < until and not self.stop():
            if not self.waiting and not self.running:
                self.now = until
                return
            self.advance(until)

    @property
    def next_at(self) -> int:
        """When something happens next, unless a request comes."""
        return max(self.now, self.wake)

    @property
    def landing(self) -> bool:
        """Whether that is a batch that comes back, which may bring an answer at once."""
        return False

    def advance(self, until: int) -> None:
        """Plan and run one step, and those that repeat it, to the first that a request leaves."""
        self.blocked = False
        left = self.finished + self.preempted
        work = self._plan()
        if not work.chunks and not work.decode:
            if work.wake <= self.now:
                raise self.idle_policy()
            self.wake = work.wake
            self.now = min(until, work.wake)
            return
        self._run(work)
        # If a request has left, what did not fit may fit now, and its answer may bring another.
        same = self.finished + self.preempted == left
        steady = same and (not self.waiting or (self.blocked and not work.chunks))
        if self.leap and steady and self.decoding and not self.filling:
            self._leap(until)

    def idle_policy(self) -> InputError:
        """What to say of a policy that would stand still for ever."""
        kind = type(self.policy)
        return InputError(
            f"scheduler {kind.__module__}:{kind.__qualname__} planned nothing at "
            f"{seconds(self.now):g} s although {self.outstanding} requests are there; a `Work` "
            "needs chunks, decode, or a `wake` to come"
        )

    def _plan(self) -> Work:
        """What the policy wants to do now; asked again if all it did was to swap or preempt."""
        before = len(self.running), self.preempted
        work = self.policy.plan(self)
        if work.chunks or work.decode or before == (len(self.running), self.preempted):
            return work
        return self._plan()

    def drain(self) -> None:
        """Run until no request is left."""
        while (self.waiting or self.running) and not self.stop():
            self.advance(FOREVER)

    # -- steps ------------------------------------------------------------------------------

    def _run(self, work: Work) -> None:
        """Price a step, let its time pass, and do what it does."""
        decoded = list(self.decoding) if work.decode else []
        if self.summed and not work.chunks:
            price = self._decode_price(len(decoded))(self.tokens + len(decoded))
        else:
            price = self._price(decoded, self._prefills(work))
            host = self.host.added(price, len(decoded), bool(work.chunks))
            price = add(price, (0, 0, 0, 0, host, 0, 0))
        if self.swapping:
            price = add(price, (0, 0, 0, self.swapping, 0, 0, 0))
            self.swapping = 0
        tokens = len(decoded) + sum(size for _, size in work.chunks)
        each = self._pass_time(price, tokens, len(decoded), tokens - len(decoded))
        if decoded:  # before prompts that end here join the decoding ones
            self._decoded(len(decoded), each)
        for live, size in work.chunks:
            live.computed += size
            live.share += size * each
            if live.computed == live.target:
                self._prefilled(live)
        self._finish_due()

    @staticmethod
    def _prefills(work: Work) -> list[Prefill]:
        longest = max((size for _, size in work.chunks), default=0)
        return [
            Prefill(
                longest if work.padded else size, live.computed, live.computed + size == live.target
            )
            for live, size in work.chunks
        ]

    def _price(self, decoded: list[Live], prefills: list[Prefill]) -> Price:
        """The price of a step on the one stage."""
        if not self.summed:
            contexts = [live.base + self.turn + 1 for live in decoded]
            return self.pricer.step(contexts, prefills)[0]
        seen = self.tokens + len(decoded) if decoded else 0
        return self.pricer.summed_step(len(decoded), lambda _: seen, prefills)[0]

    def _pass_time(self, price: Price, tokens: int, decode: int, prefill: int) -> int:
        """Advance the clock by a step; returns the ticks a token. The oldest bears the rest."""
        duration = sum(price[:5])
        each, rest = divmod(duration, tokens)
        self.running[0].share += rest
        self._book_time(price, 1)
        if self.on_step:
            self._report(price, duration, decode, prefill)
        self.now += duration
        return each

    def _book_time(self, price: Price, steps: int) -> None:
        """Add the price of so many steps to the account of the replica."""
        clocks = self.clocks
        clocks[0] += price[0]
        clocks[1] += price[1]
        clocks[2] += price[2]
        clocks[3] += price[3]
        clocks[4] += price[4]
        self.flops += price[5]
        self.hbm_bytes += price[6]
        self.steps += steps

    def _report(self, price: Price, duration: int, decode: int, prefill: int) -> None:
        """A row of `steps`; `price` is of the whole step, host time included."""
        assert self.on_step is not None
        self.on_step(
            StepRow(
                self.now,
                duration,
                prefill,
                decode,
                len(self.running),
                len(self.waiting),
                self.blocks.used,
                price[:5],
                price[5],
                price[6],
            )
        )

    def _decoded(self, count: int, each: int) -> None:
        self.turn += 1
        self.tokens += count
        self.each += each

    def _prefilled(self, live: Live) -> None:
        """The prompt is computed: a token comes out, and it decodes on unless that was all."""
        if self.blocks.caching and live.request.hashes:
            self._publish(live)
        if live.request.output:
            live.generated += 1
        if live.first < 0:
            live.first = self.now
        if live.generated >= live.request.output:
            self._finish(live)
            return
        self.filling.remove(live)
        self._start_decoding(live)

    def _publish(self, live: Live) -> None:
        """Offer the full blocks of the prompt to requests that start the same."""
        request = live.request
        each = request.hash_tokens // self.knobs.block_size
        whole = request.hashes[: request.prompt // request.hash_tokens]
        for one in whole[len(live.shared) :]:
            if self.blocks.publish(one):  # else it keeps its own copy to itself
                live.blocks -= each
                live.shared += (one,)

    def _finish_due(self) -> None:
        while self.ends and self.ends[0][0] <= self.turn:
            _, _, epoch, live = heapq.heappop(self.ends)
            if epoch == live.epoch:
                live.generated = live.request.output
                self._finish(live)

    def _finish(self, live: Live) -> None:
        self._leave(live)
        self.finished += 1
        if self.on_finish:
            r = live.request
            self.on_finish(
                Finished(
                    r.index,
                    r.id,
                    self.number,
                    r.arrival,
                    live.scheduled,
                    live.first,
                    self.now,
                    r.prompt,
                    r.output,
                    live.preemptions,
                    live.hits,
                    live.share,
                    tuple(live.account),
                )
            )

    def _leap(self, until: int) -> None:
        """Decode steps until a request ends, memory runs out, or `until` has come.

        The same as `_turn` after `_turn`, with the sums kept in local names.
        """
        while self.ends and self.ends[0][2] != self.ends[0][3].epoch:
            heapq.heappop(self.ends)
        count, last = len(self.decoding), self.ends[0][0]
        price, blocks, growing = self._decode_price(count), self.blocks, self.growing
        size, on_step = self.knobs.block_size, self.on_step
        now, turn, tokens = self.now, self.turn, self.tokens
        sums, all_each, all_rest, steps = FREE, 0, 0, 0
        while now < until and turn < last:
            need = growing[-turn % size]
            if need > blocks.total - blocks.used:
                break
            if need:
                blocks.take(need)
            one = price(tokens + count)
            duration = one[0] + one[1] + one[2] + one[3] + one[4]
            each, rest = divmod(duration, count)
            if on_step:
                self.now = now
                self._report(one, duration, count, 0)
            sums = add(sums, one)
            all_each += each
            all_rest += rest
            steps += 1
            now += duration
            turn += 1
            tokens += count
        self.now, self.turn, self.tokens = now, turn, tokens
        self.each += all_each
        self.running[0].share += all_rest
        self._book_time(sums, steps)
        self._finish_due()

    def _decode_price(self, count: int) -> Callable[[int], Price]:
        """The price of a step that decodes `count` requests, by the tokens they see."""
        if not self.summed:
            return lambda seen: self._price_one_by_one(seen - count - self.tokens)
        if count in self.decodes:
            return self.decodes[count]
        host = self.host.step + self.host.sequence * count
        base = add(self.pricer.linear(count, count)[0], (0, 0, 0, 0, host, 0, 0))
        curves = [(self.curves[a], n[0]) for a, n in self.pricer.attentions]
        first, times = curves[0]
        found = first.at(count, base, times)
        for curve, more in curves[1:]:
            found = _sum(found, curve.at(count), more)
        if self.host.decode_share:
            found = _stretched(found, self.host, host)
        self.decodes[count] = found
        return found

    def _price_one_by_one(self, more: int) -> Price:
        """A decode step in which every request has `more / count` tokens more than now."""
        steps = more // max(1, len(self.decoding))
        contexts = [live.base + self.turn + 1 + steps for live in self.decoding]
        price = self.pricer.step(contexts, [])[0]
        host = self.host.added(price, len(self.decoding), False)
        return add(price, (0, 0, 0, 0, host, 0, 0))


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
