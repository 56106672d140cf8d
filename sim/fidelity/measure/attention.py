"""Attention as it is measured: PyTorch's scaled_dot_product_attention, with the heads side by side
again behind it.

A cache is written in place, or concatenated with the new token as transformers' caches are: then
keys and values of a layer live in memory of their own until its next step.

What decoding reads and writes has left every cache since the layer's last step, other than what
one kernel leaves to the next. So on a CPU, whose caches are large beside one layer's keys, as many
bytes as the last of them holds pass by before each call.
"""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any

from sim.fidelity.measure.buffers import Body, TensorBuffers
from sim.fidelity.measure.cases import Case

MOST_LAYERS = 512  # that hold a concatenated cache


def attend(buffers: TensorBuffers, query: Any, key: Any, value: Any, **options: Any) -> Any:
    if query.shape[1] != key.shape[1]:
        options["enable_gqa"] = True
    attention = buffers.torch.nn.functional.scaled_dot_product_attention
    return attention(query, key, value, **options).transpose(1, 2).contiguous()


def prefill(buffers: TensorBuffers, case: Case, modules: str) -> Body:
    c = case.columns
    batch, new, width = c["batch"], c["q_len"], c["head_dim"]
    q = buffers.heads(case, batch, new, c["num_heads"], width)
    k, v = (buffers.heads(case, batch, new, c["num_kv_heads"], width) for _ in "kv")
    cat, nothing = buffers.torch.cat, buffers.new(case, 0)

    def concatenated(i: int) -> Any:
        keys, values = cat([nothing, k], -2), cat([nothing, v], -2)
        return attend(buffers, q, keys, values, is_causal=True)

    def plain(i: int) -> Any:
        return attend(buffers, q, k, v, is_causal=True)

    return Body(concatenated if modules == "gpt2" else plain)


def decode(buffers: TensorBuffers, case: Case, modules: str) -> Body:
    c = case.columns
    batch, context, width = c["batch"], c["kv_len"], c["head_dim"]
    q = buffers.heads(case, batch, 1, c["num_heads"], width)
    k, v = (buffers.heads(case, batch, 1, c["num_kv_heads"], width) for _ in "kv")
    if modules == "gpt2":
        return _concatenated(buffers, case, q, k, v)
    cache, copies = buffers.windows(case, 2, batch, c["num_kv_heads"], context, width)

    def in_place(i: int) -> Any:
        keys, values = cache(i)
        keys[:, :, -1:].copy_(k)
        values[:, :, -1:].copy_(v)
        return attend(buffers, q, keys, values)

    return Body(in_place, copies, buffers.pass_by)


def _concatenated(buffers: TensorBuffers, case: Case, q: Any, k: Any, v: Any) -> Body:
    """Each layer's cache is replaced by a longer one; `copies` layers take turns."""
    c = case.columns
    one = (c["batch"], c["num_kv_heads"], c["kv_len"] - 1, c["head_dim"])
    each = 2 * math.prod(one) * q.dtype.itemsize
    copies = min(MOST_LAYERS, max(2, math.ceil(buffers.pool_bytes(case) / max(1, each))))
    layers = [(buffers.new(case, *one), buffers.new(case, *one)) for _ in range(copies)]
    cat = buffers.torch.cat

    def call(i: int) -> Any:
        keys, values = layers[i % copies]
        keys, values = cat([keys, k], -2), cat([values, v], -2)
        layers[i % copies] = keys, values
        return attend(buffers, q, keys, values)

    return Body(call, copies, buffers.pass_by)


def mixed(buffers: TensorBuffers, case: Case, modules: str) -> Body:
    """One call for the chunk, one for all that decode."""
    c = case.columns
    new, before, count = c["prefill_chunk"], c["kv_prefill"], c["n_decode"]
    heads, kv, width = c["num_heads"], c["num_kv_heads"], c["head_dim"]
    chunk = buffers.heads(case, 1, new, heads, width)
    ones = buffers.heads(case, count, 1, heads, width)
    long = 2 * kv * (before + new) * width
    short = 2 * count * kv * c["kv_decode"] * width
    cache, copies = buffers.windows(case, long + short)
    mask = _behind(buffers, new, before) if before else None

    def call(i: int) -> Any:
        window = cache(i)
        keys, values = window[:long].view(2, 1, kv, before + new, width)
        first = attend(buffers, chunk, keys, values, attn_mask=mask, is_causal=mask is None)
        keys, values = window[long:].view(2, count, kv, c["kv_decode"], width)
        return first, attend(buffers, ones, keys, values)

    return Body(call, copies, buffers.pass_by)


def _behind(buffers: TensorBuffers, new: int, before: int) -> Any:
    """Every query sees all earlier tokens and its own chunk's up to itself. On a GPU as a kind of
    mask that kernels have a path for; a mask of numbers would take them to the slow one."""
    torch = buffers.torch
    if buffers.device == "cpu":
        return torch.ones(new, before + new, dtype=torch.bool).tril(before)
    return import_module("torch.nn.attention.bias").causal_lower_right(new, before + new)


def encoder(buffers: TensorBuffers, case: Case, modules: str) -> Body:
    c = case.columns
    q, k, v = (
        buffers.heads(case, c["batch"], c["seq_len"], c["num_heads"], c["head_dim"]) for _ in "qkv"
    )
    return Body(lambda i: attend(buffers, q, k, v))
