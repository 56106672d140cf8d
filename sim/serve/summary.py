"""The numbers of a serving run: latencies, throughput, utilisation, goodput, accounts of time.

A latency ends when the step that makes the token ends: no network to the client, no
detokenising. Percentiles interpolate linearly between ranks (numpy's default).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sim.clock import TICKS_PER_SECOND
from sim.serve.columns import PART_COLUMNS, RequestColumns, StepColumns
from sim.serve.knobs import Slo
from sim.serve.latency import exact_sum, goodput, spreads, total
from sim.serve.live import PARTS, Outcome
from sim.states import IDLE, NOTHING, STATES, Ticks, add, only, scaled

if TYPE_CHECKING:
    import polars as pl

DEFINITIONS = {
    "ttft": "first output token - arrival",
    "tpot": "(e2e - ttft) / (output_tokens - 1), over requests of two tokens or more",
    "itl": "not kept gap by gap; the mean of a request's gaps is its tpot",
    "e2e": "last output token - arrival",
    "queuing_delay": "first scheduled - arrival",
    "measured_at": "the end of the step that makes the token; no network to the client",
    "percentiles": "linear interpolation between ranks",
    "throughput": "of finished requests, over the makespan",
    "kv_cache_usage": "blocks in use over blocks that fit; mean over the time in which steps run",
    "mfu": "FLOPs done over the matrix peak of all devices for the makespan",
    "mbu": "HBM bytes moved over the bandwidth of all devices for the makespan",
}


class Fleet(NamedTuple):
    """The devices of all replicas.

    tp: ranks of a stage. matrix_peak_flops, hbm_bandwidth: FLOP/s and bytes/s of one device.
    kv_blocks_total: blocks of one replica; None for a model without a KV cache.
    """

    devices: int
    tp: int
    matrix_peak_flops: float
    hbm_bandwidth: float
    kv_blocks_total: int | None = None


def summarise(
    requests: RequestColumns | pl.DataFrame,
    outcomes: Sequence[Outcome],
    fleet: Fleet,
    makespan_ps: int,
    slo: Slo | None = None,
    steps: Sequence[StepColumns] | None = None,
) -> dict[str, Any]:
    """The summary as plain data. Units stand in the keys; a quantity that does not apply is None.

    FLOPs and bytes of an outcome are those of one of its `fleet.tp` ranks.
    """
    devices, tp, matrix_peak_flops, hbm_bandwidth, kv_blocks_total = fleet
    states = device_account(outcomes, tp, makespan_ps)
    ranks = tp * sum(len(o.stages) for o in outcomes)
    if ranks != devices:
        raise ValueError(f"devices = {devices}, but the stages of all replicas take {ranks}")
    count, span = len(requests), makespan_ps / TICKS_PER_SECOND
    tokens_in, tokens_out = (total(requests, f"{what}_tokens") for what in ("prompt", "output"))
    table = spreads(requests)
    flops, moved = (tp * sum(x) for x in ([o.flops for o in outcomes], _moved(outcomes)))
    refused = sum(o.refused for o in outcomes)
    tpot = table["tpot"]["mean"]
    peak, bandwidth = matrix_peak_flops * devices * span, hbm_bandwidth * devices * span
    return {
        "makespan_ps": makespan_ps,
        "makespan_s": span,
        "replicas": len(outcomes),
        "devices": devices,
        "requests": count,
        "refused": refused,
        "preemptions": sum(o.preempted for o in outcomes),
        "prefix_hit_tokens": total(requests, "prefix_hit_tokens"),
        "steps": sum(o.steps for o in outcomes),
        "prompt_tokens": tokens_in,
        "output_tokens": tokens_out,
        "latency_s": table,
        "request_throughput": _per(count, span),
        "prompt_throughput": _per(tokens_in, span),
        "generation_throughput": _per(tokens_out, span),
        "tokens_per_s_per_device": _per(tokens_out or tokens_in, span * devices),
        "tokens_per_s_per_user": 1 / tpot if tpot else None,
        "flops": flops,
        "hbm_bytes": moved,
        "mfu": _per(flops, peak),
        "mbu": _per(moved, bandwidth),
        "kv_cache_usage": kv_usage(steps, outcomes, kv_blocks_total)
        if steps and kv_blocks_total
        else None,
        "account_ps": dict(zip(STATES, states, strict=True)),
        "account_share": {
            s: _per(x, makespan_ps * devices) for s, x in zip(STATES, states, strict=True)
        },
        **request_account(requests),
        "goodput": goodput(requests, slo, refused, span) if slo else None,
        "definitions": DEFINITIONS,
    }


def _moved(outcomes: Sequence[Outcome]) -> list[int]:
    return [o.hbm_bytes for o in outcomes]


def _per(amount: float, base: float) -> float:
    return amount / base if base else 0.0


def device_account(outcomes: Sequence[Outcome], tp: int, makespan_ps: int) -> Ticks:
    """The states of all devices together; a replica that ended early is idle from then on."""
    total = NOTHING
    for outcome in outcomes:
        for stage in outcome.stages:
            rest = makespan_ps - sum(stage)
            if rest < 0:
                raise ValueError(
                    f"replica {outcome.number} accounts for {sum(stage)} ticks of a makespan "
                    f"of {makespan_ps}"
                )
            total = add(total, scaled(add(stage, only(IDLE, rest)), tp))
    return total


def request_account(requests: RequestColumns | pl.DataFrame) -> dict[str, dict[str, Any]]:
    """Where the time of a request goes: the exact sum over all, the mean, the share of e2e."""
    sums = {p: total(requests, c) for p, c in zip(PARTS, PART_COLUMNS, strict=True)}
    count, total_ticks = len(requests), sum(sums.values())
    return {
        "request_account_ps": sums,
        "request_account_mean_s": {p: _per(x, count) / TICKS_PER_SECOND for p, x in sums.items()},
        "request_account_share": {p: _per(x, total_ticks) for p, x in sums.items()},
    }


def kv_usage(
    steps: Sequence[StepColumns], outcomes: Sequence[Outcome], total: int
) -> dict[str, float]:
    """Share of the KV blocks in use while steps ran: mean over that time, and the peak.

    Steps of one stage follow one another. Batches in several overlap, and requests leave as they
    come back: there the replica has kept the sum.
    """
    held = [outcome.held for outcome in outcomes if outcome.held]
    blocks = [store.column("kv_blocks") for store in steps]
    if not held:
        times = [store.column("duration_ps") for store in steps]
        held = [(exact_sum(b * t), exact_sum(t)) for b, t in zip(blocks, times, strict=True)]
    peak = max((int(b.max(initial=0)) for b in blocks), default=0)
    mean = _per(sum(h[0] for h in held), sum(h[1] for h in held) * total)
    return {"mean": mean, "peak": peak / total, "blocks": total}
