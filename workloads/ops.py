"""Operators: what each computes and what each moves.

There is one function per operator. All counts are exact integers for the share of one rank:
FLOPs (2 per multiply-add), vector FLOPs, and bytes by kind. Every operator reads each input
once and writes its output once. This is the compulsory traffic. `sim.cost.tiling` adds what a
finite on-chip memory costs.

The FLOPs per element of the vector operators reproduce the "Other" rows of Tables 3, 10
and 11 of Kim et al. 2023 (arXiv 2302.14017): 4 per score, and
2 norms x 8 + GELU 10 x 4 + 2 residuals x 1 = 58 per element of width d. The tables fix
these two sums, but not the parts of 58.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from workloads.model import Record
from workloads.precision import Precision, packed

Kind = Literal[
    "embedding",
    "projection",
    "attention",
    "softmax",
    "ffn",
    "router",
    "experts",
    "norm",
    "activation",
    "residual",
    "rotary",
    "head",
]

Split = Literal["", "column", "row", "heads", "vocab"]

NORM_FLOPS = {"layernorm": 8, "rmsnorm": 6}
NORM_WEIGHTS = {"layernorm": 2, "rmsnorm": 1}
ACTIVATION_FLOPS = {"gelu": 10, "silu": 5, "relu": 1}
SOFTMAX_FLOPS = 4
ROTARY_FLOPS = 3
VECTOR_KINDS = frozenset({"norm", "activation", "residual", "rotary", "softmax"})


def least(a: int, b: int) -> int:
    """The smaller of two whole numbers, or of two arrays of them one by one."""
    return (a + b - abs(a - b)) // 2


def most(a: int, b: int) -> int:
    """The larger of two whole numbers, or of two arrays of them one by one."""
    return (a + b + abs(a - b)) // 2


class Traffic(Record, frozen=True, kw_only=True):
    """Bytes by kind. They add up."""

    weights: int = 0
    read: int = 0  # activations in
    written: int = 0  # activations out
    kv_read: int = 0
    kv_written: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            weights=self.weights + other.weights,
            read=self.read + other.read,
            written=self.written + other.written,
            kv_read=self.kv_read + other.kv_read,
            kv_written=self.kv_written + other.kv_written,
        )

    @property
    def loads(self) -> int:
        """Bytes towards the device."""
        return self.weights + self.read + self.kv_read

    @property
    def stores(self) -> int:
        """Bytes away from the device."""
        return self.written + self.kv_written

    @property
    def total(self) -> int:
        return self.loads + self.stores


class Gemm(Record, frozen=True, kw_only=True):
    """`batch` independent products (m x k) (k x n), with the bits of a number of each matrix."""

    batch: int = 1
    m: int
    k: int
    n: int
    a_bits: int
    b_bits: int
    out_bits: int

    @property
    def flops(self) -> int:
        """2 per multiply-add; a bias takes the place of the first addition."""
        return 2 * self.batch * self.m * self.k * self.n

    @property
    def bytes(self) -> int:
        """Compulsory traffic: both inputs and the output, once each."""
        a = packed(self.batch * self.m * self.k, self.a_bits)
        b = packed(self.batch * self.k * self.n, self.b_bits)
        return a + b + packed(self.batch * self.m * self.n, self.out_bits)


class Flash(Record, frozen=True, kw_only=True):
    """Attention of equal sequences that keeps its scores on chip.

    new: query tokens of a sequence; context: keys that its last one sees if no window hides them.
    keys: those that at least one query token sees, of all sequences together.
    heads, kv_heads: query heads, and key/value heads that they share. width: of a key and a value.
    cached: keys and values of `kv_bits` a number lie in the cache; else they are activations.
    kv_bytes: all keys and values seen, once.
    """

    sequences: int
    new: int
    context: int
    keys: int
    heads: int
    kv_heads: int
    width: int
    causal: bool
    window: int
    cached: bool
    kv_bits: int
    kv_bytes: int

    @property
    def query_bytes(self) -> int:
        """Bytes, in fp32, of the query rows and results that share the keys of one head."""
        return self.new * (self.heads // self.kv_heads) * self.width * 4


class Op(Record, frozen=True, kw_only=True):
    """One operator of one rank.

    split: the axis along which tensor parallelism may cut it ("" if every rank repeats it).
    exchange: what ranks must do with the outputs of a split operator before the next one:
        "sum" (partial sums) or "gather" (slices).
    parts: the names of the operators that a fusion put together here.
    rows, width: rows of an element-wise operator, and elements of each; 0 where there are none.
    varies: which numbers of the batch the counts depend on: its new "tokens" alone, the number of
        "rows" that need an answer (logits, a pooled vector), or the "context" of its sequences.
    branches: other numbers may make other operators of it (routing of tokens to experts, the two
        forms of a latent), so that no formula covers arrays of batches.
    """

    name: str
    kind: str
    matrix_flops: int = 0
    vector_flops: int = 0
    traffic: Traffic = msgspec.field(default_factory=Traffic)
    gemms: tuple[Gemm, ...] = ()
    flash: tuple[Flash, ...] = ()
    split: Split = ""
    exchange: Literal["", "sum", "gather"] = ""
    exchange_bytes: int = 0  # the full (gathered) tensor, once
    parts: tuple[str, ...] = ()
    rows: int = 0
    width: int = 0
    varies: Literal["tokens", "rows", "context"] = "tokens"
    branches: bool = False

    @property
    def flops(self) -> int:
        return self.matrix_flops + self.vector_flops


class Matmul(NamedTuple):
    """`batch` products of activations (rows x inputs) and weights (inputs x outputs)."""

    rows: int
    inputs: int
    outputs: int
    batch: int = 1


class Elements(NamedTuple):
    """Numbers that a vector operator reads and writes, and those among its weights."""

    read: int
    written: int
    weights: int = 0


def linear(
    name: str,
    kind: Kind,
    matmul: Matmul,
    precision: Precision,
    *,
    bias: int = 0,
    split: Split = "",
) -> Op:
    """Products of activations with weights, and the addition of `bias` elements."""
    rows, inputs, outputs, batch = matmul
    act, wide = precision.activation_bits, precision.weight_bits
    gemm = Gemm(batch=batch, m=rows, k=inputs, n=outputs, a_bits=act, b_bits=wide, out_bits=act)
    return Op(
        name=name,
        kind=kind,
        matrix_flops=gemm.flops,
        traffic=Traffic(
            weights=packed(batch * inputs * outputs, wide) + packed(bias, act),
            read=packed(batch * rows * inputs, act),
            written=packed(batch * rows * outputs, act),
        ),
        gemms=(gemm,),
        split=split,
    )


def exchanged(op: Op, exchange: Literal["sum", "gather"], ways: int = 1) -> Op:
    """The operator `op`, whose output the ranks add up ("sum") or collect ("gather").

    `ways` is the number of ranks that each hold one slice of a gathered output.
    """
    nbytes = op.traffic.written * ways
    return msgspec.structs.replace(op, exchange=exchange, exchange_bytes=nbytes)


def grouped(
    name: str,
    kind: Kind,
    groups: list[tuple[int, int]],
    weights: tuple[int, int],
    precision: Precision,
    split: Split,
) -> Op:
    """Products with one weight matrix of (inputs, outputs) elements per visited expert.

    `groups` gives (number of experts, rows of each).
    """
    parts = [
        linear(name, kind, Matmul(rows, *weights, batch=count), precision, split=split)
        for count, rows in groups
        if count
    ]
    traffic = Traffic()
    for part in parts:
        traffic = traffic + part.traffic
    return msgspec.structs.replace(
        parts[0],
        matrix_flops=sum(part.matrix_flops for part in parts),
        traffic=traffic,
        gemms=tuple(gemm for part in parts for gemm in part.gemms),
        branches=True,
    )


def vector(
    name: str,
    kind: Kind,
    flops: int,
    elements: Elements,
    precision: Precision,
    *,
    split: Split = "",
) -> Op:
    """An element-wise or row-wise operator."""
    bits = precision.activation_bits
    return Op(
        name=name,
        kind=kind,
        vector_flops=flops,
        traffic=Traffic(
            weights=packed(elements.weights, bits),
            read=packed(elements.read, bits),
            written=packed(elements.written, bits),
        ),
        split=split,
    )


def norm(name: str, which: str, rows: int, width: int, precision: Precision) -> Op:
    """LayerNorm or RMSNorm over `rows` rows of `width` elements."""
    size = rows * width
    weights = NORM_WEIGHTS[which] * width
    flops = NORM_FLOPS[which] * size
    op = vector(name, "norm", flops, Elements(size, size, weights=weights), precision)
    return msgspec.structs.replace(op, rows=rows, width=width)


def residual(name: str, rows: int, width: int, precision: Precision) -> Op:
    """x + y: two streams in, one out."""
    size = rows * width
    return vector(name, "residual", size, Elements(2 * size, size), precision)


def activation(
    name: str, which: str, rows: int, inner: int, gated: bool, precision: Precision
) -> Op:
    """act(x), or act(gate) * up over a 2 x inner input."""
    size = rows * inner
    flops = (ACTIVATION_FLOPS[which] + (1 if gated else 0)) * size
    read = 2 * size if gated else size
    op = vector(name, "activation", flops, Elements(read, size), precision, split="column")
    return msgspec.structs.replace(op, rows=rows, width=inner)


def rotary(name: str, rows: int, width: int, precision: Precision) -> Op:
    """Rotary position embedding of `width` elements per row (queries and keys)."""
    size = rows * width
    flops = ROTARY_FLOPS * size
    op = vector(name, "rotary", flops, Elements(size, size), precision, split="heads")
    return msgspec.structs.replace(op, rows=rows, width=width)


def lookup(
    name: str, rows: int, width: int, tables: int, precision: Precision, ways: int = 1
) -> Op:
    """`tables` table rows read and added up for each token.

    The token table is spread over `ways` ranks, each of which holds and reads its share.
    """
    size = rows * width
    read = size * (tables - 1) + -(-size // ways)
    return Op(
        name=name,
        kind="embedding",
        vector_flops=size * max(0, tables - 1),
        traffic=Traffic(
            weights=packed(read, precision.table_bits),
            written=packed(size, precision.activation_bits),
        ),
        exchange="sum",
        exchange_bytes=packed(size, precision.activation_bits),
        rows=rows,
        width=width,
    )
