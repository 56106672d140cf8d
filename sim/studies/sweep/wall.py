"""The memory-wall map: over two axes, the share of time on memory (or a link, or a bubble), and
the line behind which arithmetic takes more."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from sim.errors import Infeasible, InputError
from sim.states import STATES
from sim.studies.sweep.axes import Axis
from sim.studies.sweep.grid import Sweep, described, document
from sim.studies.sweep.kinds import Row, refusal
from sim.studies.sweep.registry import kind_of
from sim.studies.sweep.rows import PHASES
from sim.studies.sweep.study import Watch, run_sweep

# What a map may show: states of the account that are put together under one name.
WALLS: dict[str, tuple[str, ...]] = {
    "memory": ("hbm", "sram"),
    **{state: (state,) for state in STATES if state != "compute"},
}
AGAINST = "compute"
CLOSE = 1.002  # crossings of axes that are no whole numbers end within this


class Crossing(msgspec.Struct, frozen=True):
    """Along the x axis at y = `y`: from `x` on, arithmetic takes at least as long as the wall
    (`computes`), or no longer does. `x` may lie between the points of the grid: it is found by
    running more of them. `longest` is the state that takes the most time there."""

    y: Any
    x: int | float
    computes: bool
    longest: str


class WallMap(msgspec.Struct, frozen=True):
    """Shares by y (rows) and x (columns), None where a point is not possible; and the crossings."""

    sweep: Sweep
    wall: str
    phase: str
    x: Axis
    y: Axis
    share: list[list[float | None]]
    status: list[list[str]]
    crossings: list[Crossing]

    def sentence(self, crossing: Crossing) -> str:
        """`prompt 512: compute-bound from batch 218`."""
        where = f"{self.y.name} {shown(crossing.y)}: " if len(self.y.values) > 1 else ""
        return f"{where}{self.words(crossing)}"

    def words(self, crossing: Crossing) -> str:
        """What changes at a crossing. What is bound by something else is not called bound."""
        at = f"from {self.x.name.rpartition('.')[2]} {shown(crossing.x)}"
        first, second = (AGAINST, self.wall) if crossing.computes else (self.wall, AGAINST)
        if crossing.longest in (AGAINST, *WALLS[self.wall]):
            return f"{first}-bound {at}"
        return f"more {first} than {second} {at}, but {crossing.longest} takes the most"


def shown(value: Any) -> str:
    """A value of an axis, floats with four figures."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def map_wall(
    sweep: Sweep,
    wall: str = "memory",
    phase: str = "all",
    *,
    folder: Path | None = None,
    workers: int | None = None,
    watch: Watch | None = None,
) -> WallMap:
    """The map of a sweep of runs whose axes of more than one value are two (or one)."""
    if wall not in WALLS:
        raise InputError(f"--wall {wall!r}: use one of {', '.join(WALLS)}")
    if phase not in ("all", *PHASES):
        raise InputError(f"--phase {phase!r}: use all, {' or '.join(PHASES)}")
    if sweep.kind != "run" or sweep.where:
        raise InputError("a map needs runs, over two axes")
    long = [axis for axis in sweep.axes if len(axis.values) > 1]
    if not 1 <= len(long) <= 2:
        raise InputError(
            f"a map has two axes of several values, x and then y; here are {len(long)}"
        )
    x = long[0]
    y = (
        long[1]
        if len(long) == 2
        else next((a for a in sweep.axes if a is not x), Axis("", (), (0,)))
    )
    swept = run_sweep(sweep, folder=folder, workers=workers, watch=watch)
    if swept.interrupted:
        raise KeyboardInterrupt
    names = [axis.name for axis in sweep.axes]
    if all(row and row["status"] != "ok" for row in swept.rows):
        raise Infeasible(
            f"no point of this map is possible; the first: {swept.records()[0]['reason']}"
        )
    place = {
        (repr(r[x.name]), repr(r[y.name]) if y.name in names else repr(0)): r
        for r in swept.records()
    }
    rows = [[place[repr(a), repr(b)] for a in x.values] for b in y.values]
    crossings = [
        crossing
        for b, row in zip(y.values, rows, strict=True)
        for crossing in _crossings(sweep, (x, y), b, row, wall, phase)
    ]
    share = [[_share(r, wall, phase) for r in row] for row in rows]
    return WallMap(
        sweep, wall, phase, x, y, share, [[r["status"] for r in row] for row in rows], crossings
    )


def _parts(row: Row, phase: str) -> dict[str, int]:
    prefix = "" if phase == "all" else f"{phase}_"
    return {state: row[f"{prefix}{state}_ps"] or 0 for state in STATES}


def _share(row: Row, wall: str, phase: str) -> float | None:
    if row["status"] != "ok":
        return None
    parts = _parts(row, phase)
    total = sum(parts.values())
    return sum(parts[s] for s in WALLS[wall]) / total if total else None


def computes(row: Row, wall: str, phase: str) -> bool | None:
    """Whether more of the time goes to arithmetic than to the wall; None where nothing ran."""
    if row["status"] != "ok":
        return None
    parts = _parts(row, phase)
    return parts[AGAINST] >= sum(parts[s] for s in WALLS[wall])


def _crossings(
    sweep: Sweep, axes: tuple[Axis, Axis], at: Any, row: list[Row], wall: str, phase: str
) -> list[Crossing]:
    """Where the answer changes along x at the value `at` of y, by bisection: to the whole number,
    or within CLOSE."""
    x, y = axes
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in x.values):
        return []
    kind = kind_of(sweep.kind)
    crossings: list[Crossing] = []

    rows = dict(zip(x.values, row, strict=True))

    def ask(value: int | float) -> bool | None:
        if value not in rows:
            values = tuple(
                value if axis is x else at if axis is y else axis.values[0] for axis in sweep.axes
            )
            try:
                rows[value] = kind.row(kind.prepare(document(sweep, values)), "")
            except (Infeasible, InputError) as error:
                rows[value] = refusal(error)
        return computes(rows[value], wall, phase)

    known = [v for v in x.values if ask(v) is not None]
    for low, high in itertools.pairwise(known):
        if ask(low) != ask(high):
            edge = _bisect(low, high, ask)
            parts = _parts(rows[edge], phase)
            longest = max(parts, key=lambda state: parts[state])
            crossings.append(Crossing(at, edge, bool(ask(edge)), longest))
    return crossings


def _bisect(
    low: int | float, high: int | float, ask: Callable[[int | float], bool | None]
) -> int | float:
    """The least value (of whole numbers, or nearly) at which the answer is no longer that of
    `low`."""
    before = ask(low)
    integral = isinstance(low, int) and isinstance(high, int)
    while (high - low > 1) if integral else (high / low > CLOSE if low > 0 else high - low > 1e-3):
        middle = (low + high) // 2 if integral else (low + high) / 2
        answer = ask(middle)
        if answer is None:  # a hole in the grid: what is known is all that can be said
            break
        if answer == before:
            low = middle
        else:
            high = middle
    return high


def map_of(wall_map: WallMap) -> dict[str, Any]:
    """A map as plain data."""
    return {
        **described(wall_map.sweep),
        "wall": wall_map.wall,
        "phase": wall_map.phase,
        "x": {"key": wall_map.x.name, "values": wall_map.x.values},
        "y": {"key": wall_map.y.name, "values": wall_map.y.values},
        "share": wall_map.share,
        "status": wall_map.status,
        "crossings": msgspec.to_builtins(wall_map.crossings),
    }
