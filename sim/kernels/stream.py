"""Operators that stream what they read past the arithmetic: norms, activations, look-ups."""

from __future__ import annotations

from typing import Any

from hw_models.efficiency import VectorTerms, terms_for
from sim.arith import Arith
from sim.kernels.price import Moved, Times, times
from sim.kernels.rates import Rates

# Fill and drain are min(M, C)/n: more steps would only multiply events.
FINEST = 64
NEUTRAL = VectorTerms()


def stream_terms(rates: Rates) -> VectorTerms:
    """Of the number format, or else of 16 bits: streams do not mind how numbers are multiplied."""
    table = rates.efficiency.elementwise
    return terms_for(table, rates.dtype, None) or terms_for(table, "bf16", NEUTRAL)


def stream_times(
    xp: Arith,
    rates: Rates,
    moved: Moved,
    matrix: Any,
    vector: Any,
    *,
    kind: str = "",
    width: Any = 0,
    bandwidth: Any = None,
) -> Times:
    """One pass over the bytes of an element-wise or row-wise operator, or as many as the kernels
    of `kind` take; "" for one that was fused, which takes one.

    `width` are elements of a row that one core walks; `bandwidth` (bytes/s) is of the kind's own.
    """
    terms = stream_terms(rates)
    if kind == "embedding" and kind in terms.passes:
        moved = moved._replace(reads=xp.max(moved.reads, moved.writes))
    compute = matrix / (rates.peak * rates.efficiency.matrix) + vector / rates.vector
    passes = terms.passes.get(kind, 1.0)
    compute = compute + width * (terms.row_ns * 1e-9 * passes)
    if bandwidth is None:
        bandwidth = rates.bandwidth
        if terms.hbm is not None:
            bandwidth = rates.device.hbm.bandwidth * terms.hbm
    bandwidth = bandwidth * _held(xp, rates, terms, moved) / passes
    tiles = terms.depth or stream_tiles(xp, rates, moved.reads)
    return times(xp, rates, rates.floor(terms.floor_us), moved, compute, tiles, bandwidth=bandwidth)


def _held(xp: Arith, rates: Rates, terms: VectorTerms, moved: Moved) -> Any:
    """How much faster the bytes move because a part of them is still on chip."""
    if terms.cached is None:
        return 1.0
    total = xp.max(1, moved.reads + moved.writes)
    share = xp.min(1.0, terms.cached * rates.device.reuse_capacity / total)
    return 1.0 / (1.0 - share * terms.cached_gain / (1.0 + terms.cached_gain))


def stream_tiles(xp: Arith, rates: Rates, reads: Any) -> Any:
    """Fills of one of the two buffers that share the staging memory, for `reads` bytes."""
    half = max(1, int(rates.staging / 2))
    return xp.min(FINEST, xp.max(1, -(-reads // half)))
