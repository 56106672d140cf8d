"""Operators of a layer by name, as profilers of whole models write them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache

from sim.errors import InputError, hint, quoted
from sim.fidelity.validate.cells import Row
from sim.fidelity.validate.eager import Eager
from sim.fidelity.validate.exchanges import exchange_seconds
from sim.fidelity.validate.kernels import INF, gemm_regime, mixed_batch, precision
from sim.fidelity.validate.points import (
    LLM,
    MeasuredFile,
    Place,
    PredictionBench,
    Profiled,
    Reading,
    ScoredPoint,
    between,
    priced,
)
from sim.inputs.catalogue import load_model
from sim.mapping.parallelism import shard
from workloads.attention import flash_attention
from workloads.batch import Batch, Sequence
from workloads.block import Lowering
from workloads.graph import Graph, build_graph
from workloads.model import Attention
from workloads.ops import (
    SOFTMAX_FLOPS,
    Elements,
    Matmul,
    Op,
    activation,
    linear,
    lookup,
    norm,
    residual,
    rotary,
    vector,
)

ROW = 1024  # elements of a row that an element-wise operator without rows is cut into
VIDUR_DTYPE = LLMCOMPASS_DTYPE = "fp16"  # neither file says; both projects measured in half


def vidur_op(row: Row) -> Op:
    """The operator of one row of vidur's profile of a layer."""
    form, tokens, tp = precision(VIDUR_DTYPE), row["num_tokens"], row["tp"]
    d, gated = row["n_embd"], bool(row["use_gated_mlp"])
    inner, head = row["n_expanded_embd"] // tp, row["n_embd"] // row["n_head"]
    queries = row["n_head"] // tp * head
    both = queries + max(1, row["n_kv_head"] // tp) * head
    which = "rmsnorm" if gated else "layernorm"
    builders: dict[str, Callable[[], Op]] = {
        "attn_pre_proj": lambda: linear(
            "qkv", "projection", Matmul(tokens, d, both + both - queries), form
        ),
        "attn_post_proj": lambda: linear("out", "projection", Matmul(tokens, queries, d), form),
        "mlp_up_proj": lambda: linear(
            "up", "ffn", Matmul(tokens, d, (2 if gated else 1) * inner), form
        ),
        "mlp_down_proj": lambda: linear("down", "ffn", Matmul(tokens, inner, d), form),
        "mlp_act": lambda: activation(
            "act", "silu" if gated else "gelu", tokens, inner, gated, form
        ),
        "input_layernorm": lambda: norm("norm", which, tokens, d, form),
        "post_attention_layernorm": lambda: norm("norm", which, tokens, d, form),
        "attn_rope": lambda: rotary("rope", tokens, both, form),
        "add": lambda: residual("add", tokens, d, form),
        "emb": lambda: lookup("emb", tokens, d, 1, form, ways=tp),
    }
    if row["op"] not in builders:
        raise InputError(f"operator {quoted(row['op'])} is not known{hint(row['op'], builders)}")
    return builders[row["op"]]()


def vidur_mlp(source: MeasuredFile, bench: PredictionBench) -> Iterator[ScoredPoint]:
    """Operators of a layer by tokens and tensor-parallel degree."""

    def place(row: Row, device: str) -> Place:
        kind = "projections" if row["op"].endswith("proj") else "element-wise"
        regime = f"{kind}, {gemm_regime(row['num_tokens'])}"
        return Place(source.format, device, VIDUR_DTYPE, regime, "", row["model"])

    return priced(
        source, bench, place, lambda row, at: bench.seconds(at, VIDUR_DTYPE, vidur_op(row))
    )


# Sizes that an operator of LLMCompass has; the others are 0.
NEEDED: dict[str, tuple[str, ...]] = {
    "matmul_fp16": ("m", "n", "k"),
    "softmax_fp16": ("m", "n"),
    "layernorm_fp16": ("m", "n"),
    "gelu_fp16": ("m",),
    "all_reduce": ("m",),
}


def llmcompass(source: MeasuredFile, bench: PredictionBench) -> Iterator[ScoredPoint]:
    """Single operators by size, and the operators of one layer of GPT-3 175B at tp 4, each of them
    called from PyTorch and waited for."""
    eager = Eager(bench, LLMCOMPASS_DTYPE)

    def place(row: Row, device: str) -> Place:
        op = row["op"]
        which = "layer" if op.startswith("layer_") else op.removesuffix("_fp16")
        regime = op.split(":")[0] if which == "layer" else "single operators"
        shape = f"{row['m']}x{row['n']}x{row['k']}"
        return Place(f"{source.format} {which}", device, LLMCOMPASS_DTYPE, regime, "", shape)

    def price(row: Row, device: str) -> float:
        op, m, n, k = row["op"], row["m"], row["n"], row["k"]
        form = precision(LLMCOMPASS_DTYPE)
        for column in NEEDED.get(op, ()):
            if row[column] < 1:
                raise InputError(f"column {column!r} has a number below 1")
        if op == "all_reduce":
            return _all_reduce(bench, device, gpus_of(row["device"]), m)
        if op.startswith("layer_"):
            return _layer_part(bench, eager, device, op, gpus_of(row["device"]))
        builders: dict[str, Callable[[], Op]] = {
            "matmul_fp16": lambda: linear("matmul", "ffn", Matmul(m, k, n), form),
            "softmax_fp16": lambda: vector(
                "softmax", "softmax", SOFTMAX_FLOPS * m * n, Elements(m * n, m * n), form
            ),
            "layernorm_fp16": lambda: norm("norm", "layernorm", m, n, form),
            "gelu_fp16": lambda: activation("gelu", "gelu", -(-m // ROW), min(m, ROW), False, form),
        }
        if op not in builders:
            raise InputError(f"operator {quoted(op)} is not known{hint(op, builders)}")
        return eager.seconds(device, builders[op]())

    return priced(source, bench, place, price)


def gpus_of(name: str) -> int:
    """4 of `A100x4`."""
    count = name.rpartition("x")[2]
    return int(count) if re.fullmatch("[0-9]{1,5}", count) and "x" in name else 1


def _all_reduce(bench: PredictionBench, device: str, gpus: int, size: int) -> float:
    if gpus == 1:
        raise InputError("an all-reduce takes several devices, named as in A100x4; this is one")
    return exchange_seconds(bench, "all_reduce", (device, gpus), size)


LAYER_PARTS = {
    "Q_K_V": "qkv_proj",
    "Q_mul_K": "scores",
    "A_mul_V": "values",
    "Softmax": "softmax",
    "Wo_proj": "out_proj",
    "W1_proj": "up_proj",
    "W2_proj": "down_proj",
    "LayerNorm_MHA": "norm",
    "LayerNorm_FFN": "norm",
    "GeLU": "gelu",
}
# LLMCompass (ISCA 2024), section 4: batch 8, 2048 tokens of prompt; decoding at a context of 3072.
LAYER_BATCHES = {"layer_prefill": Batch.prefill(8, 2048), "layer_decode": Batch.decode(8, 3072)}


@lru_cache(maxsize=8)
def _layer_graph(phase: str, tp: int) -> Graph:
    local = shard(load_model("gpt3-175b"), tp)
    lowering = Lowering(attention="materialised", fusion=False)
    batch = LAYER_BATCHES[phase]
    return build_graph(local, batch, precision(LLMCOMPASS_DTYPE), lowering, ways=tp)


def _layer_part(bench: PredictionBench, eager: Eager, device: str, name: str, tp: int) -> float:
    phase, _, part = name.partition(":")
    graph = _layer_graph(phase, tp)
    block = next(p.block for p in graph.placed if p.layer == 0)
    if part.startswith("AllReduce"):
        size = next(op.exchange_bytes for op in block.ops if op.exchange)
        return _all_reduce(bench, device, tp, size)
    if part not in LAYER_PARTS:
        raise InputError(f"part {quoted(part)} of a layer is not known{hint(part, LAYER_PARTS)}")
    wanted = LAYER_PARTS[part]
    op = next((o for o in block.ops if wanted in o.name), None)
    if op is None:
        raise InputError(f"a layer has no {wanted!r}; it has {[o.name for o in block.ops]}")
    return eager.seconds(device, op)


# vLLM's names of the operators of a pass (kernels_tp1/dense.csv, per_sequence.csv), by the ends of
# the graph's names or by their kind.
DENSE: dict[str, tuple[str, ...]] = {
    "qkv_proj": ("qkv_proj",),
    "o_proj": ("out_proj",),
    "gate_up_proj": ("gate_up_proj", "up_proj"),
    "down_proj": ("down_proj",),
    "act_fn": ("activation",),
    "layernorm": ("attn_norm",),
    "final_layernorm": ("final_norm",),
    "rotary_emb": ("rotary",),
    "embedding": ("embed",),
    "lm_head": ("lm_head",),
}


@lru_cache(maxsize=4096)
def _pass_ops(what: Profiled, rows: int) -> tuple[Op, ...]:
    """The operators of a pass of `rows` tokens outside of attention, of equal layers one."""
    batch = Batch.uniform(rows, Sequence(new=1, logits=1))
    local, form = shard(what.model, what.tp), precision(what.dtype)
    graph = build_graph(local, batch, form, Lowering(fusion=False), ways=what.tp)
    return tuple(op for placed, op in graph.ops() if placed.layer in (-2, -1, 0))


def vllm_op(what: Profiled, layer: str, rows: int) -> Op:
    """The operator that vLLM's profile calls `layer`. Raises InputError."""
    if layer not in DENSE:
        raise InputError(
            f"layer {quoted(layer)} is not modelled: no operator of the graph stands for it"
            + (" (sampling is the engine's)" if layer == "sampler" else hint(layer, DENSE))
        )
    ops = _pass_ops(what, rows)
    for wanted in DENSE[layer]:
        for op in ops:
            if op.name.endswith(wanted) or op.kind == wanted:
                return op
    raise InputError(
        f"{what.model.name} has no {quoted(layer)}; it has {', '.join(o.name for o in ops)}"
    )


def profiled_attention(what: Profiled) -> Attention:
    """One rank's share of the attention of the model's first layer."""
    return shard(what.model, what.tp).stacks[-1][1].layers[0].attention


def vllm_attention(source: MeasuredFile, bench: PredictionBench) -> Iterator[ScoredPoint]:
    """Attention of one layer over a batch that may mix a chunk of a prompt and decoding."""
    what = source.profiled
    shape, form = profiled_attention(what), precision(what.dtype)

    def place(row: Row, device: str) -> Place:
        new, ones = row["prefill_chunk"], row["n_decode"]
        kind = "mixed" if new and ones else ("prefill" if new else "decode")
        regime = length_regime(row)
        return Place(f"vllm_runs attention {kind}", device, what.dtype, regime, "", str(new))

    def price(row: Row, device: str) -> float:
        op = flash_attention("attention", shape, mixed_batch(row), form)
        return bench.seconds(device, what.dtype, op)

    return priced(source, bench, place, price, Reading(lambda row: what.device, microseconds))


def length_regime(row: Row) -> str:
    """By the longest context that a sequence of a mixed batch has."""
    longest = max(row["prefill_chunk"] + row["kv_prefill"], row["kv_decode"])
    return between(longest, (1024, "context <= 1024"), (INF, "context > 1024"))


def rows_of(row: Row) -> int:
    """The rows of a dense operator: tokens, or of the head sequences. Raises InputError."""
    rows = row.get("tokens") or row.get("sequences")
    if not rows:
        raise InputError("neither column 'tokens' nor 'sequences' has a number")
    return int(rows)


def microseconds(row: Row) -> float:
    """The measured time of a row of a vLLM profile."""
    return float(row["time_us"]) * 1e-6


def vllm_dense(source: MeasuredFile, bench: PredictionBench) -> Iterator[ScoredPoint]:
    """Operators of a pass by tokens (or, of the head, by sequences)."""
    what = source.profiled

    def price(row: Row, device: str) -> float:
        op = vllm_op(what, row["layer"], rows_of(row))
        return bench.seconds(device, what.dtype, op)

    def place(row: Row, device: str) -> Place:
        rows, layer = rows_of(row), row["layer"]
        kind = "projections" if layer.endswith(("proj", "head")) else "element-wise"
        name = f"vllm_runs {kind}"
        regime = gemm_regime(rows)
        return Place(name, device, what.dtype, regime, LLM if kind == "projections" else "", layer)

    return priced(source, bench, place, price, Reading(lambda row: what.device, microseconds))
