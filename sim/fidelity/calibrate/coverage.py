"""How often measured times of steps, layers and runs lie in the 80 % intervals of predictions.

No row is judged by what was fitted to it: an engine's terms and residuals come from other groups of
(model, system, degree of parallelism), a layer's from another model, a mixed batch's residuals from
other shapes. A vLLM run was never fitted to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from hw_models.device import Device
from hw_models.efficiency import Efficiency, Spread
from sim.account.intervals import Class, Interval, interval
from sim.fidelity.calibrate.calibrate import calibrate, errors, spreads
from sim.fidelity.calibrate.engines import Loop, fit_engine, loops, phases, predicted, terms_of
from sim.fidelity.calibrate.frames import is_held, pieces
from sim.fidelity.validate.layers import VIDUR_DTYPE, vidur_op
from sim.fidelity.validate.names import model_of, system_of
from sim.fidelity.validate.points import MeasuredFile, PredictionBench
from sim.fidelity.validate.runs import read_run, run_tables, serving_of_run
from sim.fidelity.validate.score import table
from sim.fidelity.validate.serving import UNKNOWN, config_of, engine_of
from sim.fidelity.validate.session import read
from sim.inputs.catalogue import load_device
from sim.mapping.parallelism import Parallelism
from sim.scenario import Scenario, precision_of
from sim.serve.host import EngineTerms
from sim.serve.intervals import Partition, Steps, intervals
from sim.serve.serving import serve
from sim.studies.sweep.points import looked_up
from workloads.batch import Batch
from workloads.block import Lowering

Ratio = tuple[float, Interval]  # measured over predicted, and the interval of the prediction
StepsOf = Callable[[EngineTerms], Steps]  # once the engine is known
Step = tuple[Loop, StepsOf, Batch]  # what was measured, and a step that stands for it
DOUBLED = 2  # residual additions of a layer, of which the profile has one


def covered(ratios: list[Ratio]) -> float:
    """The share of measured values that lie in their intervals."""
    return float(np.mean([sure.low <= ratio <= sure.high for ratio, sure in ratios]))


def fits(ratios: list[Ratio]) -> bool:
    """Whether about as many as there should be are covered; of a few rows, enough of them."""
    share = covered(ratios)
    return share >= LEAST - SLACK and (share <= MOST + SLACK or len(ratios) < 20)


def closed_loops(source: MeasuredFile) -> dict[str, list[Step]]:
    """Rows of e2e/silicon by engine, each with the decode step that it mostly is."""
    bench = PredictionBench()
    by_format: dict[str, list[Step]] = {}
    for i, row in enumerate(source.frame.iter_rows(named=True)):
        measured, _ = loops(one_row(source, i), UNKNOWN)
        if not measured:
            continue
        config = config_of(row, bench, bench.device(str(row["system"])), "none")
        clients = int(row.get("batch_size") or row["concurrency"])
        batch = Batch.decode(clients, int(row["isl"]) + int(row["osl"]) // 2)
        steps = steps_of(config.model, config.on, config.parallelism, config.dtype, config.kv_dtype)
        by_format.setdefault(engine_of(row), []).append((measured[0], steps, batch))
    return by_format


def single_steps(source: MeasuredFile) -> list[Step]:
    """Rows of e2e/splitwise_perf: the prompt phase of each, and its token phase."""
    single: list[Step] = []
    both, _ = phases(source)
    bench = PredictionBench()
    for i, row in enumerate(source.frame.iter_rows(named=True)):
        count, new, tp = row["batch_size"], row["prompt_size"], row["tensor_parallel"]
        system = system_of(bench.device(str(row["hardware"])), tp)
        steps = steps_of(model_of(row["model"]), system, Parallelism(tp=tp), "fp16", None)
        token = Batch.decode(count, new + max(1, row["token_size"] // 2))
        single += [(both[2 * i], steps, Batch.prefill(count, new)), (both[2 * i + 1], steps, token)]
    return single


def steps_of(
    model: str, on: str, split: Parallelism, dtype: str | None, kv_dtype: str | None
) -> StepsOf:
    """Steps of an engine that is not known yet."""
    one, machine = looked_up(model, on, {})
    form = precision_of(one, Scenario(model=model, on=on, dtype=dtype, kv_dtype=kv_dtype))
    return lambda engine: Steps(Partition(one, split, Lowering()), machine, form, engine)


def one_row(source: MeasuredFile, number: int) -> MeasuredFile:
    return msgspec.structs.replace(source, frame=source.frame[number : number + 1])


def groups_unseen(steps: dict[str, list[Step]]) -> Iterator[Ratio]:
    """Each group by an engine that was fitted without it: to half of the rows of the engine's other
    groups (of all engines, where it has no other), with the residuals of their other half."""
    for name, own in steps.items():
        for group in sorted({one.group for one, _, _ in own}):
            others = [step for step in own if step[0].group != group]
            others = others or [s for n in steps if n != name for s in steps[n]]
            kept, held = halves(others)
            engine = judged_by(fitted(kept), held)
            yield from judged([s for s in own if s[0].group == group], engine)


def rows_unseen(steps: list[Step]) -> Iterator[tuple[str, Ratio]]:
    """Rows that an engine's fit held out, by phase: each half of them by residuals of the other."""
    kept, held = halves(steps)
    engine = fitted(kept)
    first = [is_held(f"half {one.group} {one.shape}", 0.5) for one, _, _ in held]
    for which in (True, False):
        mine = [step for step, side in zip(held, first, strict=True) if side == which]
        rest = [step for step, side in zip(held, first, strict=True) if side != which]
        phase = [batch.phase for _, _, batch in mine]
        yield from zip(phase, judged(mine, judged_by(engine, rest)), strict=True)


