"""Fit the terms of matrix products: floor, bandwidth, waves, edges, sag, splits, overlap."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import numpy as np
import polars as pl

from hw_models.device import Device
from hw_models.efficiency import Efficiency, GemmTerms
from sim.cost.arith import VECTOR
from sim.cost.kernels.gemm import gemm_times
from sim.cost.kernels.price import Flops, Moved, span
from sim.cost.kernels.rates import Rates, rates_of
from sim.cost.model import reread
from sim.fidelity.calibrate.fit import Fit, fitter
from sim.fidelity.calibrate.search import Array, search
from workloads.ops import (
    Gemm,
    Matmul,
    linear,
)
from workloads.precision import parse_precision

Shapes = tuple[tuple[int, int], ...]
SHAPES: Shapes = (
    *((16, 64), (32, 64), (64, 64), (128, 64), (64, 128)),
    *((128, 128), (256, 64), (64, 256), (256, 128), (128, 256)),
)
WIDER: Shapes = ((192, 128), (128, 192), (64, 192), (192, 64))
# A CPU has no output tiles, but works through as many rows at once as there are.
OF_CPU: Shapes = tuple((rows, 16) for rows in (1, 2, 4, 8, 16, 32, 64, 128, 256))
SPLITS = (1, 2, 4, 8, 16)
MOST_ROWS = 4000
# A weight at least this large, and at least this long each way, is one of a language model.
LARGE, LONG = 4_000_000, 1024
OF_SMALL = 0.03  # weight of the rest, which a benchmark finds in the cache unless it is `cold`
BOUNDS: dict[str, tuple[float, float]] = {
    "floor_us": (1.5, 60.0),
    "matrix": (0.05, 1.0),
    "edge": (0.0, 256.0),
    "wave_us": (0.0, 20.0),
    "slack": (0.0, 1.0),
    "sag": (0.0, 1.0),
    "sag_us": (50.0, 20_000.0),
    "hbm": (0.05, 1.0),
    "ramp_MB": (0.0, 30.0),
    "core_share": (0.5, 30.0),
    "split_us": (0.0, 20.0),
    "split_ratio": (0.1, 30.0),
    "depth": (1.0, 32.0),
    "choice": (0.0, 0.6),
    "quantise": (0.05, 2.0),
    "quantise_us": (0.0, 20.0),
}
# What power takes off long kernels of 16 bits and more; those of 8 bits fall further.
SAG = (0.0, 0.1)
PULL = 0.03  # towards START: decides between terms that trade off (floor, ramp and waves)
START: dict[str, float] = {
    "floor_us": 4.0,
    "matrix": 0.85,
    "edge": 8.0,
    "wave_us": 0.5,
    "slack": 0.3,
    "sag": 0.1,
    "sag_us": 1000.0,
    "hbm": 0.88,
    "ramp_MB": 1.0,
    "core_share": 4.0,
    "split_us": 2.0,
    "split_ratio": 2.0,
    "depth": 6.0,
    "choice": 0.1,
    "quantise": 0.5,
    "quantise_us": 1.0,
}


@fitter("gemm")
def fit(frame: pl.DataFrame, device: Device, dtype: str) -> Fit:
    """Terms of `dtype` products from rows m, n, k, (batch, cold), latency_us. Seconds to run.

    Kernels that cut k, and tiles of 192, are assumed only if they explain the rows better.
    """
    rows = _thinned(frame.sort("m", "n", "k", "latency_us"))
    points = GemmSamples(rows, dtype, rates_of(device, dtype))
    measured = rows["latency_us"].to_numpy().astype(float) * 1e-6
    weights = np.where(_large(rows), 1.0, OF_SMALL)
    narrow, cpu = dtype in ("fp8", "int8"), device.kind == "cpu"
    bounds = BOUNDS if narrow or cpu else {**BOUNDS, "sag": SAG}

    def attempt(shapes: Shapes, splits: tuple[int, ...]) -> Attempt:
        base = GemmTerms(tiles=shapes, splits=splits, source="fitted")
        used = [t for t in START if not (t.startswith("split") and splits == (1,))]
        used = [t for t in used if not t.startswith("quantise") or narrow]
        used = [t for t in used if not (cpu and t in ("choice", "slack"))]
        result = search(
            lambda values: points.seconds(msgspec.structs.replace(base, **values)),
            measured,
            {t: START[t] for t in used},
            {t: bounds[t] for t in used},
            weights,
            0.0 if cpu else PULL,
        )
        determined = {t: v for t, v in result.values.items() if t not in result.undetermined}
        terms = msgspec.structs.replace(base, **rounded(determined))
        error = np.abs(np.log(points.seconds(terms) / measured))
        score = float(np.average(np.minimum(error, 0.5), weights=weights))
        return Attempt(score, terms, result.undetermined)

    if cpu:
        best = attempt(OF_CPU, (1,))
    else:
        best = min(attempt(SHAPES, (1,)), attempt(SHAPES, SPLITS), key=lambda a: a.score)
        wider = attempt((*SHAPES, *WIDER), best.terms.splits)
        best = min(best, wider, key=lambda a: a.score)
    return Fit(
        family="gemm",
        key=dtype,
        terms=best.terms,
        undetermined=dict(best.undetermined),
        rows=len(rows),
    )


def rounded(values: dict[str, float]) -> dict[str, Any]:
    """Four digits of each, nothing of next to nothing; steps of overlap are a whole number."""

    def digits(term: str, value: float) -> float:
        low, high = BOUNDS[term]
        return low if value - low < 1e-4 * (high - low) else float(f"{value:.4g}")

    return {t: max(1, round(v)) if t == "depth" else digits(t, v) for t, v in values.items()}


def _large(rows: pl.DataFrame) -> Array:
    """Which rows are the size of a language model's: a large weight, or many products at once."""
    n, k = rows["n"].to_numpy(), rows["k"].to_numpy()
    batch = rows["batch"].to_numpy() if "batch" in rows.columns else np.ones(len(rows))
    return np.asarray((batch * n * k >= LARGE) & ((n >= LONG) & (k >= LONG) | (batch > 1)))


