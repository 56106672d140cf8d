"""The part of a step that depends on the number of new tokens alone, as a table.

The operators that vary with tokens and those that vary with rows (`Op.varies`) are priced from the
graph for a run of counts at once, as arrays. They are priced apart: a step has many tokens, but few
rows. If an operator branches, so that no formula covers a run of counts, they are priced count by
count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from sim.cost.model import CostModel
from sim.cost.pass_cost import FREE, PassCost, add
from sim.mapping.passes import AMOUNTS, BlockSums, Sequences, graph_of, sums_of
from sim.mapping.priced import Step
from workloads.batch import Batch
from workloads.block import Lowering
from workloads.graph import Graph, build_graph
from workloads.model import Model
from workloads.precision import Precision

RUN = 128
Exchanger = Callable[[int, str, str, int], Step]  # (stage, kind, operator, bytes)


class ModelShare(msgspec.Struct, frozen=True, kw_only=True):
    """One rank's share of a model, with what decides its operators and their costs.

    stage_of: stage by (stack, layer). ways: ranks that share each layer.
    """

    local: Model
    stage_of: dict[tuple[str, int], int]
    stages: int
    ways: int
    costs: CostModel
    precision: Precision
    lowering: Lowering

    def graph(self, batch: Batch) -> Graph:
        """The graph of one pass."""
        return build_graph(self.local, batch, self.precision, self.lowering, ways=self.ways)

    def token_graph(self, tokens: Any) -> Graph:
        """The graph of one sequence of so many new tokens; a number, or an array of passes."""
        return graph_of(
            self.local, Sequences(tokens, 1, 0), self.precision, self.lowering, self.ways
        )


class TablePart(msgspec.Struct, frozen=True):
    """A block of one stage, `times` over: its operators that vary with a count, by this count."""

    stage: int
    times: int
    sums: BlockSums


class TokenTable:
    """Costs by stage of the operators that vary with tokens, and of those that vary with rows."""

    def __init__(self, share: ModelShare, exchange: Exchanger) -> None:
        self.share, self.exchange = share, exchange
        branches = any(op.branches for _, op in share.token_graph(1).ops())
        self.length = 1 if branches else RUN
        self._runs: dict[tuple[str, int], list[TablePart]] = {}
        self._tokens: dict[int, list[PassCost]] = {}
        self._rows: dict[int, list[PassCost]] = {}
        self._decodes: dict[int, list[PassCost]] = {}

    def tokens(self, count: int) -> list[PassCost]:
        """Of `count` new tokens; at least one."""
        known = self._tokens.get(count)
        if known is None:
            known = self._tokens[count] = self._assembled("tokens", count)
        return known

    def rows(self, count: int) -> list[PassCost]:
        """Of `count` rows; at least one."""
        known = self._rows.get(count)
        if known is None:
            known = self._rows[count] = self._assembled("rows", count)
        return known

    def decode(self, count: int) -> list[PassCost]:
        """Of a step that decodes `count` sequences: as many tokens as rows."""
        known = self._decodes.get(count)
        if known is None:
            known = self._decodes[count] = list(map(add, self.tokens(count), self.rows(count)))
        return known

    def _assembled(self, varies: str, count: int) -> list[PassCost]:
        run, at = divmod(count - 1, self.length)
        parts = self._runs.get((varies, run))
        if parts is None:
            parts = self._runs[varies, run] = self._priced(varies, run * self.length + 1)
        costs = [FREE] * self.share.stages
        for part in parts:
            stage, sums = part.stage, part.sums
            costs[stage] = add(costs[stage], _at(sums, at), part.times)
            for e in sums.exchanges:
                step = self.exchange(stage, e.kind, e.name, int(e.nbytes[at]))
                costs[stage] = add(costs[stage], step.price, part.times)
        return costs

    def _priced(self, varies: str, first: int) -> list[TablePart]:
        """The blocks of the run of counts from `first` on: their operators that vary with these."""
        share, many = self.share, self.length > 1
        counts = np.arange(first, first + self.length) if many else first  # [run]
        places: dict[tuple[int, int], int] = {}
        blocks = {}
        for placed in share.token_graph(counts).placed:
            key = id(placed.block), share.stage_of[placed.stack, placed.layer]
            places[key] = places.get(key, 0) + 1
            blocks[key[0]] = placed.block
        sums = {}
        for number, block in blocks.items():
            ops = [op for op in block.ops if op.varies == varies]
            if ops:
                sums[number] = sums_of(ops, share.costs, self.length, share.ways)
        return [
            TablePart(stage, times, sums[number])
            for (number, stage), times in places.items()
            if number in sums
        ]


def _at(sums: BlockSums, at: int) -> PassCost:
    compute, hbm, sram, launch, flops, moved = sums.amounts[: len(AMOUNTS), at].tolist()
    return PassCost(compute, hbm, sram, 0, launch, flops, moved)
