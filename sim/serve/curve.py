"""Decode attention as a function of the tokens that it sees, for a batch of fixed size.

The same arithmetic as `Pricer.attention_sums` with everything taken out of the loop that does
not change from step to step; `tests/test_serve_pricing.py` holds one against the other.
"""

from __future__ import annotations

from collections.abc import Callable

from sim.clock import TICKS_PER_SECOND, ticks
from sim.cost.arith import SCALAR
from sim.cost.kernels.asked import Asked
from sim.cost.kernels.attention import attention_seconds
from sim.cost.kernels.decode import decode_line, decode_terms
from sim.cost.kernels.stream import FINEST
from sim.cost.model import CostModel
from sim.serve.prices import FREE, Price
from workloads.model import Attention
from workloads.ops import SOFTMAX_FLOPS
from workloads.precision import Precision, packed


class DecodeCurve:
    """Prices of one attention operator in which every sequence has one new token."""

    def __init__(self, costs: CostModel, attention: Attention, precision: Precision) -> None:
        self.costs, self.attention, self.precision = costs, attention, precision

    def _asked(self, count: int, query: int, out: int, appended: int) -> Asked:
        a = self.attention
        return Asked(
            heads=a.heads,
            kv_heads=a.kv_heads,
            width=a.head_dim + a.value_dim,
            window=a.window,
            causal=a.causal,
            kv_bits=self.precision.kv_bits,
            decoding=count,
            seen=0,
            chunks=(),
            queries=query,
            written=out,
            kv=0,
            appended=appended,
        )

    def at(self, count: int, base: Price = FREE, times: int = 1) -> Callable[[int], Price]:
        """`base` plus so many such operators, by the tokens that `count` sequences see together.

        Comparisons are spelled out: this is the innermost loop of serving.
        """
        a, p, rates = self.attention, self.precision, self.costs.rates
        query = packed(count * a.heads * a.head_dim, p.activation_bits)
        appended = packed(count * a.kv_width, p.kv_bits)
        writes = packed(count * a.heads * a.value_dim, p.activation_bits) + appended
        bits = a.kv_width * p.kv_bits
        width = a.head_dim + a.value_dim
        matrix, vector, rows = 2 * a.heads * width, SOFTMAX_FLOPS * a.heads, count * a.heads * width
        asked = self._asked(count, query, writes - appended, appended)
        terms = decode_terms(rates, asked)
        line = decode_line(SCALAR, rates, terms, asked) if terms.depth else None
        if line:
            low, high = (base[4] + times * ticks(floor) for floor in line.floors)
            most, per_byte, first = line.most, line.per_byte, line.first
            waits, per_key = line.waits, line.per_key
        vector_rate = rates.vector
        bandwidth, ramp = rates.bandwidth, rates.ramp
        inner_rate, series = rates.inner_rate, rates.series
        half = max(1, int(rates.staging / 2))
        perfect = rates.perfect
        store = line.store if line else writes / bandwidth
        base_compute, base_hbm, base_sram, base_link, base_launch, base_flops, base_moved = base
        plain = base_launch + times * ticks(rates.floor(terms.floor_us))

        def price(seen: int) -> Price:
            cache = (seen * bits + 7) // 8
            reads = query + cache
            if line:
                into, out = cache * per_byte + first, store
                outer = into + out
                seconds = waits + seen * per_key
                tiles = line.steps
                launch = high if seen > most else low
            else:
                load = (reads + ramp) / bandwidth
                outer = load + store
                into, out = load, store
                if inner_rate:
                    inner = (reads + writes) / inner_rate
                    whole = outer + inner if series else (outer if outer > inner else inner)
                    share = load / (load + store)
                    into, out = whole * share, whole * (1 - share)
                tiles = -(-reads // half)
                if tiles < 1:
                    tiles = 1
                elif tiles > FINEST:
                    tiles = FINEST
                seconds = attention_seconds(rates, seen * matrix, rows)
                seconds += seen * vector / vector_rate
                launch = plain
            li = round(into / tiles * TICKS_PER_SECOND)
            ci = round(seconds / tiles * TICKS_PER_SECOND)
            si = round(out / tiles * TICKS_PER_SECOND)
            busy = tiles * ci
            if perfect:
                moving = tiles * (li + si)
                span = moving if moving > busy else busy
            elif tiles == 1:
                span = li + ci + si
            else:
                moving = li + si
                span = li + (li if li > ci else ci) + (ci if ci > si else si) + si
                span += (tiles - 2) * (moving if moving > ci else ci)
            wait = span - busy
            hbm = round(outer * TICKS_PER_SECOND) - busy
            if hbm < 0:
                hbm = 0
            elif hbm > wait:
                hbm = wait
            return (
                base_compute + times * busy,
                base_hbm + times * hbm,
                base_sram + times * (wait - hbm),
                base_link,
                launch,
                base_flops + times * seen * (matrix + vector),
                base_moved + times * (reads + writes),
            )

        return price
