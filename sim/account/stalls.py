"""The account of time: every tick of every device in exactly one state.

`account` is a pure function of a finished run. Its rows roll up by device, stage, phase, pass,
layer and operator class; whatever the roll-up, the states of a device sum to the makespan.
"""

from __future__ import annotations

import msgspec

from sim.account.timeline import RunRecord, ranks, slot_spans, waiting
from sim.states import NOTHING, STATES, Ticks, add, only, scaled

WAIT = "(wait)"  # operator class of time between operators


class Key(msgspec.Struct, frozen=True):
    """What a row of the account is about. layer: -1 embedding, -2 head, -3 none."""

    replica: int
    stage: int
    rank: int
    number: int
    phase: str
    micro: int
    stack: str
    layer: int
    kind: str


class Account(msgspec.Struct, frozen=True):
    """Rows of ticks by state, of the simulated ranks; `weight` ranks are like each of them.

    hidden: ticks that steps ran under the work of other streams, beside the account.
    """

    rows: dict[Key, Ticks]
    makespan: int
    weight: int
    devices: int
    hidden: dict[Key, int] = msgspec.field(default_factory=dict)

    def by(self, *fields: str) -> dict[tuple[object, ...], Ticks]:
        """Rows summed over all but `fields`, over all devices (folded ranks counted)."""
        sums: dict[tuple[object, ...], Ticks] = {}
        for key, states in self.rows.items():
            group = tuple(getattr(key, f) for f in fields)
            sums[group] = add(sums.get(group, NOTHING), states)
        return {group: scaled(states, self.weight) for group, states in sums.items()}

    def hidden_by(self, *fields: str) -> dict[tuple[object, ...], int]:
        """Hidden ticks summed over all but `fields`, over all devices."""
        sums: dict[tuple[object, ...], int] = {}
        for key, ticks in self.hidden.items():
            group = tuple(getattr(key, f) for f in fields)
            sums[group] = sums.get(group, 0) + ticks * self.weight
        return sums

    @property
    def total(self) -> Ticks:
        """Over all devices; sums to devices x makespan."""
        return self.by()[()] if self.rows else NOTHING

    def share(self, state: str) -> float:
        """Fraction of all device time in a state."""
        device_ticks = self.makespan * self.devices
        return self.total[STATES.index(state)] / device_ticks if device_ticks else 0.0


def account(record: RunRecord) -> Account:
    """The account of a finished run."""
    rows: dict[Key, Ticks] = {}
    hidden: dict[Key, int] = {}

    def book(key: Key, states: Ticks) -> None:
        rows[key] = add(rows.get(key, NOTHING), states)

    for (replica, stage, rank), slots in ranks(record).items():
        clock = 0
        for slot in slots:
            job = slot.job
            here = (replica, stage, rank, job.number, job.phase, job.micro)
            clock, wait = waiting(record, slot, clock)
            if any(wait):
                book(Key(*here, "", -3, WAIT), wait)
            if slot.is_single_task:
                # One task: its inside is known, block by block.
                for work in job.work:
                    for kind, states in work.block.by_kind.items():
                        book(Key(*here, work.placed.stack, work.placed.layer, kind), states)
            else:
                for span in slot_spans(record, slot, clock):
                    assert span.placed is not None
                    assert span.step is not None
                    at = span.placed
                    key = Key(*here, at.stack, at.layer, span.step.kind)
                    book(key, span.states)
                    if span.hidden:
                        hidden[key] = hidden.get(key, 0) + span.hidden
            clock = record.slot_end(slot)
        for state, begin, until in record.silence(replica, clock):
            last = Key(replica, stage, rank, -1, "end", 0, "", -3, WAIT)
            book(last, only(state, until - begin))
    split = record.compiled.plan.split
    weight = split.tp if record.compiled.ranks == (0,) else 1
    return Account(rows, record.makespan, weight, split.devices, hidden)
