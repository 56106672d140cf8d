"""Rows of serving points: one scenario of `memorywall serve` each."""

from __future__ import annotations

import hashlib
import math
from contextlib import suppress
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from sim.errors import InputError
from sim.inputs import convert
from sim.serve.config import Serving, Traffic
from sim.serve.host import load_engine
from sim.serve.serving import Served, serve
from sim.serve.session import summary
from sim.serve.summary import LATENCIES, PERCENTILES
from sim.states import STATES
from sim.sweep.axes import keys_of
from sim.sweep.kinds import STATUS, Column, Kind, Row, Sense
from sim.sweep.static import looked_up
from sim.traces import read_trace

MAX_RATE = "max-rate"  # an option of a point: look for the highest rate that meets the SLO
CLOSE = 1.01  # the bisection ends when the two rates are this near
MOST_DOUBLINGS = 18
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
# Beside the fields of the records: a rate of its own, and bounds by the names of their flags.
EXTRA = {
    "rate": ("rate",),
    "slo_ttft": ("slo", "ttft_s"),
    "slo_tpot": ("slo", "tpot_s"),
    "slo_e2e": ("slo", "e2e_s"),
}


class Ready(msgspec.Struct, frozen=True):
    """A serving run whose names have been looked up, and what is in its files."""

    serving: Serving
    decides: Any


def prepare(document: dict[str, Any]) -> Ready:
    """A point's serving run, checked and looked up. Raises InputError."""
    plain = {key: value for key, value in document.items() if key != "rate"}
    serving = convert(plain, Serving, "sweep")
    if "rate" in document:
        serving = at_rate(serving, document["rate"])
    model, machine = looked_up(serving.model, serving.on, serving.set)
    traffic = serving.traffic
    files = [traffic.trace, *(p.partition(":")[2] for p in _drawn(traffic))]
    files += [_source(name) for name in (serving.scheduler, serving.router)]
    rest = msgspec.structs.replace(serving, model="", on="", set={})
    decides = {
        "serving": rest,
        "model": model,
        "machine": machine,
        "engine": load_engine(serving.engine) if serving.engine else None,
        "files": [_digest(name) for name in files if name],
    }
    return Ready(serving, decides)


def _drawn(traffic: Traffic) -> list[str]:
    return [text for text in (traffic.prompt, traffic.output) if text.startswith("trace:")]


def _source(name: str) -> str | None:
    """The file of a policy that is named by its import path."""
    module, found, _ = name.partition(":")
    with suppress(ImportError, ValueError):
        spec = find_spec(module) if found else None
        return spec.origin if spec else None
    return None


@lru_cache(maxsize=64)
def _digest(name: str) -> str:
    path = Path(name)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def at_rate(serving: Serving, rate: Any) -> Serving:
    """The same run with requests coming at `rate` a second: of an arrival process its rate, of a
    trace its pace."""
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < math.inf:
        raise InputError(f"rate = {rate!r}: requests a second, above 0")
    traffic = serving.traffic
    if traffic.arrivals:
        name, found, rest = traffic.arrivals.partition(":")
        if name not in ("poisson", "gamma", "constant") or not found:
            raise InputError(
                f"rate: arrivals {traffic.arrivals!r} have no one rate; use "
                "poisson, gamma or constant"
            )
        options = rest.partition(":")[1:]
        text = f"{name}:{rate!r}{''.join(options)}"
        traffic = msgspec.structs.replace(traffic, arrivals=text)
    elif traffic.trace:
        traffic = msgspec.structs.replace(traffic, rate_scale=rate / trace_rate(traffic))
    else:
        raise InputError("rate: give a trace or arrivals, e.g. poisson:4, that it is the rate of")
    return msgspec.structs.replace(serving, traffic=traffic)


@lru_cache(maxsize=64)
def trace_rate(traffic: Traffic) -> float:
    """Requests a second of a trace as it is."""
    count, last = 0, 0
    rows = read_trace(
        traffic.trace or "",
        on_bad_row=traffic.on_bad_row,
        window=traffic.window,
        limit=traffic.limit,
    )
    for request in rows:
        count, last = count + 1, request.arrival
    if not last:
        raise InputError(f"{traffic.trace}: all requests come at once; it has no rate to change")
    return (count - 1) / (last * 1e-12)


def rate_of(serving: Serving) -> float:
    """The rate at which requests come, where it is one."""
    traffic = serving.traffic
    if traffic.arrivals:
        at_rate(serving, 1)  # raises where there is no one rate
        return float(traffic.arrivals.split(":")[1])
    return trace_rate(msgspec.structs.replace(traffic, rate_scale=1.0)) * traffic.rate_scale


def row(ready: Ready, option: str = "") -> Row:
    """Serve one point. Raises Infeasible, OutOfMemory, InputError; KeyboardInterrupt where Ctrl-C
    ended it early."""
    if option == MAX_RATE:
        return highest_rate(ready.serving)
    return serving_row(_served(ready.serving))


def _served(serving: Serving) -> Served:
    served = serve(serving)
    if served.interrupted:
        raise KeyboardInterrupt
    return served


def highest_rate(serving: Serving) -> Row:
    """The row at the highest rate that meets the SLO, found by doubling and bisection.

    The rates have four digits; the two that enclose the answer end within a hundredth.
    """
    if not serving.slo.bounds:
        raise InputError("a highest rate needs a bound: slo_ttft, slo_tpot or slo_e2e, in seconds")
    known: dict[float, Row] = {}

    def met(rate: float) -> bool:
        if rate not in known:
            known[rate] = serving_row(_served(at_rate(serving, rate)))
        return bool(known[rate]["slo_met"])

    low = high = _digits(rate_of(serving))
    if met(low):
        while met(high):
            low, high = high, _digits(2 * high)
            if len(known) > MOST_DOUBLINGS:
                said = f"the SLO is met at every rate up to {low:g}/s: ask for more requests"
                return {**known[low], "reason": said}
    else:
        while not met(low):
            high, low = low, _digits(low / 2)
            if len(known) > MOST_DOUBLINGS:
                return {**known[high], "reason": f"the SLO is missed even at {high:g} requests/s"}
    while high / low > CLOSE:
        middle = _digits(math.sqrt(low * high))
        if middle in (low, high):
            break
        low, high = (middle, high) if met(middle) else (low, middle)
    return {**known[low], "max_rate": low}


def _digits(rate: float) -> float:
    return float(f"{rate:.4g}")


def serving_row(served: Served) -> Row:
    """The cells of a row, in the order of COLUMNS."""
    found = summary(served)
    goodput, latency, sure = found["goodput"], found["latency_s"], found["interval_80"]
    cells = {
        "status": "ok",
        "reason": "",
        "devices": found["devices"],
        "max_rate": None,
        "makespan_ps": found["makespan_ps"],
        "requests": found["requests"],
        "refused_requests": found["refused"],
        **{
            name: found[name]
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
        **{name: found[name] for name in ("flops", "hbm_bytes", "mfu", "mbu")},
        "goodput": goodput["goodput"] if goodput else None,
        "attainment": goodput["attainment"] if goodput else None,
        "slo_met": goodput["met"] if goodput else None,
        **{f"{state}_ps": found["account_ps"][state] for state in STATES},
    }
    assert list(cells) == list(COLUMNS)
    return cells


SERVING = Kind(
    name="serve",
    record=Serving,
    keys=keys_of(Serving, EXTRA),
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
        "tokens_per_s_per_user",
        "tokens_per_s_per_device",
    ),
)
