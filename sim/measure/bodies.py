"""What runs for a case: PyTorch calls on buffers, of which those that a model reads from memory
rotate.

Weights, tables and KV caches are windows of one pool that is several times as large as the last
cache; each call takes the next window, as each layer of a model has its own. Activations stay
where they are: in a model the operator before has just written them. Outputs are allocated in the
call, as eager modules do.

`modules` says whose calls these are: "torch" (nn.Linear, one kernel for GELU, a cache that is
written in place) or "gpt2" (transformers' GPT-2: Conv1D, GELU of eight kernels, a cache that is
concatenated).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from sim.measure.cases import Case
from sim.measure.timer import Call

ALIGNED = 64  # elements
VOCABULARY = 30_000  # outputs of a product from which on it is a head, nn.Linear in GPT-2, too
MOST_LAYERS = 512  # that hold a concatenated cache
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


class Bodies:
    """Builds the call of a case on one device. `memory` and `cache` in bytes."""

    def __init__(self, torch: Any, device: str, memory: float, cache: float, modules: str) -> None:
        self.torch, self.device, self.modules = torch, device, modules
        self.memory, self.cache = memory, cache
        self._pools: dict[str, Any] = {}

    def fits(self, case: Case) -> bool:
        """Whether its buffers leave half of the memory to others."""
        return 3 * case.nbytes + self._pool_bytes(case) < self.memory / 2

    def _pool_bytes(self, case: Case) -> float:
        return max(3 * self.cache, 2 * case.cold)

    def call(self, case: Case) -> tuple[Call, int]:
        """The call, and how many windows it rotates over."""
        made: dict[str, Callable[[Case], tuple[Call, int]]] = {
            "gemm": self._gemm,
            "attention_prefill": self._prefill,
            "attention_decode": self._decode,
            "attention_mixed": self._mixed,
            "encoder_attention": self._encoder,
            "copy": self._copy,
            "elementwise": self._elementwise,
        }
        return made[case.table](case)

    def _dtype(self, case: Case) -> Any:
        return getattr(self.torch, case.columns["dtype"])

    def _new(self, case: Case, *shape: int) -> Any:
        made = self.torch.empty(*shape, dtype=self._dtype(case), device=self.device)
        return made.uniform_(-1.0, 1.0)

    def _windows(self, case: Case, *shape: int) -> tuple[Callable[[int], Any], int]:
        """The i-th of several windows of the pool, as a tensor of this shape; how many."""
        dtype = self._dtype(case)
        each = math.ceil(math.prod(shape) / ALIGNED) * ALIGNED
        wanted = math.ceil(self._pool_bytes(case) / dtype.itemsize)
        pool = self._pools.get(str(dtype))
        if pool is None or len(pool) < max(wanted, each):
            self._pools.pop(str(dtype), None)  # before the larger one is made
            self._pools[str(dtype)] = pool = self._new(case, max(wanted, each))
        count = max(1, len(pool) // each)
        used = math.prod(shape)
        views = [pool[i * each : i * each + used].view(*shape) for i in range(min(count, 4096))]
        return (lambda i: views[i % len(views)]), len(views)

    def _gemm(self, case: Case) -> tuple[Call, int]:
        m, n, k = (case.columns[c] for c in ("m", "n", "k"))
        x, bias = self._new(case, m, k), self._new(case, n)
        if self.modules == "gpt2" and n < VOCABULARY:
            weight, copies = self._windows(case, k, n)
            addmm = self.torch.addmm
            return (lambda i: addmm(bias, x, weight(i))), copies
        weight, copies = self._windows(case, n, k)
        linear = self.torch.nn.functional.linear
        return (lambda i: linear(x, weight(i), bias)), copies

    def _heads(self, case: Case, batch: int, tokens: int, heads: int, width: int) -> Any:
        """(batch, heads, tokens, width), as a view of what a projection writes."""
        return (
            self._new(case, batch, tokens, heads * width)
            .view(batch, tokens, heads, width)
            .transpose(1, 2)
        )

    def _attend(self, query: Any, key: Any, value: Any, **options: Any) -> Any:
        """Attention, with the heads side by side again."""
        if query.shape[1] != key.shape[1]:
            options["enable_gqa"] = True
        out = self.torch.nn.functional.scaled_dot_product_attention(query, key, value, **options)
        return out.transpose(1, 2).contiguous()

    def _prefill(self, case: Case) -> tuple[Call, int]:
        c = case.columns
        batch, new, width = c["batch"], c["q_len"], c["head_dim"]
        q = self._heads(case, batch, new, c["num_heads"], width)
        k, v = (self._heads(case, batch, new, c["num_kv_heads"], width) for _ in "kv")
        cat, nothing = self.torch.cat, self.torch.empty(0, dtype=q.dtype, device=self.device)

        def concatenated(i: int) -> Any:
            return self._attend(q, cat([nothing, k], -2), cat([nothing, v], -2), is_causal=True)

        def plain(i: int) -> Any:
            return self._attend(q, k, v, is_causal=True)

        return (concatenated if self.modules == "gpt2" else plain), 1

    def _decode(self, case: Case) -> tuple[Call, int]:
        c = case.columns
        batch, context, width = c["batch"], c["kv_len"], c["head_dim"]
        q = self._heads(case, batch, 1, c["num_heads"], width)
        k, v = (self._heads(case, batch, 1, c["num_kv_heads"], width) for _ in "kv")
        if self.modules == "gpt2":
            # Each layer keeps what it has concatenated until its next step, in memory of its own.
            one = (batch, c["num_kv_heads"], context - 1, width)
            each = 2 * math.prod(one) * q.dtype.itemsize
            copies = min(MOST_LAYERS, max(2, math.ceil(self._pool_bytes(case) / max(1, each))))
            layers = [(self._new(case, *one), self._new(case, *one)) for _ in range(copies)]
            cat = self.torch.cat

            def concatenated(i: int) -> Any:
                keys, values = layers[i % copies]
                keys, values = cat([keys, k], -2), cat([values, v], -2)
                layers[i % copies] = keys, values
                return self._attend(q, keys, values)

            return concatenated, copies
        cache, copies = self._windows(case, 2, batch, c["num_kv_heads"], context, width)

        def in_place(i: int) -> Any:
            keys, values = cache(i)
            keys[:, :, -1:].copy_(k)
            values[:, :, -1:].copy_(v)
            return self._attend(q, keys, values)

        return in_place, copies

    def _mixed(self, case: Case) -> tuple[Call, int]:
        c = case.columns
        new, before, count = c["prefill_chunk"], c["kv_prefill"], c["n_decode"]
        heads, kv, width = c["num_heads"], c["num_kv_heads"], c["head_dim"]
        chunk, ones = (
            self._heads(case, 1, new, heads, width),
            self._heads(case, count, 1, heads, width),
        )
        long = 2 * kv * (before + new) * width
        short = 2 * count * kv * c["kv_decode"] * width
        cache, copies = self._windows(case, long + short)
        mask = None
        if before:  # every query sees all earlier tokens and its own chunk's up to itself
            seen = self.torch.ones(new, before + new, dtype=self.torch.bool, device=self.device)
            mask = seen.tril(before)

        def both(i: int) -> Any:
            window = cache(i)
            keys, values = window[:long].view(2, 1, kv, before + new, width)
            first = self._attend(chunk, keys, values, attn_mask=mask, is_causal=mask is None)
            keys, values = window[long:].view(2, count, kv, c["kv_decode"], width)
            return first, self._attend(ones, keys, values)

        return both, copies

    def _encoder(self, case: Case) -> tuple[Call, int]:
        c = case.columns
        q, k, v = (
            self._heads(case, c["batch"], c["seq_len"], c["num_heads"], c["head_dim"])
            for _ in "qkv"
        )
        return (lambda i: self._attend(q, k, v)), 1

    def _copy(self, case: Case) -> tuple[Call, int]:
        rows, width = case.columns["rows"], case.columns["width"]
        source, copies = self._windows(case, rows, width)
        target = self._new(case, rows, width)
        return (lambda i: target.copy_(source(i))), copies

    def _elementwise(self, case: Case) -> tuple[Call, int]:
        kind, rows, width = (case.columns[c] for c in ("op", "rows", "width"))
        torch, functional = self.torch, self.torch.nn.functional
        if kind == "embedding":
            most = max(rows, int(self._pool_bytes(case)) // (width * self._dtype(case).itemsize))
            table, _ = self._windows(case, most, width)
            ids = [torch.randint(0, most, (rows,), device=self.device) for _ in range(16)]
            return (lambda i: functional.embedding(ids[i % 16], table(0))), 16
        x = self._new(case, rows, width)
        if kind == "norm":
            weight, bias = self._new(case, width), self._new(case, width)
            return (lambda i: functional.layer_norm(x, (width,), weight, bias)), 1
        if kind == "residual":
            y = self._new(case, rows, width)
            return (lambda i: x + y), 1
        if kind == "softmax":
            return (lambda i: torch.softmax(x, -1)), 1
        if kind == "rotary":
            cos, sin = self._new(case, rows, width), self._new(case, rows, width)
            half = width // 2

            def rotated(i: int) -> Any:
                return x * cos + torch.cat((-x[:, half:], x[:, :half]), -1) * sin

            return rotated, 1
        if self.modules == "gpt2":
            root = math.sqrt(2.0 / math.pi)

            def composed(i: int) -> Any:
                return 0.5 * x * (1.0 + torch.tanh(root * (x + 0.044715 * torch.pow(x, 3.0))))

            return composed, 1
        return (lambda i: functional.gelu(x)), 1
