"""From points to tables of errors.

The error of a point is (predicted - measured) / measured. Median, mean and 90th percentile are of
its absolute value; the bias is the median with its sign.
"""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from sim.fidelity.validate.points import ScoredPoint

SCHEMA: dict[str, type[pl.DataType]] = {
    "row": pl.Int64,
    "quantity": pl.String,
    "set": pl.String,
    "device": pl.String,
    "dtype": pl.String,
    "regime": pl.String,
    "shapes": pl.String,
    "shape": pl.String,
    "measured_s": pl.Float64,
    "predicted_s": pl.Float64,
    "reason": pl.String,
}


def table(points: Iterable[ScoredPoint]) -> pl.DataFrame:
    """One row per point, with its relative error."""
    columns: dict[str, list[object]] = {name: [] for name in SCHEMA}
    for p in points:
        w = p.place
        cells = (p.row, p.quantity, w.set, w.device, w.dtype, w.regime, w.shapes, w.shape)
        for name, cell in zip(
            SCHEMA, (*cells, p.measured, p.predicted, p.reason or None), strict=True
        ):
            columns[name].append(cell)
    frame = pl.DataFrame(columns, schema=SCHEMA)
    return frame.with_columns(
        error=pl.col("predicted_s") / pl.col("measured_s") - 1.0,
    )


def scores(points: pl.DataFrame, by: list[str]) -> pl.DataFrame:
    """Rows, coverage and errors in per cent: one row per group, in order of first occurrence."""
    size = pl.col("error").abs() * 100
    return points.group_by(by, maintain_order=True).agg(
        pl.len().alias("rows"),
        (pl.col("error").is_not_null().mean() * 100).alias("coverage_pct"),
        size.median().alias("median_pct"),
        size.mean().alias("mean_pct"),
        size.quantile(0.9, "linear").alias("p90_pct"),
        (pl.col("error").median() * 100).alias("bias_pct"),
    )


def reasons(points: pl.DataFrame) -> pl.DataFrame:
    """Why rows were not predicted, with how many."""
    missing = points.filter(pl.col("predicted_s").is_null())
    return missing.group_by("set", "reason", maintain_order=True).agg(pl.len().alias("rows"))
