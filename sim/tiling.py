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

import msgspec
import numpy as np
import numpy.typing as npt

from workloads.ops import Gemm

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
    loops_m = np.ceil(gemm.m / tm)
    loops_n = np.ceil(gemm.n / tn)
    loops_k = np.ceil(gemm.k / tk)
    size_a, size_b, size_out = gemm.m * gemm.k * a, gemm.k * gemm.n * b, gemm.m * gemm.n * out
    spills = gemm.m * gemm.n * wide * (loops_k - 1)  # each way
    reads = {
        "out": size_a * loops_n + size_b * loops_m + 0 * loops_k,
        "a": size_a + size_b * loops_m + spills + 0 * loops_n,
        "b": size_a * loops_n + size_b + spills + 0 * loops_m,
    }
    writes = {
        "out": size_out + 0 * spills,
        "a": size_out + spills,
        "b": size_out + spills,
    }
    best: tuple[float, str, int] | None = None
    for stays, read in reads.items():
        total = np.where(fits, read + writes[stays], np.inf)
        # argmin takes the first; flipping makes that the largest tiles.
        flat = total.size - 1 - int(np.argmin(total[::-1, ::-1, ::-1]))
        price = float(total.flat[flat])
        if best is None or price < best[0]:
            best = (price, stays, flat)
    assert best is not None
    _, stays, flat = best
    i, j, k = np.unravel_index(flat, fits.shape)
    shape = (np.broadcast_to(reads[stays], fits.shape), np.broadcast_to(writes[stays], fits.shape))
    return Tiling(
        int(m_axis[i]),
        int(n_axis[j]),
        int(k_axis[k]),
        stays,
        gemm.batch * int(np.ceil(shape[0][i, j, k])),
        gemm.batch * int(np.ceil(shape[1][i, j, k])),
    )


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
