"""Numbers that people compare: latencies, throughput, MFU next to MBU."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from hw_models.device import Device
from sim.account.intervals import Interval
from sim.account.timeline import RunRecord
from sim.clock import seconds
from sim.cost.model import matrix_rate


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


def ends(metrics: Metrics, intervals: Mapping[str, Interval]) -> dict[str, tuple[float, float]]:
    """(low, high) of 80 % intervals by metric, of those that have a value and known residuals."""
    values = {"makespan": metrics.makespan_s, "ttft": metrics.ttft_s, "tpot": metrics.tpot_s}
    bounds = {f"{n}_s": intervals[n].of(v) for n, v in values.items() if v and n in intervals}
    if "makespan" in intervals:
        bounds["tokens_per_s"] = intervals["makespan"].inverse.of(metrics.tokens_per_s)
    return bounds


def measure(record: RunRecord) -> Metrics:
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
    first, last = group_ends(record, 0), group_ends(record, len(plan.passes) - 1)
    sizes = group_sizes(record)
    batch = plan.passes[0].batch
    sums = RunSums(
        device=plan.device,
        dtype=plan.precision.activations,
        devices=split.devices,
        generates=plan.model.decoder is not None,
        passes=len(plan.passes),
        batch=batch.size,
        tokens_in=batch.tokens + batch.source_tokens,
        makespan=record.makespan,
        waited=sum(sizes[k] * first[k] for k in first),
        decoded=sum(sizes[k] * (last[k] - first[k]) for k in first),
        flops=flops,
        hbm_bytes=hbm,
        link_bytes=link,
    )
    return metrics_of(sums)


class RunSums(msgspec.Struct, frozen=True, kw_only=True):
    """What the metrics of a run follow from.

    devices: how many. dtype: of the arithmetic. generates: whether the passes put out tokens.
    batch: sequences. waited: ticks to the end of the first pass, and decoded: from there to the end
    of the last, both summed over the sequences. flops, hbm_bytes, link_bytes: of all devices.
    """

    device: Device
    dtype: str
    devices: int
    generates: bool
    passes: int
    batch: int
    tokens_in: int
    makespan: int
    waited: int
    decoded: int
    flops: int
    hbm_bytes: int
    link_bytes: int


def metrics_of(run: RunSums) -> Metrics:
    """The metrics of a run from its sums."""
    span = seconds(run.makespan)
    rate = matrix_rate(run.device, run.dtype) * run.devices
    bandwidth = run.device.hbm.bandwidth * run.devices
    outputs = run.passes * run.batch if run.generates else 0
    steps = run.passes - 1
    tpot = run.decoded / run.batch / steps if steps else 0.0
    per_s = (outputs or run.tokens_in) / span if span else 0.0
    return Metrics(
        makespan_s=span,
        ttft_s=run.waited / run.batch * 1e-12 if run.generates else None,
        tpot_s=tpot * 1e-12 if run.generates else None,
        tokens_in=run.tokens_in,
        tokens_out=outputs,
        tokens_per_s=per_s,
        tokens_per_s_per_device=per_s / run.devices,
        tokens_per_s_per_user=1e12 / tpot if run.generates and tpot else None,
        flops=run.flops,
        hbm_bytes=run.hbm_bytes,
        link_bytes=run.link_bytes,
        mfu=run.flops / (rate * span) if span else 0.0,
        mbu=run.hbm_bytes / (bandwidth * span) if span else 0.0,
    )


def group_sizes(record: RunRecord) -> dict[tuple[int, int], int]:
    """Sequences by (replica, micro-batch)."""
    plan = record.compiled.plan
    return {
        (replica, micro): part.size
        for replica, share in enumerate(plan.passes[0].batch.split(plan.split.dp))
        for micro, part in enumerate(share.split(plan.split.microbatches))
    }


def group_ends(record: RunRecord, number: int) -> dict[tuple[int, int], int]:
    """End of a pass by (replica, micro-batch), in ticks."""
    ends: dict[tuple[int, int], int] = {}
    for slot in record.compiled.slots:
        if slot.job.number == number:
            key = (slot.job.replica, slot.job.micro)
            ends[key] = max(ends.get(key, 0), record.slot_end(slot))
    return ends
