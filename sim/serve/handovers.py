"""Hidden states on their way from one pipeline stage of a replica to the next."""

from __future__ import annotations

from typing import NamedTuple

from sim.engine.fluid import Loads
from sim.mapping.plan import hidden_bytes, sends
from sim.mapping.priced import exchange_step
from sim.serve.pricing import Pricer


class Handover(NamedTuple):
    """Hidden states that go to the next stage: see `sim.engine.flows.Transfers.start`."""

    latency: int
    duration: int
    loads: Loads

    def rest(self, gone: int) -> Handover:
        """What is left of it after so many ticks in which it met no other."""
        latency = max(0, self.latency - gone)
        duration = self.duration - max(0, gone - self.latency)
        return Handover(latency, duration, self.loads)


class Crossing(NamedTuple):
    """The hand-overs of a batch into each stage but the first, and their ticks together."""

    handovers: list[Handover]
    ticks: int


class Handovers:
    """The hand-overs of a replica.

    capacity: bytes/s of each link. rivals: by stage, the other stages whose hand-overs come over a
    link that its own use, too.
    """

    def __init__(self, pricer: Pricer) -> None:
        self.pricer, self.stages = pricer, pricer.split.pp
        self.capacity = [bandwidth for _, bandwidth in pricer.network.fabric.links]
        self.known: dict[int, Crossing] = {}  # by tokens
        self.links: list[set[int]] = [set() for _ in range(self.stages)]
        self.rivals: list[list[int]] = [[] for _ in range(self.stages)]

    def of(self, tokens: int) -> Crossing:
        """Those of a batch of so many tokens."""
        known = self.known.get(tokens)
        if known is None:
            handovers = [self._price(stage, tokens) for stage in range(1, self.stages)]
            self._note_links(handovers)
            ticks = sum(h.latency + h.duration for h in handovers)
            known = self.known[tokens] = Crossing(handovers, ticks)
        return known

    def _price(self, stage: int, tokens: int) -> Handover:
        """The hand-over into a stage."""
        pricer = self.pricer
        nbytes = hidden_bytes(pricer.model, pricer.precision, tokens)
        sent = pricer.network.send(tuple(sends(pricer.split, 0, stage - 1, stage, nbytes)))
        step = exchange_step("send", sent, pricer.costs)
        assert step.exchange is not None
        latency = step.duration - step.exchange.duration
        return Handover(latency, step.exchange.duration, step.exchange.loads)

    def _note_links(self, handovers: list[Handover]) -> None:
        """Find the rivals anew if these hand-overs use links that none has used so far."""
        before = sum(map(len, self.links))
        for stage, handover in enumerate(handovers, 1):
            self.links[stage].update(link for link, _ in handover.loads)
        if sum(map(len, self.links)) > before:
            self.rivals = [
                [i for i, there in enumerate(self.links) if i != stage and here & there]
                for stage, here in enumerate(self.links)
            ]
