"""Fits of attention: prompts, decoding, batches that mix both, and encoders.

Whole numbers (rows of a tile, steps of overlap, whether heads share tiles) are tried on a part of
the rows; the best is fitted on all. Shapes of large language models count more: unmasked by a
window, heads of 128 elements, eight of them or more.

Benchmarks read the same keys and values again and again, so that those that fit into the shared
on-chip memory come from there. The model has no such term, since in a model the weights of a layer
pass between two reads of a cache. Rows of that kind are fitted as they stand, since their floor is
told by no others; on the H100 that costs less than one point of the median error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from hw_models.device import Device
from hw_models.efficiency import DecodeTerms, KernelTerms, PrefillTerms
from sim.clock import TICKS_PER_SECOND
from sim.cost.arith import VECTOR
from sim.cost.kernels import Rates, Times, priced
from sim.cost.kernels.attention_shape import AttentionShape
from sim.cost.kernels.decode import decode_times
from sim.cost.kernels.prefill import chunk_times
from sim.cost.kernels.rates import rates_of
from sim.errors import InputError
from sim.fidelity.calibrate.attention_rows import shape_of_rows
from sim.fidelity.calibrate.fit import Fit, fitter
from sim.fidelity.calibrate.search import USUAL_ERROR, search

Array = npt.NDArray[np.float64]
Bounds = dict[str, tuple[float, float]]
TRIED = 1200  # rows that the whole numbers are chosen on
USUAL = 100.0  # weight of a shape of large language models
MANY = 6000  # rows that a fit uses at most
ROWS, OF_CPU = (64, 96, 128, 192), (16, 32, 64, 128, 256)  # of a tile

DECODE_START = {
    "floor_us": 10.0,
    "hbm": 0.85,
    "matrix": 0.5,
    "block_us": 3.0,
    "split_us": 2.0,
    "regroup_us": 1.0,
    "head_share": 0.5,
    "core_share": 2.0,
}
DECODE_BOUNDS: Bounds = {
    "floor_us": (1.0, 60.0),
    "hbm": (0.05, 1.0),
    "matrix": (0.02, 1.0),
    "block_us": (0.0, 30.0),
    "split_us": (0.0, 30.0),
    "regroup_us": (0.0, 30.0),
    "head_share": (0.02, 1.0),
    "core_share": (1.0, 20.0),
}
CHUNK_START = {
    "floor_us": 8.0,
    "matrix": 0.7,
    "softmax": 0.4,
    "hbm": 0.8,
    "tile_us": 2.0,
    "empty_us": 0.1,
    "tail": 0.3,
    "append": 4.0,
}
CHUNK_BOUNDS: Bounds = {
    "floor_us": (0.0, 60.0),
    "matrix": (0.02, 1.0),
    "softmax": (0.005, 1.0),
    "hbm": (0.05, 1.0),
    "tile_us": (0.0, 30.0),
    "empty_us": (0.0, 5.0),
    "tail": (0.0, 1.0),
    "append": (0.0, 40.0),
}


@fitter("decode")
def fit_decode(frame: pl.DataFrame, device: Device, dtype: str) -> Fit:
    """One new token per sequence. Raises InputError for a frame without such rows."""
    if "n_decode" in frame.columns:
        frame = frame.filter((pl.col("prefill_chunk") == 0) & (pl.col("n_decode") > 0))
    frame = _of_cache(frame, dtype)

    def price(rates: Rates, terms: Any, shape: AttentionShape) -> Times:
        return decode_times(VECTOR, rates, terms, shape)

    tried: list[dict[str, Any]] = []
    for depth in (1, 2, 3, 4, 8):
        tried += [{"depth": depth}, {"depth": depth, "regroup_us": 0.0}]
    return _fit(
        Search("decode", DecodeTerms, price, tried, DECODE_START, DECODE_BOUNDS),
        frame,
        device,
        dtype,
    )


@fitter("prefill")
def fit_prefill(frame: pl.DataFrame, device: Device, dtype: str) -> Fit:
    """Prompts, or chunks of them, causal."""
    columns = frame.columns
    new = "prefill_chunk" if "prefill_chunk" in columns else "q_len"
    least = 1 if new == "prefill_chunk" else 2
    return _fit_chunks(
        "prefill", _of_cache(frame.filter(pl.col(new) >= least), dtype), device, dtype
    )


@fitter("mixed")
def fit_mixed(frame: pl.DataFrame, device: Device, dtype: str) -> Fit:
    """Chunks with decoding sequences among them: the same terms as those of prompts."""
    return fit_prefill(frame, device, dtype)


@fitter("encoder")
def fit_encoder(frame: pl.DataFrame, device: Device, dtype: str) -> Fit:
    """Whole sequences without a mask."""
    return _fit_chunks("encoder", frame, device, dtype)


def _fit_chunks(family: str, frame: pl.DataFrame, device: Device, dtype: str) -> Fit:
    def price(rates: Rates, terms: Any, shape: AttentionShape) -> Times:
        return chunk_times(VECTOR, rates, terms, shape)

    shared = "num_kv_heads" in frame.columns and not frame["num_heads"].equals(
        frame["num_kv_heads"], check_names=False
    )
    tried = [
        {"tile_rows": rows, "packed": packed, "depth": depth}
        for rows, packed, depth in product(
            OF_CPU if device.kind == "cpu" else ROWS,
            (False, True) if shared else (False,),
            (1, 2, 3, 4, 8),
        )
    ]
    task = Search(family, PrefillTerms, price, tried, CHUNK_START, CHUNK_BOUNDS)
    return _fit(task, frame, device, dtype)


def _of_cache(frame: pl.DataFrame, dtype: str) -> pl.DataFrame:
    """The rows whose cache is of the format that the terms are kept under."""
    if "kv_dtype" not in frame.columns:
        return frame
    narrow = pl.col("kv_dtype").cast(pl.String).str.starts_with("fp8")
    return frame.filter(narrow if dtype == "fp8" else narrow.not_())


class Search(NamedTuple):
    """A family of kernels to fit: its terms, its price, the whole numbers and switches to try, and
    where the search for the other terms starts and ends."""

    family: str
    terms: type[KernelTerms]
    price: Callable[[Rates, Any, AttentionShape], Times]
    tried: Iterable[dict[str, Any]]
    start: dict[str, float]
    bounds: Bounds


def _fit(task: Search, frame: pl.DataFrame, device: Device, dtype: str) -> Fit:
    family, kind, price, tried, start, bounds = task
    if len(frame) < 2 * len(start):
        raise InputError(
            f"{family}: {len(frame)} rows of {dtype} do not tell {len(start)} terms; "
            f"give {2 * len(start)} rows or more"
        )
    formats = device.matrix.TFLOPS
    rates = rates_of(device, dtype if dtype in formats and dtype != "fp8" else _wide(formats))
    frame = _thinned(frame, MANY)

    def of(rows: pl.DataFrame) -> tuple[Callable[[dict[str, Any]], Array], Array, Array]:
        shape, measured = shape_of_rows(rows, dtype), _times(rows)

        def predict(values: dict[str, Any]) -> Array:
            p = priced(VECTOR, rates, price(rates, kind(**values), shape))
            return np.asarray(p.duration / TICKS_PER_SECOND * 1e6, dtype=np.float64)

        return predict, measured, _weights(rows)

    start, bounds = _of_slow_machines(start, bounds, float(_times(frame).min()))
    predict, measured, weights = of(_sample(frame))
    best: tuple[float, dict[str, Any], dict[str, float]] | None = None
    for candidate in tried:
        result = search(_with(predict, candidate), measured, start, bounds, weights)
        loss = _loss(predict({**result.values, **candidate}), measured, weights)
        if best is None or loss < best[0]:
            best = loss, candidate, result.values
    assert best is not None
    predict, measured, weights = of(frame)
    _, candidate, values = best
    result = search(_with(predict, candidate), measured, values, bounds, weights)
    terms = dict(candidate)
    for name, value in result.values.items():
        if name not in result.undetermined and name not in candidate:
            low, high = bounds[name]
            near = value < low + 1e-3 * (high - low)
            terms[name] = low if near else float(f"{value:.4g}")
    undetermined = {k: v for k, v in result.undetermined.items() if k not in candidate}
    return Fit(
        family=family, key=dtype, terms=kind(**terms), undetermined=undetermined, rows=len(frame)
    )


def _of_slow_machines(
    start: dict[str, float], bounds: Bounds, least: float
) -> tuple[dict[str, float], Bounds]:
    """Wider bounds of times (us) where even the fastest row takes longer than any GPU's floor."""
    if least <= bounds["floor_us"][1]:
        return start, bounds
    more = least / bounds["floor_us"][1]
    times = {n: (low, high * 2 * more) for n, (low, high) in bounds.items() if n.endswith("_us")}
    return {**start, "floor_us": 0.8 * least}, {**bounds, **times}


