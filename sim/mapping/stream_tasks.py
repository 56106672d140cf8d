"""Tasks of a job on the streams of its devices: one per step, which loads what it shares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sim.engine.des import Task
from sim.mapping.compiled import Piece
from sim.mapping.plan import Job, Plan
from sim.mapping.priced import PlacedWork, Step
from sim.mapping.streams import (
    RESOURCES,
    Streams,
    assign,
    exchange_loads,
    operator_loads,
    waits_for,
)

Tasks = tuple[int, ...]  # numbers of tasks


class StreamTasks:
    """Appends the tasks of jobs to `tasks`; `resources` are those of the devices met so far."""

    def __init__(self, plan: Plan, streams: Streams, tasks: list[Task]) -> None:
        self.plan, self.streams, self.tasks = plan, streams, tasks
        self.unit = plan.device.hbm.bandwidth  # capacity of each resource of a device
        self.resources: list[tuple[str, float]] = []
        self.first: dict[int, int] = {}  # by device: the number of its first resource
        # by block and part of the batch: for each step its stream, and the steps it waits for
        self.placed: dict[tuple[int, int], list[tuple[Step, int, tuple[int, ...]]]] = {}

    def job(
        self, job: Job, ranks: Sequence[tuple[int, int]], begins: Sequence[Tasks]
    ) -> list[tuple[list[Piece], Tasks]]:
        """(its pieces, the tasks after which it has ended) on each rank.

        `ranks` are the simulated ranks, with the lane of the first stream of each. `begins` are, by
        rank, the tasks that the job waits for. Parts of the batch take turns: one goes on where
        another has come to a collective.
        """
        devices = [self.plan.split.device(job.replica, job.stage, rank) for rank, _ in ranks]
        for device in devices:
            self._meet(device)
        lanes = [lane for _, lane in ranks]
        length = len(job.work) // job.parts
        strands = [_Strand(self, job, part, devices, lanes, begins) for part in range(job.parts)]
        turns = [
            strand.emit(job.work[i * length : (i + 1) * length]) for i, strand in enumerate(strands)
        ]
        pieces: list[list[Piece]] = [[] for _ in ranks]
        while turns:
            turns = [turn for turn in turns if next(turn, None) is not None]
        for strand in strands:
            for mine, more in zip(pieces, strand.pieces, strict=True):
                mine += more
        ends = [tuple(i for s in strands for i in s.ends[at]) for at in range(len(ranks))]
        return list(zip(pieces, ends, strict=True))

    def _meet(self, device: int) -> None:
        if device not in self.first:
            links = len(self.plan.network.fabric.links)
            self.first[device] = links + len(self.resources)
            self.resources += [(f"gpu{device}.{name}", self.unit) for name in RESOURCES]

    def steps(self, work: PlacedWork, part: int) -> list[tuple[Step, int, tuple[int, ...]]]:
        """Each step of a block with its stream and the numbers of the steps that it waits for."""
        key = (id(work.block), part)
        if key not in self.placed:
            steps = work.block.steps
            before = waits_for(work.placed.block.graph, steps)
            chosen = assign(self.streams, steps, before, part)
            self.placed[key] = list(zip(steps, chosen, before, strict=True))
        return self.placed[key]

    def add(self, task: Task) -> int:
        self.tasks.append(task)
        return len(self.tasks) - 1


class _Strand:
    """One part of the batch on all simulated ranks of a stage. By rank: its pieces so far, and the
    tasks that what follows waits for."""

    def __init__(
        self,
        owner: StreamTasks,
        job: Job,
        part: int,
        devices: Sequence[int],
        lanes: Sequence[int],
        begins: Sequence[Tasks],
    ) -> None:
        self.owner, self.part, self.devices, self.lanes = owner, part, devices, lanes
        self.name = f"{job.phase}{job.number}.{job.micro}.stage{job.stage}"
        if job.parts > 1:
            self.name += f".part{part}"
        self.pieces: list[list[Piece]] = [[] for _ in devices]
        self.ends = list(begins)

    def emit(self, works: Sequence[PlacedWork]) -> Iterator[bool]:
        """Append the tasks of blocks that follow one another; stops behind each collective."""
        for work in works:
            steps = self.owner.steps(work, self.part)
            done: list[list[int]] = [[] for _ in self.devices]  # by rank and step: its task
            for step, stream, before in steps:
                after = [
                    tuple(mine[i] for i in before) or begin
                    for mine, begin in zip(done, self.ends, strict=True)
                ]
                emitted = self._step(
                    f"{self.name}.{work.placed.path}.{step.name}", step, stream, after
                )
                for mine, pieces, task in zip(done, self.pieces, emitted, strict=True):
                    mine.append(task)
                    pieces.append(Piece(work.placed, step, (task,), -1, stream))
                if step.cost is None:
                    yield True
            fed = {i for _, _, before in steps for i in before}
            self.ends = [tuple(task for i, task in enumerate(m) if i not in fed) for m in done]

    def _step(self, name: str, step: Step, stream: int, after: Sequence[Tasks]) -> list[int]:
        """The tasks of a step by rank: one each, or one together for a collective, which holds a
        stream of every rank."""
        owner, lanes = self.owner, [lane + stream for lane in self.lanes]
        if step.cost:
            length, launch = step.cost.pipeline.makespan, step.launch
            loads = [
                operator_loads(step.cost, owner.first[device], owner.unit)
                for device in self.devices
            ]
            return [
                owner.add(Task(name, length, (lane,), wait, launch, load))
                for lane, wait, load in zip(lanes, after, loads, strict=True)
            ]
        exchange = step.exchange
        assert exchange is not None
        first = {device: owner.first[device] for device in self.devices}
        together = tuple(dict.fromkeys(i for wait in after for i in wait))
        task = Task(
            name,
            exchange.duration,
            tuple(lanes),
            together,
            step.launch + exchange.latency,
            exchange_loads(exchange, first, owner.unit),
        )
        return [owner.add(task)] * len(lanes)
