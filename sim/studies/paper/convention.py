"""How Kim et al. 2023 (arXiv 2302.14017) count, as a rewrite of the operators of our own graphs.

Their convention (section 2.2.1): one byte per number, two FLOPs per multiply-add, every operator
reads its inputs once and writes its output once, nothing is fused, and only transformer blocks
count: no embedding, no head, no final norm. A decoder generates all l tokens one by one from an
empty prompt, with a KV cache.

A graph lowered without fusion holds just these operators. Four things differ, and `rewritten`
is the list of them:

1. Biases are no memory operations.
2. In an encoder a product of attention counts 2K - 1 FLOPs an output instead of 2K.
3. In an encoder the operators outside the products move 17 numbers a hidden element, one fewer
   than the 18 that the operators need. One input of a residual is left out here; the tables
   fix the sum, not which stream it is.
4. In a decoder a score row counts once in act-to-act: what the score product writes is not
   read again by the value product.

1, 2 and 4 make the matmul rows come out with no constant fitted; 3 was found from the
arithmetic intensities of Table 3.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from sim.inputs.catalogue import load_model
from workloads.batch import Batch
from workloads.block import Lowering
from workloads.graph import build_graph
from workloads.model import Model
from workloads.ops import Op
from workloads.precision import Precision, packed

INT8 = Precision(weights="int8", activations="int8", kv="int8")
AS_PAPER = Lowering(attention="materialised", projections="separate", fusion=False)
GROUPS = {
    "projection": "MHA projections",
    "attention": "act-to-act",
    "ffn": "FFN",
    "softmax": "Other",
    "norm": "Other",
    "activation": "Other",
    "residual": "Other",
}
ROWS = ("MHA projections", "act-to-act", "FFN", "Other", "Total")
MODELS = {"BERT-Base": "bert-base", "BERT-Large": "bert-large", "GPT-2": "gpt2"}


class Count(msgspec.Struct, frozen=True):
    """FLOPs and memory operations (bytes at 8 bits). They add up."""

    flops: int = 0
    mops: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(self.flops + other.flops, self.mops + other.mops)

    @property
    def intensity(self) -> float:
        """FLOPs a memory operation."""
        return self.flops / self.mops


Counts = dict[str, Count]


def paper_model(name: str) -> Model:
    """A model by the paper's name for it, or "BERT-Base, 4 heads" of Table 10."""
    if name == "BERT-Base, 4 heads":
        return load_model("bert-base", {"num_attention_heads": 4})
    return load_model(MODELS[name])


def layer_ops(model: Model, batch: Batch, precision: Precision = INT8) -> tuple[Op, ...]:
    """The operators of all transformer blocks, counted as we count."""
    graph = build_graph(model, batch, precision, AS_PAPER)
    return tuple(op for place, op in graph.ops() if place.layer >= 0)


def rewritten(op: Op, *, encoder: bool, precision: Precision = INT8) -> Op:
    """One operator as the paper counts it: the four differences of the module's text."""
    traffic, flops = op.traffic, op.matrix_flops
    if op.kind in ("projection", "ffn"):
        weights = sum(packed(g.batch * g.k * g.n, g.b_bits) for g in op.gemms)
        traffic = msgspec.structs.replace(traffic, weights=weights)  # 1
    if op.kind == "attention" and encoder:
        flops -= sum(g.batch * g.m * g.n for g in op.gemms)  # 2
    if op.name == "ffn_residual" and encoder:
        traffic = msgspec.structs.replace(traffic, read=traffic.read - traffic.written)  # 3
    if op.name == "values" and not encoder:
        row = sum(packed(g.batch * g.m * g.k, g.a_bits) for g in op.gemms)
        traffic = msgspec.structs.replace(traffic, read=traffic.read - row)  # 4
    return msgspec.structs.replace(op, traffic=traffic, matrix_flops=flops)


def counted(model: Model, batch: Batch, precision: Precision = INT8) -> tuple[Op, ...]:
    """The operators of all transformer blocks, counted as the paper counts."""
    encoder = model.decoder is None
    ops = layer_ops(model, batch, precision)
    return tuple(rewritten(op, encoder=encoder, precision=precision) for op in ops)


def grouped(ops: Iterable[Op], times: int = 1) -> Counts:
    """FLOPs and MOPs of the paper's rows, the whole `times` over."""
    counts = dict.fromkeys(ROWS, Count())
    for op in ops:
        one = Count(times * op.flops, times * op.traffic.total)
        for row in (GROUPS[op.kind], "Total"):
            counts[row] = counts[row] + one
    return counts


def generation(model: Model, length: int, batch: int = 1) -> tuple[Op, ...]:
    """The mean step of generating `length` tokens as the paper has it: a context of length/2."""
    return counted(model, Batch.decode(batch, length // 2))


def paper_counts(model: Model, length: int) -> Counts:
    """An encoder pass over `length` tokens, or the generation of `length` tokens."""
    if model.decoder is None:
        return grouped(counted(model, Batch.encode(1, length)))
    return grouped(generation(model, length), length)


def stepwise_counts(model: Model, length: int) -> Counts:
    """The generation of `length` tokens as it happens: contexts 1 to `length`, our own counting.

    Every count is affine in the context, so the sum over all steps is that of the first and
    the last step, times half their number.
    """
    first, last = (grouped(layer_ops(model, Batch.decode(1, c))) for c in (1, length))
    return {
        row: Count(
            length * (first[row].flops + last[row].flops) // 2,
            length * (first[row].mops + last[row].mops) // 2,
        )
        for row in ROWS
    }


def one_projection_less(ops: Iterable[Op]) -> tuple[Op, ...]:
    """Without the product and the weights of one d x d projection per layer, its activations kept.

    What Figs 4 to 6 and 32 lack for BERT-Large against the configuration of their Table 1;
    the cause is not identified.
    """
    return tuple(
        msgspec.structs.replace(
            op, matrix_flops=0, traffic=msgspec.structs.replace(op.traffic, weights=0)
        )
        if op.name == "q_proj"
        else op
        for op in ops
    )
