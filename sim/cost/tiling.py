"""HBM traffic of a matrix product for the on-chip capacity at hand.

A product (m x k)(k x n) is cut into tiles Tm x Tk, Tk x Tn, Tm x Tn. Which matrix stays on
chip while the innermost loop runs decides what is read again:

    out   innermost k   A: n/Tn times   B: m/Tm times   out: written once
    a     innermost n   A: once         B: m/Tm times   out: 2 k/Tk - 1 times
    b     innermost m   A: n/Tn times   B: once         out: 2 k/Tk - 1 times

(counts rounded up; partial sums are written and read back at accumulator width). Tiles of both
inputs are double buffered: 2 (Tm Tk + Tk Tn) + Tm Tn elements have to fit. The tile along the
innermost loop costs capacity and saves nothing, so it is one element wide in the search; of the
other two, one is cut into 1, 2, 3, ... parts, and the second is as large as then fits. All
candidates are priced at once with numpy and the cheapest is taken: a search, not an assumption.

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

ACCUMULATOR_BITS = 32
ACCUMULATOR_BYTES = ACCUMULATOR_BITS / 8
STAYS = ("out", "a", "b")
Floats = npt.NDArray[np.float64]


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


class Candidates(msgspec.Struct, frozen=True):
    """Tiles and traffic of all candidates, arrays of shape (sizes of m, candidates).

    The traffic of one whose tiles do not fit is infinite.
    """

    tile_m: Floats
    tile_n: Floats
    tile_k: Floats
    read: Floats
    written: Floats


@lru_cache(maxsize=65536)
def best_tiling(gemm: Gemm, capacity: int) -> Tiling:
    """The tiling of least traffic whose tiles fit into `capacity` bytes.

    Ties go to the larger output tile. A capacity below one element of each tile counts as just
    that. Never below the compulsory `gemm.bytes`.
    """
    choices = search(np.array([float(gemm.m)]), gemm, capacity)
    best = min(
        ((c.read[0, i] + c.written[0, i], s, i) for s, c, i in _cheapest(choices)),
        key=lambda choice: choice[0],
    )
    _, stays, i = best
    c = choices[stays]
    return Tiling(
        int(c.tile_m[0, i]),
        int(c.tile_n[0, i]),
        int(c.tile_k[0, i]),
        stays,
        int(c.read[0, i]),
        int(c.written[0, i]),
    )


def best_traffic(gemm: Gemm, capacity: int) -> tuple[Any, Any]:
    """(bytes read, bytes written) of the best tilings of one product for an array of rows `m`.

    As `best_tiling` row by row; where everything stays on chip, the compulsory bytes.
    """
    rows, back = np.unique(gemm.m, return_inverse=True)
    sized = msgspec.structs.replace(gemm, m=rows)
    written: Any = (gemm.batch * rows * gemm.n * gemm.out_bits + 7) // 8
    read: Any = sized.bytes - written
    moving = np.flatnonzero(~all_stays(sized, capacity))
    if len(moving):
        best = np.full(len(moving), np.inf)
        for c in search(rows[moving].astype(np.float64), gemm, capacity).values():
            total = c.read + c.written
            at = np.argmin(total, axis=1)[:, None]
            least = np.take_along_axis(total, at, 1)[:, 0]
            better = least < best  # of equal ones the first, as one by one
            best = np.where(better, least, best)
            for current, chosen in ((read, c.read), (written, c.written)):
                value = np.take_along_axis(chosen, at, 1)[:, 0]
                current[moving[better]] = value[better].astype(np.int64)
    return read[back], written[back]


def _cheapest(choices: dict[str, Candidates]) -> list[tuple[str, Candidates, int]]:
    return [(s, c, int(np.argmin((c.read + c.written)[0]))) for s, c in choices.items()]


def search(m: Floats, gemm: Gemm, capacity: int) -> dict[str, Candidates]:
    """Every candidate for each number of rows in `m` (the gemm's own m is not looked at)."""
    a, b, out = gemm.a_bits / 8, gemm.b_bits / 8, gemm.out_bits / 8
    wide = max(ACCUMULATOR_BYTES, out)
    rows = m[:, None]
    k, n, many = float(gemm.k), float(gemm.n), float(gemm.batch)
    size_a, size_b = many * rows * k * a, many * k * n * b
    size_out, partial = many * rows * n * out, many * rows * n * wide
    least_in, least_out = np.ceil(size_a) + np.ceil(size_b), np.ceil(size_out)

    def room(used: Floats, each: Floats, most: Floats | float) -> Floats:
        """The largest tile that fits beside what is taken, at least one, at most `most`."""
        return np.clip(np.floor((capacity - used) / each), 1.0, most)

    def priced(tm: Floats, tn: Floats, tk: Floats, read: Floats, written: Floats) -> Candidates:
        needed = 2 * (tm * tk * a + tk * tn * b) + tm * tn * wide
        fits = (needed <= capacity) | (tm * tn * tk == 1)  # one element each counts as fitting
        read = np.where(fits, np.maximum(np.ceil(read), least_in), np.inf)
        return Candidates(tm, tn, tk, read, np.maximum(np.ceil(written), least_out) + 0 * tm)

    split = np.minimum(_parts(float(m.max())), rows)
    tm = np.ceil(rows / split)
    tn = room(2 * tm * a, 2 * b + tm * wide, n)
    tk = room(tm * tn * wide, 2 * (tm * a + tn * b), k)
    read = size_a * np.ceil(n / tn) + size_b * np.ceil(rows / tm)
    keep_out = priced(tm, tn, tk, read, size_out)

    tk = room(tm * wide, 2 * (tm * a + b), k)
    spill = partial * (np.ceil(k / tk) - 1)
    read = size_a + size_b * np.ceil(rows / tm) + spill
    keep_a = priced(tm, 1 + 0 * tm, tk, read, size_out + spill)

    cut = np.minimum(_parts(n), n)[None, :]
    tn = np.ceil(n / cut) + 0 * rows
    tk = room(tn * wide, 2 * (a + tn * b), k)
    spill = partial * (np.ceil(k / tk) - 1)
    read = size_a * np.ceil(n / tn) + size_b + spill
    keep_b = priced(1 + 0 * tn, tn, tk, read, size_out + spill)
    return dict(zip(STAYS, (keep_out, keep_a, keep_b), strict=True))


@lru_cache(maxsize=1024)
def _parts(size: float) -> Floats:
    """1, 2, ..., 32 parts, then a sixteenth more each time, up to one part an element."""
    parts = [float(p) for p in range(1, 33)]
    while parts[-1] < size:
        parts.append(np.ceil(parts[-1] * 1.0625))
    return np.array(parts)


def all_stays(gemm: Gemm, capacity: float) -> Any:
    """Whether some tiling reads and writes everything just once: no search is needed then.

    m may be an array; then so is the answer.
    """
    a, b = gemm.a_bits / 8, gemm.b_bits / 8
    wide = max(ACCUMULATOR_BYTES, gemm.out_bits / 8)
    m, n, k = gemm.m, gemm.n, gemm.k
    return (
        (2 * (m * a + n * b) + m * n * wide <= capacity)
        | (2 * (m * k * a + k * b) + m * wide <= capacity)
        | (2 * (k * a + k * n * b) + n * wide <= capacity)
    )


def core_tiles(m: Floats, gemm: Gemm, capacity: float) -> Floats:
    """Tiles of a product when one core of `capacity` bytes works on each.

    Half of the memory holds a square-ish output tile at accumulator width, the other half two
    buffers of both inputs.
    """
    half = capacity / 2
    side = np.sqrt(half / ACCUMULATOR_BYTES)
    tm = np.maximum(1.0, np.minimum(m, np.floor(side)))
    tn = np.clip(np.floor(half / (ACCUMULATOR_BYTES * tm)), 1.0, float(gemm.n))
    tm = np.clip(np.floor(half / (ACCUMULATOR_BYTES * tn)), 1.0, m)
    each = 2 * (tm * gemm.a_bits / 8 + tn * gemm.b_bits / 8)
    tk = np.clip(np.floor(half / each), 1.0, float(gemm.k))
    return gemm.batch * np.ceil(m / tm) * np.ceil(gemm.n / tn) * np.ceil(gemm.k / tk)


def fixed_tiling(gemm: Gemm, tile_m: int, tile_n: int) -> Tiling:
    """The traffic of given output tiles with the output staying on chip."""
    loops_m, loops_n = -(-gemm.m // tile_m), -(-gemm.n // tile_n)
    read = gemm.m * gemm.k * gemm.a_bits * loops_n + gemm.k * gemm.n * gemm.b_bits * loops_m
    written = gemm.m * gemm.n * gemm.out_bits
    scale = gemm.batch
    return Tiling(
        tile_m, tile_n, gemm.k, "out", (scale * read + 7) // 8, (scale * written + 7) // 8
    )
