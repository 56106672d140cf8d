"""What a device does when several of its streams work: one state per instant, the rest is hidden.

Between two events of a device (a start, an end, a change of pace) every operator that runs advances
at a constant pace. The time between them goes to what these operators do in it, by their own
account: first to arithmetic, then to waiting for HBM, for on-chip memory, for a link, and to
launching. Time that does not fit is hidden: it passed under other work.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import msgspec

from sim.engine.des import Timeline
from sim.mapping.compiled import Piece
from sim.states import BUBBLE, COMPUTE, HBM, LAUNCH, LINK, NOTHING, SRAM, Ticks, only

_ORDER = (COMPUTE, HBM, SRAM, LINK, LAUNCH)


class Running(msgspec.Struct, frozen=True, gc=False):
    """One step between two events: how much of it is done in them, and whether it launches."""

    number: int  # of its piece
    share: float  # of the step's work, or of its launch and latency
    waits: bool  # for its launch, or for the latency of a link


class Segment(msgspec.Struct, frozen=True, gc=False):
    """[begin, end) ticks between two events of a device, and what runs in them by stream."""

    begin: int
    end: int
    running: tuple[Running, ...]


class Exposed(msgspec.Struct, frozen=True):
    """One step's part of the account. states: of the time that it is the device's state.
    slices: (state, begin, end) of that time."""

    states: Ticks
    slices: tuple[tuple[int, int, int], ...]


def segments(times: Timeline, pieces: Sequence[Piece], begin: int, end: int) -> Iterator[Segment]:
    """The segments of a job from its begin to its end, without gaps."""
    tasks = times.program.tasks
    numbers = {piece.ends[0]: i for i, piece in enumerate(pieces)}
    paces = {i: [(times.start[i] + tasks[i].latency, 1.0)] for i in numbers}
    for task in numbers:
        paces[task] += times.paces.get(task, [])
    cuts = {begin, end}
    for task, changes in paces.items():
        cuts |= {times.start[task], times.end[task], *(tick for tick, _ in changes)}
    ordered = sorted(numbers, key=lambda task: (times.start[task], task))
    active: list[int] = []
    at = 0
    for first, last in pairwise(sorted(cuts)):
        while at < len(ordered) and times.start[ordered[at]] <= first:
            active.append(ordered[at])
            at += 1
        active = [task for task in active if times.end[task] > first]
        running = []
        for task in sorted(active, key=lambda task: (pieces[numbers[task]].stream, task)):
            waits = first < paces[task][0][0]
            if waits:
                share = (last - first) / tasks[task].latency
            else:
                pace = [pace for tick, pace in paces[task] if tick <= first][-1]
                share = pace * (last - first) / tasks[task].duration
            running.append(Running(numbers[task], share, waits))
        yield Segment(first, last, tuple(running))


def exposed(times: Timeline, pieces: Sequence[Piece], begin: int, end: int) -> list[Exposed]:
    """By piece: the part of its time that is the state of its device. All parts together last from
    `begin` to `end`."""
    visible: list[list[tuple[int, int, int]]] = [[] for _ in pieces]
    for segment in segments(times, pieces, begin, end):
        clock = segment.begin
        needs = [(one.number, _needs(pieces[one.number], one)) for one in segment.running]
        latest: tuple[int, int] | None = None
        for state in _ORDER:
            for number, states in needs:
                length = min(round(states[state]), segment.end - clock)
                if length > 0:
                    visible[number].append((state, clock, clock + length))
                    clock += length
                    latest = number, state
        if clock == segment.end:
            continue
        if latest is None:  # all round to nothing, or (between ranks) nothing runs
            number = segment.running[0].number if segment.running else 0
            state = HBM if segment.running else BUBBLE
            visible[number].append((state, clock, segment.end))
        else:  # what rounding left over
            number, state = latest
            first = visible[number].pop()[1]
            visible[number].append((state, first, segment.end))
    return [_exposed(slices) for slices in visible]


def _needs(piece: Piece, one: Running) -> tuple[float, ...]:
    """What a step does in a segment, by state, in ticks."""
    step, needs = piece.step, [0.0] * len(NOTHING)
    if one.waits:
        needs[LAUNCH] = one.share * step.launch
        needs[LINK] = one.share * step.exchange.latency if step.exchange else 0.0
    elif step.cost:
        for state in (COMPUTE, HBM, SRAM):
            needs[state] = one.share * step.states[state]
    elif step.exchange:
        needs[LINK] = one.share * step.exchange.duration
    return tuple(needs)


def _exposed(slices: list[tuple[int, int, int]]) -> Exposed:
    states = NOTHING
    for state, first, last in slices:
        states = tuple(  # type: ignore[assignment]
            a + b for a, b in zip(states, only(state, last - first), strict=True)
        )
    return Exposed(states, tuple(slices))
