"""`memorywall validate` and `memorywall calibrate`: the commands that read measurements."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sim.cli.options import record_of

Paths = Annotated[
    list[Path],
    typer.Argument(help="Tables of measurements (CSV, Parquet), folders of them, or of vLLM runs"),
]


def validate(context: typer.Context, paths: Paths) -> None:
    """Predict measured times, and print how far off the predictions are."""
    from sim.fidelity.validate.session import ValidateOptions, validate_paths

    if not validate_paths(paths, record_of(context, ValidateOptions)):
        raise typer.Exit(1)


def calibrate(context: typer.Context, paths: Paths) -> None:
    """Fit the terms of a device to measured kernels, or of an engine to runs; write its TOML."""
    from sim.fidelity.calibrate.session import CalibrateOptions, calibrate_paths

    calibrate_paths(paths, record_of(context, CalibrateOptions))
