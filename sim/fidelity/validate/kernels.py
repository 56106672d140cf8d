"""Kernels of one device: products, attention, experts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from sim.fidelity.validate.cells import Row
from sim.fidelity.validate.names import dtype_of
from sim.fidelity.validate.points import (
    LLM,
    MeasuredFile,
    Place,
    PredictionBench,
    ScoredPoint,
    between,
    priced,
)
from workloads.attention import flash_attention
from workloads.batch import Batch, Group, Sequence
from workloads.feed_forward import combine_op, routed_ops
from workloads.model import Attention, Experts
from workloads.ops import (
    Matmul,
    Op,
    linear,
)
from workloads.precision import Precision, parse_precision
from workloads.routing import rank_rows

INF = float("inf")


@lru_cache(maxsize=64)
def precision(dtype: str, kv: str | None = None) -> Precision:
    return parse_precision(dtype, kv)


def gemm_regime(m: int) -> str:
    """By rows: the weights' bytes rule, neither, or the arithmetic."""
    return between(
        m, (16, "memory, m <= 16"), (511, "crossover, 16 < m < 512"), (INF, "compute, m >= 512")
    )


def is_llm(n: int, k: int) -> bool:
    """Weights of the size that language models have."""
    return n >= 1024 and k >= 1024 and n * k >= 4_000_000


def gemm(source: MeasuredFile, bench: PredictionBench) -> Iterator[ScoredPoint]:
    """x[m,k] W[n,k]^T; with `b`, that many products."""

    def place(row: Row, device: str) -> Place:
        dtype, m, n, k = dtype_of(row["dtype"]), row["m"], row["n"], row["k"]
        shapes = LLM if is_llm(n, k) else "other shapes"
        kind = row.get("op")
        name = f"{source.format} {kind}" if kind else source.format
        return Place(name, device, dtype, gemm_regime(m), shapes, f"{n}x{k}x{row.get('b', 1)}")

    def price(row: Row, device: str) -> float:
        dtype = dtype_of(row["dtype"])
        op = linear(
            "gemm",
            "ffn",
            Matmul(row["m"], row["k"], row["n"], batch=row.get("b") or 1),
            precision(dtype),
        )
        return bench.seconds(device, dtype, op)

    return priced(source, bench, place, price)


@lru_cache(maxsize=4096)
def heads(num: int, kv: int, width: int, window: int = 0, causal: bool = True) -> Attention:
    return Attention(
        heads=num, kv_heads=kv, head_dim=width, value_dim=width, causal=causal, window=window
    )


def length_regime(tokens: int) -> str:
    return between(
        tokens,
        (512, "length <= 512"),
        (4096, "512 < length <= 4096"),
        (INF, "length > 4096"),
    )


def attention(source: MeasuredFile, bench: PredictionBench) -> Iterator[ScoredPoint]:
    """`batch` sequences of `q_len` new tokens that see `kv_len` with themselves."""

    def place(row: Row, device: str) -> Place:
        dtype = dtype_of(row["dtype"])
        kv = dtype_of(row["kv_dtype"]) if row.get("kv_dtype") else dtype
        decodes = row["q_len"] == 1 and row["kv_len"] > 1
        kind = "attention_decode" if decodes else "attention_prefill"
        name = source.format.replace("attention", kind)
        usual = row["head_dim"] == 128 and row["num_heads"] >= 8 and not row.get("window")
        shape = f"{row['num_heads']}/{row['num_kv_heads']}x{row['head_dim']} w{row.get('window')}"
        both = dtype if kv == dtype else f"{dtype}, {kv} cache"
        regime = length_regime(row["kv_len"])
        return Place(name, device, both, regime, LLM if usual else "other shapes", shape)

    def price(row: Row, device: str) -> float:
        dtype = dtype_of(row["dtype"])
        kv = dtype_of(row["kv_dtype"]) if row.get("kv_dtype") else dtype
        new, context = row["q_len"], row["kv_len"]
        shape = heads(row["num_heads"], row["num_kv_heads"], row["head_dim"], row.get("window", 0))
        batch = Batch.prefill(row["batch"], new, cached=context - new)
        return bench.seconds(
            device, dtype, flash_attention("attention", shape, batch, precision(dtype, kv))
        )

    return priced(source, bench, place, price)


