"""The closed form of the tile pipeline: `tile` and `op` are one model at two resolutions.

An operator is cut into n equal tiles: load l, compute c, store s (ticks each). Two input and
two output buffers; HBM serves loads and stores in the order L0 L1 S0 L2 S1 ... S(n-1).

    n = 1:   l + c + s
    n >= 2:  l + max(l, c) + (n - 2) max(l + s, c) + max(c, s) + s

Without stores that is l + (n - 1) max(l, c) + c. `tests/test_pipeline.py` holds the engine's
own run of the tiles against it.
"""

from __future__ import annotations

import msgspec


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
        return max(self.load, self.compute) + (self.tiles - 2) * max(
            self.load + self.store, self.compute
        )

    @property
    def makespan(self) -> int:
        """Ticks from the first load's start to the last store's end."""
        if self.perfect:
            return max(self.hbm_busy, self.compute_busy)
        tail = self.compute if self.tiles == 1 else max(self.compute, self.store)
        return self.load + self.body + tail + self.store
