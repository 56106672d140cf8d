"""What the cost of an attention kernel depends on: heads, sums over its sequences, bytes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sim.cost.kernels.price import Times
from sim.cost.kernels.rates import Rates
from workloads.ops import Flash, Traffic

BLOCK = 64  # widths are padded to this much of a key and its value: 32 each


class AttentionShape(NamedTuple):
    """One attention kernel over a batch; numbers, or arrays of many batches.

    Up to `kv_bits` they are of the kind of attention, then of the batch.

    decoding, seen: sequences with one new token behind a cache, and the keys they see together.
    chunks: (sequences, new tokens, context) of all others, equal ones counted.
    queries, written: bytes in and out but for the cache; kv, appended: bytes of the cache that are
        read, and written again.
    """

    heads: Any
    kv_heads: Any
    width: Any
    window: Any
    causal: bool
    kv_bits: int
    decoding: Any
    seen: Any
    chunks: tuple[tuple[Any, Any, Any], ...]
    queries: Any
    written: Any
    kv: Any
    appended: Any

    def over(
        self, decoding: Any, seen: Any, chunks: tuple[tuple[Any, Any, Any], ...], moved: Any
    ) -> AttentionShape:
        """The same attention over another batch; `moved` are its bytes, from `queries` on."""
        return AttentionShape(*self[:6], decoding, seen, chunks, *moved)

    @property
    def elements(self) -> Any:
        """Query rows x width, over all heads and sequences."""
        rows = self.decoding
        for count, new, _ in self.chunks:
            rows = rows + count * new
        return rows * self.heads * self.width

    @property
    def only_decodes(self) -> Any:
        """Whether every sequence decodes; an array where batches differ in that."""
        if not self.chunks:
            return True
        others = sum([count for count, _, _ in self.chunks])
        return others == 0 if isinstance(others, np.ndarray) else not others


def attention_shape(flash: tuple[Flash, ...], traffic: Traffic) -> AttentionShape:
    """The sums of an operator."""
    first = flash[0]
    decoding: Any = 0
    seen: Any = 0
    chunks = []
    for f in flash:
        one = f.new == 1
        if isinstance(one, np.ndarray) and f.cached:
            decoding, seen = decoding + f.sequences * one, seen + f.keys * one
            chunks.append((f.sequences * (1 - one), f.new, f.context))
        elif f.cached and one:
            decoding, seen = decoding + f.sequences, seen + f.keys
        else:
            chunks.append((f.sequences, f.new, f.context))
    return AttentionShape(
        heads=first.heads,
        kv_heads=first.kv_heads,
        width=first.width,
        window=first.window,
        causal=first.causal,
        kv_bits=first.kv_bits,
        decoding=decoding,
        seen=seen,
        chunks=tuple(chunks),
        queries=traffic.read,
        written=traffic.written,
        kv=traffic.kv_read,
        appended=traffic.kv_written,
    )


def score_flops(shape: AttentionShape) -> Any:
    """Matrix FLOPs of one score and its value, heads padded to whole vectors."""
    return 2 * BLOCK * -(-shape.width // BLOCK)


def times_of(rates: Rates, floor: Any, load: Any, compute: Any, store: Any, steps: int) -> Times:
    """The times of a kernel whose own terms say what its on-chip memories cost."""
    if rates.free:
        if "hbm" in rates.free:
            load, store = 0.0 * load, 0.0 * store
        if "compute" in rates.free:
            compute = 0.0 * compute
        if "launch" in rates.free:
            floor = 0.0 * floor
    return Times(floor, load, compute, store, steps, load + store, 0.0 * load)
