"""Which replica a request goes to, and in which order replicas move on.

A router is a function of the request and the replicas. It sees a replica as of the end of the
step that is under way when the request arrives. Register one in ROUTERS, or name it by its import
path ("module:function").
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import cast

import msgspec

from sim.errors import InputError
from sim.serve.live import Finished
from sim.serve.policies import imported
from sim.serve.replica import FOREVER, Replica
from workloads.request import Request

Router = Callable[[Request, Sequence[Replica]], int]


def round_robin(request: Request, replicas: Sequence[Replica]) -> int:
    return request.index % len(replicas)


def least_outstanding(request: Request, replicas: Sequence[Replica]) -> int:
    return min(range(len(replicas)), key=lambda i: (replicas[i].outstanding, i))


def least_kv(request: Request, replicas: Sequence[Replica]) -> int:
    """Least memory in use, and asked for by those who wait."""

    def wanted(i: int) -> int:
        one = replicas[i]
        waiting = sum(one.blocks.needed(live.target) for _, live in one.waiting)
        return one.blocks.used + waiting

    return min(range(len(replicas)), key=lambda i: (wanted(i), i))


def prefix_aware(request: Request, replicas: Sequence[Replica]) -> int:
    """Most of the prompt already in memory; among equals the least outstanding."""

    def rank(i: int) -> tuple[int, int, int]:
        return (-replicas[i].blocks.hits(request.hashes), replicas[i].outstanding, i)

    return min(range(len(replicas)), key=rank)


ROUTERS: dict[str, Router] = {
    "round-robin": round_robin,
    "least-outstanding": least_outstanding,
    "least-kv": least_kv,
    "prefix-aware": prefix_aware,
}


def router(name: str) -> Router:
    """A router by its name or its import path. Raises InputError with what is known."""
    if name in ROUTERS:
        return ROUTERS[name]
    made = imported("router", name, ROUTERS)
    if not callable(made):
        raise InputError(f"router {name!r} is not a function")
    return cast(Router, made)


def chosen(route: Router, request: Request, replicas: Sequence[Replica]) -> Replica:
    """The replica that a router sends a request to. Raises InputError if there is none such."""
    number = route(request, replicas)
    if type(number) is not int or not 0 <= number < len(replicas):
        name = f"{route.__module__}:{getattr(route, '__qualname__', route)}"
        raise InputError(
            f"router {name} sent request {request.index} to replica {number!r}; there are "
            f"0 to {len(replicas) - 1}"
        )
    return replicas[number]


def dispatch(
    requests: Iterable[Request],
    replicas: Sequence[Replica],
    route: Router,
    refused: Callable[[Request], None],
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Requests that come at times of their own: each replica runs up to every arrival."""
    for request in requests:
        if stop():
            return
        for one in replicas:
            one.run_until(request.arrival)
        if not chosen(route, request, replicas).push(request):
            refused(request)
    for one in replicas:
        one.drain()


class Feedback:
    """Requests whose arrival follows from the run: users in a closed loop, calls of a session.

    The replica in which something happens first moves on, at most to where something happens in
    another and to its own next answer, so that an answer can bring a request to any of them at
    its own time.
    """

    def __init__(
        self,
        requests: Iterator[Request],
        replicas: Sequence[Replica],
        route: Router,
        refused: Callable[[Request], None],
        concurrency: int | None,
        think: int,
    ) -> None:
        self.requests, self.replicas, self.route, self.refused = requests, replicas, route, refused
        self.concurrency, self.think = concurrency, think
        self.coming: list[tuple[int, int, Request]] = []
        self.opened = 0  # requests in it that came from the stream with a time of their own
        self.held: dict[int, list[Request]] = {}  # by the request that they come after
        self.done: dict[int, int] = {}
        for one in replicas:
            one.on_finish = self._hook(one.on_finish)

    def _hook(self, inner: Callable[[Finished], None] | None) -> Callable[[Finished], None]:
        def finished(row: Finished) -> None:
            if inner:
                inner(row)
            self._answered(row.index, row.last_token)

        return finished

    def _answered(self, index: int, at: int) -> None:
        if self.concurrency is not None:
            self._next(at + self.think)
            return
        self.done[index] = at
        for follower in self.held.pop(index, []):
            self._come(follower, at + follower.delay)

    def _come(self, request: Request, at: int) -> None:
        moved = msgspec.structs.replace(request, arrival=at)
        heapq.heappush(self.coming, (at, request.index, moved))

    def _next(self, at: int) -> None:
        request = next(self.requests, None)
        if request is not None:
            self._come(request, at)

    def _pull(self) -> None:
        """Keep the next request of an open stream at hand, and those that come after others."""
        while self.concurrency is None and not self.opened:
            request = next(self.requests, None)
            if request is None:
                return
            if request.after < 0:
                self.opened += 1
                self._come(request, request.arrival)
            elif request.after in self.done:
                self._come(request, self.done[request.after] + request.delay)
            else:
                self.held.setdefault(request.after, []).append(request)

    def run(self, stop: Callable[[], bool] = lambda: False) -> None:
        """Serve everything."""
        for _ in range(self.concurrency or 0):
            self._next(0)
        while not stop():
            self._pull()
            at = self.coming[0][0] if self.coming else FOREVER
            busy = sorted(
                (one.next_at, not one.landing, i)
                for i, one in enumerate(self.replicas)
                if one.outstanding
            )
            if busy and busy[0][0] < at:
                others = busy[1][0] if len(busy) > 1 else FOREVER
                self.replicas[busy[0][2]].advance(min(at, max(others, busy[0][0] + 1)))
            elif self.coming:
                self._deliver()
            else:
                return

    def _deliver(self) -> None:
        at, _, request = heapq.heappop(self.coming)
        self.opened -= self.concurrency is None and request.after < 0
        for one in self.replicas:
            one.run_until(at)
        if not chosen(self.route, request, self.replicas).push(request):
            self.refused(request)
            self._answered(request.index, at)
