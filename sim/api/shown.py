"""What every result can do: show itself, and become a dictionary, a table or a picture."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sim.errors import InputError, hint
from sim.output.terminal import Terminal, document

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure
    from rich.console import Console

WIDTH = 110  # columns of a result in a notebook


class Shown(ABC):
    """A result that shows itself as the command prints it."""

    schema: str  # of `to_dict`

    @abstractmethod
    def show(self, console: Console) -> None:
        """Print the tables of the result."""

    @abstractmethod
    def content(self) -> Mapping[str, Any]:
        """The result as plain data, without its head."""

    @abstractmethod
    def tables(self) -> Mapping[str, Callable[[], pl.DataFrame]]:
        """The tables of the result by name, the usual one first."""

    def to_dict(self) -> dict[str, Any]:
        """The document that the command prints with --json."""
        return document(self.schema, self.content())

    def to_polars(self, table: str = "") -> pl.DataFrame:
        """A table by its name, or the usual one. Raises InputError for another name."""
        known = self.tables()
        name = table or next(iter(known))
        if name not in known:
            raise InputError(f"no table is called {name!r}{hint(name, known)}")
        return known[name]()

    def to_pandas(self, table: str = "") -> Any:
        """As `to_polars`, for pandas. Raises InputError where pandas is not installed."""
        try:
            return self.to_polars(table).to_pandas()
        except ModuleNotFoundError as error:
            raise InputError(
                f"{error.name} is not installed; install the extra: pip install "
                "'memorywall[pandas]'"
            ) from None

    def __str__(self) -> str:
        lines = self._recorded().export_text().split("\n")
        return "\n".join(line.rstrip() for line in lines).strip("\n")

    def _repr_html_(self) -> str:
        """The tables for a notebook."""
        return self._recorded().export_html(
            inline_styles=True, code_format='<pre style="line-height:1.2">{code}</pre>'
        )

    def _recorded(self) -> Console:
        console = Terminal(
            width=WIDTH,
            record=True,
            file=io.StringIO(),
            highlight=False,
            markup=False,
            emoji=False,
        )
        self.show(console)
        return console


class Plots:
    """The pictures of a result: a method per picture, each returns a matplotlib figure."""

    def __init__(self, pictures: Mapping[str, Callable[..., Figure]]) -> None:
        self._pictures = dict(pictures)

    def __getattr__(self, name: str) -> Callable[..., Figure]:
        if name.startswith("_") or name not in self._pictures:
            raise AttributeError(f"no picture is called {name!r}{hint(name, self._pictures)}")
        picture = self._pictures[name]

        def draw(*args: Any, **options: Any) -> Figure:
            from sim.output.plots.style import look

            with look():
                return picture(*args, **options)

        draw.__doc__ = picture.__doc__
        return draw

    def __dir__(self) -> list[str]:
        return sorted(self._pictures)

    def __repr__(self) -> str:
        return f"pictures: {', '.join(sorted(self._pictures))}"
