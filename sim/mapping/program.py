"""From a plan to a program for the engine, at the requested resolution.

op, folded     A run of steps that nothing can interleave is one task; its inside is known in
               closed form. Ranks of a stage do the same at the same time: one stands for all.
op, explicit   launch, fill, body, drain of every operator on the lanes host, HBM and compute.
               Needed for prefetch; elsewhere it is the long way that folding must equal.
tile           every tile's load, compute and store, and every send of a collective.
op, streams    An operator is one task on its stream, which loads the device's resources: those
               that run at the same time share them (`sim.mapping.streams`).

Lanes of a device: host, hbm, core, link; or its streams, where it has more than one.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from sim.engine.des import Program, Task
from sim.errors import Infeasible
from sim.mapping.compiled import Compiled, Piece, Slot
from sim.mapping.emit import Emitter
from sim.mapping.plan import Job, Plan
from sim.mapping.priced import Step, exchange_step
from sim.mapping.stream_tasks import StreamTasks
from sim.mapping.streams import Streams
from workloads.graph import Placed

Detail = Literal["op", "tile"]
LANES = ("host", "hbm", "core", "link")
MOST_TASKS = 4_000_000  # about 2 GB
TASKS_A_TILE = 3  # load, compute, store


ONE_STREAM = Streams()


def compile_plan(
    plan: Plan, detail: Detail = "op", *, shortcuts: bool = True, streams: Streams = ONE_STREAM
) -> Compiled:
    """The program of a plan. `shortcuts=False` is the long way: no folding of steps or ranks.

    Raises InputError where several streams do not go with the detail or the device.
    """
    streams.check(detail, plan.device.prefetch)
    explicit = detail == "tile" or plan.device.prefetch or not shortcuts
    ranks = (0,) if shortcuts else tuple(range(plan.split.tp))
    return _Builder(plan, detail, explicit, ranks, streams).build()


def links_disjoint(plan: Plan) -> bool:
    """Whether no two replicas ever put bytes on the same directed link."""
    used: dict[int, set[int]] = {}
    blocks = {(job.replica, id(w.block)): w.block for job in plan.jobs for w in job.work}
    for (replica, _), block in blocks.items():
        steps = [s.exchange for s in block.steps if s.exchange]
        used.setdefault(replica, set()).update(link for e in steps for link, _ in e.loads)
    for job in plan.jobs:
        if job.handover:
            used[job.replica].update(link for link, _ in job.handover.loads)
    return sum(map(len, used.values())) == len(set().union(*used.values()))


class _Builder:
    def __init__(
        self,
        plan: Plan,
        detail: Detail,
        explicit: bool,
        ranks: tuple[int, ...],
        streams: Streams,
    ) -> None:
        self.plan, self.detail, self.explicit, self.ranks = plan, detail, explicit, ranks
        self.streams = streams
        self.private = plan.serial and links_disjoint(plan)
        self.tasks: list[Task] = []
        self.lanes: list[str] = []
        self.lane_index: dict[tuple[int, int, int], int] = {}
        self.streamed = StreamTasks(plan, streams, self.tasks) if streams.count > 1 else None
        self.slots: list[Slot] = []
        self.sends: list[tuple[Job, tuple[int, int]]] = []
        # (replica, micro) -> tasks that end the last job of that micro-batch so far
        self.ready: dict[tuple[int, int], tuple[int, ...]] = {}
        # first lane of a rank -> tasks that end the last job on it so far
        self.before: dict[int, tuple[int, ...]] = {}

    def build(self) -> Compiled:
        for job in self.plan.jobs:
            self._job(job)
            self._check(job)
        own = self.streamed.resources if self.streamed else []
        program = Program(self.tasks, self.lanes, [*self.plan.network.fabric.links, *own])
        slots, sends = tuple(self.slots), tuple(self.sends)
        return Compiled(self.plan, program, slots, sends, self.ranks, self.streams.count)

    def _check(self, job: Job, more: int = 0) -> None:
        """Raise Infeasible where the tasks so far, and `more`, are too many."""
        if len(self.tasks) + more > MOST_TASKS:
            raise Infeasible(
                f"more than {MOST_TASKS:,} tasks in pass {job.number} of "
                f"{len(self.plan.passes)} at detail {self.detail}; ask for fewer passes "
                "(output), fewer layers, or detail op with shortcuts"
            )

    def _lane(self, job: Job, rank: int) -> int:
        """First lane of a device: of its four (host, hbm, core, link), or of its streams."""
        key = (job.replica, job.stage, rank)
        if key not in self.lane_index:
            self.lane_index[key] = len(self.lanes)
            device = self.plan.split.device(job.replica, job.stage, rank)
            count = self.streams.count
            names = [f"stream{i}" for i in range(count)] if count > 1 else LANES
            self.lanes += [f"gpu{device}.{name}" for name in names]
        return self.lane_index[key]

    def _job(self, job: Job) -> None:
        arrival = self.ready.get((job.replica, job.micro), ())
        lanes = [self._lane(job, rank) for rank in self.ranks]
        if self.streamed:
            ends = self._streamed(self.streamed, job, arrival, lanes)
        elif self.explicit:
            ends = self._explicit(job, arrival, lanes)
        else:
            ends = self._folded(job, arrival, lanes[0])
        if job.handover:
            first = len(self.tasks)
            step = exchange_step("send", job.handover, self.plan.costs)
            ends = self._exchange(f"{job.phase}{job.number}.{job.micro}.send", step, ends)
            self.sends.append((job, (first, len(self.tasks))))
        self.ready[job.replica, job.micro] = ends

    def _add(self, task: Task) -> int:
        self.tasks.append(task)
        return len(self.tasks) - 1

    def _folded(self, job: Job, arrival: tuple[int, ...], lane: int) -> tuple[int, ...]:
        """One task a run of steps; a shared exchange stands alone, so that it can contend."""
        alone = self.plan.split.tp > 1 and not self.private
        after = arrival
        pieces: list[Piece] = []
        core = lane + 2
        run: list[tuple[Placed, Step]] = []
        name = f"{job.phase}{job.number}.{job.micro}.stage{job.stage}"

        def flush() -> None:
            nonlocal after
            if run:
                work = sum(step.duration for _, step in run)
                i = self._add(Task(name, work, (core,), after))
                pieces.extend(Piece(placed, step, (i,)) for placed, step in run)
                after = (i,)
                run.clear()

        if not alone:
            duration = sum(w.block.duration for w in job.work)
            i = self._add(Task(name, duration, (core,), after))
            pieces = [Piece(w.placed, step, (i,)) for w in job.work for step in w.block.steps]
            after = (i,)
        else:
            for work in job.work:
                for step in work.block.steps:
                    if step.exchange is None:
                        run.append((work.placed, step))
                        continue
                    flush()
                    e = step.exchange
                    task = Task(
                        f"{name}.{step.name}",
                        e.duration,
                        (core,),
                        after,
                        step.launch + e.latency,
                        e.loads,
                    )
                    i = self._add(task)
                    pieces.append(Piece(work.placed, step, (i,)))
                    after = (i,)
            flush()
        self.slots.append(Slot(job, 0, arrival, tuple(pieces), after, True))
        return after

    def _explicit(self, job: Job, arrival: tuple[int, ...], lanes: list[int]) -> tuple[int, ...]:
        """Every step of every simulated rank on its own lanes, ranks meeting in exchanges."""
        steps = [(work.placed, step) for work in job.work for step in work.block.steps]
        if self.detail == "tile":
            tiles = sum(step.cost.pipeline.tiles for _, step in steps if step.cost)
            self._check(job, TASKS_A_TILE * tiles * len(lanes))
        name = f"{job.phase}{job.number}.{job.micro}.stage{job.stage}"
        begins = self._begins(arrival, lanes)
        emitters = [
            Emitter(self.tasks, lane, self.detail, self.plan.device.prefetch, begin)
            for lane, begin in zip(lanes, begins, strict=True)
        ]
        pieces: list[list[Piece]] = [[] for _ in lanes]
        for at, (placed, step) in enumerate(steps):
            following = steps[at + 1][1] if at + 1 < len(steps) else None
            label = f"{name}.{placed.path}.{step.name}"
            if step.cost:
                for emitter, piece in zip(emitters, pieces, strict=True):
                    launch = emitter.operator(
                        label, step.cost, following.cost if following else None
                    )
                    piece.append(Piece(placed, step, emitter.ends, launch))
                continue
            ends = tuple(e for emitter in emitters for e in emitter.ends)
            ends = self._exchange(label, step, ends, [lane + 3 for lane in lanes])
            for emitter, piece in zip(emitters, pieces, strict=True):
                emitter.ends = ends
                piece.append(Piece(placed, step, ends))
        for rank, lane, piece, emitter in zip(self.ranks, lanes, pieces, emitters, strict=True):
            self.slots.append(Slot(job, rank, arrival, tuple(piece), emitter.ends, False))
            self.before[lane] = emitter.ends
        return tuple(e for emitter in emitters for e in emitter.ends)

    def _streamed(
        self, streamed: StreamTasks, job: Job, arrival: tuple[int, ...], lanes: list[int]
    ) -> tuple[int, ...]:
        """Each step of every simulated rank on its stream, ranks meeting in exchanges."""
        ranks = list(zip(self.ranks, lanes, strict=True))
        done = streamed.job(job, ranks, self._begins(arrival, lanes))
        for (rank, lane), (pieces, ends) in zip(ranks, done, strict=True):
            self.slots.append(Slot(job, rank, arrival, tuple(pieces), ends, False))
            self.before[lane] = ends
        return tuple(dict.fromkeys(i for _, ends in done for i in ends))

    def _begins(self, arrival: tuple[int, ...], lanes: list[int]) -> list[tuple[int, ...]]:
        """What a job waits for on each rank: its input, and the end of the job before it there, so
        that its launches do not run ahead."""
        return [tuple(sorted({*arrival, *self.before.get(lane, ())})) for lane in lanes]

    def _exchange(
        self, name: str, step: Step, after: tuple[int, ...], lanes: list[int] | None = None
    ) -> tuple[int, ...]:
        """One transfer for the whole exchange, or its rounds send by send in tile detail.

        The rounds of a calibrated library tell its bytes, not its time: it stays one transfer.
        """
        exchange = step.exchange
        assert exchange is not None
        if self.detail == "op" or exchange.library:
            latency, held = step.launch + exchange.latency, tuple(lanes or ())
            return (self._add(Task(name, exchange.duration, held, after, latency, exchange.loads)),)
        fabric, launch = self.plan.network.fabric, step.launch
        for number, sends in enumerate(exchange.rounds):
            tasks = [fabric.task(f"{name}.{number}.{s.src}-{s.dst}", s, after) for s in sends]
            if launch:  # passes before the first round, as it does for the exchange as a whole
                tasks = [msgspec.structs.replace(t, latency=t.latency + launch) for t in tasks]
                launch = 0
            after = tuple(self._add(task) for task in tasks)
        return after
