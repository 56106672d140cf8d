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
from workloads.ops import SOFTMAX_FLOPS

WIDE = 2**31  # a window that hides nothing
LANES = 512  # threads of the kernel that appends a token, one element of a key each
RESIDENT = 2  # tiles that a core holds at once


class Tiles(NamedTuple):
    """Tiles of one head over all sequences.

    keys: keys that each tile walks, together, x query rows per token; longest: those of the
    longest one. sequences: chunks and decoding ones. slots: tiles that the launch has room for.
    """

    count: Any
    keys: Any
    longest: Any
    sequences: Any
    slots: Any


class Grid(NamedTuple):
    """How query rows are cut into tiles.

    rows: of a tile. each: query rows per token in one tile column (all that share the keys, or
    one). columns: tile columns. deep: tiles of one token. window: most keys that a tile walks, x
    `each`.
    """

    rows: int
    each: Any
    columns: Any
    deep: Any
    window: Any
    causal: bool

    def tiles(self, xp: Arith, shape: AttentionShape) -> Tiles:
        """A chunk behind c cached tokens has tiles i = 1 ... q of t rows, which see
        c + i t / each keys (the last one all), at most a window and a tile; without a mask each
        sees all."""
        rows, each, _, deep, window, causal = self
        sequences = shape.decoding
        count = sequences * deep
        keys = shape.seen * deep * each
        longest = each * shape.seen / xp.max(1, sequences)
        wide = deep
        for some, new, context in shape.chunks:
            q = -(-new * each // rows)
            walked = each * context
            scores = q * walked
            if causal:
                scores = scores + rows * (q * (q - 1) // 2) - (q - 1) * (new * each)
            count = count + some * q
            keys = keys + some * xp.min(scores, q * window)
            longest = xp.max(longest, xp.min(walked, window))
            sequences, wide = sequences + some, xp.max(wide, q)
        return Tiles(count, keys, longest, sequences, sequences * wide)


class ChunkKernel(NamedTuple):
    """The kernel for a kind of attention on a device, whatever sequences a batch has.

    start, empty: seconds that a tile takes before its keys, and one without rows takes. pace:
    seconds of a core per key of a tile. group: query heads that share keys; far: bytes of the cache
    beyond which they do not find them in the shared memory, None if they share tiles.
    bandwidth: bytes/s. append: seconds per byte that is appended, x the device's own bandwidth.
    """

    grid: Grid
    terms: PrefillTerms
    floor: float
    start: float
    empty: float
    pace: Any
    group: Any
    far: Any
    bandwidth: float
    append: Any

    def times(self, xp: Arith, rates: Rates, shape: AttentionShape) -> Times:
        """The kernel over the chunks and decoding sequences of `shape`."""
        grid, terms, floor, start, empty, pace, group, far, bandwidth, append = self
        cores, each = rates.cores, grid.each
        count, keys, longest, sequences, slots = grid.tiles(xp, shape)
        over = count * start + (slots - count) * empty
        spread = grid.columns * (keys / each * pace + over / cores)
        alone = longest / each * (pace * cores) + start
        compute = xp.max(spread, alone) + terms.tail * xp.min(spread, alone)

        passes = 1
        if far is not None:
            again = (shape.kv > far) & (sequences * group > RESIDENT * cores)
            passes = xp.where(again, group, 1)
        load = (shape.queries + shape.kv * passes) / bandwidth
        store = shape.written / bandwidth
        append = shape.appended * append / rates.device.hbm.bandwidth
        append = 0.0 * append if "hbm" in rates.free else append
        return times_of(rates, floor + append, load, compute, store, terms.depth)


def grid_of(xp: Arith, terms: PrefillTerms, shape: AttentionShape) -> Grid:
    """The tiles of a kind of attention."""
    rows = terms.tile_rows
    group = shape.heads // shape.kv_heads
    each, columns = (group, shape.kv_heads) if terms.packed else (1, shape.heads)
    window = each * xp.where(shape.window > 0, shape.window, WIDE) + rows
    return Grid(rows, each, columns, -(-each // rows), window, shape.causal)


def chunk_kernel(
    xp: Arith, rates: Rates, terms: PrefillTerms, shape: AttentionShape
) -> ChunkKernel:
    """What does not depend on the sequences of a batch.

    Query heads that do not share tiles read the keys once each where the sequences that run at
    the same time do not leave them in the shared memory for the next head.
    """
    matrix = score_flops(shape) / (rates.attention_peak * terms.matrix)
    pace = terms.tile_rows * (matrix + SOFTMAX_FLOPS / (rates.vector_peak * terms.softmax))
    slow = xp.min(1.0, LANES / (shape.kv_heads * (shape.width / 2)))
    return ChunkKernel(
        grid=grid_of(xp, terms, shape),
        terms=terms,
        floor=rates.floor(terms.floor_us),
        start=terms.tile_us * 1e-6,
        empty=terms.empty_us * 1e-6,
        pace=pace,
        group=shape.heads // shape.kv_heads,
        far=None if terms.packed else rates.reuse * shape.kv_heads,
        bandwidth=rates.device.hbm.bandwidth * terms.hbm,
        append=1.0 + terms.append * slow,
    )


def chunk_times(xp: Arith, rates: Rates, terms: PrefillTerms, shape: AttentionShape) -> Times:
    """One kernel over chunks and decoding sequences."""
    return chunk_kernel(xp, rates, terms, shape).times(xp, rates, shape)
