"""Who computes what: tensor, pipeline and data parallelism of a model over a system.

Tensor parallelism is Megatron's (Shoeybi et al. 2019, arXiv 1909.08053): Q, K, V, gate and
up are cut by columns, the output and down projections by rows, the vocabulary by rows of the
table. With more ranks than key/value heads the heads are replicated. Router, norms and latent
down-projections are repeated on every rank.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from sim.cost.rounds import ALGORITHMS
from sim.errors import Infeasible, hint, quoted
from workloads.model import Attention, Dense, Experts, Layer, Model, Record, Stack

Degree = Annotated[int, Meta(gt=0, le=65536)]
COLLECTIVES = ("auto", *ALGORITHMS)


class Parallelism(Record, frozen=True, kw_only=True):
    """Degrees of a split. `stages` gives layers a pipeline stage where they are uneven."""

    tp: Annotated[
        Degree,
        Meta(description="Tensor parallel ranks", extra={"aliases": ("tensor-parallel",)}),
    ] = 1
    pp: Annotated[
        Degree, Meta(description="Pipeline stages", extra={"aliases": ("pipeline-parallel",)})
    ] = 1
    dp: Annotated[
        Degree,
        Meta(
            description="Data parallel replicas: a batch is split over them, requests are routed "
            "to them",
            extra={"aliases": ("data-parallel",)},
        ),
    ] = 1
    microbatches: Annotated[Degree, Meta(description="Micro-batches per replica")] = 1
    stages: Annotated[
        tuple[Degree, ...],
        Meta(description="Layers per pipeline stage where they are uneven, e.g. 10,12,10"),
    ] = ()
    collective: Annotated[
        str, Meta(description=f"Algorithm of all-reduces: {', '.join(COLLECTIVES)}")
    ] = "auto"

    def __post_init__(self) -> None:
        if self.collective not in COLLECTIVES:
            known = ", ".join(COLLECTIVES)
            near = hint(self.collective, COLLECTIVES)
            raise ValueError(f"collective {quoted(self.collective)} is not one of {known}{near}")

    @property
    def devices(self) -> int:
        return self.tp * self.pp * self.dp

    def device(self, replica: int, stage: int, rank: int) -> int:
        """Devices are filled rank by rank, then stage by stage, then replica by replica."""
        return (replica * self.pp + stage) * self.tp + rank

    def group(self, replica: int, stage: int) -> tuple[int, ...]:
        """The devices that share a stage's layers."""
        return tuple(self.device(replica, stage, rank) for rank in range(self.tp))


def shard(model: Model, tp: int) -> Model:
    """One rank's share of `model`. Raises Infeasible with the arithmetic if it cannot be cut.

    The vocabulary is padded to a multiple of tp, as Megatron does.
    """
    if tp == 1:
        return model

    def cut(stack: Stack | None) -> Stack | None:
        if stack is None:
            return None
        shards: dict[Layer, Layer] = {}
        for layer in stack.layers:
            if layer not in shards:
                try:
                    shards[layer] = _shard_layer(model.name, layer, tp)
                except Infeasible as error:
                    raise Infeasible(f"{error}; use a tp among {_fitting(model)}") from None
        embedding = msgspec.structs.replace(
            stack.embedding, tokens=-(-stack.embedding.tokens // tp)
        )
        head = msgspec.structs.replace(stack.head, vocab=-(-stack.head.vocab // tp))
        layers = tuple(shards[layer] for layer in stack.layers)
        return msgspec.structs.replace(stack, layers=layers, embedding=embedding, head=head)

    return msgspec.structs.replace(model, encoder=cut(model.encoder), decoder=cut(model.decoder))


def _shard_layer(name: str, layer: Layer, tp: int) -> Layer:
    ffn = layer.ffn
    inner = _divided(name, "feed-forward width", ffn.inner, tp)
    if isinstance(ffn, Experts):
        shared = _divided(name, "shared expert width", ffn.shared_inner, tp)
        ffn = msgspec.structs.replace(ffn, inner=inner, shared_inner=shared)
    elif isinstance(ffn, Dense):
        ffn = msgspec.structs.replace(ffn, inner=inner)
    return msgspec.structs.replace(
        layer,
        attention=_shard_attention(name, layer.attention, tp),
        cross=layer.cross and _shard_attention(name, layer.cross, tp),
        ffn=ffn,
    )


def _shard_attention(name: str, attention: Attention, tp: int) -> Attention:
    heads = _divided(name, "attention heads", attention.heads, tp)
    kv = attention.kv_heads
    if kv % tp and tp % kv:
        raise Infeasible(
            f"tp = {tp} neither divides the {kv} key/value heads of {name} ({kv} mod {tp} = "
            f"{kv % tp}) nor is a multiple of them ({tp} mod {kv} = {tp % kv})"
        )
    return msgspec.structs.replace(attention, heads=heads, kv_heads=max(1, kv // tp))


def _divided(name: str, what: str, size: int, tp: int) -> int:
    if size % tp:
        raise Infeasible(
            f"tp = {tp} does not divide the {size} {what} of {name} ({size} mod {tp} = {size % tp})"
        )
    return size // tp


def _fitting(model: Model) -> str:
    """The degrees up to 64 by which the whole model can be cut."""
    layers = {layer for _, stack in model.stacks for layer in stack.layers}

    def fits(tp: int) -> bool:
        try:
            for layer in layers:
                _shard_layer(model.name, layer, tp)
        except Infeasible:
            return False
        return True

    return ", ".join(str(tp) for tp in range(1, 65) if fits(tp))


def stage_bounds(layers: int, split: Parallelism, name: str = "the model") -> list[int]:
    """First layer of each stage and the end: pp + 1 numbers.

    Without `stages` the layers are spread evenly, early stages taking one more.
    """
    pp = split.pp
    if pp > layers:
        raise Infeasible(f"pp = {pp} stages for the {layers} layers of {name}; use pp <= {layers}")
    counts = list(split.stages)
    if not counts:
        counts = [layers // pp + (1 if s < layers % pp else 0) for s in range(pp)]
    if len(counts) != pp or sum(counts) != layers:
        shown = " + ".join(map(str, counts))
        raise Infeasible(
            f"stages = {shown} = {sum(counts)} layers in {len(counts)} stages; {name} has "
            f"{layers} layers and pp = {pp}"
        )
    bounds = [0]
    for count in counts:
        bounds.append(bounds[-1] + count)
    return bounds


def check_devices(split: Parallelism, available: int, system: str) -> None:
    """Refuse a split over more devices than the system has."""
    if split.devices > available:
        raise Infeasible(
            f"tp {split.tp} x pp {split.pp} x dp {split.dp} = {split.devices} devices, but "
            f"{system} has {available}; choose a larger system or a smaller split"
        )
