"""From measurement files to a calibrated device: fit family after family, score what was held out.

Families come in the order in which one builds on another: experts use the streams of the device,
a custom all-reduce hands over to NCCL. A share of the shapes of each family is kept from the fit;
the residuals that travel with the terms are theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import polars as pl

from hw_models.device import Device
from hw_models.efficiency import Efficiency, KernelTerms, Spread
from sim.errors import MemorywallError
from sim.fidelity.calibrate.fit import Fit, fit_function
from sim.fidelity.calibrate.frames import FramePiece, Key, frame_of, held_out, is_held, pieces
from sim.fidelity.validate.points import MeasuredFile, PredictionBench
from sim.fidelity.validate.score import table

ORDER = (
    "gemm",
    "elementwise",
    "encoder",
    "prefill",
    "decode",
    "mixed",
    "experts",
    "collectives",
)
LEAST_ROWS = 8  # a family with fewer is left as it is
LEAST_HELD = 20  # fewer rows give no quantiles worth keeping
SMALL_SPLIT = 200  # of fewer rows than this none is held out


class CalibrationResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one family and key. Errors are absolute, in per cent: (median, p90)."""

    key: Key
    rows: int
    held: int
    fit: Fit | None = None
    reason: str = ""
    before: tuple[float, float] | None = None
    after: tuple[float, float] | None = None


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """A device with fitted terms, and what was done to get there."""

    device: Device
    outcomes: list[CalibrationResult]
    left: dict[str, int]  # rows that no family takes, by reason


def calibrate(
    sources: list[MeasuredFile],
    device: Device,
    *,
    holdout: float,
    date: str,
    progress: Callable[[str], None] = lambda what: None,
) -> Calibration:
    """Fit every family that the sources measure on `device`.

    `holdout` is the share of shapes that no fit sees; 0 fits all rows, and residuals are then of
    the fitted rows.
    """
    families, left = pieces(sources, device.name)
    outcomes = []
    for key in sorted(families, key=_place):
        progress(f"{key[0]} {key[1]}")
        device, outcome = _family(device, key, families[key], holdout, date)
        outcomes.append(outcome)
    return Calibration(device=device, outcomes=outcomes, left=left)


def _place(key: Key) -> tuple[int, bool, str]:
    place = ORDER.index(key[0]) if key[0] in ORDER else len(ORDER)
    return place, key[1] != "nccl", key[1]


def _family(
    device: Device, key: Key, parts: list[FramePiece], holdout: float, date: str
) -> tuple[Device, CalibrationResult]:
    total = sum(len(p.rows) for p in parts)
    share = holdout if total >= SMALL_SPLIT else 0.0

    def held(shape: str) -> bool:
        return is_held(shape, share)

    kept = frame_of(parts, lambda shape: not held(shape))
    scored = held if 0 < len(kept) < total else lambda shape: True
    function = fit_function(key[0])
    result = CalibrationResult(key=key, rows=len(kept), held=total - len(kept))
    if function is None:
        return device, msgspec.structs.replace(result, reason="no terms of this family are fitted")
    if len(kept) < LEAST_ROWS:
        return device, msgspec.structs.replace(
            result, reason=f"{len(kept)} rows are too few; {LEAST_ROWS} are the least"
        )
    try:
        fit = function(kept, device, key[1])
    except MemorywallError as error:
        return device, msgspec.structs.replace(result, reason=str(error))
    before = errors(device, parts, scored)
    fitted = with_terms(device, fit, fit.terms)
    after = errors(fitted, parts, scored)
    terms = msgspec.structs.replace(
        fit.terms,
        residuals=spreads(after),
        source=source_of(fit, parts, len(kept), total - len(kept), after, date),
    )
    outcome = msgspec.structs.replace(result, fit=fit, before=summary(before), after=summary(after))
    return with_terms(device, fit, terms), outcome


def with_terms(device: Device, fit: Fit, terms: KernelTerms) -> Device:
    """A device with the terms of a family at a key replaced."""
    family: dict[str, Any] = {**getattr(device.efficiency, fit.family), fit.key: terms}
    efficiency: Efficiency = msgspec.structs.replace(device.efficiency, **{fit.family: family})
    return msgspec.structs.replace(device, efficiency=efficiency)


def errors(device: Device, parts: list[FramePiece], scored: Callable[[str], bool]) -> pl.DataFrame:
    """The scored rows, priced on `device` by the readers of `validate`."""
    bench = PredictionBench(own=device)
    rows = []
    for piece in parts:
        source = held_out(piece, scored)
        if len(source.frame):
            rows.append(table(source.form.read(source, bench)))
    return pl.concat(rows).filter(pl.col("error").is_not_null())


def spreads(points: pl.DataFrame) -> dict[str, Spread]:
    """Quantiles of measured over predicted time, of all rows and by regime."""
    parts: dict[str, pl.DataFrame] = {"all": points}
    for (regime,), part in points.sort("regime").group_by("regime", maintain_order=True):
        parts[str(regime)] = part
    by_class = {}
    for name, part in parts.items():
        if len(part) < LEAST_HELD:
            continue
        ratio = part["measured_s"].to_numpy() / part["predicted_s"].to_numpy()
        low = [float(f"{q:.4g}") for q in np.quantile(ratio, (0.1, 0.25, 0.5, 0.75, 0.9))]
        by_class[name] = Spread(
            rows=len(part), p10=low[0], p25=low[1], p50=low[2], p75=low[3], p90=low[4]
        )
    return by_class


def summary(points: pl.DataFrame) -> tuple[float, float] | None:
    """(median, p90) of the absolute error in per cent."""
    if not len(points):
        return None
    size = np.abs(points["error"].to_numpy()) * 100
    return float(np.median(size)), float(np.quantile(size, 0.9))


def source_of(
    fit: Fit, parts: list[FramePiece], rows: int, held: int, after: pl.DataFrame, date: str
) -> str:
    """Where the terms come from, in one sentence or two."""
    files = ", ".join(dict.fromkeys(_origin(p) for p in parts))
    said = f"fitted {date} to {fit.rows} of {rows} rows of {files}"
    scored = summary(after)
    if scored:
        which = f"{held} rows held out" if held else "the same rows"
        said += f"; error on {which} {scored[0]:.1f} % (median), {scored[1]:.1f} % (p90)"
    if fit.undetermined:
        said += f"; the rows do not determine, so left as they were: {', '.join(fit.undetermined)}"
    return said


def _origin(piece: FramePiece) -> str:
    """File with what it says of framework and version."""
    name = "/".join(piece.source.path.parts[-2:])
    frame = piece.source.frame
    said = []
    for column in ("framework", "library", "backend", "version"):
        if column in frame.columns:
            values = frame[piece.rows][column].drop_nulls().unique().sort().to_list()
            said += [str(v) for v in values[:2]]
    return f"{name} ({' '.join(said)})" if said else name
