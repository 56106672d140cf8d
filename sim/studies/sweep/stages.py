"""Shapes laid out over the stages of a pipeline with one micro-batch: one thing after another.

The account of a device holds its own work, its waits for handovers, and a bubble.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from sim.account.intervals import Class, Interval, intervals
from sim.account.metrics import RunSums, metrics_of
from sim.errors import OutOfMemory
from sim.mapping.memory import Footprint, check_memory, needs
from sim.mapping.parallelism import Parallelism
from sim.mapping.passes import AMOUNTS, OF_FAMILIES, BlockSums, Ints
from sim.mapping.plan import stage_table
from sim.states import BUBBLE, COMPUTE, HBM, LAUNCH, LINK, NOTHING, SRAM
from sim.studies.sweep.kinds import Row, refusal
from sim.studies.sweep.points import StaticPoint
from sim.studies.sweep.rows import static_row
from sim.studies.sweep.shapes import Shapes

OWN = [COMPUTE, HBM, SRAM, LAUNCH]  # the states of the first four amounts
FLOPS, BYTES = 4, 5


class StageLayout:
    """What the shapes take over the stages of a split. Arrays run over the shapes; `account` are
    ticks of all devices by (phase, state): the whole, the first pass, the later ones."""

    def __init__(self, shapes: Shapes, split: Parallelism) -> None:
        self.shapes, self.split = shapes, split
        self.flops, self.hbm, self.link = (np.zeros(shapes.count, dtype=np.int64) for _ in range(3))
        # Ticks of all devices by phase and family of kernels, and of all of a phase.
        self.families: dict[Class, Ints] = {}
        self.phases: dict[str, Ints] = {}
        table = stage_table(shapes.point.model, split)
        once = np.ones(shapes.count, dtype=np.int64)
        self.begins = "encode" if shapes.point.model.decoder is None else "prefill"
        first = self._own(shapes.first, table, once, self.begins)
        later = self._own(shapes.later, table, shapes.steps, "decode")
        last = self._own(shapes.last, table, once)
        self._lay_out(first, later, last.sum(axis=1))

    def _own(
        self,
        blocks: list[BlockSums],
        table: dict[tuple[str, int], int],
        times: Ints,
        counted: str = "",
    ) -> Ints:
        """Ticks of one rank by stage and state, stages x 7 x shapes; exchanges come `times`.
        With a phase, what they are is counted, too."""
        shapes, split = self.shapes, self.split
        own = np.zeros((split.pp, 7, shapes.count), dtype=np.int64)
        for block in blocks:
            stages = [table[place] for place in block.places]
            for stage in sorted(set(stages)):
                many = stages.count(stage)
                own[stage, OWN] += many * block.amounts[:4]
                for e in block.exchanges:
                    group = split.group(0, stage)
                    link, launch, nbytes = shapes.exchanged(group, e.kind, e.name, e.nbytes)
                    own[stage, LINK] += many * times * link
                    own[stage, LAUNCH] += many * times * launch
                    if counted:
                        self.link += many * times * nbytes
                        self._count(counted, "collective", many * times * (link + launch))
            if counted:
                for i, family in enumerate(OF_FAMILIES, len(AMOUNTS)):
                    self._count(counted, family, len(stages) * block.amounts[i])
                self.flops += len(stages) * split.tp * block.amounts[FLOPS]
                self.hbm += len(stages) * split.tp * block.amounts[BYTES]
        if counted:
            self.phases[counted] = split.tp * own.sum(axis=(0, 1))
        return own

    def _count(self, phase: str, family: str, ticks: Ints) -> None:
        at = (phase, family)
        self.families[at] = self.families.get(at, 0) + self.split.tp * ticks

    def _lay_out(self, first: Ints, later: Ints, last: Ints) -> None:
        """Stage after stage, pass after pass. `last` are the ticks of the last step by stage."""
        shapes, split = self.shapes, self.split
        pp, steps, batch = split.pp, shapes.steps, shapes.batch
        sent_first = [shapes.hidden(split, s, batch * shapes.prompt) for s in range(pp - 1)]
        sent_later = [shapes.hidden(split, s, batch) for s in range(pp - 1)]
        back = shapes.ids(split) if pp > 1 else np.zeros((2, shapes.count), dtype=np.int64)
        for one, times in (*((h, 1) for h in sent_first), *((h, steps) for h in sent_later)):
            self.link += times * one[1]
        self.link += steps * back[1]
        busy = first.sum(axis=1)
        handed = [h[0] for h in sent_first]
        self.ttft = busy.sum(axis=0) + sum(handed)
        between = back[0] + sum(h[0] for h in sent_later)
        self.makespan = self.ttft + later.sum(axis=(0, 1)) + steps * between
        totals = np.zeros((3, 7, shapes.count), dtype=np.int64)
        begin = np.zeros(shapes.count, dtype=np.int64)
        tail = last.sum(axis=0) + sum(h[0] for h in sent_later)  # of the last step from here on
        for stage in range(pp):
            prefill, decode = first[stage].copy(), later[stage].copy()
            if stage:
                self._wait(prefill, handed[stage - 1], 1)
                prefill[BUBBLE] += begin - handed[stage - 1]
                tail = tail - sent_later[stage - 1][0]
            self._wait(decode, sent_later[stage - 1][0] if stage else back[0], steps)
            end = begin + busy[stage]
            tail = tail - last[stage]
            gone = self.makespan - tail - end - decode.sum(axis=0)
            decode[BUBBLE] += np.where(steps > 0, gone, 0)
            mine = prefill + decode
            mine[BUBBLE] += self.makespan - mine.sum(axis=0)
            totals += np.stack([mine, prefill, decode])
            begin = end + (handed[stage] if stage < pp - 1 else 0)
        self.account = split.tp * totals

    def _wait(self, states: Ints, ticks: Ints, times: Any) -> None:
        """A handover as the stage that it comes to sees it: a launch, then bytes on a link."""
        launch = np.minimum(ticks, self.shapes.costs.launch)
        states[LAUNCH] += times * launch
        states[LINK] += times * (ticks - launch)

    def _sure(self) -> list[dict[str, Interval]]:
        """80 % intervals of each shape, as `sim.simulation` has them."""
        point, none = self.shapes.point, np.zeros(self.shapes.count, dtype=np.int64)
        efficiency, dtype = point.machine.device.efficiency, point.precision.activations
        wholes = {"ttft": self.phases[self.begins], "tpot": self.phases.get("decode", none)}
        wholes["makespan"] = wholes["ttft"] + wholes["tpot"]
        by_shape: list[dict[str, Interval]] = [{} for _ in range(self.shapes.count)]
        for name, total in wholes.items():
            phase = {"ttft": self.begins, "tpot": "decode"}.get(name)
            parts = {at: x for at, x in self.families.items() if phase in (None, at[0])}
            for one, sure in zip(by_shape, intervals(parts, total, efficiency, dtype), strict=True):
                if sure is not None:
                    one[name] = sure
        return by_shape

    def rows(self, points: list[StaticPoint], at: list[int]) -> Iterator[tuple[int, int, Row]]:
        """(index, shape, row) of points whose shapes are `at`."""
        shapes, point = self.shapes, self.shapes.point
        device, generates = point.machine.device, point.model.decoder is not None
        devices = self.split.devices
        memory, sure = self._memory(), self._sure()
        fullest = np.max(np.stack([sum(stage) for stage in memory]), axis=0).tolist()
        capacity = int(device.hbm.capacity)
        times = [self.makespan, self.ttft, shapes.batch, shapes.prompt, shapes.steps]
        sums = np.stack([*times, self.flops, self.hbm, self.link]).T.tolist()
        accounts: Any = np.moveaxis(self.account, 2, 0).tolist()
        for i, (p, shape) in enumerate(zip(points, at, strict=True)):
            if fullest[shape] > capacity and not p.scenario.allow_oom:
                yield i, shape, self._too_large(memory, shape, capacity)
                continue
            makespan, ttft, batch, prompt, steps, *amounts = sums[shape]
            run = RunSums(
                device=device,
                dtype=point.precision.activations,
                devices=devices,
                generates=generates,
                passes=steps + 1,
                batch=batch,
                tokens_in=batch * prompt,
                makespan=makespan,
                waited=batch * ttft,
                decoded=batch * (makespan - ttft),
                flops=amounts[0],
                hbm_bytes=amounts[1],
                link_bytes=amounts[2],
            )
            metrics = metrics_of(run)
            account = accounts[shape]
            if not generates:
                account = (account[0], NOTHING, NOTHING)
            yield (
                i,
                shape,
                static_row(
                    devices,
                    makespan,
                    metrics,
                    sure[shape],
                    fullest[shape],
                    account,
                ),
            )

    def _memory(self) -> list[list[Ints]]:
        """(weights, KV, activations) of each stage, as arrays."""
        shapes, point = self.shapes, self.shapes.point
        context = shapes.prompt + shapes.steps
        footprints = needs(point.model, self.split, shapes.graph, shapes.batch, context, 0)
        return [
            [np.broadcast_to(np.asarray(x), shapes.count) for x in stage] for stage in footprints
        ]

    def _too_large(self, memory: list[list[Ints]], shape: int, capacity: int) -> Row:
        point = self.shapes.point
        prints = [
            Footprint(stage, int(weights[shape]), int(kv[shape]), int(rest[shape]), capacity)
            for stage, (weights, kv, rest) in enumerate(memory)
        ]
        try:
            check_memory(prints, point.model.name, point.machine.device.name)
        except OutOfMemory as error:
            return refusal(error)
        raise AssertionError(prints)
