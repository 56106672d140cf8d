"""One replica: requests come in, steps run, requests leave. Time advances step by step.

Between two scheduling events a batch that only decodes repeats with growing contexts. `_leap`
goes through these steps without planning or touching the requests; it lands on the same
picosecond as step by step, and can be switched off.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Annotated, Literal

import msgspec

from sim.clock import ticks
from sim.errors import InputError
from sim.serve.curve import DecodeCurve
from sim.serve.live import PREEMPTED, QUEUE, Finished, Live, Outcome, StepRow
from sim.serve.memory import Blocks
from sim.serve.policies import Policy, Work
from sim.serve.pricing import FREE, Prefill, Price, Pricer, add
from sim.states import Ticks
from workloads.model import Record
from workloads.request import Request

Positive = Annotated[int, msgspec.Meta(gt=0, le=2**31)]


FOREVER = 2**63


def never() -> bool:
    """The run is not to be broken off."""
    return False


class Knobs(Record, frozen=True, kw_only=True):
    """A scheduler's settings, by their names in vLLM."""

    max_num_seqs: Positive = 128
    max_num_batched_tokens: Positive = 2048
    long_prefill_token_threshold: Annotated[int, msgspec.Meta(ge=0)] = 0
    block_size: Positive = 16
    enable_prefix_caching: bool = False
    preemption: Literal["recompute", "swap"] = "recompute"
    swap_bandwidth_GBps: Annotated[float, msgspec.Meta(gt=0)] = 25.0  # host link, one direction
    max_wait_ms: Annotated[float, msgspec.Meta(ge=0, le=1e9)] = 10.0  # of the dynamic policy
    padded: bool = False

    def __post_init__(self) -> None:
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens = {self.max_num_batched_tokens} is below max_num_seqs = "
                f"{self.max_num_seqs}; every running sequence needs a token a step"
            )

    @property
    def max_wait_ticks(self) -> int:
        return ticks(self.max_wait_ms * 1e-3)


