"""The operator graph of one forward pass of a model over a batch.

Equal layers share one `Block`; `Graph.expanded()` lays them out as one networkx DiGraph.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import networkx as nx
from msgspec.structs import replace

from workloads.batch import Batch
from workloads.block import Block, Context, Lowering
from workloads.blocks import embedding_block, head_block, layer_block
from workloads.fusion import fuse
from workloads.model import Layer, Model, Stack
from workloads.ops import Op, Traffic
from workloads.precision import Precision


class Placed(msgspec.Struct, frozen=True):
    """A block at its place: which stack, which layer (-1: embedding, -2: head)."""

    block: Block
    stack: str
    layer: int

    @property
    def path(self) -> str:
        return f"{self.stack}.layer{self.layer}" if self.layer >= 0 else f"{self.stack}"


class Graph(msgspec.Struct, frozen=True):
    """All operators of one pass, block after block in the order of execution."""

    model: Model
    batch: Batch
    precision: Precision
    placed: tuple[Placed, ...]

    def ops(self) -> Iterator[tuple[Placed, Op]]:
        """Every operator with its place, equal layers repeated."""
        for place in self.placed:
            for op in place.block.ops:
                yield place, op

    @property
    def flops(self) -> int:
        return sum(op.flops for _, op in self.ops())

    @property
    def traffic(self) -> Traffic:
        """Compulsory bytes by kind."""
        total = Traffic()
        for _, op in self.ops():
            total = total + op.traffic
        return total

    def expanded(self) -> nx.DiGraph:
        """One DiGraph; nodes "stack.layerN.op" with attribute `op`."""
        expanded = nx.DiGraph()
        ends: list[str] = []
        for place in self.placed:
            names = {name: f"{place.path}.{name}" for name in place.block.graph}
            for name, data in place.block.graph.nodes(data=True):
                expanded.add_node(names[name], op=data["op"], layer=place.layer, stack=place.stack)
            expanded.add_edges_from((names[a], names[b]) for a, b in place.block.graph.edges)
            inner = place.block.graph
            starts = [names[n] for n in inner if inner.in_degree(n) == 0]
            expanded.add_edges_from((e, s) for e in ends for s in starts)
            ends = [names[n] for n in inner if inner.out_degree(n) == 0]
        return expanded


def build_graph(
    model: Model,
    batch: Batch,
    precision: Precision,
    lowering: Lowering | None = None,
    *,
    ways: int = 1,
) -> Graph:
    """The graph of one pass. `model` may be one rank's share of `ways`.

    Of an encoder-decoder the encoder runs over the batch's source tokens (if any), then the
    decoder over its new tokens. Raises ValueError if the batch does not fit the model.
    """
    lowering = lowering or Lowering()
    check_batch(model, batch)
    placed: list[Placed] = []
    both = model.encoder is not None and model.decoder is not None
    if model.encoder and (not both or batch.source_tokens):
        seen = _source_batch(batch) if both else batch
        ctx = _context(model, seen, precision, lowering, ways)
        placed += _stack("encoder", model.encoder, model, ctx)
    if model.decoder:
        ctx = _context(model, batch, precision, lowering, ways)
        placed += _stack("decoder", model.decoder, model, replace(ctx, cached_kv=True))
    return Graph(model, batch, precision, tuple(placed))


def check_batch(model: Model, batch: Batch) -> None:
    """Source tokens go with an encoder-decoder, and cached tokens with a decoder."""
    for group in batch.groups:
        s = group.sequence
        fed = s.source + s.source_cached
        if model.encoder and model.decoder:
            if not fed:
                raise ValueError(
                    f"{model.name} is an encoder-decoder: a sequence needs source tokens "
                    "(new or cached) for its cross-attention; this one has none"
                )
        elif fed:
            raise ValueError(f"{model.name} has one stack only; {fed} source tokens have no reader")
        if model.decoder is None and s.cached:
            raise ValueError(f"{model.name} is an encoder without a cache; cached = {s.cached}")


def _source_batch(batch: Batch) -> Batch:
    groups = [
        replace(g, sequence=type(g.sequence)(new=g.sequence.source, logits=0))
        for g in batch.groups
        if g.sequence.source
    ]
    return Batch(groups=tuple(groups))


def _context(
    model: Model, batch: Batch, precision: Precision, lowering: Lowering, ways: int
) -> Context:
    return Context(
        batch=batch,
        rows=batch.tokens,
        width=model.hidden,
        precision=precision,
        lowering=lowering,
        cached_kv=False,
        ways=ways,
    )


def _stack(name: str, stack: Stack, model: Model, ctx: Context) -> list[Placed]:
    finish = fuse if ctx.lowering.fusion else (lambda block: block)
    placed: list[Placed] = []
    first = embedding_block(f"{name}.embedding", stack, ctx)
    if first:
        placed.append(Placed(finish(first), name, -1))
    known: dict[Layer, Block] = {}
    for index, layer in enumerate(stack.layers):
        if layer not in known:
            known[layer] = finish(layer_block(f"{name}.layer", layer, ctx))
        placed.append(Placed(known[layer], name, index))
    last = head_block(f"{name}.head", model, stack, ctx)
    if last:
        placed.append(Placed(finish(last), name, -2))
    return placed
