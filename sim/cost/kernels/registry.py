"""Which kernel runs an operator: by its kind, or else by its parts.

A kernel is a function (arithmetic, rates, operator, bytes moved) -> `Times`, of one operator or of
many whose counts are arrays. A new kind of operator that is no product, no attention and no stream
is one entry in `KERNELS`.
"""

from __future__ import annotations

from collections.abc import Callable

from sim.cost.arith import SCALAR, Arith
from sim.cost.kernels.attention import attention_times, chunk_terms
from sim.cost.kernels.attention_shape import attention_shape
from sim.cost.kernels.decode import Line, decode_line, decode_terms
from sim.cost.kernels.experts import expert_terms, expert_times, grouped_rows
from sim.cost.kernels.gemm import gemm_times
from sim.cost.kernels.prefill import ChunkKernel, chunk_kernel
from sim.cost.kernels.price import Flops, Moved, Times
from sim.cost.kernels.rates import Rates
from sim.cost.kernels.stream import Rows, stream_times
from workloads.ops import Op

Kernel = Callable[[Arith, Rates, Op, Moved], Times]


def kernel_of(op: Op) -> Kernel:
    """The kernel of an operator."""
    kernel = KERNELS.get(op.kind)
    if kernel:
        return kernel
    if op.gemms:
        return product
    return attention if op.flash else stream


def flops_of(op: Op) -> Flops:
    """The FLOPs of an operator by unit."""
    return Flops(op.matrix_flops, op.vector_flops)


def product(xp: Arith, rates: Rates, op: Op, moved: Moved) -> Times:
    """Matrix products with what is fused into them."""
    return gemm_times(xp, rates, op.gemms, moved, flops_of(op))


def attention(xp: Arith, rates: Rates, op: Op, moved: Moved) -> Times:
    """Attention that keeps its scores on chip."""
    shape = attention_shape(op.flash, op.traffic)
    return attention_times(xp, rates, moved, flops_of(op), shape.elements, shape)


def chunk_kernel_of(op: Op, rates: Rates) -> ChunkKernel | None:
    """The kernel of chunks and decoding sequences, where it has terms of its own."""
    if kernel_of(op) is not attention:
        return None
    shape = attention_shape(op.flash, op.traffic)
    terms = chunk_terms(rates, shape)
    return chunk_kernel(SCALAR, rates, terms, shape) if terms.tile_rows else None


def decode_line_of(op: Op, rates: Rates) -> Line | None:
    """The kernel of decoding sequences as straight lines in what they see, where it is one."""
    if kernel_of(op) is not attention:
        return None
    shape = attention_shape(op.flash, op.traffic)
    terms = decode_terms(rates, shape)
    return decode_line(SCALAR, rates, terms, shape) if terms.depth else None


def stream(xp: Arith, rates: Rates, op: Op, moved: Moved, bandwidth: float | None = None) -> Times:
    """Element-wise and row-wise operators; `bandwidth` (bytes/s) instead of the device's."""
    shape = Rows("" if op.parts else op.kind, op.rows, op.width)
    return stream_times(xp, rates, moved, flops_of(op), shape, bandwidth)


def experts(xp: Arith, rates: Rates, op: Op, moved: Moved) -> Times:
    """Products of the visited experts, and the sum of their outputs."""
    terms = expert_terms(rates)
    if terms is None:
        return product(xp, rates, op, moved) if op.gemms else stream(xp, rates, op, moved)
    if not op.gemms:
        return stream(xp, rates, op, moved, rates.device.hbm.bandwidth * terms.combine)
    gemm, rows = op.gemms[0], grouped_rows(op.gemms)
    return expert_times(xp, rates, terms, moved, (rows, gemm.k, gemm.n), op.vector_flops)


KERNELS: dict[str, Kernel] = {"experts": experts}
