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


def stream_times(xp: Arith, rates: Rates, moved: Moved, matrix: Any, vector: Any) -> Times:
    """One pass over the bytes of an element-wise or row-wise operator."""
    terms = terms_for(rates.efficiency.elementwise, rates.dtype, NEUTRAL)
    compute = matrix / (rates.peak * rates.efficiency.matrix) + vector / rates.vector
    return times(
        xp, rates, rates.floor(terms.floor_us), moved, compute, stream_tiles(xp, rates, moved.reads)
    )


def stream_tiles(xp: Arith, rates: Rates, reads: Any) -> Any:
    """Fills of one of the two buffers that share the staging memory, for `reads` bytes."""
    half = max(1, int(rates.staging / 2))
    return xp.min(FINEST, xp.max(1, -(-reads // half)))