def encoder_attention(source: MeasuredFile, bench: PredictionBench) -> Iterator[ScoredPoint]:
    """Attention without a mask over whole sequences."""

    def place(row: Row, device: str) -> Place:
        shape = f"{row['num_heads']}x{row['head_dim']}"
        dtype = dtype_of(row["dtype"])
        return Place(source.format, device, dtype, length_regime(row["seq_len"]), "", shape)

    def price(row: Row, device: str) -> float:
        dtype = dtype_of(row["dtype"])
        shape = heads(row["num_heads"], row["num_heads"], row["head_dim"], causal=False)
        batch = Batch.encode(row["batch"], row["seq_len"])
        op = flash_attention("attention", shape, batch, precision(dtype), cached_kv=False)
        return bench.seconds(device, dtype, op)

    return priced(source, bench, place, price)


def mixed_batch(row: Row) -> Batch:
    """A chunk of a prompt behind earlier ones, and sequences that decode."""
    groups = []
    if row["prefill_chunk"]:
        chunk = Sequence(new=row["prefill_chunk"], cached=row["kv_prefill"])
        groups.append(Group(sequence=chunk))
    if row["n_decode"]:
        one = Sequence(new=1, cached=max(0, row["kv_decode"] - 1))
        groups.append(Group(sequence=one, count=row["n_decode"]))
    return Batch(groups=tuple(groups))


def experts(source: MeasuredFile, bench: PredictionBench) -> Iterator[ScoredPoint]:
    """The experts of one rank: gate and up, activation, down, weighted sum."""

    def place(row: Row, device: str) -> Place:
        regime = between(
            row["num_tokens"],
            (16, "tokens <= 16"),
            (511, "16 < tokens < 512"),
            (INF, "tokens >= 512"),
        )
        shape = f"{row['hidden']}x{row['inter']} {row['topk']}/{row['num_experts']}"
        return Place(source.format, device, dtype_of(row["dtype"]), regime, "", shape)

    def price(row: Row, device: str) -> float:
        dtype = dtype_of(row["dtype"])
        return bench.seconds(device, dtype, *expert_ops(row, precision(dtype)))

    return priced(source, bench, place, price)


# (hidden, inter) of experts without a gate: NVIDIA's Nemotron 3 (a squared ReLU between two
# products). With a gate, the rows of github.com/ai-dynamo/aiconfigurator (commit 095f58a) would
# read them faster than HBM can.
NOT_GATED = frozenset({(2688, 1856), (2048, 5120)})


def expert_ops(row: Row, form: Precision) -> list[Op]:
    """What the busiest rank of `moe_tp` x `moe_ep` does: up and gate, activation, down, sum."""
    hidden, tokens = row["hidden"], row["num_tokens"]
    ffn = Experts(
        experts=row["num_experts"],
        top_k=row["topk"],
        inner=max(1, row["inter"] // (row["moe_tp"] or 1)),
        gated=(hidden, row["inter"]) not in NOT_GATED,
    )
    routing = routing_of(row.get("routing"))
    groups = rank_rows(ffn.experts, ffn.top_k, tokens, routing, row["moe_ep"] or 1)
    return [
        *routed_ops(ffn, groups, tokens, hidden, form),
        combine_op(ffn.top_k, tokens, hidden, form),
    ]


def routing_of(name: str | None) -> str:
    """`power_law_1.2` as `power-law:1.2`; nothing said is balanced."""
    if not name:
        return "balanced"
    return name.replace("power_law_", "power-law:").replace("_", "-")
