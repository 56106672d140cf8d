"""From times in seconds to a tile pipeline in ticks, and what the device does in them."""

from __future__ import annotations

from typing import Any, NamedTuple

from sim.cost.arith import SCALAR, Arith
from sim.cost.kernels.rates import Rates
from sim.cost.pipeline import makespan, makespan_of_one


class Times(NamedTuple):
    """A kernel in seconds, numbers or arrays. All tiles together, `tiles` of them.

    memory: seconds that HBM is busy; load and store may be longer where an on-chip level is.
    inner: seconds that the on-chip path is busy.
    """

    floor: Any
    load: Any
    compute: Any
    store: Any
    tiles: Any
    memory: Any
    inner: Any


class Priced(NamedTuple):
    """A kernel in ticks, numbers or arrays: a tile's load, compute and store, and the states.

    compute + hbm + sram + launch is the whole duration.
    """

    tiles: Any
    load: Any
    busy: Any
    store: Any
    launch: Any
    compute: Any
    hbm: Any
    sram: Any
    hbm_time: Any  # ticks that HBM is busy, hidden or not
    sram_time: Any

    @property
    def duration(self) -> Any:
        return self.launch + self.compute + self.hbm + self.sram


class Moved(NamedTuple):
    """Bytes read from HBM, written to it, and passed through the inner on-chip levels."""

    reads: Any
    writes: Any
    inner: Any


class Flops(NamedTuple):
    """FLOPs of matrix products, and those of the vector units."""

    matrix: Any
    vector: Any


class Work(NamedTuple):
    """The fixed time of a kernel and its time of arithmetic, seconds, and the steps that divide
    the arithmetic."""

    floor: Any
    compute: Any
    tiles: Any


def times(
    xp: Arith,
    rates: Rates,
    work: Work,
    moved: Moved,
    *,
    bandwidth: Any = None,
    memory: Any = None,
) -> Times:
    """The times of a kernel that does `work` and moves bytes.

    `bandwidth` (bytes/s) replaces the rate of the device, which costs a ramp per stream.
    `memory` gives instead the seconds for which HBM is busy. A free resource takes no time.
    """
    floor, compute, tiles = work
    reads, writes, inner = moved
    if memory is not None:  # as much for a byte read as for one written
        total_bytes = reads + writes
        bandwidth = xp.where(total_bytes > 0, total_bytes, 1) / xp.where(memory > 0, memory, 1.0)
    ramp = rates.ramp if memory is None else 0.0
    bandwidth = rates.bandwidth if bandwidth is None else bandwidth
    more = xp.where(reads + writes > 0, ramp, 0.0)
    load, store = (reads + more) / bandwidth, writes / bandwidth
    memory = 0.0 * load if "hbm" in rates.free else load + store
    near = inner / rates.inner_rate if rates.inner_rate else 0.0 * load
    if rates.inner_rate or "hbm" in rates.free:
        # The two levels as one load and one store; bytes are split as `load` to `store`.
        total_bytes = memory + near if rates.series else xp.max(memory, near)
        both = load + store
        share = xp.where(both > 0, load / xp.where(both > 0, both, 1.0), 1.0)
        load, store = total_bytes * share, total_bytes * (1 - share)
    if "compute" in rates.free:
        compute = 0.0 * compute
    return Times(floor, load, compute, store, tiles, memory, near)


def waits(
    xp: Arith, rates: Rates, tiles: Any, tile: tuple[Any, Any, Any], memory: Any
) -> tuple[Any, Any, Any]:
    """Ticks of arithmetic, of waiting for HBM past what overlaps, and of the rest of the waiting:
    fill and drain of the pipeline, on-chip bandwidth.

    tile: ticks of load, compute and store of one of the equal `tiles`; memory: ticks that HBM is
    busy in all.
    """
    load, busy, store = tile
    if xp is SCALAR:
        return waits_of_one(tiles, load, busy, store, memory, rates.perfect)
    work = tiles * busy
    wait = makespan(xp, tiles, load, busy, store, rates.perfect) - work
    hbm = xp.min(wait, xp.max(0, memory - work))
    return work, hbm, wait - hbm


def waits_of_one(
    tiles: int, load: int, busy: int, store: int, memory: int, perfect: bool
) -> tuple[int, int, int]:
    """The same for numbers, with fewer calls: serving prices each decode step by it."""
    work = tiles * busy
    wait = makespan_of_one(tiles, load, busy, store, perfect) - work
    left = memory - work
    hbm = 0 if left < 0 else wait if left > wait else left
    return work, hbm, wait - hbm


def tile_of(xp: Arith, t: Times) -> tuple[Any, Any, Any]:
    """Ticks of load, compute and store of one tile."""
    tiles = t.tiles
    return xp.ticks(t.load / tiles), xp.ticks(t.compute / tiles), xp.ticks(t.store / tiles)


def priced(xp: Arith, rates: Rates, t: Times) -> Priced:
    """A kernel in ticks: what a tile of it takes, and its states."""
    tile, memory = tile_of(xp, t), xp.ticks(t.memory)
    states = waits(xp, rates, t.tiles, tile, memory)
    return Priced(t.tiles, *tile, xp.ticks(t.floor), *states, memory, xp.ticks(t.inner))


def span(xp: Arith, rates: Rates, t: Times) -> Any:
    """Seconds from launch to end, before they are rounded to ticks."""
    n = t.tiles
    return t.floor + makespan(xp, n, t.load / n, t.compute / n, t.store / n, rates.perfect)
