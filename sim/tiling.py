"""HBM traffic of a matrix product for the on-chip capacity at hand.

A product (m x k)(k x n) is cut into tiles Tm x Tk, Tk x Tn, Tm x Tn. Which matrix stays on
chip while the innermost loop runs decides what is read again:

    innermost k   output stays      A: n/Tn times   B: m/Tm times   out: written once
    innermost n   A tile stays      A: once         B: m/Tm times   out: 2 k/Tk - 1 times
    innermost m   B tile stays      A: n/Tn times   B: once         out: 2 k/Tk - 1 times

(counts rounded up; partial sums are written and read back at accumulator width). The tiles
of both inputs are double buffered. All candidates are priced at once with numpy and the
cheapest is taken: a search, not an assumption.

Loop orders and stationarity: Chen et al., Eyeriss, ISCA 2016; Kim et al. 2023 (arXiv
2302.14017), section 3.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from workloads.ops import Gemm
from workloads.precision import packed

ACCUMULATOR_BITS = 32


class Tiling(msgspec.Struct, frozen=True):
    """A choice and its price: bytes read (A and B) and written (out, partial sums both ways)."""

    tile_m: int
    tile_n: int
    tile_k: int
    stays: str
    read: int
    written: int

    @property
    def bytes(self) -> int:
        return self.read + self.written


@lru_cache(maxsize=65536)
def best_tiling(gemm: Gemm, capacity: int) -> Tiling:
    """The tiling of least traffic whose tiles fit into `capacity` bytes.

    Ties go to the larger tiles of the output, then of k. A capacity below one element of
    each tile is treated as just that. Never below the compulsory `gemm.bytes`.
    """
    m_axis, n_axis, k_axis = (_candidates(size) for size in (gemm.m, gemm.n, gemm.k))
    tm = m_axis[:, None, None]
    tn = n_axis[None, :, None]
    tk = k_axis[None, None, :]
    a, b, out = gemm.a_bits / 8, gemm.b_bits / 8, gemm.out_bits / 8
    wide = max(ACCUMULATOR_BITS / 8, out)
    needed = 2 * (tm * tk * a + tk * tn * b) + tm * tn * wide
    fits = needed <= capacity
    fits[0, 0, 0] = True  # one element of each always counts as fitting
    loops = np.ceil(gemm.m / tm), np.ceil(gemm.n / tn), np.ceil(gemm.k / tk)
    size_a, size_b, size_out = gemm.m * gemm.k * a, gemm.k * gemm.n * b, gemm.m * gemm.n * out
    best: tuple[float, str, int] | None = None
    for stays in ("out", "a", "b"):
        read_a, read_b, spilled = _times(stays, *loops)
        moved = size_a * read_a + size_b * read_b + size_out + 2 * gemm.m * gemm.n * wide * spilled
        total = np.where(fits, moved, np.inf)
        # argmin takes the first; flipping makes that the largest tiles.
        flat = total.size - 1 - int(np.argmin(total[::-1, ::-1, ::-1]))
        price = float(total.flat[flat])
        if best is None or price < best[0]:
            best = (price, stays, flat)
    assert best is not None
    _, stays, flat = best
    i, j, k = np.unravel_index(flat, fits.shape)
    return _priced(gemm, int(m_axis[i]), int(n_axis[j]), int(k_axis[k]), stays)


def _times(stays: str, loops_m: Any, loops_n: Any, loops_k: Any) -> tuple[Any, Any, Any]:
    """How often A is read, how often B, and how often partial sums go out and come back."""
    if stays == "out":
        return loops_n, loops_m, 0 * loops_k
    return (1, loops_m, loops_k - 1) if stays == "a" else (loops_n, 1, loops_k - 1)


def _priced(gemm: Gemm, tile_m: int, tile_n: int, tile_k: int, stays: str) -> Tiling:
    """A choice in whole bytes: the compulsory ones, exactly, and what comes on top."""
    loops = -(-gemm.m // tile_m), -(-gemm.n // tile_n), -(-gemm.k // tile_k)
    read_a, read_b, spilled = _times(stays, *loops)
    a, b = gemm.batch * gemm.m * gemm.k, gemm.batch * gemm.k * gemm.n
    out = gemm.batch * gemm.m * gemm.n
    again = a * (read_a - 1) * gemm.a_bits + b * (read_b - 1) * gemm.b_bits
    spill = out * spilled * max(ACCUMULATOR_BITS, gemm.out_bits)
    read = packed(a, gemm.a_bits) + packed(b, gemm.b_bits) + packed(again + spill, 1)
    written = packed(out, gemm.out_bits) + packed(spill, 1)
    return Tiling(tile_m, tile_n, tile_k, stays, read, written)


def fixed_tiling(gemm: Gemm, tile_m: int, tile_n: int) -> Tiling:
    """The traffic of given output tiles with the output staying on chip."""
    loops_m, loops_n = -(-gemm.m // tile_m), -(-gemm.n // tile_n)
    read = gemm.m * gemm.k * gemm.a_bits * loops_n + gemm.k * gemm.n * gemm.b_bits * loops_m
    written = gemm.m * gemm.n * gemm.out_bits
    scale = gemm.batch
    return Tiling(
        tile_m, tile_n, gemm.k, "out", (scale * read + 7) // 8, (scale * written + 7) // 8
    )


def _candidates(size: int) -> npt.NDArray[np.float64]:
    """Powers of two below `size`, three quarters between them, and `size` itself."""
    powers = 2 ** np.arange(0, max(1, size).bit_length(), dtype=np.int64)
    between = 3 * powers // 4
    even = -(-size // np.arange(1, 9))  # size cut into 1 to 8 equal parts
    options = np.concatenate([powers, between, even])
    return np.unique(options[(options >= 1) & (options <= size)]).astype(np.float64)
