"""The columns of static points, and the row of a result."""

from __future__ import annotations

from collections.abc import Mapping

from sim.account.intervals import Interval
from sim.account.metrics import Metrics, ends
from sim.states import STATES, Ticks
from sim.studies.sweep.kinds import STATUS, Column, Row, Sense

# Ends of 80 % intervals, where residuals of the device's kernels are known.
SURE, ENDS, NOT_SURE = ("makespan", "ttft", "tpot"), ("low", "high"), (None, None)
PHASES = ("prefill", "decode")
_LOW: Sense = "min"
_HIGH: Sense = "max"
COLUMNS: dict[str, Column] = {
    **STATUS,
    "devices": Column(int, _LOW),
    "makespan_ps": Column(int, _LOW),
    "ttft_s": Column(float, _LOW),
    "tpot_s": Column(float, _LOW),
    "tokens_per_s": Column(float, _HIGH),
    **{f"{name}_{end}_s": Column(float, _LOW) for name in SURE for end in ENDS},
    **{f"tokens_per_s_{end}": Column(float, _HIGH) for end in ENDS},
    "tokens_per_s_per_device": Column(float, _HIGH),
    "tokens_per_s_per_user": Column(float, _HIGH),
    "flops": Column(int),
    "hbm_bytes": Column(int),
    "link_bytes": Column(int),
    "mfu": Column(float, _HIGH),
    "mbu": Column(float, _HIGH),
    "memory_bytes": Column(int, _LOW),
    **{f"{state}_ps": Column(int) for state in STATES},
    **{f"{phase}_{state}_ps": Column(int) for phase in PHASES for state in STATES},
}


def static_row(
    devices: int,
    makespan: int,
    metrics: Metrics,
    intervals: Mapping[str, Interval],
    memory: int,
    accounts: tuple[Ticks, ...],
) -> Row:
    """The cells of a row, in the order of COLUMNS.

    `intervals` are those of `sim.simulation.Result`; `accounts` those of the whole run, of its
    prefill and of its decoding.
    """
    sure = ends(metrics, intervals)
    cells = (
        devices,
        makespan,
        metrics.ttft_s,
        metrics.tpot_s,
        metrics.tokens_per_s,
        *(x for name in SURE for x in sure.get(f"{name}_s", NOT_SURE)),
        *sure.get("tokens_per_s", NOT_SURE),
        metrics.tokens_per_s_per_device,
        metrics.tokens_per_s_per_user,
        metrics.flops,
        metrics.hbm_bytes,
        metrics.link_bytes,
        metrics.mfu,
        metrics.mbu,
        memory,
        *(ticks for account in accounts for ticks in account),
    )
    return {"status": "ok", "reason": "", **dict(zip(list(COLUMNS)[2:], cells, strict=True))}
