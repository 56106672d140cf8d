"""A printed value beside ours, and sections of such cells.

A cell matches if ours rounds to the printed digits or, in a section with a tolerance, lies
within it. A cell that is known to miss says why, in the data file of its printed value.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated

import msgspec

from sim.errors import InputError
from sim.inputs.documents import convert, read_document
from workloads.model import Record

Source = Annotated[str, msgspec.Meta(min_length=8)]
DIGITS = "equal after rounding to the printed digits"
Ours = Mapping[str, Mapping[str, float]]  # row -> column -> value


class PaperRow(Record, frozen=True, kw_only=True):
    """Printed values of one row; `length` is in tokens, 0 where it plays no part."""

    name: str
    length: int = 0
    printed: tuple[str, ...]

    @property
    def label(self) -> str:
        return f"l = {self.length}, {self.name}" if self.length else self.name


class Miss(Record, frozen=True, kw_only=True):
    """Cells of a row that do not match, and why."""

    row: str
    columns: tuple[str, ...]
    why: Source


class Printed(Record, frozen=True, kw_only=True):
    """A file of printed values. `tolerance` is relative; 0 asks for the printed digits."""

    title: str
    source: Source
    note: str = ""
    tolerance: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    columns: tuple[str, ...]
    rows: tuple[PaperRow, ...]
    misses: tuple[Miss, ...] = ()

    def __post_init__(self) -> None:
        labels = {row.label for row in self.rows}
        for row in self.rows:
            if len(row.printed) != len(self.columns):
                raise ValueError(
                    f"row {row.label!r} has {len(row.printed)} values; "
                    f"there are {len(self.columns)} columns"
                )
        for miss in self.misses:
            if miss.row not in labels or not set(miss.columns) <= set(self.columns):
                raise ValueError(f"miss {miss.row!r} {miss.columns} names no cell of this table")


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One value. `printed` is "" where the paper prints none; `why` tells of a known miss."""

    row: str
    column: str
    printed: str
    ours: float
    tolerance: float = 0.0
    why: str = ""

    @property
    def label(self) -> str:
        return f"{self.row}, {self.column}"

    @property
    def judged(self) -> bool:
        return bool(self.printed)

    @property
    def expected_to_match(self) -> bool:
        return self.judged and not self.why

    @property
    def value(self) -> float:
        """The printed value as a number."""
        return float(self.printed.replace(",", ""))

    @property
    def deviation(self) -> float:
        """Ours over printed, less 1."""
        return self.ours / self.value - 1

    @property
    def digits(self) -> int:
        """Printed decimals."""
        return len(self.printed.partition(".")[2])

    @property
    def to_the_digit(self) -> bool:
        return round_to(self.ours, self.digits) == self.printed.replace(",", "")

    @property
    def matches(self) -> bool:
        return self.judged and (self.to_the_digit or abs(self.deviation) <= self.tolerance)

    @property
    def text(self) -> str:
        """Ours with the printed digits, and with more where these do not tell the two apart."""
        if not self.judged:
            return significant(self.ours)
        if self.to_the_digit:
            return self.printed
        few = len(self.printed.replace(".", "").lstrip("0")) < 3
        digits = self.digits + (few or abs(self.deviation) <= 0.02)
        while round_to(self.ours, digits) == self.printed and digits < 9:
            digits += 1
        return f"{self.ours:,.{digits}f}" if "," in self.printed else round_to(self.ours, digits)


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """A table or figure of the paper beside ours."""

    title: str
    source: str
    cells: tuple[Cell, ...]
    rule: str = DIGITS
    notes: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(cell.column for cell in self.cells))

    @property
    def rows(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(cell.row for cell in self.cells))

    @property
    def judged(self) -> int:
        return sum(cell.judged for cell in self.cells)

    @property
    def matching(self) -> int:
        return sum(cell.matches for cell in self.cells)

    @property
    def misses(self) -> tuple[Cell, ...]:
        """Cells with a printed value that is not ours."""
        return tuple(cell for cell in self.cells if cell.judged and not cell.matches)

    @property
    def failures(self) -> tuple[Cell, ...]:
        """Misses that should not be."""
        return tuple(cell for cell in self.misses if cell.expected_to_match)

    @property
    def ok(self) -> bool:
        return not self.failures

    def cell(self, row: str, column: str) -> Cell:
        return next(c for c in self.cells if (c.row, c.column) == (row, column))


def round_to(value: float, digits: int) -> str:
    """`value` with `digits` decimals."""
    return f"{value:.{digits}f}"


def significant(value: float) -> str:
    """Three significant digits, without an exponent."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return round_to(value, digits)


def data_file(name: str) -> Path:
    """A data file of this package."""
    return Path(str(resources.files("sim.studies.paper"))) / "data" / f"{name}.toml"


def load_printed(name: str) -> Printed:
    """The printed values of data/`name`.toml. Raises InputError."""
    path = data_file(name)
    return convert(read_document(path), Printed, str(path))


def compare(
    name: str, ours: Ours, *, beside: Ours | None = None, notes: tuple[str, ...] = ()
) -> Section:
    """The printed values of data/`name`.toml beside `ours`.

    Rows of `beside` come behind them without a verdict.
    """
    printed = load_printed(name)
    reasons = {(m.row, column): m.why for m in printed.misses for column in m.columns}
    cells = []
    for row in printed.rows:
        if row.label not in ours:
            raise InputError(f"{name}: row {row.label!r} is printed, but not computed")
        for column, text in zip(printed.columns, row.printed, strict=True):
            cells.append(
                Cell(
                    row=row.label,
                    column=column,
                    printed=text,
                    ours=ours[row.label][column],
                    tolerance=printed.tolerance,
                    why=reasons.get((row.label, column), ""),
                )
            )
    for label, values in (beside or {}).items():
        cells += [
            Cell(row=label, column=column, printed="", ours=value)
            for column, value in values.items()
        ]
    said = (printed.note,) if printed.note else ()
    rule = DIGITS
    if printed.tolerance:
        rule = f"{rule}, or within {printed.tolerance:.0%} of the printed value"
    return Section(
        title=printed.title,
        source=printed.source,
        cells=tuple(cells),
        rule=rule,
        notes=(*said, *notes),
    )
