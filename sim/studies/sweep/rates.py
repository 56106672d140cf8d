"""The highest arrival rate at which a serving run meets its service level."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from sim.errors import InputError
from sim.serve.config import Serving
from sim.serve.rate import at_rate, rate_of
from sim.studies.sweep.kinds import Row

CLOSE = 1.01  # the bisection ends when the two rates are this near
MOST_DOUBLINGS = 18


def highest_rate(serving: Serving, serve_one: Callable[[Serving], Row]) -> Row:
    """The row at the highest rate that meets the SLO, by doubling and bisection.

    The rates have four digits; the two that enclose the answer end within a hundredth.
    """
    if not serving.slo.bounds:
        raise InputError("a highest rate needs a bound: slo_ttft, slo_tpot or slo_e2e, in seconds")
    known: dict[float, Row] = {}

    def met(rate: float) -> bool:
        if rate not in known:
            traffic = at_rate(serving.traffic, rate)
            known[rate] = serve_one(msgspec.structs.replace(serving, traffic=traffic))
        return bool(known[rate]["slo_met"])

    low = high = _digits(rate_of(serving.traffic))
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
