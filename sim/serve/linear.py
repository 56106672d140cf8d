"""All of a step but attention, which depends on the number of new tokens alone: priced from the
graph for a run of token counts at once, as arrays, by the same formulas as one by one.

Experts and latents are priced count by count: how many experts are visited, and which form a latent
takes, makes other operators of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from sim.cost.model import CostModel
from sim.mapping.passes import Ints, amounts, graph_of
from sim.mapping.priced import Step
from sim.serve.prices import FREE, Price, add, price_of
from workloads.block import Lowering
from workloads.latent import PER_CONTEXT
from workloads.model import Dense, Model
from workloads.ops import Op
from workloads.precision import Precision

RUN = 128
ATTENTION = ("attention", "softmax")
Exchanger = Callable[[int, str, str, int], Step]  # (stage, kind, operator, bytes)


class Part(msgspec.Struct, frozen=True):
    """A block of one stage, `times` over: amounts by token count, with rows as in
    `sim.mapping.passes.AMOUNTS`, and the bytes of its exchanges."""

    stage: int
    times: int
    body: Ints
    head: Ints
    exchanges: tuple[tuple[bool, str, str, Ints], ...]  # of the head?, kind, operator, bytes


def is_head(name: str) -> bool:
    """Whether an operator runs over the rows that need an answer, not over all tokens."""
    return name.startswith(("lm_head", "pooler"))


class Linear:
    """Prices by stage of (all but attention and logits, the logits) of so many tokens."""

    def __init__(
        self,
        local: Model,
        stage_of: dict[tuple[str, int], int],
        stages: int,
        costs: CostModel,
        precision: Precision,
        lowering: Lowering,
        ways: int,
        exchange: Exchanger,
    ) -> None:
        self.local, self.stage_of, self.stages, self.costs = local, stage_of, stages, costs
        self.precision, self.lowering, self.ways = precision, lowering, ways
        self.exchange = exchange
        layers = [layer for _, stack in local.stacks for layer in stack.layers]
        dense = all(isinstance(x.ffn, Dense) and not x.attention.latent for x in layers)
        self.length = RUN if dense else 1
        self._runs: dict[int, list[Part]] = {}
        self._known: dict[int, tuple[list[Price], list[Price]]] = {}

    def parts(self, tokens: int) -> tuple[list[Price], list[Price]]:
        """Of `tokens` tokens, at least one."""
        found = self._known.get(tokens)
        if found is None:
            found = self._known[tokens] = self._assembled(tokens)
        return found

    def _assembled(self, tokens: int) -> tuple[list[Price], list[Price]]:
        run, at = divmod(tokens - 1, self.length)
        if run not in self._runs:
            self._runs[run] = self._priced(run * self.length + 1)
        body, head = [FREE] * self.stages, [FREE] * self.stages
        for part in self._runs[run]:
            stage = part.stage
            body[stage] = add(body[stage], _price(part.body[:, at]), part.times)
            head[stage] = add(head[stage], _price(part.head[:, at]), part.times)
            for of_head, kind, name, nbytes in part.exchanges:
                one = price_of(self.exchange(stage, kind, name, int(nbytes[at])))
                side = head if of_head else body
                side[stage] = add(side[stage], one, part.times)
        return body, head

    def _priced(self, first: int) -> list[Part]:
        """The blocks of the run of token counts from `first` on."""
        many = self.length > 1
        counts: Any = np.arange(first, first + self.length) if many else first
        graph = graph_of(self.local, counts, 1, 0, self.precision, self.lowering, self.ways)
        places: dict[tuple[int, int], int] = {}
        blocks = {}
        for placed in graph.placed:
            key = id(placed.block), self.stage_of[placed.stack, placed.layer]
            places[key] = places.get(key, 0) + 1
            blocks[key[0]] = placed.block
        summed = {key: self._summed(block.ops) for key, block in blocks.items()}
        return [Part(stage, times, *summed[key]) for (key, stage), times in places.items()]

    def _summed(self, ops: tuple[Op, ...]) -> tuple[Ints, Ints, Any]:
        body, head = np.zeros((2, 6, self.length), dtype=np.int64)
        exchanges = []
        for op in ops:
            if op.kind in ATTENTION or op.name in PER_CONTEXT:
                continue
            of_head = is_head(op.name)
            side = head if of_head else body
            side += amounts(self.costs, op, self.length) if self.length > 1 else self._alone(op)
            if op.exchange and self.ways > 1:
                nbytes = np.broadcast_to(np.asarray(op.exchange_bytes), self.length)
                exchanges.append((of_head, op.exchange, op.name, nbytes))
        return body, head, tuple(exchanges)

    def _alone(self, op: Op) -> Ints:
        c = self.costs(op)
        return np.array([[c.compute, c.hbm, c.sram, c.launch, c.flops, c.hbm_bytes]]).T


def _price(column: Ints) -> Price:
    compute, hbm, sram, launch, flops, moved = column.tolist()
    return (compute, hbm, sram, 0, launch, flops, moved)
