"""Many forward passes of one rank at once: the graph with arrays as counts, priced as arrays.

The graph is that of `workloads` and the prices are those of `sim.cost.model`; this module adds no
formula. An operator that counts the same in several passes is priced once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from sim.cost.arith import VECTOR
from sim.cost.families import family_of
from sim.cost.kernels import priced
from sim.cost.model import CostModel
from workloads.batch import Batch, Group, Sequence
from workloads.block import Lowering
from workloads.graph import Graph, build_graph
from workloads.model import Model
from workloads.ops import Op
from workloads.precision import Precision

Ints = NDArray[np.int64]
AMOUNTS = ("compute", "hbm", "sram", "launch", "flops", "hbm_bytes")
OF_FAMILIES = ("gemm", "attention", "experts", "elementwise")
ROWS = (*AMOUNTS, *OF_FAMILIES)  # and ticks by family of kernels


class Many(msgspec.Struct, frozen=True):
    """A `workloads.batch.Sequence` of each of many passes, the counts as arrays."""

    new: Any
    cached: Any
    logits: int
    source: int = 0
    source_cached: int = 0

    @property
    def context(self) -> Any:
        return self.cached + self.new


class Exchanged(msgspec.Struct, frozen=True):
    """Exchanges of a block by pass: of a kind ("sum" or "gather"), of so many bytes."""

    kind: str
    name: str
    nbytes: Ints


class BlockSums(msgspec.Struct, frozen=True):
    """A block of one rank in every pass: amounts (rows as ROWS) x passes, and exchanges.

    places: (stack, layer) of each of its occurrences.
    """

    amounts: Ints
    exchanges: tuple[Exchanged, ...]
    places: list[tuple[str, int]]


class Sequences(NamedTuple):
    """The batch of each of many passes: `size` sequences of `new` tokens behind `cached` tokens.

    Each is a number, or an array with an element per pass.
    """

    size: Ints | int
    new: Ints | int
    cached: Ints | int


def graph_of(
    local: Model, sequences: Sequences, precision: Precision, lowering: Lowering, ways: int
) -> Graph:
    """The graph of the passes of one rank, with counts that are numbers or arrays of passes."""
    size, new, cached = sequences
    many: Any = Many(new, cached, 0 if local.decoder is None else 1)
    sequence: Sequence = many
    count: Any = size
    batch = Batch(groups=(Group(sequence=sequence, count=count),))
    return build_graph(local, batch, precision, lowering, ways=ways)


def sums_of(ops: Iterable[Op], costs: CostModel, passes: int, tp: int) -> BlockSums:
    """What operators cost together in every pass, if they differ in all passes."""
    total = np.zeros((len(ROWS), passes), dtype=np.int64)
    exchanges = []
    for op in ops:
        _add(total, op.kind, amounts(costs, op, passes))
        exchanges += _exchange_of(op, passes, tp)
    return BlockSums(total, tuple(exchanges), [])


def _exchange_of(op: Op, passes: int, tp: int) -> list[Exchanged]:
    """What the ranks exchange behind an operator, if they do."""
    if not op.exchange or tp == 1:
        return []
    nbytes = np.broadcast_to(np.asarray(op.exchange_bytes, dtype=np.int64), passes)
    return [Exchanged(op.exchange, op.name, nbytes)]


def block_sums(graph: Graph, costs: CostModel, passes: int, tp: int) -> list[BlockSums]:
    """What each distinct block of the graph costs in every pass."""
    tokens = np.broadcast_to(np.asarray(graph.batch.tokens, dtype=np.int64), passes)
    _, first, back = np.unique(tokens, return_index=True, return_inverse=True)
    by_length: dict[int, BlockSums] = {}
    for placed in graph.placed:
        known = by_length.get(id(placed.block))
        if known is None:
            known = by_length[id(placed.block)] = _block(placed.block.ops, costs, first, back, tp)
        known.places.append((placed.stack, placed.layer))
    return list(by_length.values())


def _block(ops: tuple[Op, ...], costs: CostModel, first: Ints, back: Ints, tp: int) -> BlockSums:
    passes = len(back)
    shared = np.zeros((len(ROWS), len(first)), dtype=np.int64)
    own = np.zeros((len(ROWS), passes), dtype=np.int64)
    exchanges = []
    for op in ops:
        few = _taken(op, first)
        if all(_same(a, b, back) for a, b in zip(_counts(op), _counts(few), strict=True)):
            _add(shared, op.kind, amounts(costs, few, len(first)))
        else:
            _add(own, op.kind, amounts(costs, op, passes))
        exchanges += _exchange_of(op, passes, tp)
    return BlockSums(own + shared[:, back], tuple(exchanges), [])


def _add(sums: Ints, kind: str, amounts: Ints) -> None:
    """Put the amounts of an operator into the rows of a block, its ticks to its family's."""
    sums[: len(AMOUNTS)] += amounts
    family = family_of(kind)
    if family in OF_FAMILIES:
        sums[ROWS.index(family)] += amounts[:4].sum(axis=0)


def _counts(op: Any) -> Iterator[Any]:
    """Every number of an operator, its products and its attentions."""
    for value in msgspec.structs.astuple(op):
        if isinstance(value, msgspec.Struct):
            yield from _counts(value)
        elif isinstance(value, tuple):
            for one in value:
                if isinstance(one, msgspec.Struct):
                    yield from _counts(one)
        elif not isinstance(value, str):
            yield value


def _same(many: Any, few: Any, back: Ints) -> bool:
    """Whether the numbers of all passes are those of the chosen ones, spread out again."""
    return not isinstance(many, np.ndarray) or bool(np.array_equal(many, few[back]))


def _taken(op: Any, at: Any) -> Any:
    """The operator in the passes `at` (indices, or one index: then of plain numbers)."""
    changes: dict[str, Any] = {}
    for field in op.__struct_fields__:
        value = getattr(op, field)
        if isinstance(value, np.ndarray):
            picked = value[at]
            changes[field] = picked if isinstance(picked, np.ndarray) else int(picked)
        elif isinstance(value, msgspec.Struct):
            changes[field] = _taken(value, at)
        elif isinstance(value, tuple) and value and isinstance(value[0], msgspec.Struct):
            changes[field] = tuple(_taken(one, at) for one in value)
    return msgspec.structs.replace(op, **changes) if changes else op


def amounts(costs: CostModel, op: Op, passes: int) -> Ints:
    """Ticks by state, FLOPs and HBM bytes of an operator: AMOUNTS x passes."""
    if passes == 1 or not in_arrays(op):
        return _one_by_one(costs, op, passes)
    moved = costs.moved(op)
    p = priced(VECTOR, costs.rates, costs.times(op, moved, VECTOR))
    parts = (p.compute, p.hbm, p.sram, p.launch, op.flops, moved.reads + moved.writes)
    return np.stack([np.broadcast_to(np.asarray(x, dtype=np.int64), passes) for x in parts])


def in_arrays(op: Op) -> bool:
    """Whether the formulas of this operator are made for arrays: products whose rows alone vary
    (scores that are written have other sizes, too)."""
    return all(isinstance(x, int) for g in op.gemms for x in (g.batch, g.k, g.n))


def _one_by_one(costs: CostModel, op: Op, passes: int) -> Ints:
    amounts = np.empty((len(AMOUNTS), passes), dtype=np.int64)
    for i in range(passes):
        one = _taken(op, i)
        cost = costs(one)
        amounts[:, i] = (cost.compute, cost.hbm, cost.sram, cost.launch, cost.flops, cost.hbm_bytes)
    return amounts
