"""The decoding requests of a replica: how far each one is and which blocks it will need.

With one pipeline stage all decoding requests take part in every decode step, so that each one is
kept as its tokens less the steps so far: a step touches none of them. With several stages a
request takes part in every few batches, so that each one is kept by itself.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Protocol

from sim.serve.live import Live
from sim.serve.memory import Blocks


class Decoding(Protocol):
    """What a request queue has to know of the requests that decode."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Live]: ...
    def __contains__(self, live: object) -> bool: ...

    def add(self, live: Live) -> None:
        """A request whose prompt is computed begins to decode."""

    def remove(self, live: Live) -> None:
        """A request ends or is preempted; its `computed` tokens and `blocks` are brought up."""

    def generated(self, live: Live) -> int:
        """Tokens that a decoding request has put out."""

    def has_decoded(self, live: Live) -> bool:
        """Whether a request has put out more than the token that its prompt gave."""

    def choose(self, running: int) -> None:
        """Choose who takes part in the next batch if `running` requests run."""

    def need(self) -> int:
        """Blocks that the next decode step takes."""

    def take(self) -> bool:
        """Put the blocks of a decode step to use. False if no request would decode."""

    def victim(self, running: list[Live], live: Live | None) -> Live | None:
        """The running request to preempt next in favour of `live`; None if there is none."""

    def resume(self, live: Live) -> None:
        """A request begins to run, or to run again."""

    def book(self, live: Live) -> None:
        """A request leaves: add what the replica did since it began to run to its account."""


class LockstepDecoding:
    """Decoding requests that all take part in every decode step.

    turn: decode steps so far. tokens: tokens of all decoding requests in the cache. growing:
    requests by (computed - turn) modulo the block size. ends: a heap of (turn at which the request
    ends, index, epoch, request). clocks: ticks of all steps so far by state. per_token: ticks of
    all decode steps over the requests in each.
    """

    def __init__(self, blocks: Blocks) -> None:
        self.blocks = blocks
        self.requests: dict[Live, None] = {}
        self.tokens = self.turn = self.per_token = 0
        self.growing = [0] * blocks.size
        self.ends: list[tuple[int, int, int, Live]] = []
        self.clocks = [0] * 5

    def __len__(self) -> int:
        return len(self.requests)

    def __iter__(self) -> Iterator[Live]:
        return iter(self.requests)

    def __contains__(self, live: object) -> bool:
        return live in self.requests

    def add(self, live: Live) -> None:
        live.base = live.computed - self.turn
        live.joined = self.per_token
        self.requests[live] = None
        self.tokens += live.computed
        self.growing[live.base % self.blocks.size] += 1
        end = self.turn + live.request.output - live.generated
        heapq.heappush(self.ends, (end, live.request.index, live.epoch, live))

    def remove(self, live: Live) -> None:
        blocks = self.blocks
        live.computed = live.base + self.turn
        live.share += self.per_token - live.joined
        self.tokens -= live.computed
        self.growing[live.base % blocks.size] -= 1
        live.epoch += 1
        live.blocks = blocks.needed(live.computed)
        if live.shared:
            live.blocks -= len(live.shared) * blocks.per_hash(live.request)
        del self.requests[live]

    def generated(self, live: Live) -> int:
        end = next(e for e in self.ends if e[3] is live and e[2] == live.epoch)
        return live.request.output - (end[0] - self.turn)

    def has_decoded(self, live: Live) -> bool:
        return live in self.requests and live.base + self.turn > live.target

    def choose(self, running: int) -> None:
        """All take part."""

    def need(self) -> int:
        return self.growing[-self.turn % self.blocks.size]

    def take(self) -> bool:
        if not self.requests:
            return False
        self.blocks.take(self.need())
        return True

    def victim(self, running: list[Live], live: Live | None) -> Live | None:
        return running[-1]

    def resume(self, live: Live) -> None:
        live.snapshot = tuple(self.clocks)

    def book(self, live: Live) -> None:
        account, new, old = live.account, self.clocks, live.snapshot
        account[1] += new[0] - old[0]
        account[2] += new[1] - old[1]
        account[3] += new[2] - old[2]
        account[4] += new[3] - old[3]
        account[5] += new[4] - old[4]

    def stepped(self, count: int, per_token: int) -> None:
        """A step in which `count` requests decoded has passed, at so many ticks per token."""
        self.turn += 1
        self.tokens += count
        self.per_token += per_token

    def due(self) -> Iterator[Live]:
        """Requests that have put out their last token."""
        ends = self.ends
        while ends and ends[0][0] <= self.turn:
            _, _, epoch, live = heapq.heappop(ends)
            if epoch == live.epoch:
                live.generated = live.request.output
                yield live

    def next_end(self) -> int:
        """The turn at which the next request ends."""
        ends = self.ends
        while ends[0][2] != ends[0][3].epoch:
            heapq.heappop(ends)
        return ends[0][0]


class StaggeredDecoding:
    """Decoding requests of several pipeline stages, each in its own batch.

    chosen: the requests that the next batch takes. away: the number of batches under way that a
    request is in.
    """

    def __init__(self, blocks: Blocks, stages: int) -> None:
        self.blocks, self.stages = blocks, stages
        self.requests: dict[Live, None] = {}
        self.chosen: list[Live] = []
        self.away: dict[Live, int] = {}

    def __len__(self) -> int:
        return len(self.requests)

    def __iter__(self) -> Iterator[Live]:
        return iter(self.requests)

    def __contains__(self, live: object) -> bool:
        return live in self.requests

    def add(self, live: Live) -> None:
        self.requests[live] = None

    def remove(self, live: Live) -> None:
        del self.requests[live]

    def generated(self, live: Live) -> int:
        return live.generated

    def has_decoded(self, live: Live) -> bool:
        return live in self.requests and (live.computed > live.target or live in self.away)

    def choose(self, running: int) -> None:
        """Up to ceil(running / stages) requests, those that wait longest first."""
        here = [live for live in self.requests if live not in self.away]
        self.chosen = here[: -(-running // self.stages)]

    def due(self) -> list[Live]:
        """The chosen requests, less those that were preempted since."""
        return [live for live in self.chosen if live in self.requests]

    def need(self) -> int:
        return sum(live.computed % self.blocks.size == 0 for live in self.due())

    def take(self) -> bool:
        blocks, due = self.blocks, self.due()
        for live in due:
            more = blocks.needed(live.computed + 1) - blocks.needed(live.computed)
            blocks.take(more)
            live.blocks += more
        return bool(due)

    def victim(self, running: list[Live], live: Live | None) -> Live | None:
        """No request that is under way, nor the oldest request, nor `live` is preempted: they wait
        for what is under way, or else two requests could preempt each other for ever."""
        here = [one for one in running[1:] if one not in self.away]
        if here and here[-1] is not live:
            return here[-1]
        self.chosen = self.chosen if live else []
        return None

    def send(self, decoded: list[Live], chunks: list[Live]) -> None:
        """A batch sets out; its decoding requests go to the end of the line."""
        for live in decoded:
            del self.requests[live]
            self.requests[live] = None
        for live in (*decoded, *chunks):
            self.away[live] = self.away.get(live, 0) + 1

    def land(self, live: Live) -> None:
        """A batch that a request is in is back."""
        self.away[live] -= 1
        if not self.away[live]:
            del self.away[live]

    def resume(self, live: Live) -> None:
        """Its batches are booked as they land."""

    def book(self, live: Live) -> None:
        """Its batches were booked as they landed; the rest of its time is `bubble`."""
