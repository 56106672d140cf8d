"""Options of commands that write a folder of results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from workloads.model import Record

OutputFolder = Annotated[
    Path | None, Meta(description="Folder of the results", extra={"group": "output"})
]
TableFormat = Annotated[
    Literal["csv", "parquet"],
    Meta(description="Format of the tables", extra={"flag": "format", "group": "output"}),
]
Pictures = Annotated[
    bool, Meta(description="Draw PNG and SVG into --out", extra={"group": "output"})
]
Report = Annotated[
    bool,
    Meta(
        description="Write report.html into --out: a page to open in a browser",
        extra={"group": "output"},
    ),
]


class Output(Record, frozen=True, kw_only=True):
    """Where results go, and how."""

    out: OutputFolder = None
    table_format: TableFormat = "csv"
    pictures: Pictures = True
