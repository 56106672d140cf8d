"""Terms of an engine's host from closed-loop serving benchmarks.

Kernels are priced by the device as it is. In a closed loop the steps are the same
however long they take, so the time per token is linear in the engine's terms: one replay per row is
enough for any number of tries (`sim.fidelity.validate.serving.parts`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np

from hw_models.efficiency import Spread
from sim.errors import InputError, MemorywallError
from sim.fidelity.calibrate.frames import is_held
from sim.fidelity.calibrate.search import Array, search
from sim.fidelity.validate.cells import Row
from sim.fidelity.validate.passes import splitwise_seconds
from sim.fidelity.validate.points import MeasuredFile, PredictionBench, positive_time
from sim.fidelity.validate.serving import UNKNOWN, Parts, config_of, engine_of, parts
from sim.serve.host import NEUTRAL, EngineTerms

START = {"step_us": 300.0, "sequence_us": 5.0, "decode_share": 0.05, "prefill_share": 0.1}
BOUNDS = {
    "step_us": (0.0, 40_000.0),
    "sequence_us": (0.0, 500.0),
    "decode_share": (0.0, 2.0),
    "prefill_share": (0.0, 4.0),
}
LEAST_ROWS = 6


class Loop(msgspec.Struct, frozen=True):
    """One row of a benchmark, replayed."""

    group: str  # model, system, degree of tensor parallelism
    shape: str  # lengths and clients
    parts: Parts
    measured: float  # seconds per token


class EngineFit(msgspec.Struct, frozen=True):
    """An engine, and its absolute errors on the rows held out, in per cent."""

    engine: EngineTerms
    rows: int
    errors: tuple[float, ...]
    undetermined: dict[str, str]
    left: dict[str, int]


def loops(
    source: MeasuredFile, engine: str, progress: Callable[[str], None] = lambda what: None
) -> tuple[list[Loop], dict[str, int]]:
    """The rows of an engine, replayed; and how many were left out, by reason.

    Those that are priced with it; if there are none, those of the backend it is named after (vllm
    of vllm-0.13). All rows are of the engine that stands for those unknown.
    """
    bench, measured_loops = PredictionBench(), []
    left: dict[str, int] = {}
    rows = list(source.frame.iter_rows(named=True))
    own = [row for row in rows if engine == UNKNOWN or engine_of(row) == engine]
    own = own or [row for row in rows if row["backend"] == engine.split("-")[0]]
    for number, row in enumerate(own):
        try:
            source.form.check(row)
            device = bench.device(row["system"])
            measured = float(row["tpot_ms"]) * 1e-3
            predicted = parts(config_of(row, bench, device, "none"))
        except (MemorywallError, ValueError) as error:
            left[str(error)] = left.get(str(error), 0) + 1
            continue
        if measured > 0:
            measured_loops.append(Loop(group_of(row), shape_of(row), predicted, measured))
        progress(f"row {number + 1} of {len(own)}")
    return measured_loops, left


def phases(source: MeasuredFile) -> tuple[list[Loop], dict[str, int]]:
    """The prompt and token phases of splitwise-sim's profile, each a step of its own."""
    bench = PredictionBench()
    rows: list[Loop] = []
    left: dict[str, int] = {}
    for row in source.frame.iter_rows(named=True):
        try:
            rows += [*_phases_of(source, bench, row)]
        except (MemorywallError, ValueError) as error:
            left[str(error)] = left.get(str(error), 0) + 1
    return rows, left


def _phases_of(source: MeasuredFile, bench: PredictionBench, row: Row) -> Iterator[Loop]:
    """The two steps of a row. Raises InputError for a row that breaks a rule."""
    source.form.check(row)
    device = bench.device(row["hardware"])
    group = f"{row['model']} {row['hardware']} tp {row['tensor_parallel']}"
    shape = f"{row['prompt_size']} {row['batch_size']}"
    for quantity in ("prompt", "token"):
        kernels = splitwise_seconds(bench, row, device, NEUTRAL, quantity == "prompt")
        predicted = (
            Parts(0.0, kernels, 1.0, 0.0)
            if quantity == "prompt"
            else Parts(kernels, 0.0, 1.0, float(row["batch_size"]))
        )
        measured = positive_time(float(row[f"{quantity}_time"]) * 1e-3)
        yield Loop(group, shape, predicted, measured)


