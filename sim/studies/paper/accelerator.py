"""Table 5 and Fig 32 of Kim et al. 2023 (arXiv 2302.14017): the accelerator of their Fig 11.

Same graphs; the traffic between DRAM and L2 is that of the paper's square tiling with 32-bit
numbers in front of nonlinear operators, the price is that of `sim.cost.model` on the device
`survey-accelerator`, and the time is that of `sim.engine.des`.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from hw_models.device import Device
from sim.cost.model import CostModel
from sim.cost.tiling import Tiling, best_tiling, fixed_tiling
from sim.engine import des as engine
from sim.engine.des import Program, Task
from sim.inputs.catalogue import load_device
from sim.mapping.emit import Emitter
from sim.studies.paper.convention import layer_ops, rewritten
from workloads.batch import Batch
from workloads.model import Model
from workloads.ops import Gemm, Op, Traffic

# Inferred from the re-read counts of Table 5 (paper.md B6), not stated: a weight is read
# ceil(l/1024) times, inputs of a 768-wide output twice and of a 3072-wide one 7 times, and
# queries and keys ceil(l/1024) times.
TILE_WEIGHTS = (1024, 448)
TILE_SCORES = (1024, 1024)
# Written at 32 bits because a nonlinear operator follows: the text says so of W_out; Q x K and W_1
# agree with Table 5, and W_2 does not, although a norm follows it.
WIDE_OUTPUTS = frozenset({"scores", "out_proj", "up_proj"})
# These read 32-bit numbers, norm weights included.
WIDE_INPUTS = frozenset({"softmax", "norm", "activation"})
ACCUMULATED_BITS = 32

COLUMNS = {
    "W_Q,K,V": ("q_proj", "k_proj", "v_proj"),
    "QxK": ("scores",),
    "AxV": ("values",),
    "W_out": ("out_proj",),
    "W_1": ("up_proj",),
    "W_2": ("down_proj",),
}


def survey_device() -> Device:
    """The accelerator of Fig 11."""
    return load_device("survey-accelerator")


def non_ideal(op: Op, *, best: int = 0) -> Op:
    """The operator with its DRAM-L2 traffic under the paper's tiling, or under the best one.

    `best` is an on-chip capacity in bytes, 0 for the paper's tiles. The products are taken
    away, for their re-reads are in the traffic already; the width of numbers is the paper's.
    """
    traffic = op.traffic
    if op.gemms:
        bits = ACCUMULATED_BITS if op.name in WIDE_OUTPUTS else 0
        gemms = [msgspec.structs.replace(g, out_bits=bits or g.out_bits) for g in op.gemms]
        tile = TILE_SCORES if op.kind == "attention" else TILE_WEIGHTS
        chosen = [_tiling(gemm, tile, best) for gemm in gemms]
        traffic = Traffic(
            read=sum(t.read for t in chosen),
            written=sum(t.written for t in chosen),
            kv_written=op.traffic.kv_written,
        )
    elif op.kind in WIDE_INPUTS:
        traffic = msgspec.structs.replace(
            traffic,
            weights=traffic.weights * ACCUMULATED_BITS // 8,
            read=traffic.read * ACCUMULATED_BITS // 8,
        )
    return msgspec.structs.replace(op, traffic=traffic, gemms=())


def _tiling(gemm: Gemm, tile: tuple[int, int], best: int) -> Tiling:
    return best_tiling(gemm, best) if best else fixed_tiling(gemm, *tile)


def intensities(model: Model, length: int, *, best: int = 0) -> dict[str, float]:
    """Non-ideal FLOPs per byte of the columns of Table 5 and of everything."""
    flops: dict[str, int] = {}
    moved: dict[str, int] = {}
    for op in layer_ops(model, Batch.encode(1, length)):
        columns = [name for name, members in COLUMNS.items() if op.name in members]
        for column in (*columns, "Total"):
            flops[column] = flops.get(column, 0) + rewritten(op, encoder=True).flops
            moved[column] = moved.get(column, 0) + non_ideal(op, best=best).traffic.total
    return {column: flops[column] / moved[column] for column in (*COLUMNS, "Total")}


def priced(ops: Iterable[Op], device: Device) -> tuple[int, int]:
    """Ticks of these operators one after the other: as the engine runs them, and as priced.

    The special function unit is left out, as the paper does.
    """
    costs = CostModel(device, "int8")
    tasks: list[Task] = []
    emitter = Emitter(tasks, 0, "op", prefetch=False, arrival=())
    total = 0
    for op in ops:
        cost = costs(msgspec.structs.replace(non_ideal(op), vector_flops=0))
        total += cost.duration
        emitter.operator(op.name, cost, None)
    return engine.run(Program(tasks, ("host", "memory", "core"))).makespan, total


def latency(ops: Iterable[Op], device: Device, times: int = 1) -> float:
    """Cycles of `times` runs of these operators, from the engine."""
    ticks_a_cycle = 1e3 / device.clock_GHz
    return times * priced(ops, device)[0] / ticks_a_cycle


def encode_cycles(model: Model, length: int, device: Device) -> float:
    """Cycles of one pass over `length` tokens."""
    return latency(layer_ops(model, Batch.encode(1, length)), device)


def generate_cycles(model: Model, length: int, device: Device) -> float:
    """Cycles of generating `length` tokens, at the paper's mean context of length/2."""
    return latency(layer_ops(model, Batch.decode(1, length // 2)), device, length)
