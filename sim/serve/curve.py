"""Decode attention as a function of the tokens that it sees, for a batch of fixed size.

The same arithmetic as `Pricer.attention_sums` with everything taken out of the loop that does
not change from step to step; `tests/test_serve_pricing.py` holds one against the other.
"""

from __future__ import annotations

from collections.abc import Callable

from sim.clock import TICKS_PER_SECOND
from sim.cost import FINEST, CostModel
from sim.serve.pricing import Price
from workloads.model import Attention
from workloads.ops import SOFTMAX_FLOPS
from workloads.precision import Precision, packed


class DecodeCurve:
    """Prices of one attention operator in which every sequence has one new token."""

    def __init__(self, costs: CostModel, attention: Attention, precision: Precision) -> None:
        self.costs, self.attention, self.precision = costs, attention, precision

    def at(self, count: int) -> Callable[[int], Price]:
        """Price by the tokens that `count` sequences see together."""
        a, p, costs = self.attention, self.precision, self.costs
        device = costs.device
        query = packed(count * a.heads * a.head_dim, p.activation_bits)
        writes = packed(count * a.heads * a.value_dim, p.activation_bits)
        writes += packed(count * a.kv_width, p.kv_bits)
        kv_width, kv_bits = a.kv_width, p.kv_bits
        matrix = 2 * a.heads * (a.head_dim + a.value_dim)
        vector = SOFTMAX_FLOPS * a.heads
        rows = count * a.heads * (a.head_dim + a.value_dim)
        seconds_of, vector_rate = costs.attention_seconds, costs.vector_rate
        bandwidth, ramp = costs.bandwidth, costs.ramp
        inner_rate, series = costs.inner_rate, device.levels == "series"
        half = max(1, int(costs.staging / 2))
        perfect, launch = costs.perfect, costs.launch
        store = writes / bandwidth

        def price(seen: int) -> Price:
            reads = query + (seen * kv_width * kv_bits + 7) // 8
            load = (reads + ramp) / bandwidth
            outer = load + store
            into, out = load, store
            if inner_rate:
                inner = (reads + writes) / inner_rate
                whole = outer + inner if series else max(outer, inner)
                share = load / (load + store)
                into, out = whole * share, whole * (1 - share)
            tiles = min(FINEST, max(1, -(-reads // half)))
            seconds = seconds_of(seen * matrix, rows) + seen * vector / vector_rate
            li = round(into / tiles * TICKS_PER_SECOND)
            ci = round(seconds / tiles * TICKS_PER_SECOND)
            si = round(out / tiles * TICKS_PER_SECOND)
            busy = tiles * ci
            if perfect:
                span = max(tiles * (li + si), busy)
            elif tiles == 1:
                span = li + ci + si
            else:
                body = max(li, ci) + (tiles - 2) * max(li + si, ci)
                span = li + body + max(ci, si) + si
            wait = span - busy
            hbm = min(wait, max(0, round(outer * TICKS_PER_SECOND) - busy))
            return (
                busy,
                hbm,
                wait - hbm,
                0,
                launch,
                seen * (matrix + vector),
                reads + writes,
            )

        return price
