"""A vLLM run as a folder: its kernels' profile, and every request, replayed through `serve`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from sim.errors import InputError, MemorywallError
from sim.fidelity.validate.layers import vllm_attention, vllm_dense
from sim.fidelity.validate.names import device_of, dtype_of, model_of, system_of
from sim.fidelity.validate.points import (
    MeasuredFile,
    MeasurementFormat,
    Place,
    PredictionBench,
    Profiled,
    ScoredPoint,
)
from sim.inputs.catalogue import load_model
from sim.inputs.documents import checked, read_document
from sim.mapping.parallelism import Parallelism
from sim.serve.config import RequestTraffic, Serving
from sim.serve.knobs import Knobs
from sim.serve.serving import serve

QUANTITIES = ("ttft", "tpot", "latency")


class Run(msgspec.Struct, frozen=True):
    """What a meta.json states: model, device, engine arguments, KV blocks."""

    folder: Path
    model: str
    device: str
    dtype: str
    kv_dtype: str | None
    engine: dict[str, Any]
    kv: dict[str, Any]

    @property
    def tp(self) -> int:
        return int(self.engine.get("tensor_parallel_size") or 1)


def read_run(folder: Path, device: str | None = None) -> Run:
    """A run from its folder. Raises InputError."""
    path = folder / "meta.json"
    meta = read_document(path)

    def build() -> Run:
        engine, kv = meta.get("engine_kwargs") or {}, meta.get("kv_cache") or {}
        hardware = (meta.get("hardware") or {}).get("device_name", "")
        name = str(meta.get("model") or engine.get("model") or "")
        if not name or not (device or hardware):
            raise ValueError("states no model, or no hardware.device_name; say --device")
        model = model_of(name)
        own = load_model(model).dtype
        stated = str(engine.get("dtype") or "auto")
        dtype = own if stated == "auto" else dtype_of(stated)
        if "fp8" in str(engine.get("quantization") or ""):
            dtype = "fp8"
        cache = str(engine.get("kv_cache_dtype") or "auto")
        return Run(
            folder,
            model,
            device_of(device or hardware),
            dtype,
            None if cache == "auto" else dtype_of(cache.partition("_")[0]),
            engine,
            kv,
        )

    return checked(str(path), build)


def serving_of_run(run: Run) -> Serving:
    """The run as `serve` takes it, with the engine's own arguments.

    No host time: vLLM schedules a step while the last one runs since 0.14, and the run itself is
    a check and no fit.
    """
    e, kv, tp = run.engine, run.kv, run.tp
    devices = tp * int(e.get("pipeline_parallel_size") or 1)
    blocks = kv.get("num_gpu_blocks")
    budget = e.get("max_num_batched_tokens") or 2048
    return Serving(
        model=run.model,
        on=run.device if devices == 1 else system_of(run.device, devices),
        dtype=run.dtype,
        kv_dtype=run.kv_dtype,
        replicas=int(e.get("data_parallel_size") or 1),
        router="least-outstanding" if (e.get("data_parallel_size") or 1) > 1 else "round-robin",
        traffic=RequestTraffic(trace=str(run.folder / "requests.csv")),
        knobs=Knobs(
            max_num_seqs=min(e.get("max_num_seqs") or 256, budget),
            max_num_batched_tokens=budget,
            block_size=kv.get("block_size") or 16,
        ),
        parallelism=Parallelism(tp=tp, pp=int(e.get("pipeline_parallel_size") or 1)),
        gpu_memory_utilization=kv.get("gpu_memory_utilization") or 0.9,
        kv_blocks=int(blocks) if blocks else None,
        keep_steps=False,
    )


def kernel_tables(run: Run) -> Iterator[tuple[Path, str, int]]:
    """(file, "attention" or "dense", tp) of the profiles that lie in the run's folder."""
    for inside in sorted(run.folder.glob("kernels_tp*")):
        digits = inside.name.removeprefix("kernels_tp")
        tp = int(digits) if digits.isdecimal() else 1
        for name in ("attention", "dense", "per_sequence"):
            path = inside / f"{name}.csv"
            if path.is_file():
                yield path, "attention" if name == "attention" else "dense", tp


def requests_format(run: Run) -> MeasurementFormat:
    """The reader of requests.csv: every request, and the means over them."""

    def read(source: MeasuredFile, bench: PredictionBench) -> Iterator[ScoredPoint]:
        yield from request_points(run, source)

    return MeasurementFormat("vllm_runs requests", (), read)


def request_points(run: Run, source: MeasuredFile) -> Iterator[ScoredPoint]:
    """TTFT, TPOT and latency of every request, then of all together."""
    name = run.folder.name

    def place(which: str) -> Place:
        return Place(f"vllm_runs {which}", run.device, run.dtype, name, "", name)

    frame = source.frame
    measured = {q: frame[f"{q}_ms"].to_numpy() * 1e-3 for q in QUANTITIES}
    try:
        table = serve(serving_of_run(run)).requests.frame().sort("index")
    except MemorywallError as error:
        for q in QUANTITIES:
            yield ScoredPoint(0, f"mean {q}", place("means"), float("nan"), None, str(error))
        return
    if len(table) != len(frame):
        raise InputError(f"{source.path}: {len(frame)} requests, {len(table)} of them served")
    arrival, first, last = (
        table[f"{n}_ps"].to_numpy() * 1e-12 for n in ("arrival", "first_token", "last_token")
    )
    gaps = (table["output_tokens"].to_numpy() - 1).clip(1)
    predicted = {"ttft": first - arrival, "tpot": (last - first) / gaps, "latency": last - arrival}
    for q in QUANTITIES:
        for row, (a, b) in enumerate(zip(measured[q], predicted[q], strict=True)):
            if a > 0:
                yield ScoredPoint(row, q, place("requests"), float(a), float(b))
    for q in QUANTITIES:
        mean = float(measured[q].mean()), float(predicted[q].mean())
        yield ScoredPoint(0, f"mean {q}", place("means"), *mean)


def run_tables(folder: Path, device: str | None) -> Iterator[MeasuredFile]:
    """Everything of a run as sources whose formats carry what its meta.json says."""
    run = read_run(folder, device)
    model = load_model(run.model)
    for path, kind, tp in kernel_tables(run):
        what = Profiled(model, run.device, run.dtype, tp)
        reader = vllm_attention if kind == "attention" else vllm_dense
        yield MeasuredFile(
            path, MeasurementFormat(f"vllm_runs {kind}", (), reader), pl.read_csv(path), what
        )
    path = folder / "requests.csv"
    if path.is_file():
        yield MeasuredFile(path, requests_format(run), pl.read_csv(path, infer_schema_length=None))


def has_run(folder: Path) -> bool:
    """Whether a folder holds a run: a meta.json with engine arguments."""
    path = folder / "meta.json"
    if not path.is_file():
        return False
    try:
        return "engine_kwargs" in json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
