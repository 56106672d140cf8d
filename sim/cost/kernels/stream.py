"""Operators that stream what they read past the arithmetic: norms, activations, look-ups."""

from __future__ import annotations

from typing import Any, NamedTuple

from hw_models.efficiency import VectorTerms, terms_for
from sim.cost.arith import Arith
from sim.cost.kernels.price import Flops, Moved, Times, Work, times
from sim.cost.kernels.rates import Rates

# Fill and drain are min(M, C)/n: more steps would only multiply events.
FINEST = 64
# CUDA: a block has at most 1024 threads, a core of compute capability 7.0, 8.0 or 9.0 holds 2048
# (C++ Programming Guide, technical specifications per compute capability). Those of vLLM and
# PyTorch have a block for every row.
TURN, BLOCKS = 1024, 2
NARROWEST = 32
NEUTRAL = VectorTerms()


class Rows(NamedTuple):
    """`rows` of `width` elements that a kernel of `kind` passes over; "" for fused operators,
    whose bytes move once."""

    kind: str = ""
    rows: Any = 0
    width: Any = 0


FUSED = Rows()


def stream_terms(rates: Rates) -> VectorTerms:
    """Of the number format, or else of 16 bits: streams do not mind how numbers are multiplied."""
    table = rates.efficiency.elementwise
    return terms_for(table, rates.dtype, None) or terms_for(table, "bf16", NEUTRAL)


def stream_times(
    xp: Arith,
    rates: Rates,
    moved: Moved,
    flops: Flops,
    shape: Rows = FUSED,
    bandwidth: Any = None,
) -> Times:
    """An element-wise or row-wise operator: one pass over its bytes, or as many passes as the
    kernels of its kind need.

    `bandwidth` (bytes/s) replaces the rate of the device.
    """
    kind, rows, width = shape
    terms = stream_terms(rates)
    if kind == "embedding" and (kind in terms.passes or kind in terms.walk):
        moved = moved._replace(reads=xp.max(moved.reads, moved.writes))
    compute = flops.matrix / (rates.peak * rates.efficiency.matrix)
    compute = compute + flops.vector / rates.vector
    passes = terms.passes.get(kind, 1.0)
    if kind != "embedding":
        compute = compute + width * (terms.row_ns * 1e-9 * passes)
    if bandwidth is None:
        bandwidth = rates.bandwidth
        if terms.hbm is not None:
            bandwidth = rates.device.hbm.bandwidth * terms.hbm
    faster = _held(xp, rates, terms, moved)
    bandwidth = bandwidth * faster / passes
    streaming = (moved.reads + moved.writes) / bandwidth
    if terms.walk:
        cycles = turns(xp, rates.cores, kind, rows, width) * walk_of(terms, kind)
        near = 1.0 if kind == "embedding" else faster  # a table is too large to stay
        walk = cycles / (rates.device.clock_GHz * 1e9 * near)
        walk = walk - terms.hidden * xp.min(walk, streaming)
        # Threads that have their elements compute while others wait for theirs.
        compute = xp.max(walk, compute - streaming)
    else:
        compute = compute - terms.hidden * xp.min(compute, streaming)
    tiles = terms.depth or stream_tiles(xp, rates, moved.reads)
    work = Work(rates.floor(terms.floor_us), compute, tiles)
    return times(xp, rates, work, moved, bandwidth=bandwidth)


def walk_of(terms: VectorTerms, kind: str) -> float:
    """Cycles of a turn; where none is stated, as for one that was fused, of the swiftest kind."""
    return terms.walk.get(kind) or min(terms.walk.values())


def turns(xp: Arith, cores: int, kind: str, rows: Any, width: Any) -> Any:
    """Turns one after the other on the core that has the most of them.

    A row has as many threads as elements up to a power of two or a turn, and as many rows are
    walked at once as their threads have room for; the elements of a look-up are dealt one by one
    to half of the room that all cores have.
    """
    if kind == "embedding":
        return xp.ceil(rows * width / (cores * TURN))
    block = 2.0 ** xp.ceil(xp.log2(xp.max(NARROWEST, xp.min(TURN, width))))
    return xp.ceil(rows * block / (cores * BLOCKS * TURN)) * xp.ceil(width / block)


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
