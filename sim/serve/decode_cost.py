"""The cost of a decode step by the keys that its sequences see: the innermost loop of serving.

Where the kernel is one of straight lines in these keys (`sim.cost.kernels.decode`), they are found
once, and a step takes a few multiplications. It equals the operator's cost to the picosecond.
"""

from __future__ import annotations

from collections.abc import Callable

from sim.clock import LONGEST, TICKS_PER_SECOND, ticks
from sim.cost.kernels.price import waits_of_one
from sim.cost.kernels.registry import decode_line_of
from sim.cost.model import CostModel
from sim.cost.pass_cost import Amounts, PassCost, add
from workloads.ops import Op


def decode_cost(
    costs: CostModel, build: Callable[[int], Op], bits: int, base: PassCost, times: int
) -> Callable[[int], Amounts]:
    """`base` plus `times` the cost of an attention in which sequences decode, by their keys.

    build: the operator in which the sequences see so many keys together. bits: of the cache per
    key.
    """
    rates, none = costs.rates, build(0)
    line = decode_line_of(none, rates)
    if line is None:
        return lambda keys: add(base, costs.price(build(keys)), times)
    low, high = (base[4] + times * ticks(floor) for floor in line.floors)
    most, tiles, store = line.most, line.steps, ticks(line.store / line.steps)
    all_stores, scale, perfect = line.store, TICKS_PER_SECOND, rates.perfect
    per_byte, first, waiting, per_score = line.per_byte, line.first, line.waits, line.per_key
    own_compute, own_hbm, own_sram, link, _, own_flops, own_bytes = base
    flops_per_key = times * build(1).flops
    all_bytes = own_bytes + times * none.traffic.total

    def cost(keys: int) -> Amounts:
        kv = (keys * bits + 7) // 8
        # As `line` and `ticks` do, without calls.
        load, busy = kv * per_byte + first, waiting + keys * per_score
        memory = round((load + all_stores) * scale)
        if memory >= LONGEST:
            ticks(load + all_stores)  # says so
        load_tile, busy_tile = round(load / tiles * scale), round(busy / tiles * scale)
        compute, hbm, sram = waits_of_one(tiles, load_tile, busy_tile, store, memory, perfect)
        return (
            own_compute + times * compute,
            own_hbm + times * hbm,
            own_sram + times * sram,
            link,
            high if keys > most else low,
            own_flops + keys * flops_per_key,
            all_bytes + times * kv,
        )

    return cost
