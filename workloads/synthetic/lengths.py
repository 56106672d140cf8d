"""Distributions of lengths in tokens.

`draw(rng, n)` gives n whole numbers. Each distribution takes its random numbers one after
the other from the generator, so that two draws of n are one draw of 2 n.
"""

from __future__ import annotations

from functools import lru_cache
from math import log, sqrt
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from workloads.request import MOST_TOKENS

Tokens = NDArray[np.int64]
# The table of a bounded zipf holds one number a length.
LONGEST_ZIPF = 2**22


class LengthDistribution(Protocol):
    """What all distributions of one length offer."""

    def draw(self, rng: np.random.Generator, n: int) -> Tokens:
        """n lengths."""
        ...


class Distribution(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the records."""


class Fixed(Distribution, frozen=True):
    """Always `tokens`; 0 as an output means a pass through an encoder."""

    tokens: int

    def __post_init__(self) -> None:
        if not 0 <= self.tokens <= MOST_TOKENS:
            raise ValueError(f"tokens = {self.tokens}: must lie from 0 to {MOST_TOKENS}")

    def draw(self, rng: np.random.Generator, n: int) -> Tokens:
        return np.full(n, self.tokens, dtype=np.int64)


class Uniform(Distribution, frozen=True):
    """Each length from `low` to `high`, both included, is equally likely."""

    low: int
    high: int

    def __post_init__(self) -> None:
        if not 1 <= self.low <= self.high <= MOST_TOKENS:
            raise ValueError(
                f"uniform {self.low}-{self.high}: needs 1 <= low <= high <= {MOST_TOKENS}"
            )

    def draw(self, rng: np.random.Generator, n: int) -> Tokens:
        # From doubles: a draw of bounded integers takes a varying count of random words.
        spread = self.high - self.low + 1
        return self.low + np.floor(rng.random(n) * spread).astype(np.int64)


class Lognormal(Distribution, frozen=True):
    """The exponential of a normal, with this mean and coefficient of variation.

    Lengths are rounded, then set to 1 or `max` where they lie beyond. Mean and cv are those before
    that, which a `max` far in the tail does not change.
    """

    mean: float
    cv: float
    max: int = MOST_TOKENS

    def __post_init__(self) -> None:
        if not 1 <= self.mean <= MOST_TOKENS:
            raise ValueError(f"mean = {self.mean}: must lie from 1 to {MOST_TOKENS} tokens")
        if not 0 <= self.cv <= 30:
            raise ValueError(f"cv = {self.cv}: must lie from 0 to 30")
        if not self.mean <= self.max <= MOST_TOKENS:
            raise ValueError(f"max = {self.max}: must lie from the mean to {MOST_TOKENS} tokens")

    def draw(self, rng: np.random.Generator, n: int) -> Tokens:
        variance = log(1 + self.cv**2)
        centre = log(self.mean) - variance / 2
        drawn = np.exp(centre + sqrt(variance) * rng.standard_normal(n))
        return np.clip(np.rint(drawn), 1, self.max).astype(np.int64)


class Zipf(Distribution, frozen=True):
    """Length k has a probability in proportion to k**-alpha, for k from 1 to `max`."""

    alpha: float
    max: int

    def __post_init__(self) -> None:
        if not 0 < self.alpha <= 20:
            raise ValueError(f"alpha = {self.alpha}: must lie above 0 and up to 20")
        if not 1 <= self.max <= LONGEST_ZIPF:
            raise ValueError(f"max = {self.max}: must lie from 1 to {LONGEST_ZIPF} tokens")

    def draw(self, rng: np.random.Generator, n: int) -> Tokens:
        return 1 + np.searchsorted(_zipf_table(self.alpha, self.max), rng.random(n), side="right")


class Empirical(Distribution, frozen=True):
    """One of `values`, with replacement: the lengths of a trace, drawn again."""

    values: tuple[int, ...]

    def __post_init__(self) -> None:
        _check_values(self.values)

    def draw(self, rng: np.random.Generator, n: int) -> Tokens:
        return _column(self.values)[_places(rng, n, len(self.values))]


class Pairs(Distribution, frozen=True):
    """Prompt and output of one and the same request of a trace, with replacement."""

    prompts: tuple[int, ...]
    outputs: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.prompts) != len(self.outputs):
            raise ValueError(
                f"{len(self.prompts)} prompts and {len(self.outputs)} outputs are no pairs"
            )
        _check_values(self.prompts)
        _check_values(self.outputs, least=0)

    def draw_pairs(self, rng: np.random.Generator, n: int) -> tuple[Tokens, Tokens]:
        places = _places(rng, n, len(self.prompts))
        return _column(self.prompts)[places], _column(self.outputs)[places]


def _check_values(values: tuple[int, ...], least: int = 1) -> None:
    if not values:
        raise ValueError("a distribution drawn from values needs at least one")
    if not least <= min(values) <= max(values) <= MOST_TOKENS:
        raise ValueError(
            f"lengths from {min(values)} to {max(values)}: must lie from {least} to {MOST_TOKENS}"
        )


def _places(rng: np.random.Generator, n: int, count: int) -> Tokens:
    return np.floor(rng.random(n) * count).astype(np.int64)


@lru_cache(maxsize=8)
def _column(values: tuple[int, ...]) -> Tokens:
    return np.array(values, dtype=np.int64)


@lru_cache(maxsize=8)
def _zipf_table(alpha: float, longest: int) -> NDArray[np.float64]:
    """P(length <= k) for k = 1 to longest - 1; what lies above all of them is the longest."""
    weight: NDArray[np.float64] = np.arange(1, longest + 1, dtype=np.float64) ** -alpha
    below: NDArray[np.float64] = np.cumsum(weight)
    below /= below[-1]
    return below[:-1]
