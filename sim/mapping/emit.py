"""Tasks of one operator on the lanes of one device, as a whole or tile by tile.

The memory lane serves L0 L1 S0 L2 S1 ... S(n-1) (see `sim.cost.pipeline`). With prefetch the next
operator is launched while the current one runs, and the weights of its first tile load as soon
as an input buffer is free: under the last multiply where they fit there, else right behind the
last store.
"""

from __future__ import annotations

from sim.cost.model import Cost
from sim.cost.pipeline import Pipeline
from sim.engine.des import Task

HOST, MEMORY, CORE = 0, 1, 2


class Emitter:
    """Appends tasks for the operators of one rank, one after the other.

    `ends` are the tasks that the next operator depends on.
    """

    def __init__(
        self,
        tasks: list[Task],
        lane: int,
        detail: str,
        prefetch: bool,
        arrival: tuple[int, ...],
    ) -> None:
        self.tasks, self.lane, self.detail, self.prefetch = tasks, lane, detail, prefetch
        self.ends = arrival
        self._launch = -1  # of the next operator, where it went ahead
        self._loaded = -1  # the weights of its first tile
        self._early = False

    def _add(self, name: str, duration: int, lanes: tuple[int, ...], after: tuple[int, ...]) -> int:
        held = tuple(self.lane + lane for lane in lanes)
        self.tasks.append(Task(name, duration, held, after))
        return len(self.tasks) - 1

    def operator(self, name: str, cost: Cost, following: Cost | None) -> int:
        """Emit one operator; it has ended when `ends` have. Returns its launch task."""
        if not self._early:
            self._head(name, cost, self.ends)
        launch = self._launch
        if cost.pipeline.perfect:
            self._perfect(name, cost)
            self._early = False
        else:
            rest = cost.pipeline.load - (cost.weight_load if self._early else 0)
            early = (self._loaded,) if self._early else ()
            after = (launch, *early, *(self.ends if self._early else ()))
            load = self._add(f"{name}.load", rest, (MEMORY,), after)
            ahead = (
                following
                if self.prefetch and following and not following.pipeline.perfect
                else None
            )
            if self.detail == "tile":
                self._tiles(name, cost, load, ahead)
            else:
                self._whole(name, cost, load, ahead)
        return launch

    def _head(self, name: str, cost: Cost, after: tuple[int, ...]) -> None:
        self._launch = self._add(f"{name}.launch", cost.launch, (HOST,), after)

    def _ahead(self, name: str, cost: Cost, after: int) -> None:
        """Load the weights of the next operator's first tile."""
        self._loaded = self._add(
            f"{name}.next.weights", cost.weight_load, (MEMORY,), (self._launch, after)
        )

    def _last_store(
        self, name: str, own: Pipeline, after: int, credit: int, ahead: Cost | None
    ) -> None:
        """The last store, and the head of the next operator before or behind it."""
        self._early = ahead is not None
        if ahead:
            self._head(f"{name}.next", ahead, (self._launch,))
            if fits_ahead(own, ahead):
                self._ahead(name, ahead, credit)
        store = self._add(f"{name}.drain", own.store, (MEMORY,), (after,))
        if ahead and not fits_ahead(own, ahead):
            self._ahead(name, ahead, credit)
        self.ends = (store,)

    def _perfect(self, name: str, cost: Cost) -> None:
        """Loads and arithmetic side by side, as unlimited buffers would allow."""
        p = cost.pipeline
        pieces = p.tiles if self.detail == "tile" else 1
        after = (self._launch,)
        ends: list[int] = []
        for lane, busy, label in ((MEMORY, p.hbm_busy, "hbm"), (CORE, p.compute_busy, "core")):
            last = after
            for _ in range(pieces):
                last = (self._add(f"{name}.{label}", busy // pieces, (lane,), last),)
            ends += last
        self.ends = tuple(ends)

    def _whole(self, name: str, cost: Cost, load: int, ahead: Cost | None) -> None:
        p = cost.pipeline
        tail = load
        if p.tiles > 1:
            body = self._add(f"{name}.body", p.body, (MEMORY, CORE), (load,))
            self._add(f"{name}.store", p.store, (MEMORY,), (body,))
            tail = body
        last = self._add(f"{name}.compute", p.compute, (CORE,), (tail,))
        self._last_store(name, p, last, tail, ahead)

    def _tiles(self, name: str, cost: Cost, load: int, ahead: Cost | None) -> None:
        p = cost.pipeline
        loads, computes, stores = [load], list[int](), list[int]()
        for i in range(p.tiles):
            if i + 1 < p.tiles:
                freed = (computes[i - 1],) if i >= 1 else ()
                after = (loads[-1], *freed)
                loads.append(self._add(f"{name}.load{i + 1}", p.load, (MEMORY,), after))
            drained = (stores[i - 2],) if i >= 2 else ()
            computes.append(
                self._add(f"{name}.compute{i}", p.compute, (CORE,), (loads[i], *drained))
            )
            if i + 1 < p.tiles:
                stores.append(self._add(f"{name}.store{i}", p.store, (MEMORY,), (computes[i],)))
        self._last_store(name, p, computes[-1], computes[-2] if p.tiles > 1 else load, ahead)


def fits_ahead(own: Pipeline, ahead: Cost) -> bool:
    """Whether the next operator's first weights load under the last multiply of this one.

    Only then do they go before its last store, so that a prefetch never holds up a result.
    """
    room = own.compute - (own.store if own.tiles > 1 else 0)
    return ahead.weight_load <= room and ahead.launch <= own.body
