"""The pipeline stages of a replica: batches go through them one behind another.

As long as no two hand-overs of hidden states meet, all that happens to a batch is known when it
sets out, and one timeout stands for it: the batch is planned. Two hand-overs meet if one begins
before another is over that uses the same link. From then on the batches under way are processes,
whose hand-overs share the links as flows, until no batch is between two stages. Both ways end at
the same picosecond.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from sim.engine.flows import Transfers
from sim.engine.processes import Engine, Event, Process
from sim.serve.flight import Flight, Visit
from sim.serve.handovers import Handovers


class PipelineStages:
    """Takes flights through the stages, and calls `land` when the first of them is back.

    plans: whether flights may be planned. free_at: when the last flight leaves each stage. flights:
    those under way. windows: by stage, begins and ends of the planned hand-overs into it that may
    still be under way. overtook: flights that reached a stage before the one ahead of them.
    """

    def __init__(
        self, engine: Engine, handovers: Handovers, land: Callable[[], None], *, plans: bool
    ) -> None:
        self.engine, self.handovers, self.land, self.plans = engine, handovers, land, plans
        self.links = Transfers(engine, handovers.capacity)
        self.count = handovers.stages
        self.free_at = [0] * self.count
        self.flights: deque[Flight] = deque()
        # No more than one flight per stage is under way.
        self.windows = [deque[tuple[int, int]](maxlen=self.count) for _ in self.free_at]
        self.overtook: dict[tuple[int, int], Event] = {}

    @property
    def full(self) -> bool:
        """Whether as many flights are under way as there are stages."""
        return len(self.flights) == self.count

    def send(self, flight: Flight) -> None:
        """A flight has begun the first stage: take it through the others."""
        self.flights.append(flight)
        self.free_at[0] = flight.visits[0].end
        if not self._plan():
            self._fly(flight)

    # -- planned ----------------------------------------------------------------------------

    def _plan(self) -> bool:
        """Plan the flights that are not planned yet, if no hand-over is under way or will meet
        another; otherwise none is planned any more."""
        now = self.engine.now
        moving = [one for one in self.flights if len(one.visits) < self.count]
        if not self.plans or any(one.visits[-1].end <= now for one in moving):
            return False
        if all(self._through(one) for one in moving):
            for one in moving:
                self._wait_for(one)
            return True
        self._drop_plans(now)
        return False

    def _through(self, flight: Flight) -> bool:
        """Take a flight that is in a stage through the others in closed form.

        False if a hand-over would meet another, or reach a stage before the flight ahead.
        """
        visits, free_at = flight.visits, self.free_at
        left = visits[-1].end
        for stage in range(len(visits), self.count):
            handover, windows = flight.handovers[stage - 1], self.windows[stage]
            begin = left + handover.latency
            arrived = begin + handover.duration
            if (windows and begin <= windows[-1][1]) or self._meets(stage, begin, arrived):
                return False
            windows.append((begin, arrived))
            free = free_at[stage]
            cost = flight.costs[stage]
            end = (arrived if arrived > free else free) + sum(cost[:5])
            visits.append(Visit(left, arrived, free, end))
            free_at[stage] = left = end
        return True

    def _meets(self, stage: int, begin: int, end: int) -> bool:
        """Whether a hand-over into a stage meets a planned one into another stage."""
        for rival in self.handovers.rivals[stage]:
            for other_begin, other_end in self.windows[rival]:
                if begin <= other_end and other_begin <= end:
                    return True
        return False

    def _wait_for(self, flight: Flight) -> None:
        """Land a planned flight in time, unless its plan is dropped before."""
        flight.planned = True
        flight.turn += 1
        turn = flight.turn

        def back(_: Any) -> None:
            if flight.turn == turn:
                self.land()

        self.engine.after(flight.visits[-1].end - self.engine.now, back, flight.number)

    def _drop_plans(self, now: int) -> None:
        """Forget all that lies ahead; planned flights that reach another stage become processes."""
        for flight in reversed(self.flights):
            visits = flight.visits
            while visits[-1].arrived > now:
                visit = visits.pop()
                self.free_at[len(visits)] = visit.free
        for windows in self.windows:
            windows.clear()
        for flight in self.flights:
            if flight.planned and len(flight.visits) < self.count:
                flight.planned = False
                self._fly(flight)

    # -- as processes -----------------------------------------------------------------------

    def _fly(self, flight: Flight) -> None:
        flight.turn += 1
        self.engine.start(self._process(flight, flight.turn))

    def _process(self, flight: Flight, turn: int) -> Process:
        """Take a flight through the stages that it has not reached, each behind the one ahead."""
        engine, visits, free_at = self.engine, flight.visits, self.free_at
        for stage in range(len(visits), self.count):
            left = visits[-1].end
            if left > engine.now:
                yield engine.wait(left - engine.now)
                if flight.turn != turn:  # it has been planned since
                    return
            handover = flight.handovers[stage - 1].rest(engine.now - left)
            if handover.latency or handover.duration:
                yield self.links.start(*handover)
            arrived = engine.now
            while not self._is_next(
                flight, stage
            ):  # a smaller batch has overtaken one on the links
                event = self.overtook[stage, flight.number] = engine.signal()
                yield event
            free = free_at[stage]
            free_at[stage] = max(arrived, free) + sum(flight.costs[stage][:5])
            visits.append(Visit(left, arrived, free, free_at[stage]))
            behind = self.overtook.pop((stage, flight.number + 1), None)
            if behind:
                behind.succeed()
            if self._plan() and flight.planned:
                return
        yield engine.wait(visits[-1].end - engine.now)
        self.land()

    def _is_next(self, flight: Flight, stage: int) -> bool:
        """Whether the flight ahead has reached the stage."""
        ahead = flight.number - self.flights[0].number - 1
        return ahead < 0 or len(self.flights[ahead].visits) > stage
