"""How requests come to replicas: processes that wait for an arrival and hand the request over.

An arrival is handed over at the end of its tick, behind batches that end in it and before replicas
plan: `ARRIVALS` ranks before `REPLICAS`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from sim.engine.processes import FOREVER, Engine, Process
from sim.serve.live import Finished
from sim.serve.replica import ARRIVALS, Replica
from sim.serve.routing import Router
from workloads.request import Request

Refuse = Callable[[Request], None]


class OpenStream:
    """Requests with arrivals of their own, each sent to a replica by a router.

    Without a router there is one replica. next_at: when the next request arrives.
    """

    def __init__(self, replicas: Sequence[Replica], route: Router | None, refuse: Refuse) -> None:
        self.replicas, self.route, self.refuse = replicas, route, refuse
        self.next_at = 0

    def start(self, engine: Engine, requests: Iterable[Request]) -> None:
        """Start the replicas and the arrivals as processes."""
        for one in self.replicas:
            one.start(engine, lambda: self.next_at)
        engine.start(self._process(engine, requests))

    def _process(self, engine: Engine, requests: Iterable[Request]) -> Process:
        for request in requests:
            self.next_at = request.arrival
            if request.arrival > engine.now:
                yield engine.wait(request.arrival - engine.now)
            if not engine.settled:
                yield engine.settle((ARRIVALS, request.index))
            if self.replicas[0].stop():
                break
            number = self.route(request, self.replicas) if self.route else 0
            if not self.replicas[number].push(request):
                self.refuse(request)
        self.next_at = FOREVER


class RoundRobin:
    """Requests that go round all replicas of a deployment, of which some are run here.

    No replica looks at another, so each has an arrival process of its own, which knows the next
    request of its replica. The stream is read as far as the process that is ahead needs it.
    """

    def __init__(self, replicas: Sequence[Replica], total: int, refuse: Refuse) -> None:
        self.replicas, self.total, self.refuse = replicas, total, refuse
        self.read: dict[int, deque[Request]] = {one.number: deque() for one in replicas}

    def start(self, engine: Engine, requests: Iterable[Request]) -> None:
        """Start the replicas and their arrivals as processes."""
        stream = iter(requests)
        for replica in self.replicas:
            own = OpenStream([replica], None, self.refuse)
            own.start(engine, self._own(stream, replica.number))

    def _own(self, stream: Iterator[Request], number: int) -> Iterator[Request]:
        """The requests of one replica."""
        mine = self.read[number]
        while True:
            while not mine:
                request = next(stream, None)
                if request is None:
                    return
                to = self.read.get(request.index % self.total)
                if to is not None:
                    to.append(request)
            yield mine.popleft()


class Feedback:
    """Requests whose arrival follows from the run: users in a closed loop, calls of a session.

    concurrency: users, each of whom sends the next request `think` ticks after an answer; None
    for an open stream in which a request may come after another one.
    """

    def __init__(
        self,
        replicas: Sequence[Replica],
        route: Router,
        refuse: Refuse,
        concurrency: int | None = None,
        think: int = 0,
    ) -> None:
        self.replicas, self.route, self.refuse = replicas, route, refuse
        self.concurrency, self.think = concurrency, think
        self.requests: Iterator[Request] = iter(())
        self.held: dict[int, list[Request]] = {}  # by the request that they come after
        self.done: dict[int, int] = {}  # request -> when it was answered
        self.engine = Engine()

    def start(self, engine: Engine, requests: Iterable[Request]) -> None:
        """Start the replicas and the first arrivals as processes."""
        self.engine, self.requests = engine, iter(requests)
        for one in self.replicas:
            one.recorder.on_finish = self._after(one.recorder.on_finish)
            one.start(engine)
        if self.concurrency is None:
            engine.start(self._stream())
        for _ in range(self.concurrency or 0):
            self._next(0)

    def _after(self, inner: Callable[[Finished], None] | None) -> Callable[[Finished], None]:
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

    def _next(self, at: int) -> None:
        """A user sends the next request of the stream at tick `at`."""
        request = next(self.requests, None)
        if request is not None:
            self._come(request, at)

    def _come(self, request: Request, at: int) -> None:
        self.engine.start(self._arrive(msgspec.structs.replace(request, arrival=at)))

    def _arrive(self, request: Request) -> Process:
        engine = self.engine
        if request.arrival > engine.now:
            yield engine.wait(request.arrival - engine.now)
        if not engine.settled:
            yield engine.settle((ARRIVALS, request.index))
        if self.replicas[0].stop():
            return
        if not self.replicas[self.route(request, self.replicas)].push(request):
            self.refuse(request)
            self._answered(request.index, request.arrival)

    def _stream(self) -> Process:
        """An open stream: its requests arrive at their own time or after the one they name."""
        for request in self.requests:
            if request.after < 0:
                yield from self._arrive(request)
            elif request.after in self.done:
                self._come(request, self.done[request.after] + request.delay)
            else:
                self.held.setdefault(request.after, []).append(request)
