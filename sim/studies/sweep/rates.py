"""The arrival rate of a serving run: setting it, reading it, and the highest that meets an SLO."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec

from sim.errors import InputError
from sim.inputs.traces import Selection, read_trace
from sim.serve.config import RequestTraffic, Serving
from sim.studies.sweep.kinds import Row

CLOSE = 1.01  # the bisection ends when the two rates are this near
MOST_DOUBLINGS = 18


def at_rate(serving: Serving, rate: Any) -> Serving:
    """The same run with requests coming at `rate` a second: of an arrival process its rate, of a
    trace its pace."""
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < math.inf:
        raise InputError(f"rate = {rate!r}: requests per second, above 0")
    traffic = serving.traffic
    if traffic.arrivals:
        name, colon, rest = traffic.arrivals.partition(":")
        if name not in ("poisson", "gamma", "constant") or not colon:
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
def trace_rate(traffic: RequestTraffic) -> float:
    """Requests per second of a trace."""
    count, last = 0, 0
    selection = Selection(
        on_bad_row=traffic.on_bad_row,
        window=traffic.window,
        limit=traffic.limit,
        limits=traffic.limits,
    )
    rows = read_trace(traffic.trace or "", selection)
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


def highest_rate(serving: Serving, serve_one: Callable[[Serving], Row]) -> Row:
    """The row at the highest rate that meets the SLO, by doubling and bisection.

    The rates have four digits; the two that enclose the answer end within a hundredth.
    """
    if not serving.slo.bounds:
        raise InputError("a highest rate needs a bound: slo_ttft, slo_tpot or slo_e2e, in seconds")
    known: dict[float, Row] = {}

    def met(rate: float) -> bool:
        if rate not in known:
            known[rate] = serve_one(at_rate(serving, rate))
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
