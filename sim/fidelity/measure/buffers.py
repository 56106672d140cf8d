"""Memory that kernels are measured on.

Weights, tables and KV caches are windows of one pool that is several times as large as the last
cache; each call takes the next window, as each layer of a model has its own. Activations stay
where they are: in a model the operator before has just written them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from sim.fidelity.measure.cases import Case

ALIGNED = 64  # elements
MOST_WINDOWS = 4096
CACHES = 3  # sizes of the last cache that the pool has

Call = Callable[[int], object]  # the number of the call, by which buffers rotate


class Body(NamedTuple):
    """What runs for a case, over how many windows it rotates, and what runs untimed before each
    call on a CPU."""

    call: Call
    copies: int = 1
    before: Callable[[], object] | None = None


class TensorBuffers:
    """Tensors on one device. In bytes: its memory, its last cache, and what empties that."""

    def __init__(
        self, torch: Any, device: str, memory: float, cache: float, passing: float
    ) -> None:
        self.torch, self.device = torch, device
        self.memory, self.cache, self.passing = memory, cache, passing
        self._pool: Any = None
        self._passing: Any = None

    def fits(self, case: Case) -> bool:
        """Whether what it takes leaves half of the memory to others: activations, the pool, and as
        much again for caches that are concatenated."""
        return 3 * case.nbytes + 2 * self.pool_bytes(case) < self.memory / 2

    def pool_bytes(self, case: Case) -> float:
        return max(CACHES * self.cache, 2 * case.cold)

    def dtype(self, case: Case) -> Any:
        return getattr(self.torch, case.columns["dtype"])

    def new(self, case: Case, *shape: int) -> Any:
        tensor = self.torch.empty(*shape, dtype=self.dtype(case), device=self.device)
        return tensor.uniform_(-1.0, 1.0)

    def heads(self, case: Case, batch: int, tokens: int, heads: int, width: int) -> Any:
        """(batch, heads, tokens, width), as a view of what a projection writes."""
        flat = self.new(case, batch, tokens, heads * width)
        return flat.view(batch, tokens, heads, width).transpose(1, 2)

    def windows(self, case: Case, *shape: int) -> tuple[Callable[[int], Any], int]:
        """The i-th of several windows of the pool, as a tensor of this shape; how many."""
        dtype, used = self.dtype(case), math.prod(shape)
        each = math.ceil(used / ALIGNED) * ALIGNED
        wanted = max(math.ceil(self.pool_bytes(case) / dtype.itemsize), each)
        if self._pool is None or self._pool.dtype != dtype or len(self._pool) < wanted:
            self.drop()  # before the next one is allocated
            self._pool = self.new(case, wanted)
        pool, count = self._pool, min(len(self._pool) // each, MOST_WINDOWS)
        views = [pool[i * each : i * each + used].view(*shape) for i in range(count)]
        return (lambda i: views[i % count]), count

    def drop(self) -> None:
        """Let go of what is kept from case to case."""
        self._pool = self._passing = None

    def pass_by(self) -> object:
        """Read as many bytes as empty the last cache, as the weights of a layer pass between two
        kernels of a kind."""
        if self._passing is None:
            count = max(1, int(self.passing) // 4)
            self._passing = self.torch.ones(count, dtype=self.torch.float32, device=self.device)
        return self._passing.sum()
