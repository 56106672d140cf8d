"""Streams of a device: which operator runs on which, and what it needs of the device meanwhile.

A stream runs its operators one after another. Operators on different streams run at the same time
where the operator graph lets them, and share the arithmetic units, HBM and the on-chip path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import networkx as nx
from msgspec import Meta

from sim.cost.collectives import Exchange
from sim.cost.model import Cost
from sim.errors import InputError
from sim.mapping.priced import Step
from workloads.model import Record

Rule = Literal["branches", "shared-experts", "collectives"]
RESOURCES = ("arithmetic", "hbm", "sram")  # of a device, in the order of its numbers in a program


class Streams(Record, frozen=True, kw_only=True):
    """How many streams a device has, and the rule that puts operators on them.

    branches: an operator goes on behind one that it depends on, where that one is the last of its
        stream; else it takes the least used stream.
    shared-experts: the experts that every token visits run on the second stream, beside the routed
        ones; all else runs on the first.
    collectives: the sequences are cut into as many parts as there are streams. The parts take turns
        on the first stream, and their collectives run on the others: beside a collective of one
        part run the operators of another (two-batch overlap, where there are two).
    """

    count: Annotated[
        int,
        Meta(
            ge=1,
            le=16,
            description="Streams per device; operators on different streams run at the same time "
            "where none depends on the other",
            extra={"flag": "streams"},
        ),
    ] = 1
    rule: Annotated[
        Rule,
        Meta(
            description="What the streams run: branches of the operator graph, shared experts, or "
            "collectives beside the operators of another part of the batch",
            extra={"flag": "stream-rule"},
        ),
    ] = "branches"

    def parts(self, sequences: int) -> int:
        """Into how many parts a batch of so many sequences is cut."""
        return min(self.count, sequences) if self.rule == "collectives" else 1

    def check(self, detail: str, prefetch: bool) -> None:
        """Raise InputError where several streams do not go with the rest of the run."""
        if self.count == 1:
            return
        if detail != "op":
            raise InputError(
                f"streams = {self.count}: operators on several streams are not cut into tiles; "
                "use detail op, or one stream"
            )
        if prefetch:
            raise InputError(
                f"streams = {self.count}: device.prefetch orders the loads of one stream; "
                "switch prefetch off, or use one stream"
            )


def waits_for(graph: nx.DiGraph, steps: Sequence[Step]) -> list[tuple[int, ...]]:
    """For each step of a block, the numbers of the steps that it waits for.

    An operator waits for those that feed it, or for the exchange behind them; an exchange waits for
    the operator before it.
    """
    ends: dict[str, int] = {}  # by operator: its last step
    before: list[tuple[int, ...]] = []
    name = ""
    for number, step in enumerate(steps):
        if step.cost is None:
            before.append((number - 1,))
        else:
            name = step.name
            before.append(tuple(sorted(ends[p] for p in graph.predecessors(name))))
        ends[name] = number
    return before


def assign(
    streams: Streams, steps: Sequence[Step], before: Sequence[tuple[int, ...]], part: int
) -> list[int]:
    """The stream of each step of a block that belongs to a part of the batch."""
    if streams.rule == "collectives":
        own = 1 + part % (streams.count - 1)
        return [0 if step.cost else own for step in steps]
    if streams.rule == "shared-experts":
        return [int(step.name.startswith("shared_")) for step in steps]
    return _branches(streams.count, steps, before)


def _branches(count: int, steps: Sequence[Step], before: Sequence[tuple[int, ...]]) -> list[int]:
    chosen: list[int] = []
    last = [-1] * count  # the last step of each stream
    used = [0] * count  # ticks of work on each stream
    for number, step in enumerate(steps):
        behind = [s for s in range(count) if last[s] in before[number]]
        stream = behind[0] if behind else min(range(count), key=lambda s: (used[s], s))
        chosen.append(stream)
        last[stream] = number
        used[stream] += step.duration
    return chosen


def operator_loads(cost: Cost, first: int, unit: float) -> tuple[tuple[int, float], ...]:
    """What an operator needs of its device at its own pace: (resource, amount per second).

    A resource that is busy for a share of the operator's time is loaded with that share; `unit` is
    the capacity of each. `first` is the number of the device's first resource.
    """
    length = cost.pipeline.makespan
    if not length:
        return ()
    busy = (cost.pipeline.compute_busy, cost.hbm_time, cost.sram_time)
    return tuple(
        (first + i, unit * min(1.0, ticks / length)) for i, ticks in enumerate(busy) if ticks
    )


def exchange_loads(
    exchange: Exchange, first: Mapping[int, int], unit: float
) -> tuple[tuple[int, float], ...]:
    """What an exchange needs: its links, and the HBM of each device of `first`, which maps a device
    to the number of its first resource. A byte that is sent is read, one that arrives is written.
    """
    if not exchange.duration:
        return ()
    moved = dict.fromkeys(first, 0)
    for sends in exchange.rounds:
        for send in sends:
            for device in (send.src, send.dst):
                if device in moved:
                    moved[device] += send.nbytes
    pace = 1e12 / exchange.duration
    hbm = RESOURCES.index("hbm")
    own = [(first[d] + hbm, min(unit, nbytes * pace)) for d, nbytes in moved.items() if nbytes]
    return (*exchange.loads, *own)
