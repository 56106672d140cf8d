"""What runs for a case: PyTorch calls on buffers. Outputs are allocated in the call, as eager
modules do.

`modules` says whose calls these are: "torch" (nn.Linear, one kernel for GELU, a cache that is
written in place) or "gpt2" (transformers' GPT-2: Conv1D, GELU of eight kernels, a cache that is
concatenated).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from sim.fidelity.measure import attention
from sim.fidelity.measure.buffers import Body, TensorBuffers
from sim.fidelity.measure.cases import Case

VOCABULARY = 30_000  # outputs of a product from which on it is a head, nn.Linear in GPT-2, too
KERNEL_NAMES = {
    ("torch", "gemm"): "torch.nn.functional.linear",
    ("gpt2", "gemm"): "torch.addmm",
    ("torch", "attention"): "scaled_dot_product_attention",
    ("gpt2", "attention"): "torch.cat + scaled_dot_product_attention",
    ("torch", "mixed"): "scaled_dot_product_attention, one call for the chunk, one for decodes",
    ("torch", "activation"): "gelu",
    ("gpt2", "activation"): "gelu of eight kernels",
    ("torch", "norm"): "layer_norm",
    ("torch", "residual"): "add",
}


def kernel_name(case: Case, modules: str) -> str:
    """What stands in a row's column `kernel`."""
    what = case.columns.get("op", case.table)
    if case.table == "attention_mixed":
        what = "mixed"
    elif case.table in ("attention_prefill", "attention_decode"):
        what = "attention"
    if case.columns.get("n", 0) >= VOCABULARY:
        modules = "torch"
    return KERNEL_NAMES.get((modules, what)) or KERNEL_NAMES.get(("torch", what), what)


def body(buffers: TensorBuffers, case: Case, modules: str) -> Body:
    """The call of a case, on buffers of its own."""
    return MADE[case.table](buffers, case, modules)


def gemm(buffers: TensorBuffers, case: Case, modules: str) -> Body:
    m, n, k = (case.columns[c] for c in ("m", "n", "k"))
    x, bias = buffers.new(case, m, k), buffers.new(case, n)
    if modules == "gpt2" and n < VOCABULARY:
        weight, copies = buffers.windows(case, k, n)
        addmm = buffers.torch.addmm
        return Body(lambda i: addmm(bias, x, weight(i)), copies)
    weight, copies = buffers.windows(case, n, k)
    linear = buffers.torch.nn.functional.linear
    return Body(lambda i: linear(x, weight(i), bias), copies)


def copy(buffers: TensorBuffers, case: Case, modules: str) -> Body:
    rows, width = case.columns["rows"], case.columns["width"]
    source, copies = buffers.windows(case, rows, width)
    target = buffers.new(case, rows, width)
    return Body(lambda i: target.copy_(source(i)), copies)


def elementwise(buffers: TensorBuffers, case: Case, modules: str) -> Body:
    kind, rows, width = (case.columns[c] for c in ("op", "rows", "width"))
    torch, functional = buffers.torch, buffers.torch.nn.functional
    if kind == "embedding":
        most = int(buffers.pool_bytes(case)) // (width * buffers.dtype(case).itemsize)
        table = buffers.windows(case, max(rows, most), width)[0](0)
        ids = [torch.randint(0, len(table), (rows,), device=buffers.device) for _ in range(16)]
        return Body(lambda i: functional.embedding(ids[i % 16], table), 16)
    x = buffers.new(case, rows, width)
    if kind == "norm":
        weight, bias = buffers.new(case, width), buffers.new(case, width)
        return Body(lambda i: functional.layer_norm(x, (width,), weight, bias))
    if kind == "residual":
        y = buffers.new(case, rows, width)
        return Body(lambda i: x + y)
    if kind == "softmax":
        return Body(lambda i: torch.softmax(x, -1))
    if kind == "rotary":
        return _rotary(buffers, case, x)
    if modules == "gpt2":
        root = math.sqrt(2.0 / math.pi)
        return Body(
            lambda i: 0.5 * x * (1.0 + torch.tanh(root * (x + 0.044715 * torch.pow(x, 3.0))))
        )
    return Body(lambda i: functional.gelu(x))


def _rotary(buffers: TensorBuffers, case: Case, x: Any) -> Body:
    """Of each row, halves turned against one another."""
    cos, sin, cat = buffers.new(case, *x.shape), buffers.new(case, *x.shape), buffers.torch.cat
    half = x.shape[-1] // 2
    return Body(lambda i: x * cos + cat((-x[:, half:], x[:, :half]), -1) * sin)


MADE: dict[str, Callable[[TensorBuffers, Case, str], Body]] = {
    "gemm": gemm,
    "attention_prefill": attention.prefill,
    "attention_decode": attention.decode,
    "attention_mixed": attention.mixed,
    "encoder_attention": attention.encoder,
    "copy": copy,
    "elementwise": elementwise,
}
