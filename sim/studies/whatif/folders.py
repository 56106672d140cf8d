"""Result folders as `run` and `serve` write them, read back as records.

A folder may come from anyone, so that each file is held to its record before it is used.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from hw_models.device import Device
from hw_models.system import MOST, Link, System
from sim.errors import InputError, shortened
from sim.inputs.catalogue import Machine
from sim.inputs.documents import checked, convert, read_document
from sim.inputs.tables import read_table
from sim.output.reading import table_path
from sim.scenario import Resolved, Scenario, make_passes
from sim.serve.columns import PART_COLUMNS, STATE_COLUMNS
from sim.states import STATES
from sim.studies.whatif.served import ServedTables
from workloads.model import Model
from workloads.precision import Precision, parse_precision

if TYPE_CHECKING:
    import polars as pl

Devices = Annotated[int, Meta(ge=1, le=MOST)]
REQUESTS = (
    *("index", "replica", "output_tokens", "arrival_ps", "scheduled_ps", "first_token_ps"),
    *("last_token_ps", *PART_COLUMNS),
)
STEPS = ("replica", "start_ps", "duration_ps", *STATE_COLUMNS)


class SystemRecord(msgspec.Struct, frozen=True):
    """The system of a resolved.json."""

    name: str
    devices: Devices
    switches: tuple[str, ...]
    links: tuple[Link, ...]


class ResolvedRecord(msgspec.Struct, frozen=True):
    """A resolved.json: everything that decides the result of a run."""

    scenario: Scenario
    model: Model
    device: Device
    system: SystemRecord
    precision: Precision
    memorywall: str = ""


class RunSummary(msgspec.Struct, frozen=True):
    """What is read of the summary.json of a run."""

    makespan_ps: int


class ServeSummary(msgspec.Struct, frozen=True):
    """What is read of the summary.json of a serving run."""

    devices: Devices
    account_ps: dict[str, Annotated[int, Meta(ge=0)]]
    interrupted: bool = False

    def __post_init__(self) -> None:
        if set(self.account_ps) != set(STATES):
            raise ValueError(f"account_ps has other states than {', '.join(STATES)}")


class Split(msgspec.Struct, frozen=True):
    """The pipeline stages of a serving run."""

    pp: Devices


class ServingRecord(msgspec.Struct, frozen=True):
    """What is read of the scenario of a serving run."""

    on: str
    parallelism: Split


class Named(msgspec.Struct, frozen=True):
    """A model by its name."""

    name: str


class ServeConfig(msgspec.Struct, frozen=True):
    """What is read of the config.json of a serving run."""

    serving: ServingRecord
    model: Named


def recorded_run(folder: Path) -> tuple[Resolved, int, str]:
    """The resolved input of a run, its makespan in ticks, and the version that wrote it."""
    path = folder / "resolved.json"
    where = str(path)
    record = convert(read_document(path), ResolvedRecord, where)
    system, device, model = record.system, record.device, record.model
    built = checked(
        where, lambda: System(system.name, system.devices, system.switches, system.links)
    )
    checked(where, lambda: parse_precision(model.dtype, model.kv_dtype or None))
    passes, context = checked(where, lambda: make_passes(model, record.scenario.workload))
    name = device.name if not system.links and system.devices == 1 else system.name
    machine = Machine(name, built, device)
    summary = folder / "summary.json"
    noted = convert(read_document(summary), RunSummary, str(summary)).makespan_ps
    resolved = Resolved(record.scenario, model, machine, record.precision, passes, context)
    return resolved, noted, record.memorywall


def recorded_tables(folder: Path) -> tuple[str, ServedTables]:
    """The title and the tables of a serving run."""
    summary, config = folder / "summary.json", folder / "config.json"
    noted = convert(read_document(summary), ServeSummary, str(summary))
    if noted.interrupted:
        raise InputError(
            f"{folder}: the run was interrupted, and its result is a part; run it again"
        )
    stated = convert(read_document(config), ServeConfig, str(config))
    requests, steps = table_path(folder, "requests"), table_path(folder, "steps")
    if requests is None:
        raise InputError(f"{folder}: the table of requests is missing; run it again")
    name = f"{stated.model.name} on {stated.serving.on} · {folder.name}"
    tables = ServedTables(
        _whole(requests, REQUESTS),
        _whole(steps, STEPS) if steps else None,
        noted.account_ps,
        noted.devices,
        stated.serving.parallelism.pp,
    )
    return shortened(name), tables


def _whole(path: Path, columns: Iterable[str]) -> pl.DataFrame:
    """A table that has a whole number in each cell of some columns."""
    frame = read_table(path)
    for column in columns:
        if column not in frame.columns:
            raise InputError(f"{path}: column {column!r} is missing; run it again")
        cells = frame[column]
        if len(cells) and not (cells.dtype.is_integer() and not cells.null_count()):
            raise InputError(f"{path}: column {column!r}: each cell must be a whole number")
    return frame
