"""A report: one HTML file with all its scripts inside, which a browser opens without a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from sim.errors import InputError
from sim.output.folder import REPORT, ResultKind, adding
from sim.output.html.charts import Chart
from sim.output.html.tables import DataTable
from sim.output.reading import as_written

NEEDED = ("plotly", "itables", "jinja2")  # packages of the extra `report`
TEMPLATES = Path(__file__).parent / "templates"


class Fact(NamedTuple):
    """A number of the result with its name: both as a person reads them. `more` stands below in
    small print, e.g. an interval."""

    name: str
    value: str
    more: str = ""


class Section(NamedTuple):
    """A part of the page: a heading, sentences, facts, then charts and tables."""

    title: str
    notes: Sequence[str] = ()
    facts: Sequence[Fact] = ()
    charts: Sequence[Chart] = ()
    tables: Sequence[DataTable] = ()


class Page(NamedTuple):
    """A report: what the result is of, what wrote it, and its parts."""

    title: str
    source: str
    sections: Sequence[Section]


def check_report(wanted: bool, out: Path | None) -> None:
    """Raise InputError, before any work is done, for a report that could not be written."""
    if wanted:
        if out is None:
            raise InputError("--report needs --out: the report is a file of the result folder")
        check_installed()


def check_installed() -> None:
    """Raise InputError where a package that reports are made with is not installed."""
    missing = [name for name in NEEDED if not find_spec(name)]
    if missing:
        raise InputError(
            f"a report needs {' and '.join(missing)}, which the extra `report` installs: "
            "pip install 'memorywall[report]'"
        )


def render(page: Page) -> str:
    """The HTML of a page. The same page gives the same text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["data"] = _data
    template = environment.get_template("page.html")
    return template.render(
        page=page,
        style=_inside(TEMPLATES / "style.css"),
        glue=_inside(TEMPLATES / "report.js"),
        plotly=_inside(_package("plotly") / "package_data" / "plotly.min.js"),
        tables=_source(_package("itables") / "html" / "dt_bundle.js"),
        tables_style=_inside(_package("itables") / "html" / "dt_bundle.css"),
    )


def report_of(folder: Path, make: Callable[[Path], Page]) -> bytes:
    """The file with the report of a result folder. `make`: the page of such a folder.

    Raises InputError for files that are not as they were written.
    """
    with as_written(folder):
        return render(make(folder)).encode()


def add_report(folder: Path, kind: ResultKind, make: Callable[[Path], Page]) -> Path:
    """Write the report of a result into its folder, as one more file of it. See `report_of`."""
    content = report_of(folder, make)
    with adding(folder, kind, REPORT) as path:
        path.write_bytes(content)
    return folder / REPORT


def _data(value: Any) -> Any:
    """A value as JSON that a script element may hold: nothing in it ends the element."""
    from markupsafe import Markup

    return Markup(msgspec.json.encode(value).decode().replace("<", "\\u003c"))


def _package(name: str) -> Path:
    """The folder of an installed package, which is not imported for its data files."""
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def _inside(path: Path) -> Any:
    """A script or a style sheet as it stands in a page. It is ours or a package's: no input."""
    from markupsafe import Markup

    text = path.read_text(encoding="utf-8")
    assert "</script" not in text.lower()
    assert "</style" not in text.lower()
    return Markup(text)


def _source(path: Path) -> str:
    """The text of a script that the page loads as a module."""
    return path.read_text(encoding="utf-8")
