"""Arrival processes: when requests come.

A process is a small record; `ticks(seed)` starts it again and yields integer ticks
(picoseconds) that never decrease. Gaps are rounded to ticks one by one and summed as
integers, so that the stream does not depend on how many are drawn at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import count, repeat
from math import isfinite
from typing import Protocol

import msgspec
import numpy as np

from workloads.synthetic.streams import CHUNK, generator

TICKS_PER_SECOND = 10**12
LONGEST = 2**63
# A rate outside these is a slip of units; gaps fit well into 64 bits between them.
SLOWEST, FASTEST = 1e-6, 1e9


class Arrivals(Protocol):
    """What all processes offer."""

    def ticks(self, seed: int, *, chunk: int = CHUNK) -> Iterator[int]:
        """Arrival times from 0 on; `chunk` numbers are drawn at once, to no other effect."""
        ...


class Process(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the records."""


class Poisson(Process, frozen=True):
    """Independent exponential gaps with mean 1/rate; the first one precedes the first request."""

    rate: float

    def __post_init__(self) -> None:
        _check_rate(self.rate)

    def ticks(self, seed: int, *, chunk: int = CHUNK) -> Iterator[int]:
        rng = generator(seed, "arrivals")
        scale = TICKS_PER_SECOND / self.rate
        return _summed(rng.standard_exponential(chunk) * scale for _ in repeat(None))


class Gamma(Process, frozen=True):
    """Independent gamma gaps with mean 1/rate and coefficient of variation `cv`.

    cv 1 is Poisson in law (not in the same numbers), above it is bursty, below it is calm.
    """

    rate: float
    cv: float

    def __post_init__(self) -> None:
        _check_rate(self.rate)
        if not 0.01 <= self.cv <= 30:
            raise ValueError(
                f"cv = {self.cv}: must lie from 0.01 to 30; `constant` has no variation at all"
            )

    def ticks(self, seed: int, *, chunk: int = CHUNK) -> Iterator[int]:
        rng = generator(seed, "arrivals")
        shape = 1 / self.cv**2
        scale = TICKS_PER_SECOND / (self.rate * shape)
        return _summed(rng.standard_gamma(shape, chunk) * scale for _ in repeat(None))


class Constant(Process, frozen=True):
    """Request k comes at exactly k/rate, each rounded for itself: there is no drift."""

    rate: float

    def __post_init__(self) -> None:
        _check_rate(self.rate)

    def ticks(self, seed: int, *, chunk: int = CHUNK) -> Iterator[int]:
        # The rate as it is written: 0.1 is a tenth, not the double next to it.
        gap = TICKS_PER_SECOND / Fraction(str(self.rate))
        over, under = gap.numerator, gap.denominator
        for k in count():
            yield _in_range((2 * k * over + under) // (2 * under))


class Piecewise(Process, frozen=True):
    """Poisson arrivals whose rate is constant in each piece of (seconds, rate), then none.

    Exact by inversion: each gap is an exponential of mean 1, used up at the rate of the
    pieces that it crosses. A rate of 0 is a pause.
    """

    pieces: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        if not self.pieces:
            raise ValueError("piecewise needs at least one piece, such as 60@2")
        for duration, rate in self.pieces:
            if not (isfinite(duration) and duration > 0):
                raise ValueError(f"a piece of {duration} s: must last longer than 0 s")
            if rate != 0:
                _check_rate(rate)
        if sum(duration for duration, _ in self.pieces) * TICKS_PER_SECOND >= LONGEST:
            raise ValueError("the pieces together last longer than 106 days; shorten them")

    def ticks(self, seed: int, *, chunk: int = CHUNK) -> Iterator[int]:
        rng = generator(seed, "arrivals")
        units = (unit for _ in repeat(None) for unit in rng.standard_exponential(chunk).tolist())
        now, end, unit = 0, 0, next(units)
        for duration, rate in self.pieces:
            end += round(duration * TICKS_PER_SECOND)
            per_tick = rate / TICKS_PER_SECOND
            while unit < (end - now) * per_tick:
                # Rounding may not carry an arrival over the end of its piece.
                now = min(now + round(unit / per_tick), end - 1)
                yield now
                unit = next(units)
            unit -= (end - now) * per_tick
            now = end


class ClosedLoop(Process, frozen=True):
    """`concurrency` users, each of whom sends the next request `think_s` after the last answer.

    Arrivals then follow from the run: all requests are ready at 0, and the server admits
    no more than `concurrency` of them at a time.
    """

    concurrency: int
    think_s: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.concurrency <= 2**31:
            raise ValueError(f"concurrency = {self.concurrency}: must be at least 1")
        if not (self.think_s >= 0 and self.think_s * TICKS_PER_SECOND < LONGEST):
            raise ValueError(f"think_s = {self.think_s}: must lie from 0 s to 106 days")

    def ticks(self, seed: int, *, chunk: int = CHUNK) -> Iterator[int]:
        return repeat(0)


def _check_rate(rate: float) -> None:
    if not SLOWEST <= rate <= FASTEST:
        raise ValueError(
            f"rate = {rate}: must lie from {SLOWEST:g} to {FASTEST:g} requests per second"
        )


def _in_range(time: int) -> int:
    if time >= LONGEST:
        raise ValueError("arrivals reach beyond 106 days; use fewer requests or a higher rate")
    return time


def _summed(gaps: Iterator[np.ndarray]) -> Iterator[int]:
    """Running integer sums of gaps in ticks."""
    now = 0
    for drawn in gaps:
        if drawn.max() >= LONGEST:
            raise ValueError("arrivals reach beyond 106 days; use fewer requests or a higher rate")
        for gap in np.rint(drawn).astype(np.int64).tolist():
            now += gap
            yield _in_range(now)
