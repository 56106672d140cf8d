"""`memorywall validate` and `memorywall calibrate`: the flags of what deals with measurements."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sim.cli.options import record_of
from sim.errors import InputError

Paths = Annotated[
    list[Path],
    typer.Argument(help="Tables of measurements (CSV, Parquet), folders of them, or of vLLM runs"),
]


def validate(context: typer.Context, paths: Paths) -> None:
    """Predict measured times, and print how far off the predictions are."""
    from sim.fidelity.validate.session import ValidateOptions, validate_paths

    if not validate_paths(paths, record_of(context, ValidateOptions)):
        raise typer.Exit(1)


def calibrate(
    paths: Paths,
    device: Annotated[str | None, typer.Option(help="The device to fit: a name or a TOML")] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="Fit the host time of this backend of benchmarks: vllm-0.12"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The TOML to write; NAME-calibrated.toml")
    ] = None,
    holdout: Annotated[
        float,
        typer.Option(min=0, max=0.9, help="Share of the shapes kept from the fit, and scored"),
    ] = 0.25,
    date: Annotated[str | None, typer.Option(help="Date to write, YYYY-MM-DD; today")] = None,
) -> None:
    """Fit the terms of a device to measured kernels, or of an engine to runs; write its TOML."""
    from datetime import date as calendar

    from sim.fidelity.calibrate.session import calibrate_engine_paths, calibrate_paths

    if (device is None) == (engine is None):
        raise InputError("say what to fit: either --device NAME or --engine NAME")

    try:
        day = calendar.fromisoformat(date) if date else calendar.today()
    except ValueError:
        raise InputError(f"--date {date!r}: write it as YYYY-MM-DD") from None
    said = day.isoformat()
    if engine is not None:
        calibrate_engine_paths(paths, engine=engine, out=out, holdout=holdout, date=said)
    elif device is not None:
        calibrate_paths(paths, device=device, out=out, holdout=holdout, date=said)
