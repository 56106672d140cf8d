"""Closed-loop serving benchmarks, replayed through `serve`.

How such a benchmark is run is not in its rows, and decides its TTFT: so it is taken from what the
publishers' scripts say. All clients start at once and send ten requests each; the mean is over all
of them, the first rush among them. A request that follows an answer finds the next step planned.

* Rows that state a version are aiconfigurator's own (genai-perf, src/aiconfigurator/eval): equal
  lengths. Its engines are set up for its search: about one prompt per step, and TensorRT-LLM's
  KV cache in fp8 where the weights are (assumed: of what was tried this alone fits the slope of the
  time per token over the clients).
* Rows without one are InferenceMAX's (SemiAnalysis, benchmarks/70b_fp8_*.sh, vLLM 0.10.2): lengths
  uniform from 80 to 100 % of those stated, 8,192 tokens per step, KV cache in fp8 where the weights
  are, and the next step scheduled while one runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from sim.errors import InputError, quoted
from sim.fidelity.validate.cells import Row
from sim.fidelity.validate.names import model_of, system_of
from sim.fidelity.validate.points import (
    MeasuredFile,
    Place,
    PredictionBench,
    Reading,
    ScoredPoint,
    priced,
)
from sim.inputs.catalogue import load_model
from sim.mapping.parallelism import Parallelism
from sim.serve.config import RequestTraffic, Serving
from sim.serve.knobs import Knobs
from sim.serve.serving import Served, serve

ROUNDS = 10  # requests a client
TURNAROUND_S = 0.001  # from an answer to the next request: less than a step, more than nothing
SHORTEST = 0.8  # of the stated length, in InferenceMAX's rows
BUDGET = 8192  # tokens per step
ASYNCHRONOUS = "vllm-async"
# Terms by backend; where a backend is not known, those of all rows together.
ENGINES = {"vllm": "vllm-0.12", "trtllm": "trtllm-1.0"}
UNKNOWN = "generic"
SINCE = (0, 14)  # vLLM schedules a step while the last one runs


def silicon(source: MeasuredFile, bench: PredictionBench) -> Iterator[ScoredPoint]:
    """TTFT and TPOT, means over the requests of a closed loop of `concurrency` clients."""

    def place(row: Row, device: str) -> Place:
        shape = " ".join(str(row[c]) for c in ("backend", "model", "system", "tp"))
        dtype = dtype_of_row(row)
        return Place(source.format, device, dtype, str(row["backend"]), "", shape)

    for quantity in ("tpot", "ttft"):
        at = 0 if quantity == "ttft" else 1
        yield from priced(
            source,
            bench,
            place,
            lambda row, device, i=at: _measured_means(config_of(row, bench, device))[i],  # type: ignore[misc]
            Reading(
                device=lambda row: row["system"],
                measured=lambda row, q=quantity: float(row[f"{q}_ms"]) * 1e-3,  # type: ignore[misc]
                quantity=quantity,
            ),
        )


def dtype_of_row(row: Row) -> str:
    """`gemm_quant_mode`, or the model's own format."""
    mode = str(row.get("gemm_quant_mode") or "").lower()
    if mode in ("", "none", "float16", "bfloat16"):
        return load_model(model_of(row["model"])).dtype
    if mode.startswith("fp8"):
        return "fp8"
    if mode in ("int8_wo", "int4_wo"):
        return "w8a16" if mode == "int8_wo" else "w4a16"
    if mode.startswith(("nvfp4", "fp4")):
        return "fp4"
    raise InputError(f"gemm_quant_mode {quoted(mode)} is not known")


def stated(row: Row) -> bool:
    """Whether a row tells the version of its engine, as those that aiconfigurator measured do."""
    return bool(row.get("backend_version"))


def engine_of(row: Row) -> str:
    """The engine whose terms a row is priced with."""
    backend = str(row["backend"])
    if backend == "vllm":
        version = re.findall(r"[0-9]{1,6}", str(row.get("backend_version") or ""))[:2]
        if not version or tuple(map(int, version)) >= SINCE:
            return ASYNCHRONOUS
    return ENGINES.get(backend, UNKNOWN)


