"""Cells of CSV files that a spreadsheet must not run as formulas.

A cell of text that begins with `=`, `+`, `-`, `@`, a tab or a carriage return gets an apostrophe
in front, unless it is a number. Parquet and JSON keep the text as it is. Source of the rule: OWASP,
"CSV Injection".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from workloads.numbers import DECIMAL

if TYPE_CHECKING:
    import polars as pl

_FORMULA = r"^[=+\-@\t\r]"
_NUMBER = re.compile(DECIMAL)


def safe(value: Any) -> Any:
    """A cell as a CSV file may hold it."""
    if isinstance(value, str) and re.match(_FORMULA, value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def safe_rows(rows: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
    """Rows of one length as a CSV file may hold them: the same rows where nothing is a formula."""
    columns = range(len(rows[0]) if rows else 0)
    texts = {i: {row[i] for row in rows if isinstance(row[i], str)} for i in columns}
    changed = {i for i in columns if any(safe(text) != text for text in texts[i])}
    if not changed:
        return rows
    return [[safe(c) if i in changed else c for i, c in enumerate(row)] for row in rows]


def safe_frame(frame: pl.DataFrame) -> pl.DataFrame:
    """A frame as a CSV file may hold it; the names of its columns, too."""
    import polars as pl

    named = frame.rename({name: safe(name) for name in frame.columns})
    texts = [name for name, kind in named.schema.items() if kind == pl.String]
    return named.with_columns(_escaped(pl.col(name)) for name in texts)


def _escaped(column: pl.Expr) -> pl.Expr:
    import polars as pl

    formula = column.str.contains(_FORMULA) & ~column.str.contains(f"^{DECIMAL}$")
    return pl.when(formula).then(pl.lit("'") + column).otherwise(column).name.keep()