def _with(
    predict: Callable[[dict[str, Any]], Array], fixed: dict[str, Any]
) -> Callable[[dict[str, float]], Array]:
    return lambda values: predict({**values, **fixed})


def _wide(formats: Iterable[str]) -> str:
    have = list(formats)
    return next((f for f in ("bf16", "fp16") if f in have), have[0])


def _loss(predicted: Array, measured: Array, weights: Array) -> float:
    """Mean of a soft absolute error in logarithms."""
    errors = np.log(predicted / measured) / USUAL_ERROR
    return float(np.average(2 * (np.sqrt(1 + errors**2) - 1), weights=weights))


def _thinned(frame: pl.DataFrame, most: int) -> pl.DataFrame:
    """Evenly spread rows, `most` or fewer, in the order of the frame."""
    step = -(-len(frame) // most)
    return frame.gather_every(step) if step > 1 else frame


def _sample(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows to choose whole numbers on: half of them of usual shapes, where there are as many."""
    usual = pl.Series(_weights(frame) >= USUAL)
    parts = [_thinned(part, TRIED // 2) for part in (frame.filter(usual), frame.filter(~usual))]
    return pl.concat(parts)


def _times(frame: pl.DataFrame) -> Array:
    name = "latency_us" if "latency_us" in frame.columns else "time_us"
    return frame[name].cast(pl.Float64).to_numpy()


def _weights(frame: pl.DataFrame) -> Array:
    """More for the shapes of large language models, where a frame has others beside them."""
    usual = pl.lit(True)
    for name, test in (("head_dim", pl.col("head_dim") == 128), ("window", pl.col("window") == 0)):
        if name in frame.columns:
            usual = usual & test
    if "num_heads" in frame.columns:
        usual = usual & (pl.col("num_heads") >= 8)
    chosen = frame.select(usual.alias("usual"))["usual"].to_numpy()
    return np.where(chosen, USUAL, 1.0) if chosen.any() else np.ones(len(frame))
