"""Options of commands that write a folder of results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from workloads.model import Record


class Output(Record, frozen=True, kw_only=True):
    """Where results go, and how."""

    out: Annotated[Path | None, Meta(description="Folder of the results")] = None
    table_format: Annotated[
        Literal["csv", "parquet"],
        Meta(description="Format of the tables", extra={"flag": "format"}),
    ] = "csv"
    pictures: Annotated[bool, Meta(description="Draw PNG and SVG into --out")] = True
