"""Processes in simulated time: generators that wait for a tick, a signal or the end of a tick.

Time is an integer number of picoseconds. Events of one tick have a total order: those that were
scheduled come first, in the order of scheduling; then processes that waited for the tick to settle
go on, one after another, in the order of their ranks.
"""

from __future__ import annotations

import gc
import heapq
from collections.abc import Callable, Generator
from itertools import count
from typing import Any

import simpy

Event = simpy.Event
Process = Generator[Event, Any, None]
Rank = tuple[int, int]
FOREVER = 2**63


class Engine:
    """A clock on which processes run."""

    def __init__(self) -> None:
        self._env = simpy.Environment()
        self._settling: list[tuple[Rank, int, simpy.Event]] = []
        self._numbers = count()
        self._armed = False

    @property
    def now(self) -> int:
        """The current tick."""
        return int(self._env.now)

    @property
    def settled(self) -> bool:
        """Whether nothing else is scheduled in this tick."""
        return self._env.peek() > self._env.now and not self._settling

    @property
    def horizon(self) -> int:
        """A tick before which nothing happens unless the process that asks makes it happen."""
        if self._settling:
            return self.now + 1
        ahead = self._env.peek()
        return FOREVER if ahead == float("inf") else int(ahead)

    def start(self, process: Process) -> None:
        """Run a generator as a process. Its first part runs in this tick."""
        self._env.process(process)

    def after(self, ticks: int, call: Callable[[Any], None], value: int) -> None:
        """Call `call` with an event of this `value`, `ticks` from now.

        A process for each task of a program would cost four times as much.
        """
        self._env.timeout(ticks, value).callbacks.append(call)

    def wait(self, ticks: int) -> simpy.Event:
        """An event `ticks` from now."""
        return self._env.timeout(ticks)

    def signal(self) -> simpy.Event:
        """An event that occurs when `succeed` is called on it."""
        return self._env.event()

    def settle(self, rank: Rank) -> simpy.Event:
        """An event at the end of this tick; among several, those of lower rank come first."""
        event = self._env.event()
        heapq.heappush(self._settling, (rank, next(self._numbers), event))
        self._arm()
        return event

    def _arm(self) -> None:
        if not self._armed:
            self._armed = True
            self.after(0, self._check, 0)

    def _check(self, _: simpy.Event) -> None:
        """Let the lowest rank go on, unless something else is still to happen in this tick."""
        self._armed = False
        if self._env.peek() > self._env.now:
            heapq.heappop(self._settling)[2].succeed()
        if self._settling:
            self._arm()

    def run(self, until: int | None = None) -> None:
        """Run until nothing is left to do, or to the tick `until`, whose own events stay."""
        # Events make no reference cycles, and the collector would walk them again and again.
        collecting = gc.isenabled()
        gc.disable()
        try:
            self._env.run(until)
        finally:
            if collecting:
                gc.enable()
