"""Metrics of a run, taken apart.

`makespan` is the mean over devices, each of which is in one state at a time. The latencies follow
a sequence instead: what the stage does that has it, and how it waits between stages. An
operator's wait for HBM is shared out by the bytes that it moves.
"""

from __future__ import annotations

import re
from fractions import Fraction

from sim.account.metrics import group_ends, group_sizes
from sim.account.stalls import WAIT
from sim.account.timeline import RunRecord, ranks, slot_spans, waiting
from sim.errors import InputError, hint, quoted
from sim.mapping.compiled import Slot
from sim.mapping.priced import Step
from sim.simulation import Result
from sim.states import BUBBLE, HBM, LINK, NOTHING, STATES, Ticks, add, only, scaled
from sim.studies.whatif.parts import Breakdown, Cause, Parts, kept, total

METRICS = ("makespan", "ttft", "tpot", "e2e")
_PASS = re.compile(r"^pass:([0-9]{1,18})$")
SLOWER = "other ranks"  # a rank waits for one that ended later
BUSY = "other micro-batch"  # the stage works on another one


def metrics_of(result: Result) -> tuple[str, ...]:
    """The metrics of this run, the usual one first."""
    count = len(result.resolved.passes)
    if result.resolved.model.decoder is None:
        return ("makespan", "e2e")
    return ("tpot", "ttft", "e2e", "makespan") if count > 1 else ("ttft", "e2e", "makespan")


def break_down(result: Result, metric: str) -> Breakdown:
    """A metric of a run: makespan, ttft, tpot, e2e (means over sequences), or pass:N, the time
    from the end of the pass before. Raises InputError."""
    if metric == "makespan":
        return Breakdown(metric, _device_parts(result))
    first, last = window(result, metric)
    parts = _sequence_parts(result, first, last)
    if metric == "tpot":
        parts = {c: x / last for c, x in parts.items()}
    return Breakdown(metric, parts)


def window(result: Result, metric: str) -> tuple[int, int]:
    """The first and the last pass of a latency. Raises InputError."""
    last = len(result.resolved.passes) - 1
    if match := _PASS.match(metric):
        number = int(match[1])
        if number > last:
            raise InputError(f"--metric {metric}: the run has the passes 0 to {last}")
        return number, number
    spans = {"ttft": (0, 0), "tpot": (1, last), "e2e": (0, last)}
    if metric not in spans or metric not in metrics_of(result):
        known = [*metrics_of(result), "pass:N"]
        raise InputError(
            f"--metric {quoted(metric)}: not a metric of this run{hint(metric, known)}"
        )
    return spans[metric]


class _Tally:
    """Ticks by step, and of waits, summed as integers."""

    def __init__(self) -> None:
        self.steps: dict[int, tuple[Step, Ticks]] = {}
        self.waits = NOTHING

    def step(self, step: Step, states: Ticks) -> None:
        known = self.steps.get(id(step))
        self.steps[id(step)] = (step, add(known[1], states) if known else states)

    def wait(self, states: Ticks) -> None:
        self.waits = add(self.waits, states)

    def slot(self, record: RunRecord, slot: Slot, begin: int) -> None:
        """The steps of a job on a rank."""
        if not slot.is_single_task:
            for span in slot_spans(record, slot, begin):
                assert span.step is not None
                self.step(span.step, span.states)
            return
        blocks = {id(work.block): work.block for work in slot.job.work}
        counts: dict[int, int] = {}
        for work in slot.job.work:
            counts[id(work.block)] = counts.get(id(work.block), 0) + 1
        for key, block in blocks.items():
            for step in block.steps:
                self.step(step, scaled(step.states, counts[key]))

    def parts(self, share: Fraction) -> Parts:
        """`share` of all ticks, by cause."""
        parts = [_step_parts(step, states) for step, states in self.steps.values()]
        parts.append(
            {
                Cause(state, "send" if state == "link" else "", WAIT): Fraction(t)
                for state, t in zip(STATES, self.waits, strict=True)
            }
        )
        return {cause: x * share for cause, x in total(parts).items()}


def _step_parts(step: Step, states: Ticks) -> Parts:
    parts: Parts = {}
    for number, (state, t) in enumerate(zip(STATES, states, strict=True)):
        if not t:
            continue
        if number == HBM and step.op:
            for what, share in _traffic(step).items():
                parts[Cause(state, what, step.kind)] = t * share
        else:
            exchange = step.name.rpartition(".")[2].replace("_", "-")
            what = exchange if number == LINK else ""
            parts[Cause(state, what, step.kind)] = Fraction(t)
    return parts


def _traffic(step: Step) -> dict[str, Fraction]:
    """Shares of an operator's bytes by what they are."""
    assert step.op is not None
    t = step.op.traffic
    moved = {
        "weights": t.weights,
        "KV": t.kv_read + t.kv_written,
        "activations": t.read + t.written,
    }
    total = sum(moved.values())
    if not total:
        return {"activations": Fraction(1)}
    return {what: Fraction(x, total) for what, x in moved.items() if x}


def _device_parts(result: Result) -> Parts:
    """All device time over the number of devices."""
    record, tally = result.record, _Tally()
    for (replica, _, _), slots in ranks(record).items():
        clock = 0
        for slot in slots:
            clock, wait = waiting(record, slot, clock)
            tally.wait(wait)
            tally.slot(record, slot, clock)
            clock = record.slot_end(slot)
        for state, begin, until in record.silence(replica, clock):
            tally.wait(only(state, until - begin))
    account = result.account
    return tally.parts(Fraction(account.weight, account.devices))


def _sequence_parts(result: Result, first: int, last: int) -> Parts:
    """From the end of the pass before `first` to the end of `last`, the mean over sequences."""
    record = result.record
    sizes = group_sizes(record)
    batch = sum(sizes.values())
    parts = [
        _group_parts(record, replica, micro, first, last, Fraction(size, batch))
        for (replica, micro), size in sizes.items()
    ]
    return total(parts)


def _group_parts(
    record: RunRecord, replica: int, micro: int, first: int, last: int, share: Fraction
) -> Parts:
    mine = [s for s in record.compiled.slots if (s.job.replica, s.job.micro) == (replica, micro)]
    begin = group_ends(record, first - 1)[replica, micro] if first else 0
    end = group_ends(record, last)[replica, micro]
    final = [s for s in mine if s.job.number == last]
    rank = max(final, key=record.slot_end).rank
    tally, clock, queued = _Tally(), begin, 0
    for slot in mine:
        if slot.rank == rank and first <= slot.job.number <= last:
            at, wait = waiting(record, slot, clock)
            held = at - _arrived(record, slot, clock, at)
            # `waiting` takes a device's view, in which it is never busy with another batch.
            lost = LINK if wait[LINK] else BUBBLE
            tally.wait(add(wait, only(lost, -held)))
            queued += held
            tally.slot(record, slot, at)
            clock = record.slot_end(slot)
    parts = tally.parts(share)
    parts[Cause("queue", BUSY, WAIT)] = queued * share
    rest = (end - begin) * share - sum(parts.values(), Fraction())
    late = Cause("link", SLOWER, WAIT)
    parts[late] = parts.get(late, Fraction()) + rest
    return kept(parts)


def _arrived(record: RunRecord, slot: Slot, clock: int, begin: int) -> int:
    """When everything that a job waits for was there, between `clock` and `begin`."""
    ends = [record.timeline.end[i] for i in slot.arrival]
    return min(begin, max([clock, *ends]))
