"""Kernels that only `memorywall measure` writes: streams by kind, copies, mixed attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sim.errors import InputError, hint, quoted
from sim.fidelity.validate.cells import Row
from sim.fidelity.validate.kernels import heads, mixed_batch, precision
from sim.fidelity.validate.layers import length_regime
from sim.fidelity.validate.names import dtype_of
from sim.fidelity.validate.points import (
    MeasuredFile,
    Place,
    PredictionBench,
    ScoredPoint,
    between,
    priced,
)
from workloads.attention import flash_attention
from workloads.ops import (
    SOFTMAX_FLOPS,
    Elements,
    Op,
    activation,
    lookup,
    norm,
    residual,
    rotary,
    vector,
)

INF = float("inf")


def stream_op(row: Row) -> Op:
    """The operator of a row: `rows` of `width` elements that a kind of operator passes once."""
    form, rows, width = precision(dtype_of(row["dtype"])), row["rows"], row["width"]
    size = rows * width
    builders: dict[str, Callable[[], Op]] = {
        "norm": lambda: norm("norm", "layernorm", rows, width, form),
        "residual": lambda: residual("add", rows, width, form),
        "activation": lambda: activation("gelu", "gelu", rows, width, False, form),
        "softmax": lambda: vector(
            "softmax", "softmax", SOFTMAX_FLOPS * size, Elements(size, size), form
        ),
        "rotary": lambda: rotary("rope", rows, width, form),
        "embedding": lambda: lookup("emb", rows, width, 1, form),
        "copy": lambda: vector("copy", "residual", 0, Elements(size, size), form),
    }
    if row["op"] not in builders:
        raise InputError(f"operator {quoted(row['op'])} is not known{hint(row['op'], builders)}")
    return builders[row["op"]]()


def elementwise(source: MeasuredFile, bench: PredictionBench) -> Iterator[ScoredPoint]:
    """Norms, activations, residuals, look-ups, copies by rows and width."""

    def place(row: Row, device: str) -> Place:
        moved = row["rows"] * (row["read"] + row["written"])
        size = between(moved, (2**18, "small"), (2**22, "middle"), (INF, "large"))
        shape = f"{row['op']} {row['rows']}x{row['width']}"
        regime = f"{row['op']}, {size}"
        return Place(source.format, device, dtype_of(row["dtype"]), regime, "", shape)

    return priced(
        source,
        bench,
        place,
        lambda row, at: bench.seconds(at, dtype_of(row["dtype"]), stream_op(row)),
    )


def attention_mixed(source: MeasuredFile, bench: PredictionBench) -> Iterator[ScoredPoint]:
    """A chunk of a prompt with sequences that decode, in one step."""

    def place(row: Row, device: str) -> Place:
        shape = f"{row['prefill_chunk']} {row['kv_prefill']}"
        return Place(source.format, device, dtype_of(row["dtype"]), length_regime(row), "", shape)

    def price(row: Row, device: str) -> float:
        dtype = dtype_of(row["dtype"])
        shape = heads(row["num_heads"], row["num_kv_heads"], row["head_dim"])
        op = flash_attention("attention", shape, mixed_batch(row), precision(dtype))
        return bench.seconds(device, dtype, op)

    return priced(source, bench, place, price)
