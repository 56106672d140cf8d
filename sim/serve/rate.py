"""The arrival rate of a serving run: read, and set without a change of burstiness."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import msgspec

from sim.errors import InputError
from sim.inputs.traces import Selection, read_trace
from sim.serve.config import RequestTraffic, Serving

_ONE_RATE = ("poisson", "gamma", "constant")  # arrival processes that are named NAME:RATE


def at_rate(traffic: RequestTraffic, rate: Any) -> RequestTraffic:
    """The same traffic with `rate` requests per second: an arrival process gets this rate, the
    times between the requests of a trace are scaled. Raises InputError where there is no rate."""
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < math.inf:
        raise InputError(f"rate = {rate!r}: requests per second, above 0")
    if traffic.arrivals:
        name, colon, rest = traffic.arrivals.partition(":")
        if name not in _ONE_RATE or not colon:
            raise InputError(
                f"rate: arrivals {traffic.arrivals!r} have no one rate; use "
                "poisson, gamma or constant"
            )
        options = rest.partition(":")[1:]
        text = f"{name}:{rate!r}{''.join(options)}"
        return msgspec.structs.replace(traffic, arrivals=text, rate=None)
    if traffic.trace:
        own = msgspec.structs.replace(traffic, rate=None, rate_scale=1.0)
        return msgspec.structs.replace(own, rate_scale=rate / trace_rate(own))
    raise InputError("rate: give a trace or arrivals, e.g. poisson:4, that it is the rate of")


@lru_cache(maxsize=64)
def trace_rate(traffic: RequestTraffic) -> float:
    """Requests per second of a trace, which is read for it."""
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


def rate_of(traffic: RequestTraffic) -> float:
    """Requests per second, where that is one number. Raises InputError."""
    if traffic.rate is not None:
        return traffic.rate
    if traffic.arrivals:
        at_rate(traffic, 1)  # raises where there is no one rate
        return float(traffic.arrivals.split(":")[1])
    return trace_rate(msgspec.structs.replace(traffic, rate_scale=1.0)) * traffic.rate_scale


def plain(serving: Serving) -> Serving:
    """The same run without `rate` and `dp`: the traffic has the rate, and each data parallel
    replica is a replica of the router."""
    traffic, split = serving.traffic, serving.parallelism
    if traffic.rate is not None:
        if traffic.rate_scale != 1.0:
            raise InputError("rate and rate_scale both set the pace of the requests; give one")
        traffic = at_rate(traffic, traffic.rate)
    return msgspec.structs.replace(
        serving,
        traffic=traffic,
        parallelism=msgspec.structs.replace(split, dp=1),
        replicas=serving.replicas * split.dp,
    )
