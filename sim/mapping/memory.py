"""Does it fit? Weights, KV cache and peak activations of a device against its HBM."""

from __future__ import annotations

from functools import reduce
from typing import Any, NamedTuple

import msgspec

from hw_models.device import Device
from sim.errors import OutOfMemory
from sim.mapping.parallelism import Parallelism, shard, stage_bounds
from workloads.batch import Batch
from workloads.block import Lowering
from workloads.counts import embedding_parameters, head_parameters, layer_parameters
from workloads.graph import Graph, build_graph
from workloads.model import Model
from workloads.ops import least, most
from workloads.precision import Precision, packed


class Footprint(msgspec.Struct, frozen=True):
    """Bytes on the fullest device of one stage."""

    stage: int
    weights: int
    kv: int
    activations: int
    capacity: int

    @property
    def total(self) -> int:
        return self.weights + self.kv + self.activations

    @property
    def fits(self) -> bool:
        return self.total <= self.capacity

    def sentence(self) -> str:
        """The sum, in GB."""
        gb = [f"{x / 1e9:.2f}" for x in (self.weights, self.kv, self.activations, self.total)]
        return (
            f"stage {self.stage}: weights {gb[0]} + KV {gb[1]} + activations {gb[2]} = {gb[3]} GB "
            f"of {self.capacity / 1e9:.2f} GB HBM per device"
        )


class Widest(NamedTuple):
    """The pass with the largest activations, and the tokens that each sequence keeps in the KV
    cache."""

    batch: Batch
    context: int


def footprints(
    model: Model,
    device: Device,
    split: Parallelism,
    widest: Widest,
    precision: Precision,
    lowering: Lowering,
) -> list[Footprint]:
    """The footprint of each stage.

    Every sequence of a replica keeps its cache; activations are those of one micro-batch: the
    largest set of tensors that one operator reads and writes, plus the residual stream.
    """
    batch, context = widest
    local = shard(model, split.tp)
    share = batch.split(split.dp)[0]
    micro = share.split(split.microbatches)[0]
    graph = build_graph(local, micro, precision, lowering, ways=split.tp)
    source = max((g.sequence.source + g.sequence.source_cached for g in batch.groups), default=0)
    return [
        Footprint(stage, weights, kv, activations, int(device.hbm.capacity))
        for stage, (weights, kv, activations) in enumerate(
            needs(model, split, graph, share.size, context, source)
        )
    ]


def needs(
    model: Model,
    split: Parallelism,
    graph: Graph,
    size: Any,
    context: Any,
    source: int,
) -> list[tuple[int, Any, Any]]:
    """Bytes of (weights, KV cache, activations) on the fullest device of each stage.

    `graph` is of the widest micro-batch; `size` sequences keep `context` tokens each, and
    `source` tokens of an encoder. What counts sequences and tokens may be arrays.
    """
    local, batch, precision = graph.model, graph.batch, graph.precision
    bounds = stage_bounds(model.num_layers, split, model.name)
    peak = reduce(most, (op.traffic.read + op.traffic.written for _, op in graph.ops()))
    rows = most(batch.tokens, batch.source_tokens)
    activations = peak + packed(rows * model.hidden, precision.activation_bits)
    result: list[tuple[int, Any, Any]] = []
    for stage in range(split.pp):
        elements = tabled = index = 0
        kv_width: Any = 0
        cross_width = 0
        tables: set[str] = set()  # stacks whose token table is here
        for name, stack in local.stacks:
            held = range(index, index + len(stack.layers))
            index += len(stack.layers)
            mine = [i - held.start for i in held if bounds[stage] <= i < bounds[stage + 1]]
            for i in mine:
                layer = stack.layers[i]
                elements += layer_parameters(layer, model.hidden)
                if name == "decoder":
                    window = layer.attention.window
                    kept = least(context, window) if window else context
                    kv_width += layer.attention.kv_width * kept
                    cross_width += layer.cross.kv_width * source if layer.cross else 0
            owner = "encoder" if stack.embedding.shared else name
            if mine and mine[0] == 0:
                tabled += embedding_parameters(stack.embedding, model.hidden)
                elements += stack.relative_buckets * stack.layers[0].attention.heads
                if stack.embedding.shared and owner not in tables:
                    tabled += stack.embedding.tokens * model.hidden  # a copy of the table
                tables.add(owner)
            if mine and mine[-1] == len(stack.layers) - 1:
                tabled += head_parameters(stack, model.hidden)
                if stack.head.tied and owner not in tables:
                    tabled += stack.head.vocab * model.hidden  # a copy, too
        weights = packed(elements, precision.weight_bits) + packed(tabled, precision.table_bits)
        kv = size * packed(kv_width + cross_width, precision.kv_bits)
        result.append((weights, kv, activations))
    return result


def check_memory(prints: list[Footprint], model: str, device: str) -> None:
    """Raise OutOfMemory with the sum of the first stage that does not fit."""
    for one in prints:
        if not one.fits:
            raise OutOfMemory(
                f"{model} does not fit on {device}: {one.sentence()}; raise tp or pp, lower the "
                "batch or the bits, or go on with --allow-oom"
            )
