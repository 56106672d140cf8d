"""Terms of norms, activations, residuals, rotary embedding and look-ups, from times by their size.

How often a kind moves its bytes can be told from how fast bytes move only if some kind is known to
move them once: a residual, or else an activation. That kinds walk their rows is told by the waves
of few rows, and by times of a single row that grow with its width.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import polars as pl

from hw_models.device import Device
from hw_models.efficiency import VectorTerms
from sim.cost.arith import VECTOR
from sim.cost.kernels import priced
from sim.cost.kernels.price import Flops, Moved
from sim.cost.kernels.rates import rates_of
from sim.cost.kernels.stream import Rows, stream_times
from sim.fidelity.calibrate.fit import Fit, fitter
from sim.fidelity.calibrate.search import Array, search
from workloads.precision import BITS

DEPTH = 1  # what is hidden has a term of its own
START = {"floor_us": 2.0, "hbm": 0.9, "cached": 0.5, "cached_gain": 0.3, "hidden": 0.2}
BOUNDS = {
    "floor_us": (0.5, 60.0),
    "hbm": (0.3, 1.0),
    "cached": (0.05, 2.0),
    "cached_gain": (0.0, 4.0),
    "hidden": (0.0, 1.0),
}
PASSES, GATHERED = (1.0, 12.0), (0.4, 12.0)  # rows of a table may be found on chip
WALK = (10.0, 20000.0)  # up to several trips to memory, one after the other; more on a CPU
ONCE = ("residual", "activation")
WALKED = ("activation", "embedding", "norm", "rotary")


def predict(frame: pl.DataFrame, device: Device, dtype: str, terms: VectorTerms) -> Array:
    """Seconds of each row: op (kind of operator), rows, width, read, written (elements per row).

    A look-up reads what it writes.
    """
    efficiency = msgspec.structs.replace(device.efficiency, elementwise={dtype: terms})
    rates = rates_of(msgspec.structs.replace(device, efficiency=efficiency), dtype)
    kinds = frame["op"].to_numpy()
    rows, width, read, written = (
        frame[name].to_numpy().astype(np.int64) for name in ("rows", "width", "read", "written")
    )
    result = np.empty(len(frame))
    for kind in np.unique(kinds):
        at = kinds == kind
        reads = rows[at] * read[at] * BITS[dtype] // 8
        writes = rows[at] * written[at] * BITS[dtype] // 8
        moved = Moved(reads, writes, (reads + writes) if rates.inner_rate else 0 * reads)
        walked = (rows[at], width[at]) if kind in WALKED else ()
        flops = Flops(0, 0 * reads)
        times = stream_times(VECTOR, rates, moved, flops, Rows(str(kind), *walked))
        result[at] = priced(VECTOR, rates, times).duration * 1e-12
    return result


@fitter("elementwise")
def fit(frame: pl.DataFrame, device: Device, key: str) -> Fit:
    """Floor, rates, and passes by kind, of the number format `key`."""
    measured = frame["latency_us"].to_numpy().astype(np.float64) * 1e-6
    kinds = sorted(frame["op"].unique().to_list())
    once = next((kind for kind in ONCE if kind in kinds), None)
    searched = [kind for kind in kinds if kind != once]
    start = START | {f"walk.{kind}": 700.0 for kind in kinds if kind in WALKED}
    start |= {f"passes.{kind}": 1.2 for kind in searched}
    bounds = BOUNDS | {f"walk.{kind}": WALK for kind in kinds}
    for kind in searched:
        bounds[f"passes.{kind}"] = GATHERED if kind == "embedding" else PASSES
    undetermined = {}
    if once is None:
        del start["hbm"]
        undetermined["hbm"] = (
            f"no kind is known to move its bytes once; {' or '.join(ONCE)} would be"
        )

    def terms_of(values: dict[str, Any]) -> VectorTerms:
        by_kind: dict[str, dict[str, float]] = {"walk": {}, "passes": {}}
        rest = {"hbm": START["hbm"]}
        for name, value in values.items():
            term, _, kind = name.partition(".")
            if kind:
                by_kind[term][kind] = value
            else:
                rest[term] = value
        return VectorTerms(**rest, **by_kind, depth=DEPTH)  # type: ignore[arg-type]

    result = search(
        lambda values: predict(frame, device, key, terms_of(values)), measured, start, bounds
    )
    values = {name: float(f"{value:.4g}") for name, value in result.values.items()}
    terms = msgspec.structs.replace(terms_of(values), source=f"fitted to {len(frame)} rows")
    return Fit(
        family="elementwise",
        key=key,
        terms=terms,
        undetermined=undetermined | result.undetermined,
        rows=len(frame),
    )
