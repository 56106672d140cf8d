"""What a kind of point is: it knows the keys of its scenarios, the columns of its rows, what
decides a row (for the key under which it is kept), and how to compute one.

`sim.studies.sweep.registry` has them by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal

import msgspec

from sim.errors import Infeasible, InputError, OutOfMemory
from sim.studies.sweep.axes import Path

Row = dict[str, Any]
Sense = Literal["max", "min", ""]


class Column(msgspec.Struct, frozen=True):
    """A column of the table of results: the type of its cells, and which way is better."""

    kind: type
    better: Sense = ""


class Kind(msgspec.Struct, frozen=True):
    """What a sweep needs to know of a kind of scenario.

    resolve: looks up names; raises InputError. decides: what a row depends on, as plain data.
    row: computes a row; raises Infeasible and InputError. many: (index, row) of those points that
        can be computed together; the others are left out.
    """

    name: Literal["run", "serve"]
    record: type[msgspec.Struct]
    keys: dict[str, Path]
    columns: dict[str, Column]
    prepare: Callable[[dict[str, Any]], Any]
    decides: Callable[[Any], Any]
    row: Callable[[Any, str], Row]
    many: Callable[[list[Any]], Iterator[tuple[int, Row]]]
    front: tuple[str, str]
    shown: tuple[str, ...]


def is_row(kind: Kind, row: Row) -> bool:
    """Whether a row that was read back can be one that was computed: a known status, cells of the
    right types, no number below 0, and a reason exactly where there is no result."""
    columns = {**STATUS, **kind.columns}

    def fits(name: str, value: Any) -> bool:
        wanted = columns[name].kind
        if value is None:
            return name != "status"
        if wanted is str:
            return isinstance(value, str) and value.isprintable() and len(value) <= LONGEST_REASON
        if wanted is float:
            if not isinstance(value, int | float) or isinstance(value, bool):
                return False
            return 0.0 <= float(value) < math.inf
        return isinstance(value, int) and type(value) is wanted and value >= 0

    if row.get("status") not in ALL_STATUS:
        return False
    told = row.get("devices") if row["status"] == "ok" else row.get("reason")
    return bool(told) and all(n in columns and fits(n, v) for n, v in row.items())


STATUS: dict[str, Column] = {"status": Column(str), "reason": Column(str)}
REFUSED = "refused"
ALL_STATUS = ("ok", REFUSED, "infeasible", "out of memory")
LONGEST_REASON = 4096


def refusal(error: InputError | Infeasible) -> Row:
    """The row of a point that is not possible."""
    status = REFUSED
    if isinstance(error, OutOfMemory):
        status = "out of memory"
    elif isinstance(error, Infeasible):
        status = "infeasible"
    return {"status": status, "reason": str(error)}
