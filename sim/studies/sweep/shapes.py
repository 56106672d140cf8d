"""One rank's passes of many shapes: of each distinct block what the first pass takes, and what all
later ones take together."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from sim.cost.collectives import Network
from sim.cost.model import CostModel
from sim.mapping.parallelism import Parallelism, shard
from sim.mapping.passes import ROWS, BlockSums, Ints, Sequences, block_sums, graph_of
from sim.mapping.plan import ID_BYTES, hidden_bytes, sends
from sim.mapping.priced import TensorGroup, exchange_step, output_exchange
from sim.scenario import Lengths
from sim.states import LAUNCH, LINK
from sim.studies.sweep.points import StaticPoint
from workloads.graph import Graph
from workloads.model import Model

MOST = 2.0**61  # sums beyond it may not fit into 64 bits


class Shapes:
    """The passes of points that differ in lengths alone. Arrays run over the shapes.

    first: blocks of the prompt's pass (or an encoder's). later: sums over the decode steps, with
    the exchanges of one step; last: blocks of the last step. fits: whether 64 bits hold the sums.
    """

    def __init__(self, point: StaticPoint, shapes: list[Lengths]) -> None:
        self.point, self.count = point, len(shapes)
        split, device = point.scenario.parallelism, point.machine.device
        self.tp, self.collective = split.tp, split.collective
        self.costs = CostModel(device, point.precision.activations)
        self.network = Network(point.machine.system, False, device.efficiency.collectives)
        self.local: Model = shard(point.model, split.tp)
        self.batch = np.array([s.batch for s in shapes], dtype=np.int64)
        self.prompt = np.array([s.prompt for s in shapes], dtype=np.int64)
        self.steps = np.array([s.output - 1 for s in shapes], dtype=np.int64)
        self.fits = self._counts_fit()
        for counts, least in ((self.batch, 1), (self.prompt, 1), (self.steps, 0)):
            counts[~self.fits] = least  # their places are filled, and left out in the end
        self.graph = self._graph(self.batch, self.prompt, 0)
        self.first = block_sums(self.graph, self.costs, self.count, self.tp)
        self.later, self.last = self._later()
        self.fits &= self._times_fit()
        self._known: dict[Any, tuple[int, int, int]] = {}

    def _graph(self, size: Any, new: Any, cached: Any) -> Graph:
        p = self.point
        return graph_of(
            self.local, Sequences(size, new, cached), p.precision, p.scenario.lowering, self.tp
        )

    def _counts_fit(self) -> Any:
        """Whether FLOPs and bits of all passes fit, from the same counts as floats."""
        size, new = self.batch.astype(float), self.prompt.astype(float)
        total: Any = 0.0
        passes: list[tuple[Any, Any, Any]] = [(new, 0, 1)]
        if self.local.decoder is not None:
            passes.append((1, new + self.steps, self.steps))
        for rows, cached, times in passes:
            graph = self._graph(size, rows, cached)
            total = total + times * (graph.flops + 16.0 * graph.traffic.total)
        return np.broadcast_to(total * self.tp < MOST, self.count).copy()

    def _times_fit(self) -> Any:
        """Whether the ticks of all devices together fit."""
        total = np.zeros(self.count)
        for block in (*self.first, *self.later):
            total += len(block.places) * block.amounts[:4].astype(float).sum(axis=0)
        # Exchanges and bubbles come on top: as many devices as there are may wait as long.
        return total * len(self.point.machine.system.devices) * 4 < MOST

    def _later(self) -> tuple[list[BlockSums], list[BlockSums]]:
        total = int(self.steps.sum())
        if not total:
            return [], []
        ends = np.cumsum(self.steps)
        starts = ends - self.steps
        shape = np.repeat(np.arange(self.count), self.steps)
        before = np.arange(total) - np.repeat(starts, self.steps)  # steps of the shape before
        graph = self._graph(self.batch[shape], 1, self.prompt[shape] + before)
        final = np.maximum(ends, 1) - 1
        sums, last = [], []
        for block in block_sums(graph, self.costs, total, self.tp):
            running = np.zeros((len(ROWS), total + 1), dtype=np.int64)
            np.cumsum(block.amounts, axis=1, out=running[:, 1:])
            # Exchanges count rows alone: they are the same in every step of a shape.
            exchanges = tuple(
                msgspec.structs.replace(e, nbytes=e.nbytes[final]) for e in block.exchanges
            )
            amounts = running[:, ends] - running[:, starts]
            sums.append(BlockSums(amounts, exchanges, block.places))
            last.append(BlockSums(block.amounts[:, final], exchanges, block.places))
        return sums, last

    def exchanged(self, group: tuple[int, ...], kind: str, name: str, nbytes: Ints) -> Ints:
        """(link ticks, launch ticks, bytes over links) of an exchange in a group."""

        def price(size: int) -> tuple[int, int, int]:
            ranks = TensorGroup(self.network, group, self.collective)
            step = output_exchange(kind, name, size, self.costs, ranks)
            assert step.exchange is not None
            return step.states[LINK], step.states[LAUNCH], step.exchange.nbytes

        return self._each((group, kind), nbytes, price)

    def hidden(self, split: Parallelism, stage: int, rows: Ints) -> Ints:
        """(ticks, bytes over links) of handing the hidden states of `rows` tokens to the next
        stage."""
        nbytes: Any = hidden_bytes(self.point.model, self.point.precision, rows)  # type: ignore[arg-type]
        return self._sent(split, stage, stage + 1, nbytes)

    def ids(self, split: Parallelism) -> Ints:
        """(ticks, bytes over links) of the sampled ids on their way back to the first stage."""
        return self._sent(split, split.pp - 1, 0, ID_BYTES * self.batch)

    def _sent(self, split: Parallelism, stage: int, following: int, nbytes: Ints) -> Ints:
        def price(size: int) -> tuple[int, int, int]:
            exchange = self.network.send(tuple(sends(split, 0, stage, following, size)))
            step = exchange_step("send", exchange, self.costs)
            left = step.exchange or exchange  # behind the launch
            return step.launch + left.time, exchange.nbytes, 0

        return self._each((split.pp, stage, following), nbytes, price)[:2]

    def _each(self, key: Any, nbytes: Ints, price: Any) -> Ints:
        """Three numbers a size, each size priced once."""
        sizes, back = np.unique(nbytes, return_inverse=True)
        amounts = np.empty((3, len(sizes)), dtype=np.int64)
        for i, size in enumerate(sizes.tolist()):
            if (key, size) not in self._known:
                self._known[key, size] = price(size)
            amounts[:, i] = self._known[key, size]
        return amounts[:, back]