def group_of(row: Row) -> str:
    return f"{row['model']} {row['system']} {row.get('gemm_quant_mode') or ''}".strip()


def shape_of(row: Row) -> str:
    clients = row.get("batch_size") or row.get("concurrency")
    return f"{row['isl']} {row['osl']} {clients} {row.get('tp')}"


def predicted(rows: list[Loop], terms: dict[str, float]) -> Array:
    """Seconds per token of each row under the terms of an engine."""
    decode, prefill, steps, sequences = (
        np.array([getattr(r.parts, name) for r in rows])
        for name in ("decode", "prefill", "steps", "sequences")
    )
    return np.asarray(
        decode * (1.0 + terms["decode_share"])
        + prefill * (1.0 + terms["prefill_share"])
        + steps * terms["step_us"] * 1e-6
        + sequences * terms["sequence_us"] * 1e-6
    )


def fit_engine(name: str, rows: list[Loop], source: str) -> tuple[EngineTerms, dict[str, str]]:
    """The terms that the rows determine, and why they leave some open. Raises InputError."""
    if len(rows) < LEAST_ROWS:
        raise InputError(f"{len(rows)} rows of {name} are too few; {LEAST_ROWS} are the least")
    measured = np.array([r.measured for r in rows])
    result = search(lambda terms: predicted(rows, terms), measured, START, BOUNDS)
    values: dict[str, Any] = {
        t: float(f"{value:.4g}") if value > 1e-4 else 0.0 for t, value in result.values.items()
    }
    return EngineTerms(name=name, source=source, **values), result.undetermined


def terms_of(engine: EngineTerms) -> dict[str, float]:
    return {term: float(getattr(engine, term)) for term in START}


def calibrate_engine(
    source: MeasuredFile,
    name: str,
    *,
    holdout: float,
    date: str,
    progress: Callable[[str], None] = lambda what: None,
) -> EngineFit:
    """Fit an engine to the rows that are not held out, and score the others.

    `name` is an engine that rows are priced with, or a backend of theirs with a version: vllm-0.13.
    """
    of_phases = source.format == "e2e/splitwise"
    rows, left = phases(source) if of_phases else loops(source, name, progress)
    kept = [r for r in rows if not is_held(f"{r.group} {r.shape}", holdout)]
    held = [r for r in rows if is_held(f"{r.group} {r.shape}", holdout)]
    engine, undetermined = fit_engine(name, kept, "fitted to rows of a file")
    scored = held or kept
    ratio = np.array([r.measured for r in scored]) / predicted(scored, terms_of(engine))
    errors = np.abs(1.0 / ratio - 1.0) * 100
    which = f"{len(held)} rows held out" if held else "the same rows"
    middle, most = np.median(errors), np.quantile(errors, 0.9)
    unit = "step" if of_phases else "token"
    said = (
        f"fitted {date} to {len(kept)} rows of {'/'.join(source.path.parts[-2:])}; error of the "
        f"time a {unit} on {which} {middle:.1f} % (median), {most:.1f} % (p90)"
    )
    q = [float(f"{v:.4g}") for v in np.quantile(ratio, (0.1, 0.25, 0.5, 0.75, 0.9))]
    spread = Spread(rows=len(scored), p10=q[0], p25=q[1], p50=q[2], p75=q[3], p90=q[4])
    quantity = "step" if of_phases else "tpot"
    engine = msgspec.structs.replace(engine, source=said, residuals={quantity: spread})
    return EngineFit(engine, len(kept), tuple(errors.tolist()), undetermined, left)
