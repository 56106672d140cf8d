"""How sure a prediction is: the residuals of measured kernels, put together over a run.

A device's terms travel with the quantiles of measured over predicted time, of kernels that were not
fitted. Kernels of one family and phase (all products of a decode step, say) err together: they come
from one library, on one machine, and whole runs show them slow or fast in common. Families err
apart. With s the share of a family in the time, and d how far its tenth (its ninetieth) percentile
lies below (above) the prediction, an 80 % interval reaches from the prediction

    sqrt(sum over families of (s d)**2)

down (up): exact for one family and, if spreads are normal, for several. Work without a residual
keeps its time; waiting grows with the work. The share of draws in which A is faster than
B comes from random draws: one ratio per family, from all of its quantiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from hw_models.efficiency import Efficiency, KernelTerms, Spread, terms_for
from sim.cost.families import family_of

Array = npt.NDArray[np.float64]
Class = tuple[str, str]  # phase, kind of operator or family of kernels
DRAWS, SEED = 2000, 42
NORMAL = NormalDist()
LEAST = 0.05  # no kernel is faster than by this factor
LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
FAMILIES = ("gemm", "attention", "experts", "elementwise", "collective")
PHASES = ("encode", "prefill", "mixed", "decode")
ATTENTION = {"prefill": "prefill", "mixed": "prefill", "decode": "decode", "encode": "encoder"}


class Interval(msgspec.Struct, frozen=True):
    """An 80 % interval, as factors on the predicted value."""

    low: float
    high: float

    def of(self, value: float) -> tuple[float, float]:
        return value * self.low, value * self.high

    @property
    def inverse(self) -> Interval:
        """Of a rate, whose time this is the interval of."""
        return Interval(1 / self.high, 1 / self.low)


def families(times: Mapping[Class, int]) -> dict[Class, int]:
    """Ticks by phase and family, from ticks by phase and kind of operator; those of no family stay
    under their kind."""
    sums: dict[Class, int] = {}
    for (phase, kind), ticks in times.items():
        at = (phase, family_of(kind) or kind)
        sums[at] = sums.get(at, 0) + ticks
    return sums


def spread_of(efficiency: Efficiency, dtype: str, phase: str, family: str) -> Spread | None:
    """The residuals of a family of kernels, None where none are known."""
    terms: KernelTerms | None = None
    if family == "collective":
        known = efficiency.collectives
        terms = known.get("custom") or known.get("nccl")
    elif family in FAMILIES:
        own = ATTENTION.get(phase, "prefill") if family == "attention" else family
        terms = terms_for(getattr(efficiency, own), dtype, None)
    return terms.residuals.get("all") if terms else None


def reach(
    parts: Mapping[Class, Any], total: Any, efficiency: Efficiency, dtype: str, *more: Spread
) -> tuple[Any, Any, Any]:
    """(low, high, known): the ends of the intervals of sums of `parts`, numbers or arrays of ticks
    by phase and family that are part of `total`, as factors; and whether any residual is known.

    `more` are spreads of the whole itself, which err apart from the kernels.
    """
    below, above, known = (np.asarray(0.0) for _ in range(3))
    over = np.maximum(np.asarray(total, dtype=np.float64), 1.0)
    for at in ((phase, family) for phase in PHASES for family in FAMILIES):
        spread = spread_of(efficiency, dtype, *at) if at in parts else None
        if spread is not None:
            ticks = np.asarray(parts[at], dtype=np.float64)
            low, high = _deviations(spread)
            share = ticks / over
            below = below + (share * low) * (share * low)
            above = above + (share * high) * (share * high)
            known = known + ticks
    for spread in more:
        low, high = _deviations(spread)
        below, above, known = below + low * low, above + high * high, known + 1.0
    return 1.0 - np.sqrt(below), 1.0 + np.sqrt(above), known


def _deviations(spread: Spread) -> tuple[float, float]:
    """How far the tenth and the ninetieth percentile lie below and above the prediction."""
    return max(0.0, 1.0 - spread.p10), max(0.0, spread.p90 - 1.0)


def interval(
    times: Mapping[Class, int], efficiency: Efficiency, dtype: str, *more: Spread
) -> Interval | None:
    """The 80 % interval of the sum of `times`, ticks by phase and kind of operator; None where no
    residuals are known. `more`: as of `reach`."""
    low, high, known = reach(families(times), sum(times.values()), efficiency, dtype, *more)
    return Interval(max(float(low), LEAST), float(high)) if known else None


def quantile(spread: Spread, u: Array) -> Array:
    """Ratios at levels `u`: straight between the known ones, and on with the same slope beyond."""
    known = np.array([spread.p10, spread.p25, spread.p50, spread.p75, spread.p90])
    inside = np.interp(u, LEVELS, known)
    low = known[0] + (u - LEVELS[0]) * (known[1] - known[0]) / (LEVELS[1] - LEVELS[0])
    high = known[-1] + (u - LEVELS[-1]) * (known[-1] - known[-2]) / (LEVELS[-1] - LEVELS[-2])
    return np.asarray(np.where(u < LEVELS[0], low, np.where(u > LEVELS[-1], high, inside)))


def intervals(
    parts: Mapping[Class, Any], totals: Any, efficiency: Efficiency, dtype: str
) -> list[Interval | None]:
    """The same of many sums at once: `parts` by phase and family, and `totals`, are arrays."""
    low, high, known = reach(parts, totals, efficiency, dtype)
    ends = np.broadcast_arrays(np.maximum(low, LEAST), high, known, totals)[:3]
    return [
        Interval(a, b) if sure else None
        for a, b, sure in zip(*(x.tolist() for x in ends), strict=True)
    ]


def stretches(
    times: Mapping[Class, int], efficiency: Efficiency, dtype: str, seed: int = SEED
) -> Array | None:
    """Factors on the sum of `times`, one a draw; None where no family has residuals.

    With the same seed, the same family draws the same factors in every call.
    """
    sum_of_times = sum(times.values())
    total, known = np.zeros(DRAWS), False
    for (phase, family), time in families(times).items():
        spread = spread_of(efficiency, dtype, phase, family)
        if spread is None:
            total += time
            continue
        known = True
        name = int.from_bytes(f"{phase} {family}".encode(), "big") % 2**32
        u = np.random.default_rng((seed, name)).random(DRAWS)
        total += time * np.maximum(quantile(spread, u), LEAST)
    return total / sum_of_times if known and sum_of_times else None


def chance_below(bound: float, value: float, low: float, high: float) -> float:
    """The chance that what was predicted as `value`, with this 80 % interval, is at most `bound`:
    half of a normal distribution on either side."""
    side = high - value if bound > value else value - low
    if side <= 0:
        return float(bound >= value)
    return NORMAL.cdf(NORMAL.inv_cdf(0.9) * (bound - value) / side)


def beats(a: float, of_a: Array | None, b: float, of_b: Array | None) -> float | None:
    """The share of draws in which a time `a` is below a time `b`."""
    if of_a is None or of_b is None:
        return None
    return float(np.mean(a * of_a < b * of_b))
