"""How many tokens each expert of a mixture gets.

uniform        every token picks evenly at random: as many experts as are expected to be
               visited, with equal rows
balanced       tokens are dealt out: every expert that can be visited is
power-law:A    the loads of the experts are the quantiles of a power law with exponent A between
               1 and 0.8 of the tokens (0.01 and 2 where there are fewer visits than experts),
               brought to the number of visits. It is what ai-dynamo/aiconfigurator draws from
               when it measures a skewed router; 1.01 and 1.2 are its exponents
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from workloads.numbers import decimal_number

NAMES = ("uniform", "balanced")
SKEWED = "power-law:"


def exponent(routing: str) -> float | None:
    """Of a power law; None for the even ones. Raises ValueError for what is no routing."""
    if routing in NAMES:
        return None
    try:
        alpha = decimal_number(routing.removeprefix(SKEWED)) if routing.startswith(SKEWED) else -1.0
    except ValueError:
        alpha = -1.0
    if not 0.0 <= alpha <= 10.0:
        raise ValueError(
            f"routing {routing!r} is not known; use uniform, balanced, or power-law:A with an "
            "exponent A from 0 to 10, such as power-law:1.2"
        )
    return alpha


def visited_experts(experts: int, top_k: int, tokens: int) -> int:
    """Distinct experts that `tokens` tokens visit when each picks `top_k` evenly at random.

    Expected value experts * (1 - (1 - top_k/experts)^tokens), rounded, at least top_k.
    """
    expected = experts * (1.0 - (1.0 - top_k / experts) ** tokens)
    return min(experts, top_k * tokens, max(top_k, round(expected)))


@lru_cache(maxsize=4096)
def expert_rows(experts: int, top_k: int, tokens: int, routing: str) -> tuple[tuple[int, int], ...]:
    """(how many experts, rows of each) of those that are visited, the busiest first."""
    routed = tokens * top_k
    alpha = exponent(routing)
    if alpha is None:
        visited = (
            min(experts, routed)
            if routing == "balanced"
            else visited_experts(experts, top_k, tokens)
        )
        share, busier = divmod(routed, visited)
        return tuple((n, rows) for n, rows in ((busier, share + 1), (visited - busier, share)) if n)
    falling = loads(skew(experts, routed, tokens, alpha), routed, tokens)
    return grouped_by_rows(falling)


@lru_cache(maxsize=65536)
def rank_rows(
    experts: int, top_k: int, tokens: int, routing: str, ranks: int
) -> tuple[tuple[int, int], ...]:
    """As `expert_rows`, of the busiest of `ranks` that share the experts evenly.

    Even routings give each rank its share of the visits. Skewed loads are dealt out at random,
    always the same way.
    """
    if ranks == 1:
        return expert_rows(experts, top_k, tokens, routing)
    routed, own = tokens * top_k, experts // ranks
    alpha = exponent(routing)
    if alpha is None:
        share = -(-routed // ranks)
        visited = sum(n for n, _ in expert_rows(experts, top_k, tokens, routing))
        count = max(1, min(own, share, -(-visited // ranks)))
        least, busier = divmod(share, count)
        return tuple((n, r) for n, r in ((busier, least + 1), (count - busier, least)) if n)
    falling = loads(skew(experts, routed, tokens, alpha), routed, tokens)
    dealt = np.random.default_rng(0).permutation(falling)[: own * ranks].reshape(ranks, own)
    return grouped_by_rows(np.sort(dealt[int(dealt.sum(axis=1).argmax())])[::-1])


def grouped_by_rows(falling: np.ndarray) -> tuple[tuple[int, int], ...]:
    """(how many, load) of equal loads; the cold are left out."""
    rows, counts = np.unique(falling, return_counts=True)
    return tuple((int(n), int(r)) for r, n in zip(rows[::-1], counts[::-1], strict=True) if r)


def skew(experts: int, routed: int, tokens: int, alpha: float) -> np.ndarray:
    """Relative loads, the heaviest first: quantiles of a bounded power law."""
    low, high = (1.0, 0.8 * tokens) if routed > experts else (0.01, 2.0)
    u = (np.arange(experts)[::-1] + 0.5) / experts
    if abs(alpha - 1.0) < 1e-9:
        return np.asarray(low * (high / low) ** u)
    p = 1.0 - alpha
    return np.asarray((low**p + u * (high**p - low**p)) ** (1.0 / p))


def loads(weights: np.ndarray, total: int, most: int) -> np.ndarray:
    """Whole loads by `weights`, falling, of `total` in all and `most` at most (a token visits an
    expert once); what is above that is poured over the others."""
    share = weights / weights.sum() * total
    while (share > most * (1 + 1e-12)).any():
        full = share >= most
        left = total - most * full.sum()
        share = np.where(full, most, share * (left / share[~full].sum()))
    counts: np.ndarray = np.minimum(np.floor(share + 0.5), most).astype(np.int64)
    order = range(len(counts))
    while (missing := total - int(counts.sum())) > 0:  # the heaviest take what rounding lost
        room = [i for i in order if counts[i] < most][:missing]
        counts[room] += 1
    for i in reversed(order):  # and the lightest give what it won
        give = min(int(counts[i]), max(0, int(counts.sum()) - total))
        counts[i] -= give
    return counts
