"""Attention of one new token per sequence: a stream of keys and values, cut into blocks.

A block is a sequence and a key/value head. More blocks than cores come in waves; fewer share the
keys of a head among several cores, and add up their parts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from hw_models.efficiency import DecodeTerms, cache_terms
from sim.cost.arith import Arith
from sim.cost.kernels.attention_shape import AttentionShape, score_flops, times_of
from sim.cost.kernels.price import Times
from sim.cost.kernels.rates import Rates

DECODE = DecodeTerms()
LEAST = 128  # keys of one step of a block: fewer are not split
RESIDENT = 2  # blocks that a core holds at once


class Line(NamedTuple):
    """The kernel for a number of sequences, as straight lines in what they see together.

    load = kv bytes x per_byte + first, compute = waits + keys x per_key (seconds); the floor is
    the second one where they see more than `most` keys.
    """

    floors: tuple[Any, Any]
    most: Any
    per_byte: Any
    first: Any
    waits: Any
    per_key: Any
    store: Any
    steps: int

    def times(self, xp: Arith, rates: Rates, kv: Any, keys: Any) -> Times:
        """The kernel if the sequences see so many `keys` together, of `kv` bytes."""
        floor = xp.where(keys > self.most, self.floors[1], self.floors[0])
        load, compute = self.load(kv), self.compute(keys)
        return times_of(rates, floor, load, compute, self.store, self.steps)

    def load(self, kv: Any) -> Any:
        """Seconds of reading queries and `kv` bytes of the cache."""
        return kv * self.per_byte + self.first

    def compute(self, keys: Any) -> Any:
        """Seconds of arithmetic on so many keys."""
        return self.waits + keys * self.per_key


def decode_terms(rates: Rates, shape: AttentionShape) -> DecodeTerms:
    return cache_terms(rates.efficiency.decode, rates.dtype, shape.kv_bits, DECODE)


def decode_line(xp: Arith, rates: Rates, terms: DecodeTerms, shape: AttentionShape) -> Line:
    """What does not depend on how much the sequences see."""
    cores, peak = rates.cores, rates.device.hbm.bandwidth
    sequences = xp.max(1, shape.decoding)
    blocks = sequences * shape.kv_heads
    few = 5 * blocks < 4 * cores  # then splitting fills the cores
    regroup = (sequences > 1) & (shape.kv_heads > 1) & (shape.heads > shape.kv_heads)
    floor = rates.floor(terms.floor_us) + xp.where(regroup, terms.regroup_us * 1e-6, 0.0)
    passes = xp.where(regroup, 3 if terms.regroup_us else 1, 1)
    last = blocks % (RESIDENT * cores)
    alone = cores / terms.core_share if terms.core_share else 0.0
    drawn = xp.where(last > 0, xp.max(last, alone), 0.0)  # bytes x blocks of the last wave
    stretch = xp.where(
        few, 1.0 / xp.min(1.0, blocks * terms.head_share), (blocks - last + drawn) / blocks
    )
    bandwidth = peak * terms.hbm
    return Line(
        floors=(floor, floor + xp.where(few, terms.split_us * 1e-6, 0.0)),
        most=LEAST * sequences,
        per_byte=stretch / bandwidth,
        first=shape.queries * passes / bandwidth,
        waits=(-(-blocks // cores) - 1) * (terms.block_us * 1e-6) * (0.5 + shape.width / 512),
        per_key=shape.heads * score_flops(shape) / (rates.attention_peak * terms.matrix),
        store=(shape.written * passes + shape.appended) / bandwidth,
        steps=terms.depth,
    )


def decode_times(xp: Arith, rates: Rates, terms: DecodeTerms, shape: AttentionShape) -> Times:
    """One kernel in which every sequence has one new token."""
    return decode_line(xp, rates, terms, shape).times(xp, rates, shape.kv, shape.seen)
