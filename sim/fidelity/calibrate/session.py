"""What `memorywall calibrate` does: read, fit, print, write."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import msgspec
import polars as pl
from msgspec import Meta
from rich.console import Console

from hw_models.device import Device
from sim.errors import InputError, quoted
from sim.fidelity.calibrate.calibrate import Calibration, CalibrationResult, calibrate
from sim.fidelity.calibrate.device_file import save_device, save_record
from sim.fidelity.calibrate.engines import EngineFit, calibrate_engine, terms_of
from sim.fidelity.validate.points import MeasuredFile
from sim.fidelity.validate.session import read
from sim.inputs.catalogue import load_device
from sim.inputs.tables import TableLimits
from sim.output.files import check_file
from sim.output.terminal import FoldingTable, print_document, terminal
from sim.serve.host import load_engine
from workloads.model import Record


class CalibrateOptions(Record, frozen=True, kw_only=True):
    """Options of `calibrate`: what is fitted, and where its TOML goes."""

    device: Annotated[
        str | None, Meta(description="The device to fit: a name of the catalogue or a TOML")
    ] = None
    engine: Annotated[
        str | None, Meta(description="Fit the host time of this backend of benchmarks: vllm-0.12")
    ] = None
    file: Annotated[
        Path | None,
        Meta(
            description="The TOML to write; NAME-calibrated.toml if not given",
            extra={"flag": "out"},
        ),
    ] = None
    holdout: Annotated[
        float,
        Meta(ge=0, le=0.9),
        Meta(description="Share of the shapes kept from the fit, and scored"),
    ] = 0.25
    date: Annotated[
        str | None, Meta(description="Date to write, YYYY-MM-DD; today if not given")
    ] = None

    reading: TableLimits = msgspec.field(default_factory=TableLimits)

    @property
    def day(self) -> str:
        """The date to write. Raises InputError for text that is no date."""
        try:
            return (date.fromisoformat(self.date) if self.date else date.today()).isoformat()
        except ValueError:
            raise InputError(f"--date {quoted(self.date)}: write it as YYYY-MM-DD") from None

    def file_for(self, name: str) -> Path:
        """The file to write, which is tried. Raises InputError."""
        path = self.file or Path(f"{name}-calibrated.toml")
        if path.suffix != ".toml":
            raise InputError(f"--out {path}: the file to write ends in .toml")
        check_file(path)
        return path


def calibrate_paths(paths: list[Path], options: CalibrateOptions) -> Calibration | EngineFit:
    """Fit what the options name to measurements, print the errors, and write its TOML."""
    if options.device is not None and options.engine is None:
        return _calibrate_device(paths, options.device, options)
    if options.engine is not None and options.device is None:
        return _calibrate_engine(paths, options.engine, options)
    raise InputError("say what to fit: either --device NAME or --engine NAME")


def _calibrate_device(paths: list[Path], device: str, options: CalibrateOptions) -> Calibration:
    console = terminal()
    base = load_device(device)
    day, path = options.day, options.file_for(base.name)
    unknown: list[Path] = []
    sources = list(read(paths, device, None, unknown, options.reading.limits))
    for path in unknown:
        console.print(f"  {path}: left out, its columns are of no known format")
    if not sources:
        raise InputError(f"{', '.join(map(str, paths))}: no table of a known format was read")
    with spinner() as progress:
        calibration = calibrate(sources, base, holdout=options.holdout, date=day, progress=progress)
    print_calibration(calibration, console)
    if not any(o.fit for o in calibration.outcomes):
        raise InputError(f"no term of {base.name} was fitted; the table above says why")
    save_device(calibration.device, path, heading(base, sources, day))
    console.print(f"  written to {path}; use it as --on {path}")
    print_document(
        "calibrate",
        lambda: {"file": str(path), "terms": msgspec.to_builtins(calibration.outcomes)},
    )
    return calibration


def _calibrate_engine(paths: list[Path], engine: str, options: CalibrateOptions) -> EngineFit:
    """Fit an engine's host time to closed-loop benchmarks, and write its TOML."""
    console = terminal()
    day, path = options.day, options.file_for(engine)
    wanted = ("e2e/silicon", "e2e/splitwise")
    sources = [s for s in read(paths, None, None, [], options.reading.limits) if s.format in wanted]
    if not sources:
        raise InputError(
            f"{', '.join(map(str, paths))}: no table of serving benchmarks (columns backend, "
            "model, system, isl, osl, tp, ttft_ms, tpot_ms)"
        )
    alike = [s.frame for s in sources if s.format == sources[0].format]
    joined = msgspec.structs.replace(sources[0], frame=pl.concat(alike, how="diagonal_relaxed"))
    with spinner() as progress:
        engine_fit = calibrate_engine(
            joined, engine, holdout=options.holdout, date=day, progress=progress
        )
    table = FoldingTable(title=engine_fit.engine.source)
    for name in terms_of(engine_fit.engine):
        table.add_column(name, justify="right")
    table.add_row(*(f"{v:g}" for v in terms_of(engine_fit.engine).values()))
    console.print(table)
    for term, why in engine_fit.undetermined.items():
        console.print(f"  not determined: {term}: {why}")
    for reason, rows in engine_fit.left.items():
        console.print(f"  {rows:,} rows left out: {reason}")
    save_record(engine_fit.engine, path, f"{engine}, calibrated {day} by memorywall calibrate.")
    load_engine(str(path))
    console.print(f"  written to {path}; use it as serve --engine {path}")
    print_document(
        "calibrate", lambda: {"file": str(path), "engine": msgspec.to_builtins(engine_fit.engine)}
    )
    return engine_fit


