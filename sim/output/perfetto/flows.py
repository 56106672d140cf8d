"""Arrows of a trace: ranks that meet in a collective, and hand-offs from stage to stage."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import count
from typing import NamedTuple

from sim.account.handoffs import Handoff, handoffs
from sim.account.timeline import RunRecord, Span
from sim.output.perfetto.chrome import (
    Point,
    Rows,
    Thread,
    flow_events,
    numbered,
    slice_event,
    thread_event,
)
from sim.output.perfetto.processes import LINK, RECEIVES, SENDS, Place, Process

JobKey = tuple[int, int, int, int]  # replica, stage, pass, micro-batch


class Meeting(NamedTuple):
    """A collective as one rank sees it: its thread, and from when to when its bytes flow."""

    thread: Thread
    begin: int
    end: int


class FlowEnds:
    """Where flows may begin and end, noted while the slices are written.

    exchanges: the collectives of each job on each of its ranks, in order. begins: the first
    operator of each job on each rank.
    """

    def __init__(self) -> None:
        self.exchanges: dict[JobKey, dict[int, list[Meeting]]] = defaultdict(dict)
        self.begins: dict[tuple[JobKey, int], Point] = {}

    def begin_of_job(self, first: Span, at: Thread) -> None:
        self.begins[_key(first), first.rank] = Point(at, first.begin)

    def exchange(self, span: Span, at: Thread) -> None:
        meeting = Meeting(at, span.begin + span.launched, span.end)
        self.exchanges[_key(span)].setdefault(span.rank, []).append(meeting)


def _key(span: Span) -> JobKey:
    return span.replica, span.stage, span.number, span.micro


def flow_lines(
    record: RunRecord,
    passes: frozenset[int] | None,
    ends: FlowEnds,
    shown: Mapping[Place, Process],
) -> Iterator[str]:
    """All flows; they follow the slices that they join."""
    numbers = count(1)
    for of_job in ends.exchanges.values():
        for ranks in zip(*of_job.values(), strict=True):
            for a, b in collective_pairs(ranks):
                yield from flow_events(next(numbers), "collective", a, b)
    yield from _handoffs(handoffs(record, passes), numbers, ends, shown)


def collective_pairs(ranks: tuple[Meeting, ...]) -> Iterator[tuple[Point, Point]]:
    """One flow per rank that is shown: to its neighbour, as in a ring, when the last has come.

    Where one stands for all, the flow goes to its link, on which its bytes leave.
    """
    tick = max(one.begin for one in ranks)
    if tick >= min(one.end for one in ranks):
        return  # it takes no time
    if len(ranks) == 1:
        at = ranks[0].thread
        yield Point(at, tick), Point(Thread(at.pid, LINK), tick)
        return
    for here, there in zip(ranks, (*ranks[1:], ranks[0]), strict=True):
        yield Point(here.thread, tick), Point(there.thread, tick)


def _handoffs(
    found: Iterator[Handoff],
    numbers: Iterator[int],
    ends: FlowEnds,
    shown: Mapping[Place, Process],
) -> Iterator[str]:
    """Slices of sends and receives, and flows from each send over its receive to the first
    operator of the job that waits for it."""
    rows: dict[Thread, Rows] = defaultdict(Rows)
    for one in found:
        sender, receiver = one.sender, one.receiver
        args = f'"pass":{sender.number},"micro_batch":{sender.micro},"bytes":{one.nbytes}'
        points = []
        for name, job, other, tid in (
            (f"send to stage {receiver.stage}", sender, receiver, SENDS),
            (f"receive from stage {sender.stage}", receiver, sender, RECEIVES),
        ):
            process = shown[job.replica, job.stage, one.rank]
            peer = shown[other.replica, other.stage, one.rank]
            row, first = rows[process.thread(tid)].place(one.begin, one.end)
            at = process.thread(tid + row)
            if first:
                yield from thread_event(at, numbered(name.split()[0], row))
            yield slice_event(name, at, one.begin, one.end, f'"peer":"{peer.label}",{args}')
            points.append(Point(at, one.begin))
        key = receiver.replica, receiver.stage, receiver.number, receiver.micro
        points.append(ends.begins[key, one.rank])
        yield from flow_events(next(numbers), "hand-off", *points)
