"""Numbers that people compare: latencies, throughput, MFU next to MBU."""

from __future__ import annotations

import msgspec

from sim.clock import seconds
from sim.cost import matrix_rate
from sim.timeline import Record


class Metrics(msgspec.Struct, frozen=True):
    """Of a whole run. Times in seconds; NaN-free: what does not apply is None.

    ttft: mean over sequences of the end of their first pass. tpot: mean over sequences of
    (end - ttft) / (output - 1), 0 with one output token. mfu: FLOPs done over the matrix peak
    of all devices; mbu: HBM bytes moved over the bandwidth of all devices.
    """

    makespan_s: float
    ttft_s: float | None
    tpot_s: float | None
    tokens_in: int
    tokens_out: int
    tokens_per_s: float
    tokens_per_s_per_device: float
    tokens_per_s_per_user: float | None
    flops: int
    hbm_bytes: int
    link_bytes: int
    mfu: float
    mbu: float


def measure(record: Record) -> Metrics:
    """Metrics of a finished run, from its plan and its times alone."""
    plan = record.compiled.plan
    split = plan.split
    flops = hbm = link = 0
    for job in plan.jobs:
        for work in job.work:
            flops += split.tp * work.block.flops
            hbm += split.tp * work.block.hbm_bytes
            link += work.block.link_bytes
        link += job.handover.nbytes if job.handover else 0
    span = seconds(record.makespan)
    rate = matrix_rate(plan.device, plan.precision.activations) * split.devices
    bandwidth = plan.device.hbm.bandwidth * split.devices
    first, last = _ends(record)
    generates = plan.model.decoder is not None
    batch = plan.passes[0].batch.size
    outputs = len(plan.passes) * batch if generates else 0
    tokens_in = plan.passes[0].batch.tokens + plan.passes[0].batch.source_tokens
    steps = len(plan.passes) - 1
    sizes = _sizes(record)
    ttft = sum(sizes[k] * first[k] for k in first) / batch
    tpot = sum(sizes[k] * (last[k] - first[k]) for k in first) / batch / steps if steps else 0.0
    counted = outputs or tokens_in
    per_s = counted / span if span else 0.0
    return Metrics(
        makespan_s=span,
        ttft_s=ttft * 1e-12 if generates else None,
        tpot_s=tpot * 1e-12 if generates else None,
        tokens_in=tokens_in,
        tokens_out=outputs,
        tokens_per_s=per_s,
        tokens_per_s_per_device=per_s / split.devices,
        tokens_per_s_per_user=1e12 / tpot if generates and tpot else None,
        flops=flops,
        hbm_bytes=hbm,
        link_bytes=link,
        mfu=flops / (rate * span) if span else 0.0,
        mbu=hbm / (bandwidth * span) if span else 0.0,
    )


def _sizes(record: Record) -> dict[tuple[int, int], int]:
    """Sequences by (replica, micro-batch)."""
    plan = record.compiled.plan
    return {
        (replica, micro): part.size
        for replica, share in enumerate(plan.passes[0].batch.split(plan.split.dp))
        for micro, part in enumerate(share.split(plan.split.microbatches))
    }


def _ends(record: Record) -> tuple[dict[tuple[int, int], int], dict[tuple[int, int], int]]:
    """End of the first and of the last pass by (replica, micro-batch), in ticks."""
    first: dict[tuple[int, int], int] = {}
    last: dict[tuple[int, int], int] = {}
    for slot in record.compiled.slots:
        key = (slot.job.replica, slot.job.micro)
        done = record.slot_end(slot)
        if slot.job.number == 0:
            first[key] = max(first.get(key, 0), done)
        last[key] = max(last.get(key, 0), done)
    return first, last
