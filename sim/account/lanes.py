"""What the parts of a device did when: its state, its host, arithmetic, HBM and link lanes.

Folded steps know their inside in closed form; explicit ones (tiles, prefetch) were timed by the
engine. Trace and pictures show the same intervals, all of them from here.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import msgspec

from sim.account.overlap import segments
from sim.account.timeline import RunRecord, Span, spans
from sim.mapping.compiled import Compiled
from sim.mapping.plan import Job
from sim.states import BUBBLE, COMPUTE, HBM, IDLE, LAUNCH, LINK, SRAM

LANES = ("host", "compute", "HBM", "link")
HOST, CORE, MEMORY, WIRE = range(4)
_LANE_OF_ENGINE = {"host": HOST, "hbm": MEMORY, "core": CORE}
# A wait is first a bubble, then bytes in flight. Inside an operator only the launch has a place
# of its own; the others interleave, so that their amounts are exact and their order is a choice.
_ORDER = (BUBBLE, LAUNCH, LINK, HBM, SRAM, COMPUTE, IDLE)


class Busy(msgspec.Struct, frozen=True, gc=False):
    """[begin, end) ticks of which a lane of a device works `work`."""

    lane: int
    begin: int
    end: int
    name: str
    work: int


class Transfer(msgspec.Struct, frozen=True, gc=False):
    """Bytes on links during [begin, end): (link, mean bytes/s)."""

    begin: int
    end: int
    name: str
    loads: tuple[tuple[int, float], ...]


def state_slices(span: Span) -> Iterator[tuple[int, int, int]]:
    """(state, begin, end) without gaps from the span's begin to its end; with several streams, of
    the parts of it that are not hidden."""
    if span.slices is not None:
        yield from span.slices
        return
    clock = span.begin
    for state in _ORDER:
        if span.states[state] > 0:
            yield state, clock, clock + span.states[state]
            clock += span.states[state]


def closed_lanes(span: Span) -> Iterator[Busy]:
    """The lanes of one step by the closed form of its pipeline (`sim.cost.pipeline`)."""
    step, end = span.step, span.end
    if step is None:
        return
    start = span.begin + span.launched
    if span.launched:
        yield Busy(HOST, span.begin, start, step.name, span.launched)
    if step.cost is None:
        if end > start:
            yield Busy(WIRE, start, end, step.name, end - start)
        return
    p = step.cost.pipeline
    core, memory = p.compute_busy, p.hbm_busy
    if p.perfect:
        parts = [(CORE, start, start + core, core), (MEMORY, start, start + memory, memory)]
    elif p.tiles == 1:
        parts = [
            (CORE, start + p.load, end - p.store, core),
            (MEMORY, start, start + p.load, p.load),
            (MEMORY, end - p.store, end, p.store),
        ]
    else:  # from the first tile to the last one, with gaps on the side that waits
        parts = [(CORE, start + p.load, end - p.store, core), (MEMORY, start, end, memory)]
    for lane, begin, until, work in parts:
        if work:
            yield Busy(lane, begin, until, step.name, work)


def folded(record: RunRecord) -> bool:
    """Whether the inside of a step is known in closed form, and not from the engine."""
    return all(slot.folded for slot in record.compiled.slots)


def device_lanes(record: RunRecord, spans: list[Span]) -> Iterator[Busy]:
    """Lanes of one rank during its `spans`; explicit operators come from `task_lanes`, and so do
    all launches where there are several streams."""
    closed, shared_host = folded(record), record.compiled.streams > 1
    for span in spans:
        if span.step and (closed or span.step.cost is None):
            yield from (b for b in closed_lanes(span) if b.lane != HOST or not shared_host)


def task_lanes(
    record: RunRecord, passes: frozenset[int] | None = None
) -> Iterator[tuple[Job, int, Busy]]:
    """(job, rank, interval) of explicit operators, in the order of the program."""
    program, times = record.compiled.program, record.timeline
    if record.compiled.streams > 1:
        yield from _stream_lanes(record, passes)
    if folded(record) or record.compiled.streams > 1:
        return
    split = record.compiled.plan.split
    places = [name.removeprefix("gpu").split(".") for name in program.lanes]
    for job, tasks in job_tasks(record.compiled):
        if passes is not None and job.number not in passes:
            continue
        for i in tasks:
            if times.end[i] == times.start[i]:
                continue
            task = program.tasks[i]
            name = task.name.partition(f".stage{job.stage}.")[2] or task.name
            for lane in task.lanes:
                device, part = places[lane]
                if part in _LANE_OF_ENGINE:
                    begin, end = times.start[i], times.end[i]
                    busy = Busy(_LANE_OF_ENGINE[part], begin, end, name, end - begin)
                    yield job, int(device) % split.tp, busy


def _stream_lanes(
    record: RunRecord, passes: frozenset[int] | None
) -> Iterator[tuple[Job, int, Busy]]:
    """What the steps of all streams of a device do together between two of its events."""
    for slot in record.compiled.slots:
        if passes is not None and slot.job.number not in passes:
            continue
        begin = record.timeline.start[slot.pieces[0].ends[0]]
        for one in segments(record.timeline, slot.pieces, begin, record.slot_end(slot)):
            work, names = [0.0] * len(LANES), []
            for running in one.running:
                step = slot.pieces[running.number].step
                names.append(step.name)
                if running.waits:
                    work[HOST] += running.share * step.launch
                elif step.cost:
                    work[CORE] += running.share * step.cost.pipeline.compute_busy
                    work[MEMORY] += running.share * step.cost.hbm_time
            for lane, ticks in enumerate(work):
                done = min(round(ticks), one.end - one.begin)
                if done:
                    busy = Busy(lane, one.begin, one.end, " + ".join(names), done)
                    yield slot.job, slot.rank, busy


def job_tasks(compiled: Compiled) -> Iterator[tuple[Job, range]]:
    """Which tasks are which job's, its handover included: they lie one after the other."""
    sends = {id(job): tasks for job, tasks in compiled.sends}
    first, ways = 0, len(compiled.ranks)
    for number, job in enumerate(compiled.plan.jobs):
        slots = compiled.slots[number * ways : (number + 1) * ways]
        stop = 1 + max(i for slot in slots for i in slot.ends)
        if id(job) in sends:
            stop = sends[id(job)][1]
        yield job, range(first, stop)
        first = stop


