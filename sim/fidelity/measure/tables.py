"""The folder of a measurement: one table per kernel, written whole again and again.

A table has the columns of the open measurement files, and of each time its spread (half the
distance of the quartiles) and how often it was taken. A case that stands in a table is not
measured again, so that a partial measurement goes on where it stopped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from sim.errors import InputError
from sim.fidelity.measure.cases import Case
from sim.output.files import atomic_write

TABLES = "kernels"
SUFFIX = {"collectives": ".csv"}


class Timing(msgspec.Struct, frozen=True):
    """Microseconds a call: the median of `repeats`, and half the distance of the quartiles."""

    latency_us: float
    spread_us: float
    repeats: int


class MeasurementTables:
    """What has been measured so far, by table, and where it is kept."""

    def __init__(self, out: Path, device: str) -> None:
        self.folder, self.device = out / TABLES, device
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self._changed: set[str] = set()

    def path(self, table: str) -> Path:
        return self.folder / f"{table}{SUFFIX.get(table, '.parquet')}"

    def load(self, tables: tuple[str, ...]) -> None:
        """Read what is there. Raises InputError if it is not a measurement of this device."""
        for table in tables:
            path = self.path(table)
            if not path.is_file():
                continue
            try:
                frame = pl.read_csv(path) if path.suffix == ".csv" else pl.read_parquet(path)
            except (pl.exceptions.PolarsError, OSError) as error:
                raise InputError(f"{path}: cannot be read as a table ({error})") from None
            known = frame["device"].unique().to_list() if "device" in frame.columns else []
            if known != [self.device]:
                raise InputError(
                    f"{path}: holds measurements of {', '.join(map(str, known)) or 'no device'}, "
                    f"not of {self.device}; choose another --out, or that --device-name"
                )
            self.rows[table] = frame.to_dicts()

    def has(self, case: Case, **heads: Any) -> bool:
        """Whether a case stands in its table, with these columns before its own."""
        wanted = case.columns | heads
        return any(
            all(row.get(name) == value for name, value in wanted.items())
            for row in self.rows.get(case.table, [])
        )

    def add(self, case: Case, heads: dict[str, Any], timing: Timing) -> None:
        row = {"device": self.device, **heads, **case.columns, **msgspec.structs.asdict(timing)}
        self.rows.setdefault(case.table, []).append(row)
        self._changed.add(case.table)

    def frame(self, table: str) -> pl.DataFrame:
        return pl.DataFrame(self.rows.get(table, []), infer_schema_length=None)

    def save(self) -> None:
        """Write the tables that have changed; each is whole or as it was before."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for table in sorted(self._changed):
            path, frame = self.path(table), self.frame(table)
            with atomic_write(path) as temporary:
                if path.suffix == ".csv":
                    frame.write_csv(temporary)
                else:
                    frame.write_parquet(temporary)
        self._changed.clear()
