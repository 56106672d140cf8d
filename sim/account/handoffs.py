"""Hand-offs between pipeline stages: which job sent what to which other one, and when."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from sim.account.timeline import RunRecord
from sim.mapping.plan import Job


class Handoff(msgspec.Struct, frozen=True, gc=False):
    """What a rank of one stage sends to its like in another, from its launch to its arrival.

    sender, receiver: the job that ends with it, and the one that waits for it. nbytes: of this
    rank alone.
    """

    sender: Job
    receiver: Job
    rank: int
    begin: int
    end: int
    nbytes: int


def handoffs(record: RunRecord, passes: frozenset[int] | None = None) -> Iterator[Handoff]:
    """The hand-offs of all simulated ranks that take time, in the order in which they begin; only
    those between two of `passes` if these are given."""
    compiled, times = record.compiled, record.timeline
    sent = {task: (job, tasks) for job, tasks in compiled.sends for task in range(*tasks)}
    found = []
    for slot in compiled.slots:
        job, tasks = sent.get(slot.arrival[0], (None, (0, 0))) if slot.arrival else (None, (0, 0))
        if job is None or job.handover is None:
            continue
        if passes is not None and not {job.number, slot.job.number} <= passes:
            continue
        begin = min(times.start[i] for i in range(*tasks))
        end = max(times.end[i] for i in range(*tasks))
        if end > begin:
            nbytes = job.handover.nbytes // compiled.plan.split.tp
            found.append(Handoff(job, slot.job, slot.rank, begin, end, nbytes))
    yield from sorted(found, key=lambda h: (h.begin, h.end, h.sender.replica, h.sender.stage))
