"""Who waits, who runs, and the KV blocks that they hold: the places of a replica.

Decoding requests all move on together, so that each is kept as its tokens less the decode steps
so far (`base`): a step touches none of them.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

from sim.clock import ticks
from sim.errors import InputError
from sim.serve.knobs import Knobs
from sim.serve.live import PREEMPTED, QUEUE, Live
from sim.serve.memory import Blocks
from workloads.request import Request


class Seats:
    """The requests of a replica and their memory. Time is the business of `Replica`."""

    def __init__(self, knobs: Knobs, blocks: Blocks, order: Callable[[Request], float]) -> None:
        self.knobs, self.blocks, self.order = knobs, blocks, order
        self.chunk_limit = knobs.long_prefill_token_threshold or 2**62
        self.now = 0
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
        self.preempted = self.refused = 0
        self.swapping = 0  # ticks of swaps that the next step has to wait for
        self.kv_bytes = 0  # a block's, over all its layers; for swaps
        self.blocked = False  # the first waiting request stays out until another leaves

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
