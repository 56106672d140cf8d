"""A batch on its way through the pipeline stages of a replica, and its account when it is back."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from sim.cost.pass_cost import PassCost
from sim.serve.handovers import Handover
from sim.serve.live import Live, StageRow
from sim.serve.policies import Work

States = tuple[int, int, int, int, int]  # ticks of compute, hbm, sram, link, launch


class Visit(msgspec.Struct, frozen=True, gc=False):
    """A batch in one stage, in ticks.

    left: when it left the stage before. arrived: when its hidden states were there. free: when the
    batch ahead of it leaves the stage. end: when it leaves the stage itself.
    """

    left: int
    arrived: int
    free: int
    end: int

    @property
    def begin(self) -> int:
        """When the stage begins with it."""
        return self.arrived if self.arrived > self.free else self.free

    @property
    def waited(self) -> int:
        """Ticks for which the stage was free and the hidden states were on their way."""
        since = self.left if self.left > self.free else self.free
        return self.arrived - since if self.arrived > since else 0


class Flight(msgspec.Struct):
    """A batch on its way through the stages.

    number: of the step. last: the requests whose prompts end with it. per_token: ticks of all
    stages per token. states: ticks of all stages and hand-overs by state, where no hand-over meets
    another. costs: by stage. handovers: into each stage but the first. alone: their ticks where
    they meet no other. visits: of the stages that it has reached, and of all others if it is
    planned. turn: how often it has become planned or a process, so that what moved it before stops.
    """

    number: int
    work: Work
    decoded: list[Live]
    last: frozenset[Live]
    per_token: int
    states: States
    costs: list[PassCost]
    handovers: list[Handover]
    alone: int
    visits: list[Visit]
    planned: bool = False
    turn: int = 0

    @property
    def start(self) -> int:
        """When it set out."""
        return self.visits[0].arrived

    def all_states(self) -> States:
        """Its states at the end, with what hand-overs took longer because they shared links."""
        compute, hbm, sram, link, launch = self.states
        travel = sum([visit.arrived - visit.left for visit in self.visits])
        return compute, hbm, sram, link + travel - self.alone, launch

    def states_after(self, tick: int) -> States:
        """Its states from `tick` on; inside a stage they come in their written order."""
        left = [0] * 5
        for begin, states in self._parts():
            gone = max(0, tick - begin)
            for i, part in enumerate(states):
                left[i] += max(0, part - gone)
                gone = max(0, gone - part)
        return (left[0], left[1], left[2], left[3], left[4])

    def _parts(self) -> Iterator[tuple[int, States]]:
        """What happens from which tick on, hand-over by hand-over and stage by stage."""
        for visit, cost in zip(self.visits, self.costs, strict=True):
            yield visit.left, (0, 0, 0, visit.arrived - visit.left, 0)
            yield visit.begin, cost[:5]

    def rows(self) -> Iterator[StageRow]:
        """The rows of `stages`, each with what the stage waited for the hidden states."""
        for stage, (visit, cost) in enumerate(zip(self.visits, self.costs, strict=True)):
            waited = visit.waited
            states = (cost[0], cost[1], cost[2], cost[3] + waited, cost[4])
            yield StageRow(self.number, stage, visit.begin - waited, states, cost[5], cost[6])
