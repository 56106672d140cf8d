"""The closed form of the tile pipeline: `tile` and `op` are one model at two resolutions.

An operator is cut into n equal tiles: load l, compute c, store s (ticks each). Two input and
two output buffers; HBM serves loads and stores in the order L0 L1 S0 L2 S1 ... S(n-1).

    n = 1:   l + c + s
    n >= 2:  l + max(l, c) + (n - 2) max(l + s, c) + max(c, s) + s

Without stores that is l + (n - 1) max(l, c) + c. `tests/test_pipeline.py` holds the engine's
own run of the tiles against it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from sim.cost.arith import SCALAR, Arith


def makespan(
    xp: Arith, tiles: Any, load: Any, compute: Any, store: Any, perfect: bool = False
) -> Any:
    """Ticks from the first load's start to the last store's end; numbers or arrays."""
    if xp is SCALAR:
        return makespan_of_one(tiles, load, compute, store, perfect)
    if perfect:
        return xp.max(tiles * (load + store), tiles * compute)
    most = xp.max
    inside = most(load, compute) + (tiles - 2) * most(load + store, compute)
    return load + xp.where(tiles == 1, compute, inside + most(compute, store)) + store


def makespan_of_one(tiles: int, load: int, compute: int, store: int, perfect: bool) -> int:
    """The same for numbers, without a call: serving prices each decode step by it."""
    moving = load + store
    if perfect:
        return max(tiles * moving, tiles * compute)
    if tiles == 1:
        return moving + compute
    first = load if load > compute else compute
    last = compute if compute > store else store
    return moving + first + last + (tiles - 2) * (moving if moving > compute else compute)


class Pipeline(msgspec.Struct, frozen=True):
    """n tiles of (load, compute, store) ticks; `perfect` hides all that can be hidden."""

    tiles: int
    load: int
    compute: int
    store: int
    perfect: bool = False

    @property
    def hbm_busy(self) -> int:
        """Ticks that the memory side works."""
        return self.tiles * (self.load + self.store)

    @property
    def compute_busy(self) -> int:
        """Ticks that the arithmetic works."""
        return self.tiles * self.compute

    @property
    def body(self) -> int:
        """From the first load's end to the last compute's start."""
        if self.tiles == 1:
            return 0
        last = max(self.compute, self.store)
        span = makespan(SCALAR, self.tiles, self.load, self.compute, self.store)
        return int(span - self.load - last - self.store)

    @property
    def makespan(self) -> int:
        """Ticks from the first load's start to the last store's end."""
        return makespan(  # type: ignore[no-any-return]
            SCALAR, self.tiles, self.load, self.compute, self.store, self.perfect
        )
