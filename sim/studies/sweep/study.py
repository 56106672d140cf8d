"""A sweep carried out: what is known of its points, the rest computed, and the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from sim.errors import InputError
from sim.output.folder import claimed
from sim.output.interrupts import interrupts_after
from sim.output.tables import Cell, Table
from sim.studies.sweep.grid import Sweep, document, points_of
from sim.studies.sweep.kinds import REFUSED, Kind, Row, is_row, refusal
from sim.studies.sweep.log import Keys, Log
from sim.studies.sweep.pools import Found, Job, cores, reach, run_jobs
from sim.studies.sweep.registry import kind_of

TOGETHER = 500
LOG = "points.jsonl"
Watch = Callable[[int, int], None]  # (points done, of how many)


class Swept(msgspec.Struct):
    """What came out: the values of each point in the order of the grid, and its row.

    A row is None where the sweep was interrupted before it; `known` rows were there before;
    `damaged` lines of the log were left out.
    """

    sweep: Sweep
    points: list[tuple[Any, ...]]
    rows: list[Row | None]
    known: int
    interrupted: bool = False
    damaged: int = 0

    @property
    def columns(self) -> dict[str, type]:
        """The axes, then the columns of the kind."""
        axes = {
            axis.name: _type_of([p[i] for p in self.points])
            for i, axis in enumerate(self.sweep.axes)
        }
        return {**axes, **{n: c.kind for n, c in kind_of(self.sweep.kind).columns.items()}}

    def table(self) -> Table:
        """Finished points as a table, in the order of the grid."""
        names = list(kind_of(self.sweep.kind).columns)
        types = self.columns
        shown = [types[axis.name] is str for axis in self.sweep.axes]
        rows: list[tuple[Cell, ...]] = []
        for values, row in zip(self.points, self.rows, strict=True):
            if row is not None:
                axes = [str(v) if text else v for v, text in zip(values, shown, strict=True)]
                rows.append((*axes, *map(row.get, names)))
        return Table(types, rows)

    def records(self) -> list[dict[str, Any]]:
        """Finished points as dictionaries: values of the axes and cells of the row."""
        names = [axis.name for axis in self.sweep.axes]
        return [
            {**row, **dict(zip(names, values, strict=True))}
            for values, row in zip(self.points, self.rows, strict=True)
            if row is not None
        ]


def _type_of(values: list[Any]) -> type:
    kinds = {type(v) for v in values}
    if kinds <= {int}:
        return int
    return float if kinds <= {int, float} else bool if kinds == {bool} else str


def run_sweep(
    sweep: Sweep,
    *,
    folder: Path | None = None,
    workers: int | None = None,
    dask: str | None = None,
    watch: Watch | None = None,
) -> Swept:
    """Compute every point that the log of `folder` does not hold yet.

    Ctrl-C ends it early with what is finished. Raises InputError for a mistake that no point can
    do without (a name that does not exist, a value that nothing takes), and for a folder that
    cannot be written or that another process holds.
    """
    with claimed(folder):
        return _run_claimed(sweep, folder, Workers(workers or cores(), dask), watch)


def _run_claimed(sweep: Sweep, folder: Path | None, workers: Workers, watch: Watch | None) -> Swept:
    kind = kind_of(sweep.kind)
    points = points_of(sweep)
    ready, rows = _prepared(sweep, kind, points)
    if workers.dask:  # also where no point will need it
        reach(workers.dask)
    log = Log(folder / LOG if folder else None)
    try:
        keys = _keys(sweep, kind, ready)
        for key in {key for key in keys if key in log.rows}:
            if not is_row(kind, log.rows[key]):  # its checksum is right, but nothing else is
                del log.rows[key]
                log.damaged += 1
        for number, key in enumerate(keys):
            if key in log.rows:
                rows[number] = log.rows[key]
        swept = Swept(sweep, points, rows, sum(key in log.rows for key in keys if key))
        swept.damaged = log.damaged
        todo = _unique([n for n, row in enumerate(rows) if row is None], keys)
        _compute(swept, Points(todo, ready, keys), log, workers, watch)
    finally:
        log.close()
    return swept


def _prepared(
    sweep: Sweep, kind: Kind, points: list[tuple[Any, ...]]
) -> tuple[list[Any], list[Row | None]]:
    """What the kind makes of each point, and rows of those that are refused at once."""
    ready: list[Any] = []
    rows: list[Row | None] = []
    for values in points:
        row: Row | None = None
        prepared: Any = None
        try:
            prepared = kind.prepare(document(sweep, values))
        except InputError as error:
            row = refusal(error)
        ready.append(prepared)
        rows.append(row)
    _blame(sweep, points, rows)
    return ready, rows


def _blame(sweep: Sweep, points: list[tuple[Any, ...]], rows: list[Row | None]) -> None:
    """Refuse, before anything runs, a value with which no point of the grid is possible."""
    if all(row is None for row in rows):
        return
    for i in range(len(sweep.axes)):
        usable: dict[str, bool] = {}
        first: dict[str, str] = {}
        for values, row in zip(points, rows, strict=True):
            value = repr(values[i])
            usable[value] = usable.get(value, False) or row is None
            if row is not None:
                first.setdefault(value, row["reason"])
        for value, good in usable.items():
            if not good:
                raise InputError(first[value].removeprefix("sweep: "))
    if all(row is not None for row in rows):
        raise InputError(next(row["reason"] for row in rows if row).removeprefix("sweep: "))


def _keys(sweep: Sweep, kind: Kind, ready: list[Any]) -> list[str]:
    """The key of each point; "" for one that was refused."""
    key_of = Keys(kind.name, sweep.option)
    return [key_of(kind.decides(one)) if one is not None else "" for one in ready]


def _unique(numbers: list[int], keys: list[str]) -> dict[int, list[int]]:
    """Numbers to compute, each with all points that are the same scenario."""
    first: dict[str, int] = {}
    alike: dict[int, list[int]] = {}
    for number in numbers:
        one = first.setdefault(keys[number], number)
        alike.setdefault(one, []).append(number)
    return alike


class Points(NamedTuple):
    """Points to compute: their numbers, each with all points of the same scenario; and the
    prepared form and the key of every point of the sweep."""

    todo: dict[int, list[int]]
    ready: list[Any]
    keys: list[str]


class Workers(NamedTuple):
    """How many processes compute, and the address of a Dask scheduler that is used instead."""

    processes: int
    dask: str | None


def _compute(swept: Swept, points: Points, log: Log, workers: Workers, watch: Watch | None) -> None:
    todo, ready, keys = points
    kind, option = swept.sweep.kind, swept.sweep.option
    done = len(swept.points) - sum(map(len, todo.values()))

    def keep(rows: Found) -> None:
        nonlocal done
        with interrupts_after():  # a row is in the log and in the table, or in neither
            log.write((keys[n], row) for n, row in rows if row["status"] != REFUSED)
            for number, row in rows:
                for same in todo[number]:
                    swept.rows[same] = row
        done += sum(len(todo[number]) for number, _ in rows)
        if watch:
            watch(done, len(swept.points))

    try:
        for rows in _together(kind, list(todo), ready):
            keep(rows)
        left = [number for number in todo if swept.rows[number] is None]
        jobs = _jobs(left, ready, 1 if kind == "serve" else 16, workers.processes)
        for rows in run_jobs(kind, option, jobs, *workers):
            keep(rows)
    except KeyboardInterrupt:
        swept.interrupted = True
    if not swept.interrupted:
        _blame(swept.sweep, swept.points, [_only_refused(row) for row in swept.rows])


def _together(kind: str, numbers: list[int], ready: list[Any]) -> Iterator[Found]:
    """Rows of the points that have a closed form, some hundred at a time."""
    rows: Found = []
    for index, row in kind_of(kind).many([ready[n] for n in numbers]):
        rows.append((numbers[index], row))
        if len(rows) == TOGETHER:
            yield rows
            rows = []
    if rows:
        yield rows


def _only_refused(row: Row | None) -> Row | None:
    return row if row and row["status"] == REFUSED else None


def _jobs(numbers: list[int], ready: list[Any], most: int, workers: int) -> list[Job]:
    """Points put together into jobs: few enough that a job is worth its way, many enough that
    the workers end together."""
    size = max(1, min(most, len(numbers) // (4 * workers)))
    return [[(n, ready[n]) for n in numbers[i : i + size]] for i in range(0, len(numbers), size)]
