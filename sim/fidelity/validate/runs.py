"""A vLLM run as a folder: its kernels' profile, and every request, replayed through `serve`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl
from msgspec import Meta

from sim.errors import InputError, MemorywallError
from sim.fidelity.validate.cells import check_columns
from sim.fidelity.validate.layers import vllm_attention, vllm_dense
from sim.fidelity.validate.names import device_of, dtype_of, model_of, named_device, system_of
from sim.fidelity.validate.points import (
    MeasuredFile,
    MeasurementFormat,
    Place,
    PredictionBench,
    Profiled,
    ScoredPoint,
)
from sim.inputs.catalogue import load_model
from sim.inputs.documents import checked, convert, read_document
from sim.inputs.tables import USUAL, read_table
from sim.inputs.traces.files import Limits
from sim.mapping.parallelism import Parallelism
from sim.serve.config import RequestTraffic, Serving
from sim.serve.knobs import Knobs
from sim.serve.serving import serve

QUANTITIES = ("ttft", "tpot", "latency")
REQUESTS = "requests.csv"
KERNELS = {
    "attention": MeasurementFormat(
        "vllm_runs attention",
        ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us"),
        vllm_attention,
    ),
    "dense": MeasurementFormat("vllm_runs dense", ("layer", "time_us"), vllm_dense),
}


Count = Annotated[int, Meta(ge=0, le=2**31)]  # 0 leaves it to the engine
Degree = Annotated[int, Meta(ge=0, le=65536)]


class EngineArguments(msgspec.Struct, frozen=True):
    """Arguments of vLLM that a replay needs; the others are passed over."""

    model: str | None = None
    dtype: str | None = None
    quantization: str | None = None
    kv_cache_dtype: str | None = None
    tensor_parallel_size: Degree | None = None
    pipeline_parallel_size: Degree | None = None
    data_parallel_size: Degree | None = None
    max_num_seqs: Count | None = None
    max_num_batched_tokens: Count | None = None


class KvCache(msgspec.Struct, frozen=True):
    """The KV memory that vLLM found."""

    num_gpu_blocks: Count | None = None
    block_size: Annotated[int, Meta(ge=0, le=2**20)] | None = None
    gpu_memory_utilization: Annotated[float, Meta(ge=0, le=1)] | None = None


class Hardware(msgspec.Struct, frozen=True):
    """What the run ran on."""

    device_name: str | None = None


class RunRecord(msgspec.Struct, frozen=True):
    """A meta.json."""

    engine_kwargs: EngineArguments | None = None
    model: str | None = None
    kv_cache: KvCache | None = None
    hardware: Hardware | None = None


class Run(msgspec.Struct, frozen=True):
    """What a meta.json states: model, device, engine arguments, KV blocks."""

    folder: Path
    model: str
    device: str
    dtype: str
    kv_dtype: str | None
    engine: EngineArguments
    kv: KvCache

    @property
    def tp(self) -> int:
        return self.engine.tensor_parallel_size or 1


def read_run(folder: Path, device: str | None = None) -> Run:
    """A run from its folder; `device` is the one of the command line. Raises InputError."""
    path = folder / "meta.json"
    meta = convert(read_document(path), RunRecord, str(path))
    engine, kv = meta.engine_kwargs or EngineArguments(), meta.kv_cache or KvCache()
    hardware = (meta.hardware or Hardware()).device_name or ""
    name = meta.model or engine.model or ""
    if not name or not (device or hardware):
        raise InputError(f"{path}: states no model, or no hardware.device_name; say --device")

    def build() -> Run:
        model = model_of(name)
        stated = engine.dtype or "auto"
        dtype = load_model(model).dtype if stated == "auto" else dtype_of(stated)
        if "fp8" in (engine.quantization or ""):
            dtype = "fp8"
        cache = engine.kv_cache_dtype or "auto"
        return Run(
            folder,
            model,
            named_device(device) if device else device_of(hardware),
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
    e, kv, tp, pp = run.engine, run.kv, run.tp, run.engine.pipeline_parallel_size or 1
    replicas, budget = e.data_parallel_size or 1, e.max_num_batched_tokens or 2048
    return Serving(
        model=run.model,
        on=run.device if tp * pp == 1 else system_of(run.device, tp * pp),
        dtype=run.dtype,
        kv_dtype=run.kv_dtype,
        replicas=replicas,
        router="least-outstanding" if replicas > 1 else "round-robin",
        traffic=RequestTraffic(trace=str(run.folder / REQUESTS)),
        knobs=Knobs(
            max_num_seqs=min(e.max_num_seqs or 256, budget),
            max_num_batched_tokens=budget,
            block_size=kv.block_size or 16,
        ),
        parallelism=Parallelism(tp=tp, pp=pp),
        gpu_memory_utilization=kv.gpu_memory_utilization or 0.9,
        kv_blocks=kv.num_gpu_blocks or None,
        keep_steps=False,
    )


def kernel_tables(run: Run) -> Iterator[tuple[Path, str, int]]:
    """(file, "attention" or "dense", tp) of the profiles that lie in the run's folder."""
    for inside in sorted(run.folder.glob("kernels_tp*")):
        digits = inside.name.removeprefix("kernels_tp")
        tp = int(digits) if re.fullmatch("[1-9][0-9]{0,4}", digits) else 1
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
    measured = {q: _milliseconds(source, f"{q}_ms") * 1e-3 for q in QUANTITIES}
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


def _milliseconds(source: MeasuredFile, column: str) -> npt.NDArray[np.float64]:
    """A column of measured times. Raises InputError for what is no time of 0 or more."""
    cells = source.frame[column]
    numeric = cells.dtype.is_numeric()
    times = cells.to_numpy().astype(np.float64) if numeric else np.array([math.nan])
    if not len(times) or not ((times >= 0) & (times < math.inf)).all():
        raise InputError(
            f"{source.path}: column {column!r}: must hold a time of 0 or more in each row"
        )
    return times


def run_tables(folder: Path, device: str | None, limits: Limits = USUAL) -> Iterator[MeasuredFile]:
    """Everything of a run as sources whose formats carry what its meta.json says."""
    run = read_run(folder, device)
    model = load_model(run.model)
    for path, kind, tp in kernel_tables(run):
        what = Profiled(model, run.device, run.dtype, tp)
        form = KERNELS[kind]
        yield MeasuredFile(path, form, _frame(path, form.columns, limits), what)
    path = folder / REQUESTS
    if path.is_file():
        frame = _frame(path, [f"{q}_ms" for q in QUANTITIES], limits)
        yield MeasuredFile(path, requests_format(run), frame)


def _frame(path: Path, columns: Iterable[str], limits: Limits) -> pl.DataFrame:
    """A table of a run that has some columns."""
    frame = read_table(path, limits)
    try:
        check_columns(frame.columns, columns)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return frame


def has_run(folder: Path) -> bool:
    """Whether a folder holds a run: a meta.json with engine arguments."""
    path = folder / "meta.json"
    if not path.is_file():
        return False
    try:
        return "engine_kwargs" in read_document(path)
    except InputError:
        return False
