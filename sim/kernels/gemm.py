"""Matrix products: output tiles over the cores, in steps that the memory of a core forces."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from hw_models.efficiency import GemmTerms, terms_for
from sim.arith import Arith
from sim.kernels.price import Moved, Times, times
from sim.kernels.rates import Rates
from sim.kernels.stream import FINEST
from sim.tiling import core_tiles
from workloads.ops import Gemm

NEUTRAL = GemmTerms()


def gemm_times(
    xp: Arith, rates: Rates, gemms: tuple[Gemm, ...], moved: Moved, matrix: Any, vector: Any
) -> Times:
    """Products one after another in one kernel, with `vector` FLOPs of an epilogue.

    `matrix` are their FLOPs together, `moved` their bytes.
    """
    terms = terms_for(rates.efficiency.gemm, rates.dtype, NEUTRAL)
    reached = rates.peak * rates.efficiency.matrix * _share(gemms, rates)
    compute = matrix / reached + vector / rates.vector
    steps = sum(core_steps(g, rates.staging / rates.cores, rates.cores) for g in gemms)
    tiles = xp.min(FINEST, xp.max(1, steps))
    return times(xp, rates, rates.floor(terms.floor_us), moved, compute, tiles)


def _share(gemms: tuple[Gemm, ...], rates: Rates) -> float:
    """The part of the peak that these shapes reach by whole waves of whole tiles, in (0, 1]."""
    terms = rates.efficiency
    if terms.tile_m and terms.tile_n:
        return waves_share(gemms, terms.tile_m, terms.tile_n, rates.cores)
    return 1.0


def core_steps(gemm: Gemm, capacity: float, cores: int) -> Any:
    """Tiles that each core works through, for cores of `capacity` bytes (k may be split); m may
    be an array."""
    if isinstance(gemm.m, int):
        return _core_steps(gemm, capacity, cores)
    return np.ceil(core_tiles(gemm.m.astype(np.float64), gemm, capacity) / cores).astype(np.int64)


@lru_cache(maxsize=65536)
def _core_steps(gemm: Gemm, capacity: float, cores: int) -> int:
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