def heading(base: Device, sources: list[MeasuredFile], date: str) -> str:
    files = ", ".join(dict.fromkeys("/".join(s.path.parts[-2:]) for s in sources))
    return f"{base.vendor} {base.name}, calibrated {date} by memorywall calibrate\nfrom {files}."


def print_calibration(calibration: Calibration, console: Console) -> None:
    """Errors before and after by family, and what the rows could not tell."""
    table = FoldingTable(title="Fitted, and scored on rows held out")
    for name, side in (
        ("family", "left"),
        ("of", "left"),
        ("fitted", "right"),
        ("held out", "right"),
        ("before, median/p90 %", "right"),
        ("after", "right"),
        ("remarks", "left"),
    ):
        table.add_column(name, justify=side, overflow="fold")
    for o in calibration.outcomes:
        family, key = o.key
        table.add_row(
            family,
            key,
            f"{o.fit.rows if o.fit else o.rows:,}",
            f"{o.held:,}" if o.held else "none",
            _pair(o.before),
            _pair(o.after),
            _remarks(o),
        )
    console.print(table)
    for reason, rows in calibration.left.items():
        console.print(f"  {rows:,} rows left out: {reason}")


def _pair(errors: tuple[float, float] | None) -> str:
    return f"{errors[0]:.1f}/{errors[1]:.1f}" if errors else "-"


def _remarks(o: CalibrationResult) -> str:
    if o.fit is None:
        return o.reason
    said = [] if o.held else ["scored on the fitted rows"]
    if o.fit.family != o.key[0]:
        said.append(f"terms of {o.fit.family}")
    if untold := [f"{term}: {why}" for term, why in o.fit.undetermined.items()]:
        said.append("not determined: " + "; ".join(untold))
    return "; ".join(said)


@contextmanager
def spinner() -> Iterator[Any]:
    """What is being fitted, on the error stream, if that is a terminal."""
    console = Console(stderr=True)
    if not sys.stderr.isatty():
        yield lambda what: None
        return
    with console.status("reading") as status:
        yield lambda what: status.update(f"fitting {what}")
