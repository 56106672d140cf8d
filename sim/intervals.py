"""How sure a prediction is: the residuals of measured kernels, drawn and summed over a run.

A device's terms travel with the quantiles of measured over predicted time, of kernels that were not
fitted. One draw takes for each class of operators (projections, attention, ...) one ratio from its
family, and stretches the time of that class by it: kernels of a class err together, classes apart.
What no residual is known of keeps its time; waiting stretches as the work does. An 80 % interval is
the middle of the draws, and A is faster than B in as many of them as are.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
import numpy.typing as npt

from hw_models.efficiency import Efficiency, KernelTerms, Spread, terms_for

Array = npt.NDArray[np.float64]
Class = tuple[str, str]  # phase, kind of operator
DRAWS, SEED = 2000, 42
LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
KINDS = {
    "projection": "gemm",
    "ffn": "gemm",
    "head": "gemm",
    "router": "gemm",
    "experts": "experts",
    "norm": "elementwise",
    "activation": "elementwise",
    "residual": "elementwise",
    "rotary": "elementwise",
    "softmax": "elementwise",
    "embedding": "elementwise",
}
ATTENTION = {"prefill": "prefill", "mixed": "prefill", "decode": "decode", "encode": "encoder"}


class Interval(msgspec.Struct, frozen=True):
    """The middle 80 % of the draws, as factors on the predicted value."""

    low: float
    high: float

    def of(self, value: float) -> tuple[float, float]:
        return value * self.low, value * self.high

    @property
    def inverse(self) -> Interval:
        """Of a rate, whose time this is the interval of."""
        return Interval(1 / self.high, 1 / self.low)


def spread_of(efficiency: Efficiency, dtype: str, phase: str, kind: str) -> Spread | None:
    """The residuals of a class of operators, None where none are known."""
    terms: KernelTerms | None
    if kind == "collective":
        known = efficiency.collectives
        terms = known.get("custom") or known.get("nccl")
    else:
        family = ATTENTION.get(phase, "prefill") if kind == "attention" else KINDS.get(kind)
        terms = terms_for(getattr(efficiency, family), dtype, None) if family else None
    return terms.residuals.get("all") if terms else None


def quantile(spread: Spread, u: Array) -> Array:
    """Ratios at levels `u`: straight between the known ones, and on with the same slope beyond."""
    known = np.array([spread.p10, spread.p25, spread.p50, spread.p75, spread.p90])
    inside = np.interp(u, LEVELS, known)
    low = known[0] + (u - LEVELS[0]) * (known[1] - known[0]) / (LEVELS[1] - LEVELS[0])
    high = known[-1] + (u - LEVELS[-1]) * (known[-1] - known[-2]) / (LEVELS[-1] - LEVELS[-2])
    return np.asarray(np.where(u < LEVELS[0], low, np.where(u > LEVELS[-1], high, inside)))


def stretches(
    times: Mapping[Class, float], efficiency: Efficiency, dtype: str, seed: int = SEED
) -> Array | None:
    """Factors on the sum of `times`, one a draw; None where no class has residuals.

    The same class has the same luck in every call with the same seed.
    """
    whole = sum(times.values())
    total, known = np.zeros(DRAWS), False
    for (phase, kind), time in times.items():
        spread = spread_of(efficiency, dtype, phase, kind)
        if spread is None:
            total += time
            continue
        known = True
        name = int.from_bytes(f"{phase} {kind}".encode(), "big") % 2**32
        u = np.random.default_rng((seed, name)).random(DRAWS)
        total += time * np.maximum(quantile(spread, u), 0.05)
    return total / whole if known and whole else None


def interval(draws: Array | None) -> Interval | None:
    """The middle 80 % of draws."""
    if draws is None:
        return None
    low, high = np.quantile(draws, (0.1, 0.9))
    return Interval(float(low), float(high))


def beats(a: float, of_a: Array | None, b: float, of_b: Array | None) -> float | None:
    """The share of draws in which a time `a` is below a time `b`."""
    if of_a is None or of_b is None:
        return None
    return float(np.mean(a * of_a < b * of_b))
