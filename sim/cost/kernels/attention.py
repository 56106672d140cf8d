"""Attention that keeps its scores on chip, from sums over the batch.

A batch in which every sequence decodes one token runs one kind of kernel
(`sim.cost.kernels.decode`). Any other batch runs another (`sim.cost.kernels.prefill`). If it mixes
both, a decoding sequence is a chunk of one row. A device without terms for a kind of kernel gets
the plain formula below.
"""

from __future__ import annotations

from typing import Any

from hw_models.efficiency import PrefillTerms, cache_terms
from sim.cost.arith import Arith
from sim.cost.kernels.attention_shape import AttentionShape
from sim.cost.kernels.decode import decode_terms, decode_times
from sim.cost.kernels.prefill import chunk_times
from sim.cost.kernels.price import Flops, Moved, Times, Work, times
from sim.cost.kernels.rates import Rates
from sim.cost.kernels.stream import stream_tiles

PREFILL = PrefillTerms()


def attention_times(
    xp: Arith,
    rates: Rates,
    moved: Moved,
    flops: Flops,
    rows: Any,
    shape: AttentionShape,
) -> Times:
    """One kernel over a batch; `rows` are query rows x width, over all heads."""

    def plain(floor_us: float | None) -> Times:
        compute = attention_seconds(rates, flops.matrix, rows) + flops.vector / rates.vector
        tiles = stream_tiles(xp, rates, moved.reads)
        return times(xp, rates, Work(rates.floor(floor_us), compute, tiles), moved)

    def decoding() -> Times:
        decode = decode_terms(rates, shape)
        if decode.depth:
            return decode_times(xp, rates, decode, shape)
        return plain(decode.floor_us)

    def chunks() -> Times:
        chunk = chunk_terms(rates, shape)
        if chunk.tile_rows:
            return chunk_times(xp, rates, chunk, shape)
        return plain(chunk.floor_us)

    only = shape.only_decodes
    if isinstance(only, bool):
        return decoding() if only else chunks()
    return Times(*(xp.where(only, a, b) for a, b in zip(decoding(), chunks(), strict=True)))


def chunk_terms(rates: Rates, shape: AttentionShape) -> PrefillTerms:
    """The terms of a batch that does more than decode."""
    table = rates.efficiency.prefill if shape.causal else rates.efficiency.encoder
    return cache_terms(table or rates.efficiency.prefill, rates.dtype, shape.kv_bits, PREFILL)


def attention_seconds(rates: Rates, flops: Any, rows: Any) -> Any:
    """Matrix time of attention without terms.

    A prompt of S tokens reaches S / (S + S0) of what long ones do: every query row costs
    as much as S0 / 2 more keys would (it sees S / 2 on the mean).
    """
    terms = rates.efficiency
    more = rows * terms.attention_ramp_tokens
    return (flops + more) / (rates.peak * terms.attention)
