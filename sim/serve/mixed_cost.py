"""The cost of attention in a step that mixes prompts and decoding requests, from sums over it.

The operator of such a step never comes again. Where its kernel has terms of its own
(`sim.cost.kernels.prefill`), what the sequences do not decide is found once, and a step needs
neither the operator nor its parts. It equals the operator's cost to the picosecond.
"""

from __future__ import annotations

from collections.abc import Callable

from sim.cost.arith import SCALAR
from sim.cost.kernels.attention_shape import attention_shape
from sim.cost.kernels.registry import chunk_kernel_of
from sim.cost.model import CostModel, room_for_queries
from sim.cost.pass_cost import PassCost
from workloads.attention import Attended, Core, chunks, decoding
from workloads.model import Attention
from workloads.ops import Op
from workloads.precision import Precision

Chunks = dict[tuple[int, int], int]  # number of chunks by (new, cached) tokens
MixedCost = Callable[[int, int, Chunks], PassCost]


def mixed_cost(
    costs: CostModel, core: Core, attention: Attention, precision: Precision
) -> MixedCost:
    """The cost of one attention over a batch: by the number of sequences that decode, the keys that
    they see together, and the chunks of prompts."""
    assert core.from_sums is not None
    build, count, rates = core.from_sums, core.counts, costs.rates

    def sequences(decodes: int, keys: int, batch: Chunks) -> list[Attended]:
        parts = [decoding(decodes, keys)] if decodes else []
        for (new, cached), times in batch.items():
            parts.append(chunks(attention, times, new, cached))
        return parts

    def by_operator(decodes: int, keys: int, batch: Chunks) -> PassCost:
        parts = sequences(decodes, keys, batch)
        return costs.price(build("attention", attention, parts, precision))

    some: Op = build("attention", attention, sequences(0, 0, {(2, 0): 1}), precision)
    kernel = chunk_kernel_of(some, rates)
    if count is None or kernel is None:
        return by_operator
    shape = attention_shape(some.flash, some.traffic)
    longest = room_for_queries(rates.reuse) // (some.flash[0].query_bytes // 2)

    def by_sums(decodes: int, keys: int, batch: Chunks) -> PassCost:
        for new, _ in batch:
            # One token is a decoding sequence, and more than `longest` stream their keys again.
            if not 1 < new <= longest:
                return by_operator(decodes, keys, batch)
        parts = sequences(decodes, keys, batch)
        matrix, vector, *moved = count(attention, parts, precision, precision.kv_bits)
        several = tuple([part[:3] for part in parts[bool(decodes) :]])
        times = kernel.times(SCALAR, rates, shape.over(decodes, keys, several, moved))
        return costs.account(times, matrix + vector, sum(moved))

    return by_sums