def transfers(record: RunRecord, passes: frozenset[int] | None = None) -> list[Transfer]:
    """All transfers in the order in which they begin.

    The engine's own with the mean rate that they got; those inside a folded run at the rate
    that they were priced with, since nothing contends with them.
    """
    compiled, times = record.compiled, record.timeline
    moved: list[Transfer] = []
    links = len(compiled.plan.network.fabric.links)
    for job, tasks in job_tasks(compiled):
        if passes is not None and job.number not in passes:
            continue
        for i in tasks:
            task = compiled.program.tasks[i]
            begin, end = times.start[i] + task.latency, times.end[i]
            if task.loads and end > begin:
                slower = task.duration / (end - begin)
                loads = tuple((link, x * slower) for link, x in task.loads if link < links)
                if not loads:  # an operator, which loads resources of its device alone
                    continue
                moved.append(Transfer(begin, end, task.name, loads))
    if all(slot.is_single_task for slot in compiled.slots):
        for span in spans(record, passes):
            exchange = span.step.exchange if span.step else None
            if exchange and exchange.duration and span.step and span.placed:
                where = f"{span.phase}{span.number}.{span.micro}.stage{span.stage}"
                name = f"{where}.{span.placed.path}.{span.step.name}"
                begin = span.end - exchange.duration
                moved.append(Transfer(begin, span.end, name, exchange.loads))
    return sorted(moved, key=lambda t: (t.begin, t.end, t.name))


def link_rates(moved: list[Transfer]) -> Iterator[tuple[int, dict[int, float]]]:
    """(tick, bytes/s of the links whose rate changes there), in the order of time."""
    changes = [(t.end, 0, i) for i, t in enumerate(moved)]
    changes += [(t.begin, 1, i) for i, t in enumerate(moved)]
    active: dict[int, dict[int, float]] = {}
    for tick, group in groupby(sorted(changes), key=lambda c: c[0]):
        touched: set[int] = set()
        for _, starts, i in group:
            for link, rate in moved[i].loads:
                touched.add(link)
                if starts:
                    active.setdefault(link, {})[i] = rate
                else:
                    del active[link][i]
        yield tick, {link: sum(active[link].values()) for link in sorted(touched)}
