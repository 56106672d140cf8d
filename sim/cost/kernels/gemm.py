"""Matrix products: output tiles dealt out to the cores in waves, k split where cores would idle.

A product (m x k)(k x n) is cut into output tiles Tm x Tn, its k into s splits. Of the shapes and
splits that a device's kernels have, libraries choose one near the fastest:

    tiles = ceil(m/Tm) ceil(n/Tn) s        whole = ceil(tiles / cores)
    waves = whole - slack (whole - max(1, tiles / cores))
    C = waves (2 Tm Tn ceil(k/s) / (rate of a core) + wave_us) (1 + sag W / (W + sag_us))
    M = (bytes + ramp) / (bandwidth min(1, tiles core_share / cores)) + partial sums of splits

with rate = matrix x peak / cores / (1 + edge / Tm) and W the time of the FLOPs at the peak. Padding
and the last wave are in C; M and C overlap in `depth` steps. Waves and tiles: Shoeybi et al. 2019
use none; the mechanism is described in NVIDIA's "Matrix Multiplication Background User's Guide".
A library chooses by rules of its own, not by trying: which kernel it takes is not known, only that
slower ones are rarer. M and C are means over all, a kernel that takes 1 + x times as long as the
fastest weighing (1 + x / (4 choice))^-4, which is nearly exp(-x / choice); 0: the fastest alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from hw_models.efficiency import GemmTerms, terms_for
from sim.cost.arith import Arith
from sim.cost.kernels.price import Flops, Moved, Times, Work, times
from sim.cost.kernels.rates import Rates
from sim.cost.kernels.stream import FINEST
from sim.cost.tiling import ACCUMULATOR_BYTES, core_tiles
from workloads.ops import Gemm

NEUTRAL = GemmTerms()
STEP_K = 64  # k advances by this much, padded
Floats = npt.NDArray[np.float64]


def gemm_times(
    xp: Arith, rates: Rates, gemms: tuple[Gemm, ...], moved: Moved, flops: Flops
) -> Times:
    """Products that one kernel computes side by side, with the vector FLOPs of an epilogue.

    `flops` and `moved` belong to all products together. The sizes of the gemms may be arrays
    of many points.
    """
    terms = terms_for(rates.efficiency.gemm, rates.dtype, NEUTRAL)
    floor = rates.floor(terms.floor_us)
    if terms.tiles:
        memory, compute = taken(rates, terms, gemms, moved)
        compute = compute + flops.vector / rates.vector + quantising(rates, terms, gemms)
        return times(xp, rates, Work(floor, compute, terms.depth), moved, memory=memory)
    compute = flops.matrix / (rates.peak * rates.efficiency.matrix)
    compute = compute + flops.vector / rates.vector
    steps = sum(core_steps(g, rates.staging / rates.cores, rates.cores) for g in gemms)
    tiles = xp.min(FINEST, xp.max(1, steps))
    return times(xp, rates, Work(floor, compute, tiles), moved)


def quantising(rates: Rates, terms: GemmTerms, gemms: tuple[Gemm, ...]) -> Any:
    """Seconds in which the inputs are brought to 8 bit: read twice (once for their largest) and
    written once, by a kernel of its own that does not overlap the product; a row per block."""
    if not terms.quantise:
        return 0.0
    rows = sum(g.batch * g.m for g in gemms)
    elements = sum(g.batch * g.m * g.k for g in gemms)
    blocks = terms.quantise_us * 1e-6 * rows / (rows + rates.cores)
    return elements * 5 / (terms.quantise * rates.device.hbm.bandwidth) + blocks


def taken(rates: Rates, terms: GemmTerms, gemms: tuple[Gemm, ...], moved: Moved) -> tuple[Any, Any]:
    """(memory, compute) seconds of the tile shape and split that is taken; numbers, or arrays."""
    bandwidth = rates.device.hbm.bandwidth * terms.hbm
    one_core = rates.peak * terms.matrix / rates.cores
    tm, tn, splits = _choices(terms.tiles, terms.splits)
    tiles: Any = 0.0
    deepest: Any = 0.0
    partial: Any = 0.0
    work: Any = 0.0
    for g in gemms:
        m, n, k, many = (_column(x) for x in (g.m, g.n, g.k, g.batch))
        tiles = tiles + many * np.ceil(m / tm) * np.ceil(n / tn) * splits
        deepest = np.maximum(deepest, np.ceil(k / splits / STEP_K) * STEP_K)
        partial = partial + many * m * n * 2 * ACCUMULATOR_BYTES * splits
        work = work + 2 * many * m * n * k
    each = 2 * tm * tn * deepest / one_core * (1 + terms.edge / tm) + terms.wave_us * 1e-6
    full = work / rates.peak
    waves = np.ceil(tiles / rates.cores)
    if terms.slack:
        waves = waves - terms.slack * (waves - np.maximum(1.0, tiles / rates.cores))
    compute = waves * each * (1 + terms.sag * full / (full + terms.sag_us * 1e-6))
    compute = compute + np.where(splits > 1, terms.split_us * 1e-6, 0.0)
    drawn = np.minimum(1.0, np.minimum(tiles, rates.cores) * terms.core_share / rates.cores)
    total = _column(moved.reads + moved.writes) + terms.ramp_MB * 1e6
    memory = total / (bandwidth * drawn)
    memory = memory + np.where(splits > 1, partial / (terms.split_ratio * bandwidth), 0.0)
    span = np.maximum(memory, compute) + np.minimum(memory, compute) / terms.depth
    memory, compute = _taken(span, (memory, compute), terms.choice)
    return (memory, compute) if memory.ndim else (float(memory), float(compute))


def _taken(span: Floats, parts: tuple[Any, ...], choice: float) -> Iterator[Floats]:
    """Each part of the choice with the least span, or as the mean over choices near it."""
    if not choice:
        best = np.argmin(span, axis=-1)[..., None]
        for part in parts:
            yield np.take_along_axis(np.broadcast_to(part, span.shape), best, -1)[..., 0]
        return
    # Arithmetic alone, no exp, so that all machines give the same bits.
    weight = 1 + (span / np.min(span, axis=-1, keepdims=True) - 1) / (4 * choice)
    weight = 1 / (weight * weight)
    weight = weight * weight
    total = np.sum(weight, axis=-1)
    for part in parts:
        yield np.sum(part * weight, axis=-1) / total


@lru_cache(maxsize=256)
def _choices(
    shapes: tuple[tuple[int, int], ...], parts: tuple[int, ...]
) -> tuple[Floats, Floats, Floats]:
    """Every tile shape with every split, as three equal rows."""
    rows = [(float(m), float(n), float(s)) for m, n in shapes for s in parts]
    tm, tn, splits = np.array(rows).T
    return tm, tn, splits


def _column(x: Any) -> Any:
    """A number as it is; an array of points with an axis for the choices."""
    return x[..., None] if isinstance(x, np.ndarray) else float(x)


def core_steps(gemm: Gemm, capacity: float, cores: int) -> Any:
    """Tiles that each core works through, for cores of `capacity` bytes (k may be split); m may
    be an array."""
    if isinstance(gemm.m, int):
        return _core_steps(gemm, capacity, cores)
    return np.ceil(core_tiles(gemm.m.astype(np.float64), gemm, capacity) / cores).astype(np.int64)


@lru_cache(maxsize=65536)
def _core_steps(gemm: Gemm, capacity: float, cores: int) -> int:
    return math.ceil(float(core_tiles(np.array([float(gemm.m)]), gemm, capacity)[0]) / cores)
