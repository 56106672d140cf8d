"""Flows: work that shares resources, each at the pace that max-min fairness leaves it.

Progress is counted in ticks at nominal rate. Rates are computed once per tick, after all that
starts or ends in it, and only for the flows that a change can reach over shared resources.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sim.engine.fluid import Loads, max_min
from sim.engine.processes import Engine, Event


class Flows:
    """Flows by number over resources of the given capacities, all in one unit.

    `on_end` is called with the number of a flow when it ends; numbers may come again. paces: by
    flow, the fraction of its nominal rate from which tick on; a flow that always had its nominal
    rate is not there. None keeps no record.
    """

    def __init__(
        self,
        engine: Engine,
        capacity: Sequence[float],
        on_end: Callable[[int], None],
        paces: dict[int, list[tuple[int, float]]] | None = None,
    ) -> None:
        self.engine, self.capacity, self.on_end, self.paces = engine, capacity, on_end, paces
        self.users: list[set[int]] = [set() for _ in capacity]
        self.loads: dict[int, Loads] = {}
        self.left: dict[int, float] = {}
        self.rate: dict[int, float] = {}
        self.since: dict[int, int] = {}
        self.turn: dict[int, int] = {}
        self.changed: set[int] = set()  # resources whose users changed in this tick

    def begin(self, number: int, duration: int, loads: Loads) -> None:
        """Start a flow that takes `duration` ticks at nominal rate, and then loads resources so."""
        self.loads[number] = loads
        self.left[number], self.rate[number] = float(duration), 0.0
        self.since[number], self.turn[number] = self.engine.now, 0
        alone = True
        for resource, load in loads:
            self.users[resource].add(number)
            alone = alone and len(self.users[resource]) == 1 and load <= self.capacity[resource]
        if alone:
            self.rate[number] = 1.0
            self._schedule(number, duration)
        else:
            self._change(resource for resource, _ in loads)

    def _change(self, resources: Iterable[int]) -> None:
        if not self.changed:
            self.engine.settle((0, 0)).callbacks.append(self._share)
        self.changed.update(resources)

    def _share(self, _: Any) -> None:
        """Give every flow that a change reaches its fair rate, at the end of the tick."""
        now = self.engine.now
        reached = self._reached()
        self.changed.clear()
        for i, rate in max_min({i: self.loads[i] for i in reached}, self.capacity).items():
            if rate == self.rate[i]:
                continue
            self.left[i] = max(0.0, self.left[i] - (now - self.since[i]) * self.rate[i])
            self.rate[i], self.since[i] = rate, now
            if self.paces is not None:
                self.paces.setdefault(i, []).append((now, rate))
            self._schedule(i, round(self.left[i] / rate))

    def _reached(self) -> list[int]:
        """Flows connected to a changed resource, in the order of their numbers."""
        seen: set[int] = set()
        resources = list(self.changed)
        known = set(resources)
        while resources:
            for i in self.users[resources.pop()] - seen:
                seen.add(i)
                for resource, _ in self.loads[i]:
                    if resource not in known:
                        known.add(resource)
                        resources.append(resource)
        return sorted(seen)

    def _schedule(self, number: int, delay: int) -> None:
        self.turn[number] += 1
        turn = self.turn[number]

        def arrive(_: Any) -> None:
            if self.turn.get(number) == turn:
                self._arrive(number)

        self.engine.after(delay, arrive, number)

    def _arrive(self, number: int) -> None:
        shared = []
        for resource, _ in self.loads[number]:
            self.users[resource].discard(number)
            if self.users[resource]:
                shared.append(resource)
        for table in (self.loads, self.left, self.rate, self.since, self.turn):
            del table[number]
        if shared:
            self._change(shared)
        self.on_end(number)


class Transfers:
    """Flows as events, for processes that wait for them."""

    def __init__(self, engine: Engine, capacity: Sequence[float]) -> None:
        self.engine, self.ends = engine, dict[int, Event]()
        self.flows = Flows(engine, capacity, self._end)
        self.begun = 0

    def start(self, latency: int, duration: int, loads: Loads) -> Event:
        """An event at the end of a flow that begins after `latency` ticks."""
        number = self.begun
        self.begun += 1
        event = self.ends[number] = self.engine.signal()
        if not loads:
            self.engine.after(latency + duration, self._over, number)
        elif latency:
            self.engine.after(latency, lambda _: self.flows.begin(number, duration, loads), number)
        else:
            self.flows.begin(number, duration, loads)
        return event

    def _over(self, event: Any) -> None:
        self._end(event.value)

    def _end(self, number: int) -> None:
        self.ends.pop(number).succeed()