def _thinned(frame: pl.DataFrame) -> pl.DataFrame:
    """At most MOST_ROWS rows, evenly over the sorted table, large weights before small ones."""
    large = frame.filter(pl.Series(_large(frame)))
    small = frame.filter(pl.Series(np.logical_not(_large(frame))))
    kept = []
    for part, most in ((large, MOST_ROWS * 4 // 5), (small, MOST_ROWS // 5)):
        if len(part) > most:
            at = np.unique(np.linspace(0, len(part) - 1, most).astype(int))
            part = part[at.tolist()]
        kept.append(part)
    return pl.concat(kept)


class Attempt(NamedTuple):
    """Terms of one set of kernels, with their mean error in logarithms."""

    score: float
    terms: GemmTerms
    undetermined: dict[str, str]


class GemmSamples:
    """The products of many rows, priced together for any terms."""

    def __init__(self, rows: pl.DataFrame, dtype: str, rates: Rates) -> None:
        batch = rows["batch"] if "batch" in rows.columns else pl.Series([1] * len(rows))
        columns = [rows[c].to_list() for c in ("m", "n", "k")]
        moved = [
            counted(m, n, k, b, dtype, rates) for m, n, k, b in zip(*columns, batch, strict=True)
        ]
        self.rates = rates
        self.moved = Moved(*(np.array(x, dtype=np.float64) for x in zip(*moved, strict=True)))
        m, n, k = (np.array(c, dtype=np.float64) for c in columns)
        shape: Any = {"m": m, "n": n, "k": k, "batch": batch.to_numpy().astype(float)}
        self.gemm = Gemm(**shape, a_bits=16, b_bits=16, out_bits=16)
        self.dtype = dtype

    def seconds(self, terms: GemmTerms) -> Array:
        """Times of all rows."""
        device = msgspec.structs.replace(
            self.rates.device, efficiency=Efficiency(gemm={self.dtype: terms})
        )
        rates = msgspec.structs.replace(self.rates, device=device)
        flops = self.gemm.flops
        return np.asarray(
            span(
                VECTOR,
                rates,
                gemm_times(VECTOR, rates, (self.gemm,), self.moved, Flops(flops, 0.0)),
            )
        )


def counted(m: int, n: int, k: int, batch: int, dtype: str, rates: Rates) -> tuple[int, int, int]:
    """Bytes read, written and through inner levels of one product with weights."""
    op = linear("gemm", "projection", Matmul(m, k, n, batch=batch), parse_precision(dtype))
    more_in, more_out = reread(op, rates.reuse)
    return op.traffic.loads + more_in, op.traffic.stores + more_out, 0
