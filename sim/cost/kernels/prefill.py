"""Attention of chunks of many rows, and of decoding sequences among them: tiles over the cores.

A tile is some query rows of a head; a core walks all keys that the tile sees. Work is counted in
whole numbers, so that the order of the sequences does not matter.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from hw_models.efficiency import PrefillTerms
from sim.cost.arith import Arith
from sim.cost.kernels.attention_shape import AttentionShape, score_flops, times_of
from sim.cost.kernels.price import Times
from sim.cost.kernels.rates import Rates
from workloads.ops import SOFTMAX_FLOPS, least, most

WIDE = 2**31  # a window that hides nothing
LANES = 512  # threads of the kernel that appends a token, one element of a key each
RESIDENT = 2  # tiles that a core holds at once


class Tiles(NamedTuple):
    """Tiles of one head over all sequences.

    keys: keys that each tile walks, together, x `each`; longest: those of the longest one.
    each: query rows per token in one tile column (all that share the keys, or one).
    heads: tile columns. sequences: chunks and decoding ones. slots: tiles that the launch has room
    for.
    """

    count: Any
    keys: Any
    longest: Any
    each: Any
    heads: Any
    sequences: Any
    slots: Any


def tiles_of(xp: Arith, terms: PrefillTerms, shape: AttentionShape) -> Tiles:
    """A chunk behind c cached tokens has tiles i = 1 ... q of t rows, which see c + i t / each keys
    (the last one all), at most a window and a tile; without a mask each sees all."""
    rows = terms.tile_rows
    group = shape.heads // shape.kv_heads
    each, heads = (group, shape.kv_heads) if terms.packed else (1, shape.heads)
    window = each * xp.where(shape.window > 0, shape.window, WIDE) + rows
    deep = -(-each // rows)
    count = shape.decoding * deep
    keys = shape.seen * deep * each
    longest = each * shape.seen / xp.max(1, shape.decoding)
    sequences, wide = shape.decoding, deep
    for some, new, context in shape.chunks:
        q = -(-new * each // rows)
        scores = q * each * context
        if shape.causal:
            scores = scores + rows * (q * (q - 1) // 2) - (q - 1) * (new * each)
        count = count + some * q
        keys = keys + some * least(scores, q * window)
        longest = xp.max(longest, least(each * context, window))
        sequences, wide = sequences + some, most(wide, q)
    return Tiles(count, keys, longest, each, heads, sequences, sequences * wide)


def chunk_times(xp: Arith, rates: Rates, terms: PrefillTerms, shape: AttentionShape) -> Times:
    """One kernel over chunks and decoding sequences.

    Query heads that do not share tiles read the keys once each where the sequences that run at
    the same time do not leave them in the shared memory for the next head.
    """
    tiles = tiles_of(xp, terms, shape)
    cores, start = rates.cores, terms.tile_us * 1e-6
    matrix = score_flops(shape) / (rates.attention_peak * terms.matrix)
    pace = terms.tile_rows * (matrix + SOFTMAX_FLOPS / (rates.vector_peak * terms.softmax))
    over = tiles.count * start + (tiles.slots - tiles.count) * (terms.empty_us * 1e-6)
    spread = tiles.heads * (tiles.keys / tiles.each * pace + over / cores)
    longest = tiles.longest / tiles.each * (pace * cores) + start
    compute = xp.max(spread, longest) + terms.tail * xp.min(spread, longest)

    peak = rates.device.hbm.bandwidth
    group = shape.heads // shape.kv_heads
    passes = 1
    if not terms.packed:
        far = (shape.kv > rates.reuse * shape.kv_heads) & (
            tiles.sequences * group > RESIDENT * cores
        )
        passes = xp.where(far, group, 1)
    load = (shape.queries + shape.kv * passes) / (peak * terms.hbm)
    store = shape.written / (peak * terms.hbm)
    slow = xp.min(1.0, LANES / (shape.kv_heads * (shape.width / 2)))
    append = shape.appended * (1.0 + terms.append * slow) / peak
    append = 0.0 * append if "hbm" in rates.free else append
    floor = rates.floor(terms.floor_us) + append
    return times_of(rates, floor, load, compute, store, terms.depth)
