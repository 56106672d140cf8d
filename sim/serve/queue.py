"""The queue of a replica: which requests wait, which run, and the KV blocks that they hold."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from sim.clock import ticks
from sim.errors import InputError
from sim.serve.decoding import Decoding
from sim.serve.knobs import Knobs
from sim.serve.live import PREEMPTED, QUEUE, Live
from sim.serve.memory import Blocks
from workloads.request import Request


class RequestQueue:
    """The requests of a replica and their memory: what a scheduler looks at and changes.

    now: the tick of the last step's end. waiting: a heap of (key, request). filling: running
    requests whose prompt is not computed yet. swap_ticks: ticks of swaps that the next step waits
    for. blocked: the first waiting request cannot start before another leaves. wake: nothing can
    be done before this tick unless a request arrives. kv_bytes: bytes of a block over all layers.
    """

    def __init__(
        self,
        knobs: Knobs,
        blocks: Blocks,
        order: Callable[[Request], float],
        decoding: Decoding,
        kv_bytes: int = 0,
    ) -> None:
        self.knobs, self.blocks, self.order = knobs, blocks, order
        self.decoding, self.kv_bytes = decoding, kv_bytes
        self.chunk_limit = knobs.long_prefill_token_threshold or 2**62
        self.now = self.wake = 0
        self.waiting: list[tuple[tuple[float, int, int], Live]] = []
        self.running: list[Live] = []
        self.filling: list[Live] = []
        self.preempted = self.refused = 0
        self.swap_ticks = 0
        self.blocked = self.decode_taken = False

    def push(self, request: Request) -> bool:
        """Add a request that arrives. False if it can never fit into the KV memory."""
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
        """Whether a request has put out more than the token that its prompt gave."""
        return self.decoding.has_decoded(live)

    def make_room(self, more: int, live: Live | None) -> bool:
        """Preempt the latest requests until a decode step and `more` blocks of `live` fit.

        False if they cannot fit, or if `live` itself was preempted.
        """
        while self.decoding.need() + more > self.blocks.free:
            victim = self.decoding.victim(self.running, live)
            if victim is None:
                return False
            self._preempt(victim)
            if victim is live:
                return False
        return True

    def admit(self, room: int, *, entire: bool) -> tuple[Live, int] | None:
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
        blocks = self.blocks
        hits = self._prefix(live) if blocks.caching else ()
        start = len(hits) * request.hash_tokens
        size = live.target - start
        if size > room:
            if entire:
                return None
            size = room
        per_hash = blocks.per_hash(request) if hits else 0
        more = blocks.needed(start + size) - blocks.needed(start)
        wanted = more + self.decoding.need()
        if hits:
            wanted += blocks.revived(hits, per_hash)
        if wanted > blocks.free:
            self.blocked = not hits  # it needs less once prefixes that it would use are dropped
            return None
        heapq.heappop(self.waiting)
        if hits:
            blocks.share(hits, per_hash)
        blocks.take(more)
        live.blocks, live.shared, live.computed = more, hits, start
        if live.scheduled < 0:
            live.hits = start
        self._resume(live)
        return live, size

    def _swap_in(self, live: Live) -> tuple[Live, int] | None:
        """Bring a request's blocks back; it goes on where it stopped."""
        more = self.blocks.needed(live.computed)
        if self.blocks.needed(live.computed + 1) + self.decoding.need() > self.blocks.free:
            self.blocked = True
            return None
        heapq.heappop(self.waiting)
        self.blocks.take(more)
        live.blocks, live.swapped = more, False
        self._swap(more)
        self._resume(live)
        if live.computed >= live.target:  # its prompt was done: it decodes on
            self.filling.remove(live)
            self.decoding.add(live)
        return live, 0

    def _swap(self, blocks: int) -> None:
        rate = self.knobs.swap_bandwidth_GBps * 1e9
        self.swap_ticks += ticks(blocks * self.kv_bytes / rate)

    def _prefix(self, live: Live) -> tuple[int, ...]:
        """The hashes of the prompt that are in memory; the last token is always computed."""
        request = live.request
        if not request.hashes:
            return ()
        useful = request.hashes[: (request.prompt - 1) // request.hash_tokens]
        return useful[: self.blocks.hits(useful)]

    def take_decode(self) -> bool:
        """Put the blocks of a decode step to use. False if no request would decode."""
        self.decode_taken = self.decoding.take()
        return self.decode_taken

    # -- state changes ----------------------------------------------------------------------

    def _resume(self, live: Live) -> None:
        waited = self.now - live.since
        live.account[QUEUE if live.scheduled < 0 else PREEMPTED] += waited
        if live.scheduled < 0:
            live.scheduled = self.now
        self.decoding.resume(live)
        self.running.append(live)
        self.filling.append(live)

    def leave(self, live: Live) -> None:
        """Out of the running ones, blocks given back."""
        self.running.remove(live)
        if live in self.decoding:
            self.decoding.remove(live)
        else:
            self.filling.remove(live)
        self.decoding.book(live)
        if live.shared:
            self.blocks.release(live.shared, self.blocks.per_hash(live.request))
            live.shared = ()
        self.blocks.give(live.blocks)
        live.blocks = 0

    def _preempt(self, live: Live) -> None:
        """Give its memory to others; what was computed is computed again later."""
        if live in self.decoding:
            live.generated = self.decoding.generated(live)
        self.leave(live)
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
