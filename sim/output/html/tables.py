"""Tables of a report: sorted by a click on a head, filtered by a word or by conditions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

FIGURES = 4  # of a number in a cell; the files of the result have all of them
Cell = str | int | float | bool | None


class Column(msgspec.Struct, frozen=True):
    """A column: its head, with the unit. One that is hidden serves the panel of a row."""

    title: str
    hidden: bool = False


class Part(msgspec.Struct, frozen=True):
    """A piece of the bar in the panel of a row: the column that holds it, and how it is drawn."""

    column: int
    name: str
    colour: str


class Panel(msgspec.Struct, frozen=True):
    """What a click on a row opens: the row's cells as facts, and a bar of its parts.

    what: the name of a row ("request"), after which the cell of the first column stands.
    """

    what: str
    unit: str
    parts: Sequence[Part]
    layout: dict[str, Any]  # of the bar, as Plotly takes it


class DataTable(msgspec.Struct, frozen=True):
    """A table. `grey` holds the numbers of rows that are shown in grey. `order`: the column that
    it is sorted by at first, and which way; without one the rows stay as they are. A `plain` one is
    short: it has nothing to sort or filter."""

    name: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    grey: Sequence[int] = ()
    order: tuple[int, str] | None = None
    panel: Panel | None = None
    plain: bool = False


def rounded(value: Any, figures: int = FIGURES) -> Cell:
    """A number with so many figures; a number that is none becomes an empty cell."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        if value:
            value = round(value, figures - 1 - math.floor(math.log10(abs(value))))
        return int(value) if value.is_integer() else value
    return value  # type: ignore[no-any-return]


def rounded_rows(rows: Iterable[Iterable[Any]]) -> list[list[Cell]]:
    """Rows with rounded numbers."""
    return [[rounded(cell) for cell in row] for row in rows]


def spread_out(count: int, most: int) -> Iterator[int]:
    """`most` numbers below `count` at equal distances, or all of them."""
    if count <= most:
        yield from range(count)
    else:
        yield from (i * count // most for i in range(most))