class Replica:
    """The loop of one replica on one pipeline stage."""

    def __init__(
        self,
        pricer: Pricer,
        policy: Policy,
        knobs: Knobs,
        blocks: Blocks,
        *,
        host: int = 0,
        order: Callable[[Request], float] = lambda request: 0.0,
        number: int = 0,
        leap: bool = True,
        on_step: Callable[[StepRow], None] | None = None,
        on_finish: Callable[[Finished], None] | None = None,
    ) -> None:
        self.pricer, self.policy, self.knobs, self.blocks = pricer, policy, knobs, blocks
        self.host, self.order, self.number, self.leap = host, order, number, leap
        self.on_step, self.on_finish = on_step, on_finish
        self.stop: Callable[[], bool] = never  # asked between steps
        self.chunk_limit = knobs.long_prefill_token_threshold or 2**62
        self.now = 0
        self.wake = 0  # there is nothing to do before, unless a request comes
        self.waiting: list[tuple[tuple[float, int, int], Live]] = []
        self.running: list[Live] = []
        self.filling: list[Live] = []
        self.decoding: dict[Live, None] = {}
        self.tokens = 0  # in the cache, of decoding requests
        self.turn = 0  # decode steps so far
        self.growing = [0] * knobs.block_size  # decoding requests by (computed - turn) mod size
        self.ends: list[tuple[int, int, int, Live]] = []  # (turn, index, epoch) of decoding ones
        self.clocks = [0] * 5  # ticks of all steps by state
        self.each = 0  # ticks of decode steps over their tokens
        self.preempted = self.finished = self.refused = 0
        self.flops = self.hbm_bytes = self.steps = 0
        self.swapping = 0  # ticks of swaps that the next step has to wait for
        self.kv_bytes = 0  # a block's, over all its layers; for swaps
        self.blocked = False  # the first waiting request stays out until another leaves
        self.curves = {
            a: DecodeCurve(pricer.costs, a, pricer.precision) for a, _ in pricer.attentions
        }
        self.windowed = any(a.window for a, _ in pricer.attentions)

    # -- requests in ------------------------------------------------------------------------

    def push(self, request: Request) -> bool:
        """A request arrives. False if it can never fit into the KV memory."""
        longest = request.prompt + max(0, request.output - 1)
        if self.blocks.needed(longest) > self.blocks.total:
            self.refused += 1
            return False
        if self.blocks.caching and request.hashes and request.hash_tokens % self.blocks.size:
            raise InputError(
                f"request {request.index}: block_size = {self.blocks.size} does not divide the "
                f"{request.hash_tokens} tokens that a hash of its prompt covers; prefix caching "
                "needs whole blocks"
            )
        self.wake = 0
        live = Live(request, (self.order(request), request.arrival, request.index))
        heapq.heappush(self.waiting, (live.key, live))
        return True

    @property
    def outstanding(self) -> int:
        """Requests that wait or run."""
        return len(self.waiting) + len(self.running)

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
        )

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
                raise AssertionError("a policy planned nothing although requests wait")
            self.wake = work.wake
            self.now = min(until, work.wake)
            return
        self._run(work)
        # If a request has left, what did not fit may fit now, and its answer may bring another.
        same = self.finished + self.preempted == left
        steady = same and (not self.waiting or (self.blocked and not work.chunks))
        if self.leap and steady and self.decoding and not self.filling:
            self._leap(until)

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

    # -- what a policy asks for -------------------------------------------------------------

    def growth(self, live: Live, size: int) -> int:
        """Blocks that `size` more tokens of a request take."""
        return self.blocks.needed(live.computed + size) - self.blocks.needed(live.computed)

    def grow(self, live: Live, size: int) -> None:
        more = self.growth(live, size)
        self.blocks.take(more)
        live.blocks += more

    def has_decoded(self, live: Live) -> bool:
        """Whether a running request has put out more than what its prompt gave."""
        return live in self.decoding and live.base + self.turn > live.target

    def decode_need(self) -> int:
        """Blocks that one more token of every decoding request takes."""
        return self.growing[-self.turn % self.knobs.block_size]

    def make_room(self, more: int, live: Live | None) -> bool:
        """Preempt the latest requests until a decode step and `more` blocks fit.

        False if `live` itself had to go.
        """
        while self.decode_need() + more > self.blocks.free:
            victim = self.running[-1]
            self._preempt(victim)
            if victim is live:
                return False
        return True

    def admit(self, room: int, *, whole: bool) -> tuple[Live, int] | None:
        """The first waiting request with the tokens it may compute, or None if it cannot start."""
        if not self.waiting:
            return None
        if len(self.running) >= self.knobs.max_num_seqs:
            self.blocked = True
            return None
        live = self.waiting[0][1]
        request = live.request
        if live.swapped:
            return self._swap_in(live)
        hits = self._prefix(live)
        start = len(hits) * request.hash_tokens
        size = live.target - start
        if size > room:
            if whole:
                return None
            size = room
        each = request.hash_tokens // self.knobs.block_size
        more = self.blocks.needed(start + size) - self.blocks.needed(start)
        wanted = more + self.blocks.revived(hits, each) + self.decode_need()
        if wanted > self.blocks.free:
            self.blocked = not hits  # it needs less once prefixes that it would use are dropped
            return None
        heapq.heappop(self.waiting)
        self.blocks.share(hits, each)
        self.blocks.take(more)
        live.blocks, live.shared, live.computed = more, hits, start
        if live.scheduled < 0:
            live.hits = start
        self._resume(live)
        return live, size

    def _swap_in(self, live: Live) -> tuple[Live, int] | None:
        """Bring a request's blocks back; it goes on where it stopped."""
        more = self.blocks.needed(live.computed)
        if self.blocks.needed(live.computed + 1) + self.decode_need() > self.blocks.free:
            self.blocked = True
            return None
        heapq.heappop(self.waiting)
        self.blocks.take(more)
        live.blocks, live.swapped = more, False
        self._swap(more)
        self._resume(live)
        if live.computed >= live.target:  # its prompt was done: it decodes on
            self.filling.remove(live)
            self._start_decoding(live)
        return live, 0

    def _swap(self, blocks: int) -> None:
        rate = self.knobs.swap_bandwidth_GBps * 1e9
        self.swapping += ticks(blocks * self.kv_bytes / rate)

    def _prefix(self, live: Live) -> tuple[int, ...]:
        """The hashes of the prompt that are in memory; the last token is always computed."""
        request = live.request
        if not self.blocks.caching or not request.hashes:
            return ()
        useful = request.hashes[: (request.prompt - 1) // request.hash_tokens]
        return useful[: self.blocks.hits(useful)]

    def take_decode(self) -> bool:
        """Put the blocks of a decode step to use. False if nobody decodes."""
        if not self.decoding:
            return False
        self.blocks.take(self.decode_need())
        return True

    # -- state changes ----------------------------------------------------------------------

    def _resume(self, live: Live) -> None:
        waited = self.now - live.since
        live.account[QUEUE if live.scheduled < 0 else PREEMPTED] += waited
        if live.scheduled < 0:
            live.scheduled = self.now
        live.snapshot = tuple(self.clocks)
        self.running.append(live)
        self.filling.append(live)

    def _book(self, live: Live) -> None:
        """Add what the replica did since the request began to run."""
        for i, (new, old) in enumerate(zip(self.clocks, live.snapshot, strict=True)):
            live.account[1 + i] += new - old

    def _leave(self, live: Live) -> None:
        """Out of the running ones, blocks given back."""
        self.running.remove(live)
        if live in self.decoding:
            self._stop_decoding(live)
        else:
            self.filling.remove(live)
        self._book(live)
        each = live.request.hash_tokens // self.knobs.block_size
        self.blocks.release(live.shared, each)
        self.blocks.give(live.blocks)
        live.blocks, live.shared = 0, ()

    def _stop_decoding(self, live: Live) -> None:
        live.computed = live.base + self.turn
        live.share += self.each - live.joined
        self.tokens -= live.computed
        self.growing[live.base % self.knobs.block_size] -= 1
        live.epoch += 1
        owned = self.blocks.needed(live.computed)
        live.blocks = owned - len(live.shared) * (live.request.hash_tokens // self.knobs.block_size)
        del self.decoding[live]

    def _start_decoding(self, live: Live) -> None:
        live.base = live.computed - self.turn
        live.joined = self.each
        self.decoding[live] = None
        self.tokens += live.computed
        self.growing[live.base % self.knobs.block_size] += 1
        end = self.turn + live.request.output - live.generated
        heapq.heappush(self.ends, (end, live.request.index, live.epoch, live))

    def _generated(self, live: Live) -> int:
        """Tokens that a decoding request has put out: its end tells how many are to come."""
        end = next(e for e in self.ends if e[3] is live and e[2] == live.epoch)
        return live.request.output - (end[0] - self.turn)

    def _preempt(self, live: Live) -> None:
        """Give its memory to others; what was computed is computed again later."""
        if live in self.decoding:
            live.generated = self._generated(live)
        self._leave(live)
        if self.knobs.preemption == "swap":
            self._swap(self.blocks.needed(live.computed))
            live.swapped = True
        else:
            live.target = live.request.prompt + live.generated
            live.computed = 0
        live.preemptions += 1
        live.since = self.now
        self.preempted += 1
        heapq.heappush(self.waiting, (live.key, live))

    # -- steps ------------------------------------------------------------------------------

    def _run(self, work: Work) -> None:
        """Price a step, let its time pass, and do what it does."""
        decoded = list(self.decoding) if work.decode else []
        prefills = self._prefills(work)
        price = self._price(decoded, prefills)
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
        if not self.pricer.tabled or self.windowed:
            contexts = [live.base + self.turn + 1 for live in decoded]
            return self.pricer.step(contexts, prefills)[0]
        tokens = len(decoded) + sum(p.new for p in prefills)
        rows = len(decoded) + sum(p.last for p in prefills)
        price = self.pricer.linear(tokens, rows)[0]
        chunks: dict[tuple[int, int], int] = {}
        for p in prefills:
            chunks[p.new, p.cached] = chunks.get((p.new, p.cached), 0) + 1
        seen = self.tokens + len(decoded) if decoded else 0
        for attention, counts in self.pricer.attentions:
            one = self.pricer.attention_sums(attention, tokens, seen, chunks)
            price = add(price, one, counts[0])
        return price

    def _pass_time(self, price: Price, tokens: int, decode: int, prefill: int) -> int:
        """Advance the clock by a step; returns the ticks a token. The oldest bears the rest."""
        duration = sum(price[:5]) + self.host
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
        clocks[4] += price[4] + steps * self.host
        self.flops += price[5]
        self.hbm_bytes += price[6]
        self.steps += steps

    def _report(self, price: Price, duration: int, decode: int, prefill: int) -> None:
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
                (price[0], price[1], price[2], price[3], price[4] + self.host),
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
        size, host, on_step = self.knobs.block_size, self.host, self.on_step
        now, turn, tokens = self.now, self.turn, self.tokens
        sums, all_each, all_rest, steps = FREE, 0, 0, 0
        while now < until and turn < last:
            need = growing[-turn % size]
            if need > blocks.total - blocks.used:
                break
            if need:
                blocks.take(need)
            one = price(tokens + count)
            duration = one[0] + one[1] + one[2] + one[3] + one[4] + host
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
        if self.windowed or not self.pricer.tabled:
            return lambda seen: self._price_one_by_one(seen - count - self.tokens)
        base = self.pricer.linear(count, count)[0]
        curves = [(self.curves[a], n[0]) for a, n in self.pricer.attentions]
        first, times = curves[0]
        found = first.at(count, base, times)
        for curve, more in curves[1:]:
            found = _sum(found, curve.at(count), more)
        return found

    def _price_one_by_one(self, more: int) -> Price:
        """A decode step in which every request has `more / count` tokens more than now."""
        steps = more // max(1, len(self.decoding))
        contexts = [live.base + self.turn + 1 + steps for live in self.decoding]
        return self.pricer.step(contexts, [])[0]


def _sum(
    a: Callable[[int], Price], b: Callable[[int], Price], times: int
) -> Callable[[int], Price]:
    return lambda seen: add(a(seen), b(seen), times)
