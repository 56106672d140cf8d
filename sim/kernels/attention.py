"""Attention that keeps its scores on chip, from sums over the batch."""

from __future__ import annotations

from typing import Any

from hw_models.efficiency import DecodeTerms, PrefillTerms, terms_for
from sim.arith import Arith
from sim.kernels.price import Moved, Times, times
from sim.kernels.rates import Rates
from sim.kernels.stream import stream_tiles

PREFILL, DECODE = PrefillTerms(), DecodeTerms()


def attention_times(
    xp: Arith, rates: Rates, moved: Moved, matrix: Any, vector: Any, rows: Any
) -> Times:
    """One kernel over a batch; `rows` are query rows x width, over all heads."""
    terms = terms_for(rates.efficiency.prefill, rates.dtype, PREFILL)
    compute = attention_seconds(rates, matrix, rows) + vector / rates.vector
    return times(
        xp, rates, rates.floor(terms.floor_us), moved, compute, stream_tiles(xp, rates, moved.reads)
    )


def attention_seconds(rates: Rates, flops: Any, rows: Any) -> Any:
    """Matrix time of attention.

    A prompt of S tokens reaches S / (S + S0) of what long ones do: every query row costs
    as much as S0 / 2 more keys would (it sees S / 2 on the mean).
    """
    terms = rates.efficiency
    more = rows * terms.attention_ramp_tokens
    return (flops + more) / (rates.peak * terms.attention)