def halves(steps: list[Step]) -> tuple[list[Step], list[Step]]:
    """Rows to fit, and rows held out."""
    held = [is_held(f"{one.group} {one.shape}", 0.5) for one, _, _ in steps]
    sides = [[s for s, out in zip(steps, held, strict=True) if out == side] for side in (0, 1)]
    return sides[0], sides[1]


def fitted(steps: list[Step]) -> EngineTerms:
    return fit_engine("others", [one for one, _, _ in steps], "a part of the rows")[0]


def judged_by(engine: EngineTerms, steps: list[Step]) -> EngineTerms:
    """The engine with the residuals of these rows."""
    ratio = ratios(steps, engine)
    q = [float(x) for x in np.quantile(ratio, (0.1, 0.25, 0.5, 0.75, 0.9))]
    spread = Spread(rows=len(ratio), p10=q[0], p25=q[1], p50=q[2], p75=q[3], p90=q[4])
    return msgspec.structs.replace(engine, residuals={"tpot": spread})


def judged(steps: list[Step], engine: EngineTerms) -> Iterator[Ratio]:
    for (_, make, batch), value in zip(steps, ratios(steps, engine), strict=True):
        sure = make(engine).interval(batch)
        assert sure is not None
        yield float(value), sure


def ratios(steps: list[Step], engine: EngineTerms) -> Any:
    """Measured over predicted time."""
    rows = [one for one, _, _ in steps]
    return np.array([row.measured for row in rows]) / predicted(rows, terms_of(engine))


def layers(source: MeasuredFile, fitted: str, bare: Device, every: int = 1) -> Iterator[Ratio]:
    """Layers of vidur/mlp of all models but one, by terms that were fitted to that one alone;
    one in `every` numbers of tokens."""
    is_fitted = pl.col("model") == fitted
    kept = msgspec.structs.replace(source, frame=source.frame.filter(is_fitted))
    device = calibrate([kept], bare, holdout=0.25, date="now").device
    tokens = source.frame["num_tokens"].unique().sort().to_list()[::every]
    rest = source.frame.filter(~is_fitted & pl.col("num_tokens").is_in(tokens))
    bench = PredictionBench(own=device)
    keys = ["model", "tp", "num_tokens"]
    means = rest.group_by(*keys, "op", maintain_order=True).agg(
        pl.exclude("latency_us").first(), pl.col("latency_us").mean()
    )
    layer_rows = means.filter(pl.col("op") != "emb").with_columns(
        pl.when(pl.col("op") == "add").then(DOUBLED).otherwise(1).alias("times")
    )
    for _, part in layer_rows.group_by(keys, maintain_order=True):
        times: dict[Class, int] = {}
        measured = 0.0
        for row in part.iter_rows(named=True):
            op = vidur_op(row)
            ticks = row["times"] * round(bench.seconds(device.name, VIDUR_DTYPE, op) * 1e12)
            times["decode", op.kind] = times.get(("decode", op.kind), 0) + ticks
            measured += row["times"] * row["latency_us"] * 1e6
        sure = interval(times, device.efficiency, VIDUR_DTYPE)
        assert sure is not None
        yield measured / sum(times.values()), sure


