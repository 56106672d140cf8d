"""The plan of a run: which micro-batch passes which stage when, and what it does there.

A `Plan` is the mapping applied: for every replica, micro-batch, pass and stage the priced work
of one rank. It has no times yet; `sim.mapping.program` turns it into tasks for the engine.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import lru_cache

import msgspec

from hw_models.device import Device
from hw_models.system import System
from sim.cost.collectives import Exchange, Network
from sim.cost.model import CostModel
from sim.cost.rounds import Send
from sim.errors import Infeasible
from sim.mapping.parallelism import Parallelism, check_devices, shard, stage_bounds
from sim.mapping.priced import PlacedWork, Rewrite, TensorGroup, price_blocks
from sim.mapping.streams import Streams
from workloads.batch import Batch
from workloads.block import Lowering
from workloads.graph import Graph, build_graph
from workloads.model import Model
from workloads.precision import Precision, packed

MOST_STEPS = 10_000_000  # operators of a run, all passes and micro-batches together: 2 GB
ID_BYTES = 4  # a sampled token id, int32


class Pass(msgspec.Struct, frozen=True):
    """One forward pass of the whole batch."""

    phase: str
    batch: Batch


class Job(msgspec.Struct, frozen=True):
    """One micro-batch in one stage in one pass: its work, and how it hands on.

    handover: to the next stage of the pass, or (from the last stage) back to the first stage
    of the next pass; None when nothing follows or the same devices go on. parts: into how many
    runs of equal length `work` falls, each of which is for a part of the sequences.
    """

    replica: int
    stage: int
    number: int  # of the pass
    phase: str
    micro: int
    work: tuple[PlacedWork, ...]
    handover: Exchange | None
    parts: int = 1


class PlanInput(msgspec.Struct, frozen=True, kw_only=True):
    """The input of a plan: a model, its devices, its split and its passes."""

    model: Model
    device: Device
    system: System
    split: Parallelism
    passes: tuple[Pass, ...]
    precision: Precision
    lowering: Lowering
    streams: Streams = Streams()


class Plan(msgspec.Struct, frozen=True):
    """All jobs, in an order in which each comes after those that it depends on."""

    model: Model
    device: Device
    split: Parallelism
    precision: Precision
    passes: tuple[Pass, ...]
    network: Network
    costs: CostModel
    jobs: tuple[Job, ...]

    @property
    def serial(self) -> bool:
        """Whether within a replica nothing ever runs beside anything else."""
        return self.split.pp == 1 or self.split.microbatches == 1


def make_plan(
    given: PlanInput,
    free: frozenset[str] = frozenset(),
    on_pass: Callable[[int], None] | None = None,
    rewrite: Rewrite | None = None,
) -> Plan:
    """Apply the split to the passes and price everything; `on_pass` hears of each, and `rewrite`
    changes operators before they are priced.

    Raises Infeasible with the arithmetic when the model, the batch or the system cannot be
    split so.
    """
    check_devices(given.split, len(given.system.devices), given.system.name)
    costs = CostModel(given.device, given.precision.activations, free)
    network = Network(given.system, "link" in free, given.device.efficiency.collectives)
    planner = _Planner(given, costs, network, rewrite)
    jobs: list[Job] = []
    passes, total = len(given.passes), 0
    for number in range(passes):
        if on_pass:
            on_pass(number)
        before = total
        for job in planner.jobs(number):
            jobs.append(job)
            total += sum(len(work.block.steps) for work in job.work)
            _check_steps(total, passes)
        if number:  # the passes after the first are alike
            _check_steps(total + (total - before) * (passes - number - 1), passes)
    return Plan(
        given.model,
        given.device,
        given.split,
        given.precision,
        given.passes,
        network,
        costs,
        tuple(jobs),
    )


def _check_steps(count: int, passes: int) -> None:
    """Raise Infeasible where a run takes more operators than it may hold."""
    if count > MOST_STEPS:
        raise Infeasible(
            f"passes = {passes:,}: {count:,} operators or more in all; a run ends at "
            f"{MOST_STEPS:,}: ask for fewer passes (output), microbatches or layers, or serve one "
            "request (memorywall serve)"
        )


class _Planner:
    """The jobs of each pass; work that comes again is priced once."""

    def __init__(
        self, given: PlanInput, costs: CostModel, network: Network, rewrite: Rewrite | None
    ) -> None:
        self.given, self.network = given, network
        local = shard(given.model, given.split.tp)
        self.stage_of = stage_table(given.model, given.split)

        @lru_cache(maxsize=256)
        def graph_of(batch: Batch) -> Graph:
            return build_graph(local, batch, given.precision, given.lowering, ways=given.split.tp)

        @lru_cache(maxsize=1024)
        def work_of(batch: Batch, group: tuple[int, ...], stage: int) -> tuple[PlacedWork, ...]:
            graph = graph_of(batch)
            here = [p for p in graph.placed if self.stage_of[p.stack, p.layer] == stage]
            ranks = TensorGroup(network, group, given.split.collective)
            return price_blocks(here, costs, ranks, rewrite)

        self.work_of = work_of

    def jobs(self, number: int) -> Iterator[Job]:
        """The jobs of a pass: replica by replica, micro-batch by micro-batch, stage by stage."""
        given, split = self.given, self.given.split
        one, later = given.passes[number], given.passes[number + 1 : number + 2]
        back = _entry(given.model, later[0].batch, self.stage_of) if later else None
        for replica, share in enumerate(_split(one.batch, split.dp, "dp")):
            for micro, batch in enumerate(_split(share, split.microbatches, "microbatches")):
                parts = batch.split(given.streams.parts(batch.size))
                work = [self._work(parts, replica, stage) for stage in range(split.pp)]
                used = [stage for stage in range(split.pp) if work[stage]]
                for at, stage in enumerate(used):
                    following = used[at + 1] if at + 1 < len(used) else None
                    nbytes = self._handed(batch, work[stage], following is None)
                    to = back if following is None else following
                    handover = None
                    if to is not None and to != stage:
                        handover = self.network.send(
                            tuple(sends(split, replica, stage, to, nbytes))
                        )
                    yield Job(
                        replica,
                        stage,
                        number,
                        one.phase,
                        micro,
                        work[stage],
                        handover,
                        len(parts),
                    )

    def _work(self, parts: list[Batch], replica: int, stage: int) -> tuple[PlacedWork, ...]:
        """The work of one rank of a stage: that of each part of the sequences in turn."""
        split = self.given.split
        group = split.group(replica, stage) if split.tp > 1 else ()
        return tuple(work for part in parts for work in self.work_of(part, group, stage))

    def _handed(self, batch: Batch, work: tuple[PlacedWork, ...], last: bool) -> int:
        """Bytes that each rank hands on: hidden states to the next stage, from the last stage the
        sampled ids.

        A stage of nothing but encoder layers has source rows alone; behind it the encoder's output
        travels on for the cross-attentions.
        """
        model = self.given.model
        if last:
            return ID_BYTES * batch.size
        encodes = model.decoder is not None and all(w.placed.stack == "encoder" for w in work)
        rows = batch.source_tokens if encodes else batch.tokens + batch.source_tokens
        return hidden_bytes(model, self.given.precision, rows)


def stage_table(model: Model, split: Parallelism) -> dict[tuple[str, int], int]:
    """Stage by (stack, layer). Embeddings go with the first layer of their stack, heads with
    the last."""
    bounds = stage_bounds(model.num_layers, split, model.name)
    table: dict[tuple[str, int], int] = {}
    index = 0
    for name, stack in model.stacks:
        for layer in range(len(stack.layers)):
            table[name, layer] = bisect_right(bounds, index) - 1
            index += 1
        table[name, -1] = table[name, 0]
        table[name, -2] = table[name, len(stack.layers) - 1]
    return table


def _entry(model: Model, batch: Batch, stage_of: dict[tuple[str, int], int]) -> int:
    """The stage in which a pass begins: past the encoder if that has nothing to read."""
    both = model.encoder is not None and model.decoder is not None
    first = "decoder" if both and not batch.source_tokens else model.stacks[0][0]
    return stage_of[first, 0]


def _split(batch: Batch, parts: int, name: str) -> list[Batch]:
    try:
        return batch.split(parts)
    except ValueError as error:
        raise Infeasible(f"{name} = {parts}: {error}") from None


def hidden_bytes(model: Model, precision: Precision, rows: int) -> int:
    """Of the hidden states of `rows` tokens; an array for an array."""
    return packed(rows * model.hidden, precision.activation_bits)


def sends(split: Parallelism, replica: int, stage: int, following: int, nbytes: int) -> list[Send]:
    """Every rank of a stage sends `nbytes` to its like in another stage."""
    return [
        Send(split.device(replica, stage, rank), split.device(replica, following, rank), nbytes)
        for rank in range(split.tp)
    ]
