"""What an operator costs on a device: from counts and rates to a tile pipeline in ticks.

One cost model for all details. The roofline times of the operator (compute C, HBM M, on-chip
S) are cut into the n steps that the memory of a core forces; fill and drain of that pipeline
give the gradual crossover from memory- to compute-bound.
"""

from __future__ import annotations

import math
from functools import lru_cache

import msgspec
import numpy as np

from hw_models.device import Device
from sim.clock import ticks
from sim.errors import Infeasible, hint
from sim.pipeline import Pipeline
from sim.tiling import all_stays, best_tiling, core_tiles
from workloads.ops import Gemm, Op

FINEST = 64
RESOURCES = ("compute", "hbm", "sram", "link", "launch")


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
        unknown = free - set(RESOURCES)
        if unknown:
            raise ValueError(f"{sorted(unknown)} cannot be free; resources are {RESOURCES}")
        self.device, self.dtype, self.free = device, dtype, free
        self.peak = matrix_rate(device, dtype)
        self.matrix_rate = self.peak * device.efficiency.matrix
        self.vector_rate = vector_rate(device) * device.efficiency.vector
        self.launch = 0 if "launch" in free else ticks(device.launch.overhead_us * 1e-6)
        # What every price asks for, reckoned once.
        self.bandwidth = device.hbm.bandwidth * device.efficiency.hbm
        self.ramp = device.efficiency.hbm_ramp_MB * 1e6
        self.perfect = device.overlap == "perfect" or "sram" in free
        self.reuse = 2**62 if "sram" in free else int(device.reuse_capacity)
        self.staging = device.staging_capacity
        rates = [m.bandwidth_GBps * 1e9 for m in device.on_chip if m.bandwidth_GBps]
        self.inner_rate = 0.0 if "sram" in free or not rates else min(rates)
        self._memo: dict[Op, Cost] = {}

    def __call__(self, op: Op) -> Cost:
        cost = self._memo.get(op)
        if cost is None:
            cost = self._memo[op] = self._price(op)
        return cost

    def _price(self, op: Op) -> Cost:
        reads, writes, inner = self.moved(op)
        return self.timed(
            reads,
            writes,
            inner,
            0.0 if "compute" in self.free else self.compute_seconds(op),
            self.tiles(op, reads),
            op.traffic.weights,
            op.flops,
        )

    def timed(
        self,
        reads: int,
        writes: int,
        inner: int,
        compute: float,
        tiles: int,
        weights: int,
        flops: int,
    ) -> Cost:
        """The cost of moving these bytes and computing for `compute` seconds in `tiles` steps."""
        ramp = self.ramp if reads + writes else 0.0
        load, store = (reads + ramp) / self.bandwidth, writes / self.bandwidth
        hbm_time = 0.0 if "hbm" in self.free else load + store
        inner_time = self.on_chip_seconds(inner)
        load, store = self._joined(load, store, hbm_time, inner_time)
        pipeline = Pipeline(
            tiles, ticks(load / tiles), ticks(compute / tiles), ticks(store / tiles), self.perfect
        )
        busy = pipeline.compute_busy
        wait = pipeline.makespan - busy
        hbm = min(wait, max(0, ticks(hbm_time) - busy))
        share = weights / reads if reads else 0.0
        return Cost(
            launch=self.launch,
            pipeline=pipeline,
            compute=busy,
            hbm=hbm,
            sram=wait - hbm,
            weight_load=min(pipeline.load, round(pipeline.load * share)),
            flops=flops,
            hbm_bytes=reads + writes,
            hbm_time=ticks(hbm_time),
            sram_time=ticks(inner_time),
        )

    def _joined(self, load: float, store: float, outer: float, inner: float) -> tuple[float, float]:
        """HBM time `outer` and on-chip time `inner` as one load and one store time, by how the
        levels overlap. The bytes are split as `load` to `store`, also where HBM is free."""
        if outer and not inner:
            return load, store
        whole = outer + inner if self.device.levels == "series" else max(outer, inner)
        share = load / (load + store) if load + store else 1.0
        return whole * share, whole * (1 - share)

    def compute_seconds(self, op: Op) -> float:
        """Matrix and vector time, one after the other (softmax between two products)."""
        vector = op.vector_flops / self.vector_rate
        if op.flash:
            rows = sum(f.batch * f.rows * f.width for f in op.flash)
            return self.attention_seconds(op.matrix_flops, rows) + vector
        return op.matrix_flops / (self.matrix_rate * self._gemm_share(op)) + vector

    def attention_seconds(self, flops: int, rows: int) -> float:
        """Matrix time of attention; `rows` are query rows x width.

        A prompt of S tokens reaches S / (S + S0) of what long ones do: every query row costs
        as much as S0 / 2 more keys would (it sees S / 2 on the mean).
        """
        terms = self.device.efficiency
        more = rows * terms.attention_ramp_tokens
        return (flops + more) / (self.peak * terms.attention)

    def _gemm_share(self, op: Op) -> float:
        """The part of it that this shape reaches by whole waves of whole tiles, in (0, 1]."""
        terms = self.device.efficiency
        if op.gemms and terms.tile_m and terms.tile_n:
            return waves_share(op.gemms, terms.tile_m, terms.tile_n, self.device.cores)
        return 1.0

    def moved(self, op: Op) -> tuple[int, int, int]:
        """(bytes read from HBM, bytes written to it, bytes through the inner on-chip levels)."""
        traffic, outer = op.traffic, self.reuse
        reads, writes = traffic.loads, traffic.stores
        extra_in, extra_out = reread(op, outer)
        inner = 0
        if self.inner_rate:
            more_in, more_out = reread(op, min(outer, int(self.staging)))
            inner = reads + more_in + writes + more_out
        return reads + extra_in, writes + extra_out, inner

    def on_chip_seconds(self, inner: int) -> float:
        """Time to pass `inner` bytes through the slowest on-chip level of known bandwidth."""
        return inner / self.inner_rate if self.inner_rate else 0.0

    def tiles(self, op: Op, reads: int) -> int:
        """Steps of the tile pipeline: what a core does one after the other.

        A product is cut into tiles that one core's memory holds, and these are dealt out to the
        cores. Other operators stream what they read through two buffers that fill
        the staging memory. Fill and drain are min(M, C)/n, so that beyond FINEST steps more of
        them would only multiply events.
        """
        if op.gemms:
            cores = self.device.cores
            steps = sum(core_steps(gemm, self.staging / cores, cores) for gemm in op.gemms)
            return min(FINEST, max(1, steps))
        return self.stream_tiles(reads)

    def stream_tiles(self, reads: int) -> int:
        """Fills of one of the two buffers that share the staging memory."""
        half = max(1, int(self.staging / 2))
        return min(FINEST, max(1, -(-reads // half)))


def reread(op: Op, capacity: int) -> tuple[int, int]:
    """(reads, writes) in bytes beyond the compulsory ones, for an on-chip `capacity`.

    A product pays what its best tiling pays. Flash attention keeps as many query rows on
    chip as fill half of it and streams keys and values past them.
    """
    extra_in = extra_out = 0
    for gemm in op.gemms:
        more = _gemm_extra(gemm, capacity)
        extra_in, extra_out = extra_in + more[0], extra_out + more[1]
    for flash in op.flash:
        passes = -(-flash.rows * flash.width * 4 // max(1, capacity // 2))
        extra_in += flash.kv_bytes * (passes - 1)
    return extra_in, extra_out


@lru_cache(maxsize=65536)
def _gemm_extra(gemm: Gemm, capacity: int) -> tuple[int, int]:
    if all_stays(gemm, capacity):
        return 0, 0
    tiling = best_tiling(gemm, capacity)
    compulsory_out = (gemm.batch * gemm.m * gemm.n * gemm.out_bits + 7) // 8
    compulsory_in = gemm.bytes - compulsory_out
    return max(0, tiling.read - compulsory_in), max(0, tiling.written - compulsory_out)


@lru_cache(maxsize=65536)
def core_steps(gemm: Gemm, capacity: float, cores: int) -> int:
    """Tiles that each core works through, for cores of `capacity` bytes (k may be split)."""
    return math.ceil(float(core_tiles(np.array([float(gemm.m)]), gemm, capacity)[0]) / cores)


def waves_share(gemms: tuple[Gemm, ...], tile_m: int, tile_n: int, cores: int) -> float:
    """Useful share of whole waves of padded output tiles over the cores."""
    useful = padded = 0.0
    for g in gemms:
        count = g.batch * -(-g.m // tile_m) * -(-g.n // tile_n)
        waves = -(-count // cores)
        useful += g.batch * g.m * g.n * g.k
        padded += waves * cores * tile_m * tile_n * g.k
    return useful / padded


def matrix_rate(device: Device, dtype: str) -> float:
    """Matrix peak in FLOP/s for `dtype`. Raises Infeasible naming what the device has."""
    rate = device.matrix.flops(dtype)
    if rate is None:
        have = ", ".join(device.matrix.TFLOPS)
        raise Infeasible(
            f"{device.name} has no {dtype} matrix units (it has {have}); "
            f"choose another --dtype{hint(dtype, device.matrix.TFLOPS)}"
        )
    return rate


def vector_rate(device: Device) -> float:
    """Vector peak in FLOP/s: fp32 if there is such, else the slowest listed."""
    return device.vector.flops("fp32") or min(device.vector.TFLOPS.values()) * 1e12
