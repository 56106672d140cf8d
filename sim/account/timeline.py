"""What each device did when: the spans of a finished run, a pure function of its records.

A span is one step on one rank, or a wait between steps. On each rank the spans follow one
another without a gap from 0 to the makespan, and the states of a span sum to its length. With
several streams the spans of a job overlap: its states are the part of a span that is not hidden
under other spans (`sim.account.overlap`), and those of all spans still sum to the makespan.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from sim.account.overlap import exposed
from sim.engine.des import Timeline
from sim.mapping.compiled import Compiled, Piece, Slot
from sim.mapping.priced import Step
from sim.states import BUBBLE, IDLE, NOTHING, Ticks, only
from workloads.graph import Placed


class Span(msgspec.Struct, frozen=True):
    """[begin, end) ticks on a rank of a stage. `step` is None while it waits.

    With several streams, `stream` is the one that it ran on, and `slices` are its states with
    their places: (state, begin, end).
    """

    replica: int
    stage: int
    rank: int
    number: int  # of the pass; -1 behind the last
    phase: str
    micro: int
    placed: Placed | None
    step: Step | None
    begin: int
    end: int
    states: Ticks
    launched: int = 0  # ticks of `states` that were its launch, at its beginning
    stream: int = 0
    slices: tuple[tuple[int, int, int], ...] | None = None

    @property
    def hidden(self) -> int:
        """Ticks that passed under the work of other streams."""
        return self.end - self.begin - sum(self.states)


class RunRecord(msgspec.Struct, frozen=True):
    """A finished run: the program with its meaning, and the times that the engine gave."""

    compiled: Compiled
    timeline: Timeline

    @property
    def makespan(self) -> int:
        return self.timeline.makespan

    def replica_end(self, replica: int) -> int:
        """When the last task of a replica ended."""
        mine = (s for s in self.compiled.slots if s.job.replica == replica)
        return max(map(self.slot_end, mine), default=0)

    def slot_end(self, slot: Slot) -> int:
        """When a job ended on a rank."""
        return max(self.timeline.end[i] for i in slot.ends)

    def silence(self, replica: int, clock: int) -> Iterator[tuple[int, int, int]]:
        """(state, begin, end) behind the last job of a rank: a bubble while its replica goes on,
        then idle."""
        for until, state in ((self.replica_end(replica), BUBBLE), (self.makespan, IDLE)):
            if until > clock:
                yield state, clock, until
                clock = until


def ranks(record: RunRecord) -> dict[tuple[int, int, int], list[Slot]]:
    """Slots by (replica, stage, rank) in the order in which the rank runs them."""
    slots: dict[tuple[int, int, int], list[Slot]] = {}
    for slot in record.compiled.slots:
        slots.setdefault((slot.job.replica, slot.job.stage, slot.rank), []).append(slot)
    return slots


def spans(record: RunRecord, passes: frozenset[int] | None = None) -> Iterator[Span]:
    """All spans rank by rank; only those of some passes if `passes` says so."""
    for (replica, stage, rank), slots in ranks(record).items():
        clock = 0
        for slot in slots:
            begin, wait = waiting(record, slot, clock)
            wanted = passes is None or slot.job.number in passes
            if wanted and begin > clock:
                yield _wait_span(slot, clock, begin, wait)
            clock = begin
            if wanted:
                for span in slot_spans(record, slot, begin):
                    yield span
                    clock = span.end
            clock = record.slot_end(slot)
        if passes is None:
            for state, begin, until in record.silence(replica, clock):
                wait = only(state, until - begin)
                yield Span(replica, stage, rank, -1, "end", 0, None, None, begin, until, wait)


def _place(slot: Slot) -> tuple[int, int, int, int, str, int]:
    """The first fields of a span of this job."""
    job = slot.job
    return job.replica, job.stage, slot.rank, job.number, job.phase, job.micro


def _wait_span(slot: Slot, begin: int, end: int, states: Ticks) -> Span:
    return Span(*_place(slot), None, None, begin, end, states)


def waiting(record: RunRecord, slot: Slot, clock: int) -> tuple[int, Ticks]:
    """(when the slot begins, how the time since `clock` is spent).

    While what it waits for is on a link, that is `link`, and `launch` while the send is being
    launched; before, it is a `bubble`: work exists, but on another stage.
    """
    start = record.timeline.start
    first = slot.pieces[0]
    begin = max(clock, start[first.launch if first.launch >= 0 else first.ends[0]])
    if begin == clock:
        return begin, NOTHING
    tasks = record.compiled.program.tasks
    sent = [start[i] for i in slot.arrival if tasks[i].loads or tasks[i].latency]
    left = max(clock, min(min(sent), begin)) if sent else begin
    launched = 0
    if sent:
        launched = max(0, min(begin, min(sent) + record.compiled.plan.costs.launch) - left)
    flight = begin - left - launched
    return begin, (0, 0, 0, flight, launched, left - clock, 0)


def slot_spans(record: RunRecord, slot: Slot, begin: int) -> Iterator[Span]:
    """The spans of one job on one rank, one per step."""
    clock = begin
    if record.compiled.streams > 1:
        yield from _overlapping(record, slot, begin)
        return
    for piece in slot.pieces:
        if slot.is_single_task or (slot.folded and piece.step.exchange is None):
            end, states = clock + piece.step.duration, piece.step.states
            launched = piece.step.launch
        else:
            end = max(record.timeline.end[i] for i in piece.ends)
            launched, states = _split(record, piece, clock, end)
        yield Span(*_place(slot), piece.placed, piece.step, clock, end, states, launched)
        clock = end


def _overlapping(record: RunRecord, slot: Slot, begin: int) -> Iterator[Span]:
    """The spans of a job on several streams."""
    times = record.timeline
    parts = exposed(times, slot.pieces, begin, record.slot_end(slot))
    for piece, part in zip(slot.pieces, parts, strict=True):
        start, end = times.start[piece.ends[0]], times.end[piece.ends[0]]
        yield Span(
            *_place(slot),
            piece.placed,
            piece.step,
            start,
            end,
            part.states,
            min(piece.step.launch, end - start),
            piece.stream,
            part.slices,
        )


def _split(record: RunRecord, piece: Piece, begin: int, end: int) -> tuple[int, Ticks]:
    """(launch ticks, states) of a step that the engine timed, from what it was seen to do."""
    length, step = end - begin, piece.step
    if step.cost is None:
        launched = min(length, step.launch)
        return launched, (0, 0, 0, length - launched, launched, 0, 0)
    times = record.timeline
    launched = 0
    if piece.launch >= 0:
        launched = max(0, times.end[piece.launch] - max(begin, times.start[piece.launch]))
    wait = length - launched - step.cost.compute
    # What finer tiles would remove first; the rest is HBM, own or of a prefetch in the way.
    sram = min(wait, step.cost.sram)
    return launched, (step.cost.compute, wait - sram, sram, 0, launched, 0, 0)
