"""Files of a result folder, read again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sim.errors import InputError, quoted
from sim.output.export import TABLE_FORMATS


@contextmanager
def as_written(folder: Path) -> Iterator[None]:
    """What fails inside for want of a key or a column becomes an InputError: the files of
    `folder` are not as a command wrote them."""
    import polars as pl

    missing = (KeyError, TypeError, AttributeError, IndexError, pl.exceptions.PolarsError)
    try:
        yield
    except (*missing, ValueError, ArithmeticError) as error:
        what = quoted(error.args[0] if error.args else type(error).__name__)
        raise InputError(
            f"{folder}: not a result as it was written: {what} is missing or odd; run it again"
        ) from None


def table_path(folder: Path, name: str) -> Path | None:
    """The table of a result with this name, in the format that it was written in."""
    paths = (folder / f"{name}.{kind}" for kind in TABLE_FORMATS)
    return next((path for path in paths if path.is_file()), None)