def kernels(source: MeasuredFile, device: str, share: float, only: str) -> Iterator[Ratio]:
    """Rows of a set that the fit held out: those of one half of the shapes by the residuals of the
    other half."""
    families, _ = pieces([source], device)
    parts = [piece for group in families.values() for piece in group]
    points = errors(load_device(device), parts, lambda shape: is_held(shape, share))
    points = points.filter(pl.col("set") == only)
    first = pl.Series([is_held(f"half {row}", 0.5) for row in points["row"]])
    for judged in (first, ~first):
        spread = spreads(points.filter(~judged))["all"]
        rest = points.filter(judged)
        for value in (rest["measured_s"] / rest["predicted_s"]).to_list():
            yield value, Interval(spread.p10, spread.p90)


def requests(source: MeasuredFile) -> dict[str, list[Ratio]]:
    """Requests of a vLLM run by the intervals of its mean TTFT and TPOT; throughput is of all
    together, tokens from the first arrival to the last token."""
    run = serving_of_run(read_run(source.path.parent))
    served = serve(run)
    sure = intervals(served)
    points = table(source.form.read(source, PredictionBench()))
    ratios: dict[str, list[Ratio]] = {}
    for name, quantities in (("ttft", ("ttft", "mean ttft")), ("tpot", ("tpot", "mean tpot"))):
        for quantity in quantities:
            some = points.filter(pl.col("quantity") == quantity)
            ratios[quantity] = [
                (value, sure[name])
                for value in (some["measured_s"] / some["predicted_s"]).to_list()
            ]
    frame = source.frame
    span = float(frame["last_token_s"].max() - frame["arrival_s"].min())  # type: ignore[operator, arg-type]
    ratios["throughput"] = [(served.makespan * 1e-12 / span, sure["tpot"].inverse)]
    return ratios


def source_of(path: Path) -> MeasuredFile:
    """One table of measurements."""
    return next(iter(read([path], None, None, [])))


def _closed_loops(data: Path) -> list[Ratio]:
    return list(groups_unseen(closed_loops(source_of(data / "e2e" / "silicon.csv"))))


@lru_cache(maxsize=1)
def _phases(data: Path) -> list[tuple[str, Ratio]]:
    return list(rows_unseen(single_steps(source_of(data / "e2e" / "splitwise_perf.csv"))))


def _phase(data: Path, which: str) -> list[Ratio]:
    return [ratio for phase, ratio in _phases(data) if phase == which]


def _layers(data: Path) -> list[Ratio]:
    table = source_of(data / "vidur" / "mlp.parquet")
    one = msgspec.structs.replace(table, frame=table.frame.filter(pl.col("device") == "a100"))
    bare = msgspec.structs.replace(load_device(A100), efficiency=Efficiency())
    return [
        ratio
        for model in one.frame["model"].unique().sort().to_list()
        for ratio in layers(one, model, bare, every=6)
    ]


def _of_run(data: Path, file: str) -> MeasuredFile:
    folder = data / "vllm_runs" / "RTX4090_Llama-3.1-8B"
    return next(one for one in run_tables(folder, None) if one.path.name == file)


def _mixed(data: Path) -> list[Ratio]:
    return list(kernels(_of_run(data, "attention.csv"), RTX, 0.25, "vllm_runs attention mixed"))


def _requests(data: Path) -> list[Ratio]:
    ratios = requests(_of_run(data, "requests.csv"))
    return ratios["ttft"] + ratios["tpot"]


def _means(data: Path) -> list[Ratio]:
    ratios = requests(_of_run(data, "requests.csv"))
    return ratios["mean ttft"] + ratios["mean tpot"] + ratios["throughput"]


A100, RTX = "a100-sxm-80gb", "rtx-4090"
LEAST, MOST = 0.65, 0.95  # of rows are to lie in 80 % intervals
SLACK = 0.02  # rows of one curve over sizes err alike: hundreds of them say as much as tens
SETS: dict[str, Callable[[Path], list[Ratio]]] = {
    "e2e/silicon TPOT, groups unseen": _closed_loops,
    "e2e/splitwise prompt phase (TTFT)": lambda data: _phase(data, "prefill"),
    "e2e/splitwise token phase (TPOT)": lambda data: _phase(data, "decode"),
    "vidur layers, model unseen, A100": _layers,
    "mixed attention, RTX 4090": _mixed,
    "vLLM run, TTFT and TPOT of requests": _requests,
    "vLLM run, mean TTFT, mean TPOT, throughput": _means,  # of three, all are to lie in them
}
