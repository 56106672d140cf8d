"""Terms of grouped expert products, from times of a fused mixture of experts on one rank.

A row is four kernels: up (and gate), activation, down, weighted sum. The activation is priced as on
this device any other is; floor, rates and depth of the rest are searched for.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from hw_models.device import Device
from hw_models.efficiency import ExpertTerms
from sim.cost.arith import VECTOR
from sim.cost.kernels import Rates, priced
from sim.cost.kernels.experts import expert_times, padded_rows
from sim.cost.kernels.price import Flops, Moved
from sim.cost.kernels.rates import rates_of
from sim.cost.kernels.stream import Rows, stream_times
from sim.fidelity.calibrate.fit import Fit, fitter
from sim.fidelity.calibrate.search import Array, search
from sim.fidelity.validate.kernels import expert_ops
from workloads.precision import parse_precision

START = {"floor_us": 15.0, "hbm": 0.85, "matrix": 0.6, "combine": 0.35, "depth": 6.0}
BOUNDS = {
    "floor_us": (1.0, 60.0),
    "hbm": (0.2, 1.0),
    "matrix": (0.05, 1.0),
    "combine": (0.05, 1.0),
    "depth": (1.0, 32.0),
}


Columns = dict[str, npt.NDArray[np.int64]]


class Counts(NamedTuple):
    """Counts of the four kernels of each row, as arrays."""

    up: Columns
    act: Columns
    down: Columns
    combine: Columns


def counts_of(frame: pl.DataFrame, dtype: str) -> Counts:
    """Of every row, once."""
    kernels: list[list[dict[str, int]]] = [[], [], [], []]
    form = parse_precision(dtype)
    for row in frame.iter_rows(named=True):
        for op, kernel in zip(expert_ops(row, form), kernels, strict=True):
            gemm = op.gemms[0] if op.gemms else None
            kernel.append(
                {
                    "reads": op.traffic.loads,
                    "writes": op.traffic.stores,
                    "vector": op.vector_flops,
                    "rows": op.rows,
                    "width": op.width,
                    "inputs": gemm.k if gemm else 0,
                    "outputs": gemm.n if gemm else 0,
                    "padded": padded_rows([(g.batch, g.m) for g in op.gemms]) if gemm else 0,
                }
            )
    up, act, down, combine = (
        {name: np.array([row[name] for row in rows], dtype=np.int64) for name in rows[0]}
        for rows in kernels
    )
    return Counts(up, act, down, combine)


def seconds(rates: Rates, terms: ExpertTerms, counts: Counts) -> Array:
    """Of every row, as `sim.cost.model` prices its four kernels one by one."""
    ticks: Any = 0
    for c in (counts.up, counts.down):
        moved = Moved(c["reads"], c["writes"], 0 * c["reads"])
        sizes = c["padded"], c["inputs"], c["outputs"]
        times = expert_times(VECTOR, rates, terms, moved, sizes, c["vector"])
        ticks = ticks + priced(VECTOR, rates, times).duration
    for c, kind in ((counts.act, "activation"), (counts.combine, "experts")):
        own = rates.device.hbm.bandwidth * terms.combine if kind == "experts" else None
        inner = c["reads"] + c["writes"] if rates.inner_rate and kind != "experts" else 0
        moved = Moved(c["reads"], c["writes"], inner + 0 * c["reads"])
        shape = Rows(kind, c["rows"], c["width"])
        times = stream_times(VECTOR, rates, moved, Flops(0, c["vector"]), shape, own)
        ticks = ticks + priced(VECTOR, rates, times).duration
    return np.asarray(ticks * 1e-12, dtype=np.float64)


def predict(frame: pl.DataFrame, device: Device, dtype: str, terms: ExpertTerms) -> Array:
    """Seconds of each row under `terms`."""
    return seconds(rates_of(device, dtype), terms, counts_of(frame, dtype))


@fitter("experts")
def fit(frame: pl.DataFrame, device: Device, key: str) -> Fit:
    """Floor, rates and depth of the number format `key`."""
    rates, counts = rates_of(device, key), counts_of(frame, key)
    measured = frame["latency_us"].to_numpy().astype(np.float64) * 1e-6

    def times(values: dict[str, Any], depth: float) -> Array:
        terms = ExpertTerms(**{**values, "depth": depth})
        return seconds(rates, terms, counts)

    result = search(lambda v: times(v, v["depth"]), measured, START, BOUNDS)
    # A whole number of steps is chosen, and the rest is searched for again.
    depth = int(min(32, max(1, round(result.values["depth"]))))
    rest = {name: value for name, value in result.values.items() if name != "depth"}
    final = search(lambda v: times(v, depth), measured, rest, BOUNDS)
    values: dict[str, Any] = {name: float(f"{value:.4g}") for name, value in final.values.items()}
    return Fit(
        family="experts",
        key=key,
        terms=ExpertTerms(**values, depth=depth, source=f"fitted to {len(frame)} rows"),
        undetermined=result.undetermined | final.undetermined,
        rows=len(frame),
    )
