"""Whole forward passes: NeuSight's eager runs, splitwise-sim's prompt and token phases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

from sim.cost.collectives import Network
from sim.cost.model import CostModel
from sim.fidelity.validate.cells import Row
from sim.fidelity.validate.eager import Eager
from sim.fidelity.validate.kernels import precision
from sim.fidelity.validate.layers import gpus_of
from sim.fidelity.validate.names import model_of
from sim.fidelity.validate.points import (
    TICKS_A_SECOND,
    MeasuredFile,
    Place,
    PredictionBench,
    Reading,
    ScoredPoint,
    priced,
)
from sim.inputs.catalogue import load_model
from sim.mapping.parallelism import shard
from sim.mapping.priced import TensorGroup, price_blocks
from sim.serve.host import EngineTerms, host_of, load_engine
from workloads.batch import Batch, Sequence
from workloads.block import Lowering
from workloads.graph import build_graph
from workloads.model import Model


def pass_ticks(
    model: Model, batch: Batch, costs: CostModel, network: Network, tp: int, lowering: Lowering
) -> int:
    """One forward pass on `tp` devices, kernels one after the other, as `run` prices it."""
    form = precision(costs.dtype)
    graph = build_graph(shard(model, tp), batch, form, lowering, ways=tp)
    group = tuple(range(tp)) if tp > 1 else ()
    work = price_blocks(graph.placed, costs, TensorGroup(network, group))
    return sum(one.block.duration for one in work)


def neusight_passes(source: MeasuredFile, bench: PredictionBench) -> Iterator[ScoredPoint]:
    """One forward pass in fp32 with eager kernels; `option` fusion joins element-wise ones.

    Attention is materialised, Q, K and V are separate products where the model's own code has
    them so, and every token gets logits. Names such as H100x4 mean tensor parallelism.
    """
    eager = Eager(bench, "fp32")

    def place(row: Row, device: str) -> Place:
        option = row.get("option") or "eager"
        return Place(source.format, device, "fp32", str(option), "", model_of(row["model"]))

    def price(row: Row, device: str) -> float:
        model, count, length = load_model(model_of(row["model"])), row["batch"], row["seq_len"]
        if model.decoder is None:
            batch = Batch.encode(count, length)
        elif model.encoder is None:
            batch = Batch.uniform(count, Sequence(new=length, logits=length))
        else:
            batch = Batch.uniform(count, Sequence(new=length, source=length, logits=length))
        lowering = Lowering(
            attention="materialised",
            projections="fused" if model.architecture == "gpt2" else "separate",
            fusion=row.get("option") == "fusion",
        )
        tp = gpus_of(row["device"])
        network = bench.network(device, tp)
        costs = bench.costs(device, "fp32") if lowering.fusion else eager.costs(device, model)
        return pass_ticks(model, batch, costs, network, tp, lowering) / TICKS_A_SECOND

    reading = Reading(measured=lambda row: float(row["latency_ms"]) * 1e-3)
    return priced(source, bench, place, price, reading)


# splitwise-sim's profile: "prompt_time", "token_time" of one batch of equal sequences.
SPLITWISE_ENGINE = "vllm-2023"


def splitwise(source: MeasuredFile, bench: PredictionBench) -> Iterator[ScoredPoint]:
    """The prompt phase, and the mean of the token phase, of a batch of equal sequences."""
    engine = load_engine(SPLITWISE_ENGINE)

    def place(row: Row, device: str) -> Place:
        shape = f"{row['prompt_size']}x{row['batch_size']}x{row['tensor_parallel']}"
        regime = f"tp {row['tensor_parallel']}"
        return Place(source.format, device, "fp16", regime, "", shape)

    def phase(prompt: bool) -> Callable[[Row, str], float]:
        return lambda row, device: splitwise_seconds(bench, row, device, engine, prompt)

    for quantity, prompt in (("prompt", True), ("token", False)):
        column = f"{quantity}_time"
        yield from priced(
            source,
            bench,
            place,
            phase(prompt),
            Reading(
                device=lambda row: row["hardware"],
                measured=lambda row, c=column: float(row[c]) * 1e-3,  # type: ignore[misc]
                quantity=quantity,
            ),
        )


def splitwise_seconds(
    bench: PredictionBench, row: Row, device: str, engine: EngineTerms, prompt: bool
) -> float:
    """Of one phase: its kernels, and what the engine adds."""
    tp, count = row["tensor_parallel"], row["batch_size"]
    new = row["prompt_size"]
    batch = (
        Batch.prefill(count, new)
        if prompt
        else Batch.decode(count, new + max(1, row["token_size"] // 2))
    )
    kernels = _kernels(bench, row["model"], device, tp, batch)
    decoding = 0 if prompt else count
    added = host_of(engine).added(kernels, decoding, prompt)
    return (kernels + added) / TICKS_A_SECOND


def _kernels(bench: PredictionBench, name: str, device: str, tp: int, batch: Batch) -> int:
    costs, network = bench.costs(device, "fp16"), bench.network(device, tp)
    return _priced_pass(bench, model_of(name), costs, network, tp, batch)


@lru_cache(maxsize=4096)
def _priced_pass(
    bench: PredictionBench, name: str, costs: CostModel, network: Network, tp: int, batch: Batch
) -> int:
    return pass_ticks(load_model(name), batch, costs, network, tp, Lowering())
