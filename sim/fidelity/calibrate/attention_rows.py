"""Rows of measured attention as the sums that its formulas take."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from sim.cost.kernels.attention_shape import AttentionShape
from workloads.attention import seen
from workloads.precision import BITS, packed


def shape_of_rows(frame: pl.DataFrame, dtype: str) -> AttentionShape:
    """The sums of one attention kernel a row, in the columns of the measurement files.

    dtype: the key of its terms, which is the format of cache and activations alike, but that
    activations beside an 8-bit cache have 16 bits.
    """
    kv_bits = BITS[dtype]
    bits = max(16, kv_bits)

    def column(name: str, default: int = 0) -> Any:
        if name not in frame.columns:
            return np.full(len(frame), default, dtype=np.int64)
        return frame[name].cast(pl.Int64).to_numpy()

    heads, head = column("num_heads"), column("head_dim")
    kv_heads = column("num_kv_heads") if "num_kv_heads" in frame.columns else heads
    window = column("window")
    encoder = "seq_len" in frame.columns
    if "n_decode" in frame.columns:
        new, count = column("prefill_chunk"), np.minimum(1, column("prefill_chunk"))
        context, decoding = column("kv_prefill") + new, column("n_decode")
        behind = np.maximum(1, column("kv_decode"))
    else:
        new = column("seq_len") if encoder else column("q_len", 1)
        context = new if encoder else column("kv_len")
        one = (new == 1) & (not encoder)
        count, decoding = column("batch") * (1 - one), column("batch") * one
        behind = context
    wide = np.where(window > 0, window, 2**31)
    behind = np.minimum(behind, wide)
    keys = count * np.minimum(seen(new, context - new), new + wide - 1) + decoding * behind
    tokens, both = count * new + decoding, 2 * kv_heads * head
    kv = packed(keys * both, bits if encoder else kv_bits)
    query = packed(tokens * heads * head, bits)
    return AttentionShape(
        heads=heads,
        kv_heads=kv_heads,
        width=2 * head,
        window=window,
        causal=not encoder,
        kv_bits=kv_bits,
        decoding=decoding,
        seen=decoding * behind,
        chunks=((count, new, context),),
        queries=query + kv if encoder else query,
        written=query,
        kv=0 * kv if encoder else kv,
        appended=0 * kv if encoder else packed(tokens * both, kv_bits),
    )
