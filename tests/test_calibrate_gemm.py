"""Fitting matrix products: what was put in comes out, and shapes not seen are predicted."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hw_models.efficiency import GemmTerms
from sim import load_device
from sim.cost.kernels.rates import rates_of
from sim.fidelity.calibrate.gemm import SHAPES, GemmSamples, fit

MEASURED = Path(__file__).resolve().parents[2] / "shared/data/kernels/gemm.parquet"


def errors(rows: pl.DataFrame, device: str, dtype: str, terms: GemmTerms) -> np.ndarray:
    predicted = GemmSamples(rows, dtype, rates_of(load_device(device), dtype)).seconds(terms) * 1e6
    return np.abs(predicted / rows["latency_us"].to_numpy() - 1)


def test_known_terms_are_found_again() -> None:
    device = load_device("h100-sxm")
    terms = GemmTerms(
        floor_us=5.0,
        tiles=SHAPES,
        matrix=0.7,
        edge=20.0,
        wave_us=0.4,
        hbm=0.8,
        ramp_MB=2.0,
        core_share=3.0,
        depth=4,
        source="made up for a test",
    )
    grid = [
        (m, n, k)
        for m in (1, 4, 16, 48, 64, 128, 192, 256, 512, 1024, 4096)
        for n in (1024, 4096, 6144, 14336, 28672)
        for k in (2048, 4096, 8192, 14336)
    ]
    rows = pl.DataFrame(grid, schema=["m", "n", "k"], orient="row")
    seconds = GemmSamples(rows, "bf16", rates_of(device, "bf16")).seconds(terms)
    rows = rows.with_columns(latency_us=pl.Series(seconds * 1e6))
    found = fit(rows, device, "bf16").terms
    assert isinstance(found, GemmTerms)
    error = errors(
        rows.with_columns(latency_us=pl.Series(seconds * 1e6)), device.name, "bf16", found
    )
    assert np.median(error) < 0.01
    assert np.quantile(error, 0.9) < 0.05
    assert found.matrix == pytest.approx(0.7, rel=0.05)
    assert found.hbm == pytest.approx(0.8, rel=0.05)


def test_a_term_that_the_rows_do_not_tell_keeps_its_default() -> None:
    """Rows of one token say nothing of the arithmetic."""
    rows = pl.DataFrame({"m": [1] * 4, "n": [4096, 8192, 16384, 32768], "k": [8192] * 4})
    seconds = rows["n"] * rows["k"] * 2 / 3e12 * 1e6 + 4.0
    found = fit(rows.with_columns(latency_us=seconds), load_device("h100-sxm"), "bf16")
    assert "sag" in found.undetermined
    assert "hbm" not in found.undetermined


@pytest.mark.slow
@pytest.mark.skipif(not MEASURED.exists(), reason="needs ../shared/data/kernels")
@pytest.mark.parametrize(
    ("measured_on", "device", "dtype", "median", "p90"),
    [
        ("a100_sxm", "a100-sxm-80gb", "bf16", 0.05, 0.15),
        ("h100_sxm", "h100-sxm", "bf16", 0.05, 0.15),
        ("h100_sxm", "h100-sxm", "fp8", 0.09, 0.22),
    ],
)
def test_shapes_that_were_not_fitted(
    measured_on: str, device: str, dtype: str, median: float, p90: float
) -> None:
    """Half of the weight shapes fit, the other half is predicted; shapes of language models."""
    q = pl.col
    named = {"bf16": "bfloat16"}.get(dtype, dtype)
    rows = pl.read_parquet(MEASURED).filter(q("device") == measured_on, q("dtype") == named)
    shapes = zip(rows["n"], rows["k"], strict=True)
    half = pl.Series([zlib.crc32(f"{n}x{k}".encode()) % 2 for n, k in shapes])
    terms = fit(rows.filter(half == 0), load_device(device), dtype).terms
    assert isinstance(terms, GemmTerms)
    unseen = rows.filter(half == 1).filter(
        q("n") >= 1024, q("k") >= 1024, q("n") * q("k") >= 4_000_000
    )
    error = errors(unseen, device, dtype, terms)
    assert np.median(error) < median
    assert np.quantile(error, 0.9) < p90
