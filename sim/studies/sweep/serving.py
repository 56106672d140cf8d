"""Rows of serving points: one scenario of `memorywall serve` each."""

from __future__ import annotations

from sim.serve.config import Serving
from sim.serve.latency import LATENCIES, PERCENTILES
from sim.serve.serving import Served, serve
from sim.serve.session import summary
from sim.states import STATES
from sim.studies.sweep.axes import keys_of
from sim.studies.sweep.kinds import STATUS, Column, Kind, Row, Sense
from sim.studies.sweep.rates import highest_rate
from sim.studies.sweep.requests import Ready, prepare

MAX_RATE = "max-rate"  # an option of a point: look for the highest rate that meets the SLO
_LOW: Sense = "min"
_HIGH: Sense = "max"
_SPREAD = ("mean", *(f"p{p}" for p in PERCENTILES), "max")
# Ends of 80 % intervals, where residuals of the engine or of the device's kernels are known.
SURE, ENDS, NOT_SURE = ("ttft", "tpot"), ("low", "high"), (None, None)
COLUMNS: dict[str, Column] = {
    **STATUS,
    "devices": Column(int, _LOW),
    "max_rate": Column(float, _HIGH),
    "makespan_ps": Column(int, _LOW),
    "requests": Column(int),
    "refused_requests": Column(int, _LOW),
    "preemptions": Column(int, _LOW),
    "steps": Column(int),
    "request_throughput": Column(float, _HIGH),
    "prompt_throughput": Column(float, _HIGH),
    "generation_throughput": Column(float, _HIGH),
    "tokens_per_s_per_device": Column(float, _HIGH),
    "tokens_per_s_per_user": Column(float, _HIGH),
    **{f"{name}_{p}_s": Column(float, _LOW) for name in LATENCIES for p in _SPREAD},
    **{f"{name}_mean_{end}_s": Column(float, _LOW) for name in SURE for end in ENDS},
    **{f"generation_throughput_{end}": Column(float, _HIGH) for end in ENDS},
    "flops": Column(int),
    "hbm_bytes": Column(int),
    "mfu": Column(float, _HIGH),
    "mbu": Column(float, _HIGH),
    "goodput": Column(float, _HIGH),
    "attainment": Column(float, _HIGH),
    "slo_met": Column(bool, _HIGH),
    **{f"{state}_ps": Column(int) for state in STATES},
}


def row(ready: Ready, option: str = "") -> Row:
    """Serve one point. Raises Infeasible, OutOfMemory, InputError; KeyboardInterrupt where Ctrl-C
    ended it early."""
    if option == MAX_RATE:
        return highest_rate(ready.serving, _served_row)
    return _served_row(ready.serving)


def _served_row(serving: Serving) -> Row:
    served = serve(serving)
    if served.interrupted:
        raise KeyboardInterrupt
    return serving_row(served)


def serving_row(served: Served) -> Row:
    """The cells of a row, in the order of COLUMNS."""
    metrics = summary(served)
    goodput, latency, sure = metrics["goodput"], metrics["latency_s"], metrics["interval_80"]
    cells = {
        "status": "ok",
        "reason": "",
        "devices": metrics["devices"],
        "max_rate": None,
        "makespan_ps": metrics["makespan_ps"],
        "requests": metrics["requests"],
        "refused_requests": metrics["refused"],
        **{
            name: metrics[name]
            for name in (
                "preemptions",
                "steps",
                "request_throughput",
                "prompt_throughput",
                "generation_throughput",
                "tokens_per_s_per_device",
                "tokens_per_s_per_user",
            )
        },
        **{f"{name}_{p}_s": latency[name][p] for name in LATENCIES for p in _SPREAD},
        **{
            f"{name}_mean_{end}_s": sure.get(f"{name}_s", NOT_SURE)[i]
            for name in SURE
            for i, end in enumerate(ENDS)
        },
        **{
            f"generation_throughput_{end}": sure.get("generation_throughput", NOT_SURE)[i]
            for i, end in enumerate(ENDS)
        },
        **{name: metrics[name] for name in ("flops", "hbm_bytes", "mfu", "mbu")},
        "goodput": goodput["goodput"] if goodput else None,
        "attainment": goodput["attainment"] if goodput else None,
        "slo_met": goodput["met"] if goodput else None,
        **{f"{state}_ps": metrics["account_ps"][state] for state in STATES},
    }
    assert list(cells) == list(COLUMNS)
    return cells


SERVING = Kind(
    name="serve",
    record=Serving,
    keys=keys_of(Serving),
    columns=COLUMNS,
    prepare=prepare,
    decides=lambda ready: ready.decides,
    row=row,
    many=lambda points: iter(()),
    front=("tokens_per_s_per_user", "tokens_per_s_per_device"),
    shown=(
        "max_rate",
        "ttft_p90_s",
        "tpot_p90_s",
        "attainment",
        "goodput",
        "tokens_per_s_per_user",
        "tokens_per_s_per_device",
    ),
)
