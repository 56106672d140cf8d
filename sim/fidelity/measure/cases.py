"""What is measured: kernels and shapes, in the columns of the measurement files.

Shapes are spread so that each term of the cost model shows: one row to thousands (floor, memory,
crossover, arithmetic), weights of 1 MB to hundreds (bandwidth ramp), rows beside multiples of
tiles (waves), short and long contexts, few and many sequences.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import msgspec

from workloads.attention import pairs
from workloads.precision import BITS

# A number format as PyTorch and the files name it.
FORMATS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
KERNELS = (
    "copy",
    "gemm",
    "attention_prefill",
    "attention_decode",
    "attention_mixed",
    "encoder_attention",
    "elementwise",
    "collectives",
)
# What --only may say, too.
GROUPS = {
    "attention": ("attention_prefill", "attention_decode", "attention_mixed", "encoder_attention"),
    "all-reduce": ("collectives",),
    "norms": ("elementwise",),
}
MODULES = ("torch", "gpt2")


class Case(msgspec.Struct, frozen=True):
    """One kernel to time: the table it goes to, its columns, and what it takes.

    flops, nbytes: for the estimate of its time. cold: bytes of what a model reads from memory
    at every call (weights, KV), which must not be warm.
    """

    table: str
    dtype: str
    columns: dict[str, Any]
    flops: float
    nbytes: float
    cold: float

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells it from the others of its table."""
        return tuple(self.columns.values())


M = (1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096, 8192)
BESIDE = (33, 65, 112, 129, 144, 160, 176, 208, 240, 257, 272, 513, 1025)
WEIGHTS = (  # n, k
    *((512, 512), (768, 768), (1024, 1024), (1536, 1536), (2048, 2048), (4096, 4096)),
    *((3072, 768), (768, 3072), (4096, 1024), (1024, 4096), (2304, 768), (6144, 2048)),
    *((2048, 8192), (14336, 4096), (4096, 14336), (32768, 1024), (50304, 768)),
)
QUICK_M, QUICK_WEIGHTS = (1, 16, 128), ((256, 256), (1024, 256))


def gemm(dtype: str, quick: bool = False) -> Iterator[Case]:
    """out[m, n] = x[m, k] W[n, k]^T + b; m beside multiples of tiles for one weight.

    `cold` tells calibration that also small weights came from memory.
    """
    shapes = list(product(QUICK_WEIGHTS, QUICK_M)) if quick else list(product(WEIGHTS, M))
    if not quick:
        shapes += [((2048, 2048), m) for m in BESIDE]
    size = BITS[dtype] // 8
    for (n, k), m in shapes:
        moved = size * (m * k + n * k + m * n)
        columns = {"dtype": FORMATS[dtype], "m": m, "n": n, "k": k, "cold": True}
        yield Case("gemm", dtype, columns, 2.0 * m * n * k, moved, size * n * k)


HEADS = ((12, 12, 64), (16, 16, 64), (32, 8, 128), (8, 8, 128))
QUICK_HEADS = ((4, 4, 32),)


def attention_prefill(dtype: str, quick: bool = False) -> Iterator[Case]:
    """Whole causal prompts."""
    lengths = (16, 64) if quick else (16, 32, 64, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096)
    for heads, batch, new in product(QUICK_HEADS if quick else HEADS, (1, 4), lengths):
        yield _attention("attention_prefill", dtype, batch, new, new, heads)


