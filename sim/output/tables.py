"""The account of a run as flat tables: operators, account of time, passes.

States are picoseconds (`_ps`) or microseconds (`_us`, exact to the picosecond). In the tables of
operators and of the account they add up to devices x makespan.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from sim.account.stalls import WAIT
from sim.account.timeline import RunRecord, ranks, slot_spans, waiting
from sim.mapping.compiled import Slot
from sim.mapping.priced import Step
from sim.simulation import Result
from sim.states import NOTHING, STATES, Ticks, add, only, scaled
from workloads.graph import Placed
from workloads.ops import Traffic

Cell = str | int | float | None
_US = tuple(f"{state}_us" for state in STATES)
_PS = tuple(f"{state}_ps" for state in STATES)
_BLOCKS = {-1: "embedding", -2: "head"}


class Table(msgspec.Struct, frozen=True):
    """Columns with the type of their cells, and rows. None is an empty cell."""

    columns: dict[str, type]
    rows: list[tuple[Cell, ...]]


_OPS: dict[str, type] = {
    "pass": int,
    "phase": str,
    **dict.fromkeys(("replica", "stage", "micro_batch"), int),
    **dict.fromkeys(("stack", "block"), str),
    **dict.fromkeys(("first_layer", "layers"), int),
    **dict.fromkeys(("op", "parts", "class"), str),
    **dict.fromkeys(("count", "flops", "weight_bytes", "activation_read_bytes"), int),
    **dict.fromkeys(("activation_written_bytes", "kv_read_bytes", "kv_written_bytes"), int),
    **dict.fromkeys(("hbm_bytes", "link_bytes"), int),
    "op_intensity": float,
    "bound": str,
    "duration_us": float,
    **dict.fromkeys(_US, float),
    "hidden_us": float,
    "total_us": float,
}


class _Row:
    """Equal steps of equal layers, of all simulated ranks."""

    __slots__ = ("count", "hidden", "placed", "states", "step")

    def __init__(self, placed: Placed | None, step: Step | None) -> None:
        self.placed, self.step = placed, step
        self.count, self.states, self.hidden = 0, NOTHING, 0

    def book(self, count: int, states: Ticks, hidden: int = 0) -> None:
        self.count += count
        self.states = add(self.states, states)
        self.hidden += hidden


Place = tuple[int, str, int, int, int]  # pass, phase, replica, stage, micro-batch
_Rows = dict[tuple[Place, str, int, int], _Row]  # by stack, step and stream, too


def operators(result: Result) -> Table:
    """One row an operator of a stage, micro-batch and pass, equal layers folded.

    `count` is how often it ran on all devices; FLOPs, bytes, states, hidden and total are sums
    over these; `duration_us` is the mean of one, and with several streams more than its total, by
    what is hidden under other operators. Rows of class "(wait)" are the time between.
    """
    record = result.record
    rows: _Rows = {}
    for (replica, stage, _), slots in ranks(record).items():
        clock = 0
        for slot in slots:
            job = slot.job
            place = (job.number, job.phase, replica, stage, job.micro)
            clock, wait = waiting(record, slot, clock)
            if any(wait):
                _row(rows, place, None, None).book(1, wait)
            _book_slot(record, slot, clock, rows, place)
            clock = record.slot_end(slot)
        after = (-1, "end", replica, stage, 0)
        for state, begin, until in record.silence(replica, clock):
            _row(rows, after, None, None).book(1, only(state, until - begin))
    weight, ways = result.account.weight, len(record.compiled.ranks)
    ordered = sorted(rows.items(), key=lambda item: _order(item[0][0]))
    return Table(_OPS, [_operator(key[0], row, weight, ways) for key, row in ordered])


def _order(place: Place) -> tuple[bool, int, int, int, int]:
    return place[0] < 0, place[0], place[2], place[3], place[4]


def _book_slot(record: RunRecord, slot: Slot, clock: int, rows: _Rows, place: Place) -> None:
    if slot.is_single_task:
        # One task, its inside known: equal layers are counted, not walked through.
        layers: dict[tuple[str, int], int] = {}
        first: dict[tuple[str, int], int] = {}
        for number, work in enumerate(slot.job.work):
            key = (work.placed.stack, id(work.block))
            layers[key] = layers.get(key, 0) + 1
            first.setdefault(key, number)
        for key, count in layers.items():
            work = slot.job.work[first[key]]
            for step in work.block.steps:
                _row(rows, place, work.placed, step).book(count, scaled(step.states, count))
        return
    for span in slot_spans(record, slot, clock):
        row = _row(rows, place, span.placed, span.step, span.stream)
        row.book(1, span.states, span.hidden)


def _row(
    rows: _Rows, place: Place, placed: Placed | None, step: Step | None, stream: int = 0
) -> _Row:
    """The row of a step, or of waiting where there is none."""
    key = (place, placed.stack if placed else "", id(step), stream)
    row = rows.get(key)
    if row is None:
        row = rows[key] = _Row(placed, step)
    return row


def _operator(place: Place, row: _Row, weight: int, ways: int) -> tuple[Cell, ...]:
    count, states = row.count * weight, scaled(row.states, weight)
    total, hidden = sum(states), row.hidden * weight
    times = (*(t / 1e6 for t in states),)
    mean = (total + hidden) / 1e6 / count
    if row.step is None or row.placed is None:
        named = ("", "", -3, 0, WAIT, "", WAIT)
        nothing = (0,) * 8
        return (*place, *named, count, *nothing, None, "wait", mean, *times, 0.0, total / 1e6)
    step, at = row.step, row.placed
    traffic = step.op.traffic if step.op else Traffic()
    parts = "+".join(step.op.parts) if step.op else ""
    layers = row.count // ways
    cost = step.cost
    hbm = cost.hbm_bytes if cost else 0
    sizes = (
        cost.flops if cost else 0,
        traffic.weights,
        traffic.read,
        traffic.written,
        traffic.kv_read,
        traffic.kv_written,
        hbm,
    )
    return (
        *place,
        at.stack,
        _BLOCKS.get(at.layer, "layer"),
        at.layer,
        layers,
        step.name,
        parts,
        step.kind,
        count,
        *(count * size for size in sizes),
        layers * step.exchange.nbytes if step.exchange else 0,  # of all ranks together
        cost.flops / hbm if cost and hbm else None,
        step.bound,
        mean,
        *times,
        ((cost.hidden if cost else 0) * count + hidden) / 1e6,
        total / 1e6,
    )


def time_account(result: Result) -> Table:
    """States of every device by phase, stack, layer and operator class; a device's rows sum to
    the makespan. Layer -1 is the embedding, -2 the head, -3 none."""
    columns: dict[str, type] = {
        **dict.fromkeys(("device", "replica", "stage", "rank"), int),
        **dict.fromkeys(("phase", "stack"), str),
        "layer": int,
        "class": str,
        **dict.fromkeys(_PS, int),
        "total_ps": int,
        **dict.fromkeys(_US, float),
    }
    account, split = result.account, result.record.compiled.plan.split
    sums: dict[tuple[int, int, int, str, str, int, str], Ticks] = {}
    for key, states in account.rows.items():
        for rank in range(key.rank, key.rank + account.weight):
            group = (key.replica, key.stage, rank, key.phase, key.stack, key.layer, key.kind)
            sums[group] = add(sums.get(group, NOTHING), states)
    rows: list[tuple[Cell, ...]] = []
    # Sorting by the device alone keeps a device's rows in the order of the run.
    for group, states in sorted(sums.items(), key=lambda item: split.device(*item[0][:3])):
        us = (t / 1e6 for t in states)
        rows.append((split.device(*group[:3]), *group, *states, sum(states), *us))
    return Table(columns, rows)


def passes(result: Result) -> Table:
    """One row a forward pass: tokens, when, and the states of all devices while they worked or
    waited for it."""
    columns: dict[str, type] = {
        "pass": int,
        "phase": str,
        **dict.fromkeys(("sequences", "tokens", "source_tokens"), int),
        **dict.fromkeys(("start_us", "end_us", "duration_us"), float),
        **dict.fromkeys(_PS, int),
        **dict.fromkeys(_US, float),
    }
    times = dict(_windows(result.record))
    spent = result.account.by("number")
    rows: list[tuple[Cell, ...]] = []
    for number, one in enumerate(result.resolved.passes):
        begin, end = times[number]
        states, batch = spent[(number,)], one.batch
        when = (begin / 1e6, end / 1e6, (end - begin) / 1e6)
        sizes = (batch.size, batch.tokens, batch.source_tokens)
        rows.append((number, one.phase, *sizes, *when, *states, *(t / 1e6 for t in states)))
    return Table(columns, rows)


def _windows(record: RunRecord) -> Iterator[tuple[int, tuple[int, int]]]:
    """(pass, (first start, last end)) in ticks."""
    start = record.timeline.start
    windows: dict[int, tuple[int, int]] = {}
    for slot in record.compiled.slots:
        first = slot.pieces[0]
        begin = start[first.launch if first.launch >= 0 else first.ends[0]]
        until = record.slot_end(slot)
        known = windows.get(slot.job.number, (begin, until))
        windows[slot.job.number] = min(known[0], begin), max(known[1], until)
    yield from windows.items()
