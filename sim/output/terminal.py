"""Standard output: tables for people that fold where they are too wide, or one JSON document.

No column and no number is cut. A table that is wider than the terminal is printed in parts, each
of which begins with the columns that name its rows.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import version
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from sim.errors import printable

Mode = Literal["tables", "json", "quiet"]
USUAL_WIDTH = 120  # columns of a pipe or a file where COLUMNS does not say otherwise
_mode: ContextVar[Mode] = ContextVar("mode", default="tables")


def mode() -> Mode:
    """What is printed now."""
    return _mode.get()


@contextmanager
def printing(what: Mode) -> Iterator[None]:
    """Print tables, one JSON document, or nothing within the block."""
    token = _mode.set(what)
    try:
        yield
    finally:
        _mode.reset(token)


class Terminal(Console):
    """A console for names out of files: no markup in them, and no escapes that it would obey."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Text to show; see `rich.console.Console`."""
        return super().render_str(printable(text), **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print; see `rich.console.Console`. A file gets no blanks at the ends of lines."""
        if self.is_terminal or self.record:
            super().print(*objects, **options)
            return
        with self.capture() as captured:
            super().print(*objects, **options)
        lines = captured.get().split("\n")
        self.file.write("\n".join(line.rstrip(" ") for line in lines))


def terminal() -> Console:
    """Standard output, as wide as the terminal, or as COLUMNS says; without effect where a JSON
    document or nothing is printed."""
    given = os.environ.get("COLUMNS", "")
    number = int(given) if given.isascii() and given.isdecimal() and len(given) < 6 else 0
    piped = number or USUAL_WIDTH
    return Terminal(
        width=None if sys.stdout.isatty() else piped,
        highlight=False,
        markup=False,
        emoji=False,
        quiet=_mode.get() != "tables",
    )


def print_document(kind: str, content: Callable[[], Mapping[str, Any]]) -> None:
    """With --json, print the document of a result; it is computed only then."""
    if _mode.get() == "json":
        print(json.dumps(document(kind, content()), indent=2, allow_nan=False))


def document(kind: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """A result as plain data. Its first keys are the version of the program, and the name and the
    version of the schema, which changes when a key changes its meaning or goes."""
    return {"memorywall": version("memorywall"), "schema": f"memorywall.{kind}/1", **content}


class FoldingTable(Table):
    """A table that adapts to a narrow terminal, and cuts no cell.

    First it leaves out columns that are empty in every row, and says so. If that is not enough, it
    is printed in parts. A column that may wrap counts with its header alone.
    """

    def __init__(self, *heads: str, keys: int = 1, **options: Any) -> None:
        """See `rich.table.Table`; `keys` is the number of first columns that every part repeats."""
        self.keys = keys
        usual = {"box": SIMPLE_HEAD, "pad_edge": False, "title_justify": "left"}
        super().__init__(*heads, **{**usual, "title_style": "italic", **options})

    def add_column(self, *heads: Any, **options: Any) -> None:
        """Add a column; see `rich.table.Table`. A word that is too long is broken."""
        super().add_column(*heads, **{"overflow": "fold", **options})

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = list(range(len(self.columns)))
        keys = min(self.keys, len(columns))
        if self._needs(columns) + len(columns) - 1 <= options.max_width:  # its padding is wider
            yield from super().__rich_console__(console, options)
            return
        empty = [number for number in columns[keys:] if self._empty(number)]
        columns = [number for number in columns if number not in empty]
        for number, part in enumerate(self._parts(columns, options.max_width)):
            whole = self._needs(part) <= options.max_width
            yield from console.render(self._part(part, first=not number, whole=whole), options)
        if empty:
            names = ", ".join(str(self.columns[number].header) for number in empty)
            yield Text(f"  empty in every row: {names}", style="dim")

    def _parts(self, columns: list[int], width: int) -> list[list[int]]:
        """The numbers of the columns of each part; the keys are in every part."""
        keys = columns[: self.keys]
        parts: list[list[int]] = [[*keys]]
        for number in columns[len(keys) :]:
            if self._needs([*parts[-1], number]) > width and len(parts[-1]) > len(keys):
                parts.append([*keys])
            parts[-1].append(number)
        return parts

    def _needs(self, columns: list[int]) -> int:
        """The width of a table of these columns, with the padding of `_part`."""
        between = 2 if self.box is not None else 1
        widths = sum(self._width(number) for number in columns)
        return widths + between * (len(columns) - 1) + 2

    def _width(self, number: int) -> int:
        column = self.columns[number]
        texts = [column.header, *(column.cells if column.no_wrap else ())]
        return max((_cells(text) for text in texts), default=0)

    def _empty(self, number: int) -> bool:
        return all(str(cell) in ("-", "") for cell in self.columns[number].cells)

    def _part(self, columns: list[int], *, first: bool, whole: bool) -> Table:
        """A table of these columns; if not `whole`, one column is too wide alone, and wraps."""
        part = Table(
            title=self.title if first else None,
            title_justify=self.title_justify,
            title_style=self.title_style,
            box=self.box,
            pad_edge=self.pad_edge,
            collapse_padding=True,
        )
        for number in columns:
            column = self.columns[number]
            part.add_column(
                column.header,
                justify=column.justify,
                no_wrap=whole and column.no_wrap,
                overflow="fold",
            )
        cells = [list(self.columns[number].cells) for number in columns]
        for number, row in enumerate(self.rows):
            part.add_row(*(own[number] for own in cells), end_section=row.end_section)
        return part


def _cells(text: Any) -> int:
    """The width of a cell's longest line, in columns of the terminal."""
    plain = text.plain if isinstance(text, Text) else str(text)
    return max((cell_len(line) for line in plain.splitlines()), default=0)