def attention_decode(dtype: str, quick: bool = False) -> Iterator[Case]:
    """One new token per sequence behind its cache."""
    lengths = (16, 64) if quick else (32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
    batches = (1,) if quick else (1, 2, 4, 16, 64)
    for heads, batch, context in product(QUICK_HEADS if quick else HEADS, batches, lengths):
        yield _attention("attention_decode", dtype, batch, 1, context, heads)


def _attention(
    table: str, dtype: str, batch: int, new: int, context: int, heads: tuple[int, int, int]
) -> Case:
    queries, kv, width = heads
    columns = {
        "batch": batch,
        "q_len": new,
        "kv_len": context,
        "num_heads": queries,
        "num_kv_heads": kv,
        "head_dim": width,
        "window": 0,
        "dtype": FORMATS[dtype],
        "kv_dtype": FORMATS[dtype],
    }
    size = BITS[dtype] // 8
    cache = 2.0 * batch * context * kv * width * size
    flops = 4.0 * batch * queries * width * pairs(new, context - new, causal=True)
    moved = cache + 2.0 * batch * new * queries * width * size
    return Case(table, dtype, columns, flops, moved, cache if new == 1 else 0.0)


def attention_mixed(dtype: str, quick: bool = False) -> Iterator[Case]:
    """A chunk of a prompt, alone or behind earlier ones, in one step with sequences that decode."""
    chunks = ((16, 0),) if quick else ((128, 0), (512, 0), (512, 1024), (2048, 0))
    decodes = ((2, 32),) if quick else ((8, 256), (32, 256), (8, 2048), (32, 2048))
    size = BITS[dtype] // 8
    for heads, (chunk, before), (count, context) in product(
        QUICK_HEADS if quick else HEADS[1:3], chunks, decodes
    ):
        queries, kv, width = heads
        columns = {
            "prefill_chunk": chunk,
            "kv_prefill": before,
            "n_decode": count,
            "kv_decode": context,
            "num_heads": queries,
            "num_kv_heads": kv,
            "head_dim": width,
            "dtype": FORMATS[dtype],
        }
        seen = chunk + before + count * context
        cache = 2.0 * seen * kv * width * size
        scores = pairs(chunk, before, causal=True) + count * context
        yield Case("attention_mixed", dtype, columns, 4.0 * queries * width * scores, cache, cache)


def encoder_attention(dtype: str, quick: bool = False) -> Iterator[Case]:
    """Whole sequences without a mask."""
    lengths = (16, 64) if quick else (16, 32, 64, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096)
    shapes = ((4, 32),) if quick else ((12, 64), (16, 64), (16, 80))
    size = BITS[dtype] // 8
    for (heads, width), batch, seq in product(shapes, (1, 4), lengths):
        columns = {
            "batch": batch,
            "seq_len": seq,
            "num_heads": heads,
            "head_dim": width,
            "dtype": FORMATS[dtype],
        }
        moved = 4.0 * batch * seq * heads * width * size
        flops = 4.0 * batch * heads * width * seq * seq
        yield Case("encoder_attention", dtype, columns, flops, moved, 0.0)


# Kind of operator: elements that a row of `width` reads and writes.
STREAMS = {
    "residual": (2, 1),
    "activation": (1, 1),
    "norm": (1, 1),
    "softmax": (1, 1),
    "rotary": (1, 1),
    "embedding": (1, 1),
}


def elementwise(dtype: str, quick: bool = False) -> Iterator[Case]:
    """Norms, activations, residuals, softmax, rotary embedding, look-ups of rows of a table."""
    rows = (1, 64) if quick else (1, 4, 16, 64, 128, 256, 512, 1024, 2048, 4096, 16384)
    widths = (256,) if quick else (768, 1024, 2048, 3072, 4096)
    for kind, width, count in product(STREAMS, widths, rows):
        yield stream(dtype, kind, count, width, *STREAMS[kind])


def copy(dtype: str, quick: bool = False) -> Iterator[Case]:
    """Plain copies, the largest of them far larger than any cache."""
    for mib in (1,) if quick else (1, 4, 16, 64, 256, 1024):
        yield stream(dtype, "copy", mib * 1024, 8192 // BITS[dtype], 1, 1)


def stream(dtype: str, kind: str, rows: int, width: int, read: int, written: int) -> Case:
    """An operator that passes `rows` of `width` elements once, `read` in and `written` out."""
    table = "copy" if kind == "copy" else "elementwise"
    columns = {"op": kind, "rows": rows, "width": width, "read": read * width}
    columns |= {"written": written * width, "dtype": FORMATS[dtype]}
    moved = float(rows * width * (read + written) * BITS[dtype] // 8)
    cold = moved / 2 if kind in ("copy", "embedding") else 0.0
    return Case(table, dtype, columns, 10.0 * rows * width, moved, cold)


def collectives(dtype: str, quick: bool = False) -> Iterator[Case]:
    """All-reduces of 1 KiB to 256 MiB, twice as much from one to the next."""
    for power in (10, 14) if quick else range(10, 29):
        columns = {"op": "all_reduce", "bytes": 2**power, "dtype": FORMATS[dtype]}
        yield Case("collectives", dtype, columns, 0.0, 4.0 * 2**power, 0.0)


GRIDS = {
    "copy": copy,
    "gemm": gemm,
    "attention_prefill": attention_prefill,
    "attention_decode": attention_decode,
    "attention_mixed": attention_mixed,
    "encoder_attention": encoder_attention,
    "elementwise": elementwise,
    "collectives": collectives,
}


def grid(kernels: tuple[str, ...], dtypes: tuple[str, ...], quick: bool = False) -> list[Case]:
    """All cases of the named kernels and number formats, in the order of `KERNELS`."""
    return [
        case
        for name in KERNELS
        if name in kernels
        for dtype in dtypes
        for case in GRIDS[name](dtype, quick)
    ]