def config_of(row: Row, bench: PredictionBench, device: str, engine: str | None = None) -> Serving:
    """The serving run that a row states. `engine` "none" leaves the host's time out."""
    clients = row.get("batch_size") or row.get("concurrency")
    if not clients:
        raise InputError("neither batch_size nor concurrency is stated")
    if row.get("mode") not in (None, "agg"):
        raise InputError(f"mode {quoted(row['mode'])}: only aggregated serving is replayed")
    tp, pp = int(row.get("tp") or 1), int(row.get("pp") or 1)
    if (row.get("attention_dp_size") or 1) > 1 or (row.get("moe_ep_size") or 1) > 1:
        raise InputError("attention data parallelism and expert parallelism are not modelled")
    if tp * pp == 1:
        on = device
    elif "/" in device or device.endswith(".toml"):
        raise InputError(f"{device}: tp x pp = {tp * pp} needs a system, and this is a device")
    else:
        on = system_of(device, tp * pp)
    clients = int(clients)
    dtype, own = dtype_of_row(row), stated(row)
    isl, osl = int(row["isl"]), int(row["osl"])
    small = dtype in ("fp8", "fp4")
    return Serving(
        model=model_of(row["model"]),
        on=on,
        dtype=dtype,
        kv_dtype=("bf16" if own and row["backend"] == "vllm" else "fp8") if small else None,
        engine=engine or engine_of(row),
        traffic=RequestTraffic(
            arrivals=f"closed:{clients}:think={TURNAROUND_S}",
            prompt=_lengths(isl, own),
            output=_lengths(osl, own),
            num_requests=ROUNDS * clients,
        ),
        knobs=Knobs(
            max_num_seqs=max(256, clients),
            max_num_batched_tokens=max(256, isl) + clients if own else max(BUDGET, clients),
        ),
        parallelism=Parallelism(tp=tp, pp=pp),
        keep_steps=engine == "none",
    )


def _lengths(stated: int, equal: bool) -> str:
    return f"fixed:{stated}" if equal else f"uniform:{max(1, int(SHORTEST * stated))}-{stated}"


def means(served: Served) -> tuple[float, float]:
    """(TTFT, TPOT) in seconds, means over the requests."""
    table = served.requests.frame()
    if not len(table):
        raise InputError("no request fits into the KV memory")
    arrival, first, last = (
        table[f"{n}_ps"].to_numpy() for n in ("arrival", "first_token", "last_token")
    )
    gaps = np.maximum(1, table["output_tokens"].to_numpy() - 1)
    return float(np.mean(first - arrival)) * 1e-12, float(np.mean((last - first) / gaps)) * 1e-12


def _measured_means(config: Serving) -> tuple[float, float]:
    return _served_means(msgspec.json.encode(config))


@lru_cache(maxsize=4096)
def _served_means(config: bytes) -> tuple[float, float]:
    return means(serve(msgspec.json.decode(config, type=Serving)))


class Parts(msgspec.Struct, frozen=True):
    """TPOT of a run without host time, by what an engine's terms multiply; seconds, numbers.

    A closed loop takes the same steps however long they are (as long as one lasts longer than a
    client's turnaround), so its TPOT is linear in the engine's terms: decode (1 + share) +
    prefill (1 + share) + steps and sequences.
    """

    decode: float
    prefill: float
    steps: float
    sequences: float


def parts(config: Serving) -> Parts:
    """The parts of TPOT, means over the requests."""
    served = serve(config)
    requests = served.requests.frame()
    steps = pl.concat([s.frame() for s in served.steps]).sort("start_ps")
    duration = steps["duration_ps"].to_numpy().astype(np.float64) * 1e-12
    ends = (steps["start_ps"] + steps["duration_ps"]).to_numpy()
    prompts = steps["prefill_tokens"].to_numpy() > 0
    sequences = steps["decode_tokens"].to_numpy().astype(np.float64)
    first, last = (requests[f"{n}_ps"].to_numpy() for n in ("first_token", "last_token"))
    gaps = np.maximum(1, requests["output_tokens"].to_numpy() - 1)

    def mean(values: npt.NDArray[Any]) -> float:
        sums = np.concatenate([[0.0], np.cumsum(values)])
        low = np.searchsorted(ends, first, side="right")
        high = np.searchsorted(ends, last, side="right")
        return float(np.mean((sums[high] - sums[low]) / gaps))

    return Parts(
        mean(duration * ~prompts),
        mean(duration * prompts),
        mean(np.ones(len(steps))),
        mean(sequences),
    )
