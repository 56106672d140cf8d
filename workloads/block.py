"""What the builders of a pass share: options of lowering, a block of operators, its context."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import networkx as nx
from msgspec import Meta

from workloads.batch import Batch
from workloads.model import Record
from workloads.ops import Op
from workloads.precision import Precision
from workloads.routing import exponent


class Lowering(Record, frozen=True, kw_only=True):
    """How a model is turned into kernels.

    attention: "flash" keeps scores on chip, "materialised" writes them (as the paper counts).
    projections: Q, K, V (and gate, up) as one "fused" product or as "separate" ones.
    fusion: merge element-wise operators into their neighbours (`workloads.fusion`).
    routing: tokens per expert: "uniform", "balanced" or "power-law:1.2" (`workloads.routing`).
    """

    attention: Annotated[
        Literal["flash", "materialised"],
        Meta(description="Keep the scores of attention on chip (flash) or write them to memory"),
    ] = "flash"
    projections: Annotated[
        Literal["fused", "separate"],
        Meta(description="Compute Q, K, V (and gate, up) in one product or in separate ones"),
    ] = "fused"
    fusion: Annotated[
        bool, Meta(description="Merge element-wise operators into their neighbours")
    ] = True
    routing: Annotated[
        str, Meta(description="Tokens per expert: uniform, balanced or power-law:1.2")
    ] = "uniform"

    def __post_init__(self) -> None:
        exponent(self.routing)


class Block:
    """A named graph of operators; node attribute `op`. `first` to `last` in one flow."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.graph = nx.DiGraph()

    def add(self, op: Op, *after: str) -> str:
        """Put `op` behind the operators named in `after`; returns its name."""
        self.graph.add_node(op.name, op=op)
        self.graph.add_edges_from((a, op.name) for a in after if a)
        return op.name

    @property
    def ops(self) -> tuple[Op, ...]:
        """Operators in the order they were added, which is a topological order."""
        return tuple(self.graph.nodes[name]["op"] for name in self.graph)


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What the blocks of one stack share in one pass. `rows` is T of that stack."""

    batch: Batch
    rows: int
    width: int
    precision: Precision
    lowering: Lowering
    cached_kv: bool
    ways: int = 1
