"""The critical path of a run: the chain of jobs and transfers that the makespan consists of.

From the job that ends last backwards: what it waited for last is either the job before it on the
same device, or its own micro-batch's job on another stage, whose output had to come over a link.
The legs follow one another without a gap from 0 to the makespan.
"""

from __future__ import annotations

import itertools

import msgspec

from sim.account.timeline import RunRecord, ranks
from sim.mapping.compiled import Slot


class Leg(msgspec.Struct, frozen=True):
    """[begin, end) ticks on a stage; a transfer leads from `stage` to `to`."""

    replica: int
    stage: int
    to: int
    begin: int
    end: int
    number: int  # of the pass
    micro: int

    @property
    def moves(self) -> bool:
        """Whether it is bytes on their way to another stage."""
        return self.stage != self.to


def critical_path(record: RunRecord) -> list[Leg]:
    """The legs in the order of time."""
    before: dict[int, Slot] = {}  # by slot: the one before it on its device
    source: dict[int, Slot] = {}  # by slot: where its input comes from
    for mine in ranks(record).values():
        before |= {id(later): earlier for earlier, later in itertools.pairwise(mine)}
    last: dict[tuple[int, int, int], Slot] = {}
    for slot in record.compiled.slots:
        key = (slot.job.replica, slot.job.micro, slot.rank)
        if key in last:
            source[id(slot)] = last[key]
        last[key] = slot
    slot = max(record.compiled.slots, key=record.slot_end)
    end = record.slot_end(slot)
    legs: list[Leg] = []
    while True:
        job = slot.job
        own, feeder = before.get(id(slot)), source.get(id(slot))
        free = record.slot_end(own) if own else 0
        begin = max(_start(record, slot), free)
        legs.append(_leg(slot, job.stage, begin, end))
        if begin == free or feeder is None:
            if own is None:
                break
            slot, end = own, free
            continue
        end = record.slot_end(feeder)
        if begin > end:
            legs.append(_leg(feeder, job.stage, end, begin))
        slot = feeder
    return legs[::-1]


def _start(record: RunRecord, slot: Slot) -> int:
    first = slot.pieces[0]
    return record.timeline.start[first.launch if first.launch >= 0 else first.ends[0]]


def _leg(slot: Slot, to: int, begin: int, end: int) -> Leg:
    job = slot.job
    return Leg(job.replica, job.stage, to, begin, end, job.number, job.micro)
