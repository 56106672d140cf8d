"""What an operator costs on a device: from counts and rates to a tile pipeline in ticks.

One cost model serves all details. The kernel family of an operator (`sim.cost.kernels`) turns its
counts into times of memory and arithmetic and the number n of steps that overlap them. Fill and
drain of that pipeline give the gradual crossover from memory-bound to compute-bound.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec
import numpy as np

from hw_models.device import Device
from sim.clock import ticks
from sim.cost.arith import SCALAR, Arith
from sim.cost.kernels import RESOURCES, Priced, Rates, Times, priced
from sim.cost.kernels.experts import expert_terms
from sim.cost.kernels.price import Moved, tile_of, waits
from sim.cost.kernels.rates import matrix_rate, rates_of, vector_rate
from sim.cost.kernels.registry import kernel_of
from sim.cost.pass_cost import PassCost
from sim.cost.pipeline import Pipeline
from sim.cost.tiling import all_stays, best_tiling, best_traffic
from workloads.ops import Gemm, Op

__all__ = ["RESOURCES", "Cost", "CostModel", "matrix_rate", "vector_rate"]


class Cost(msgspec.Struct, frozen=True):
    """One execution of one operator on one device. Times in ticks, bytes, FLOPs."""

    launch: int
    pipeline: Pipeline
    compute: int  # of which the arithmetic works
    hbm: int  # waits for HBM past what overlaps
    sram: int  # waits for on-chip memory: its bandwidth, fill, drain
    weight_load: int  # of the first tile's load, the part that is weights
    flops: int
    hbm_bytes: int
    hbm_time: int  # ticks that HBM is busy, hidden or not
    sram_time: int  # ticks that the on-chip path is busy, hidden or not

    @property
    def duration(self) -> int:
        return self.launch + self.pipeline.makespan

    @property
    def hidden(self) -> int:
        """Ticks in which memory and arithmetic worked at the same time."""
        p = self.pipeline
        return max(0, p.hbm_busy + p.compute_busy - p.makespan)

    @property
    def bound(self) -> str:
        """What limits it: the largest state of its own time."""
        states = {
            "compute": self.compute,
            "memory": self.hbm,
            "sram": self.sram,
            "launch": self.launch,
        }
        return max(states, key=lambda s: states[s])


class CostModel:
    """Prices operators on a device. `free` names resources that cost nothing (what-if)."""

    def __init__(self, device: Device, dtype: str, free: frozenset[str] = frozenset()) -> None:
        self.device, self.dtype = device, dtype
        self.rates: Rates = rates_of(device, dtype, free)
        self.launch = ticks(self.rates.launch)
        rates = self.rates
        # Bytes of the innermost level, if its bandwidth limits.
        self.near = min(rates.reuse, int(rates.staging)) if rates.inner_rate else 0
        self._memo: dict[Op, Cost] = {}

    def __call__(self, op: Op) -> Cost:
        cost = self._memo.get(op)
        if cost is None:
            moved = self.moved(op)
            cost = self._memo[op] = self.cost(self.times(op, moved), moved, op)
        return cost

    def times(self, op: Op, moved: Moved, xp: Arith = SCALAR) -> Times:
        """The kernel's times, by its family; of many at once if the counts of `op` are arrays."""
        return kernel_of(op)(xp, self.rates, op, moved)

    def price(self, op: Op) -> PassCost:
        """The cost of an operator of which there will be no second one: nothing is kept."""
        moved = self.moved(op)
        return self.account(self.times(op, moved), op.flops, moved.reads + moved.writes)

    def account(self, t: Times, flops: int, nbytes: int) -> PassCost:
        """The cost of a kernel that takes such times, does `flops` and moves `nbytes`."""
        tile, memory = tile_of(SCALAR, t), ticks(t.memory)
        compute, hbm, sram = waits(SCALAR, self.rates, t.tiles, tile, memory)
        return PassCost(compute, hbm, sram, 0, ticks(t.floor), flops, nbytes)

    def cost(self, t: Times, moved: Moved, op: Op) -> Cost:
        """A kernel's times as a pipeline with its account."""
        p: Priced = priced(SCALAR, self.rates, t)
        share = op.traffic.weights / moved.reads if moved.reads else 0.0
        return Cost(
            launch=p.launch,
            pipeline=Pipeline(p.tiles, p.load, p.busy, p.store, self.rates.perfect),
            compute=p.compute,
            hbm=p.hbm,
            sram=p.sram,
            weight_load=min(p.load, round(p.load * share)),
            flops=op.flops,
            hbm_bytes=moved.reads + moved.writes,
            hbm_time=p.hbm_time,
            sram_time=p.sram_time,
        )

    def moved(self, op: Op) -> Moved:
        """What passes through HBM and the inner on-chip levels; numbers or arrays, as in `op`."""
        traffic, outer, near = op.traffic, self.rates.reuse, self.near
        reads, writes = traffic.loads, traffic.stores
        if op.kind == "experts" and expert_terms(self.rates):
            return Moved(reads, writes, 0)  # what is read again is in the measured rates
        inner = reads + writes if near else 0
        if op.gemms or op.flash:
            extra_in, extra_out = reread(op, outer)
            if near:
                inner += sum(reread(op, near))
            reads, writes = reads + extra_in, writes + extra_out
        return Moved(reads, writes, inner)


def reread(op: Op, capacity: int) -> tuple[Any, Any]:
    """(reads, writes) in bytes beyond the compulsory ones, for an on-chip `capacity`.

    A product pays what its best tiling pays. Flash attention keeps as many query rows on
    chip as fill half of it and streams keys and values past them.
    """
    extra_in: Any = 0
    extra_out: Any = 0
    for gemm in op.gemms:
        more = gemm_extra(gemm, capacity)
        extra_in, extra_out = extra_in + more[0], extra_out + more[1]
    room = room_for_queries(capacity)
    for flash in op.flash:
        rows = flash.query_bytes
        if isinstance(rows, np.ndarray) or rows > room:
            extra_in += flash.kv_bytes * (-(-rows // room) - 1)
    return extra_in, extra_out


def room_for_queries(capacity: int) -> int:
    """Bytes of query rows past which keys and values are streamed once."""
    return max(1, capacity // 2)


def gemm_extra(gemm: Gemm, capacity: int) -> tuple[Any, Any]:
    """(reads, writes) beyond the compulsory ones of the best tiling; m may be an array."""
    if isinstance(gemm.m, int):
        return _gemm_extra(gemm, capacity)
    read, written = best_traffic(gemm, capacity)
    compulsory_out = (gemm.batch * gemm.m * gemm.n * gemm.out_bits + 7) // 8
    compulsory_in = gemm.bytes - compulsory_out
    return np.maximum(0, read - compulsory_in), np.maximum(0, written - compulsory_out)


@lru_cache(maxsize=65536)
def _gemm_extra(gemm: Gemm, capacity: int) -> tuple[int, int]:
    if all_stays(gemm, capacity):
        return 0, 0
    tiling = best_tiling(gemm, capacity)
    compulsory_out = (gemm.batch * gemm.m * gemm.n * gemm.out_bits + 7) // 8
    compulsory_in = gemm.bytes - compulsory_out
    return max(0, tiling.read - compulsory_in), max(0, tiling.written - compulsory_out)
