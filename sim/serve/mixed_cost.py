"""The cost of attention in a step that mixes prompts and decoding requests, from sums over it.

The operator of such a step never comes again. Where its kernel has terms of its own
(`sim.cost.kernels.prefill`), what the sequences do not decide is found once, and a step needs
neither the operator nor its parts. It equals the operator's cost to the picosecond.
"""

from __future__ import annotations

from collections.abc import Callable

from sim.cost.arith import SCALAR
from sim.cost.kernels.attention_shape import AttentionShape, attention_shape, by_phase
from sim.cost.kernels.registry import chunk_kernel_of
from sim.cost.model import CostModel, room_for_queries
from sim.cost.pass_cost import PassCost
from workloads.attention import Attended, Core, chunks
from workloads.model import Attention
from workloads.ops import Op
from workloads.precision import Precision


def mixed_cost(
    costs: CostModel, core: Core, attention: Attention, precision: Precision
) -> Callable[[list[Attended]], PassCost]:
    """The cost of one attention over a batch, by its sequences."""
    assert core.from_sums is not None
    from_sums, counted, rates = core.from_sums, core.counts, costs.rates

    def build(parts: list[Attended]) -> Op:
        return from_sums("attention", attention, parts, precision)

    some = build([chunks(attention, 1, 2, 0)])
    kernel = chunk_kernel_of(some, rates)
    if counted is None or kernel is None:
        return lambda parts: costs.price(build(parts))
    kind = attention_shape(some.flash, some.traffic)[:6]
    per_token = some.flash[0].query_bytes // some.flash[0].new
    longest = room_for_queries(rates.reuse) // per_token  # a longer one streams its keys again
    kv_bits = precision.kv_bits

    def cost(parts: list[Attended]) -> PassCost:
        decoding, seen, several = by_phase(parts, True)
        if not several or max([new for _, new, _ in several]) > longest:
            return costs.price(build(parts))
        matrix, vector, *moved = counted(attention, parts, precision, kv_bits)
        shape = AttentionShape(*kind, decoding, seen, several, *moved)
        return costs.account(kernel.times(SCALAR, rates, shape), matrix + vector, sum(moved))

    return cost
