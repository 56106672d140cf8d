"""From a plan to a program for the engine, at the resolution that was asked for.

op, folded     A run of steps that nothing can interleave is one task; its inside is known in
               closed form. Ranks of a stage do the same at the same time: one stands for all.
op, explicit   launch, fill, body, drain of every operator on the lanes host, HBM and compute.
               Needed for prefetch; elsewhere it is the long way that folding must equal.
tile           every tile's load, compute and store, and every send of a collective.

Lanes of a device: host, hbm, core, link.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from sim.engine.des import Program, Task
from sim.errors import Infeasible
from sim.mapping.emit import Emitter
from sim.mapping.plan import Job, Plan
from sim.mapping.priced import Step, exchange_step
from workloads.graph import Placed

Detail = Literal["op", "tile"]
MOST_TASKS = 4_000_000  # about 2 GB


class Piece(msgspec.Struct, frozen=True):
    """One step at its place, and the tasks that end it on this rank.

    Folded, several steps share the one task that they are the inside of. Explicit, `launch` is
    the task that launches the step, -1 for an exchange.
    """

    placed: Placed
    step: Step
    ends: tuple[int, ...]
    launch: int = -1


class Slot(msgspec.Struct, frozen=True):
    """A job's tasks on one rank, with its pieces in order."""

    job: Job
    rank: int
    arrival: tuple[int, ...]  # handover tasks that it waits for
    pieces: tuple[Piece, ...]
    folded: bool

    @property
    def whole(self) -> bool:
        """Whether the job is one task, whose inside is known in closed form."""
        return self.folded and self.pieces[0].ends == self.pieces[-1].ends


class Compiled(msgspec.Struct, frozen=True):
    """A program with the meaning of its tasks."""

    plan: Plan
    program: Program
    slots: tuple[Slot, ...]
    sends: tuple[tuple[Job, tuple[int, int]], ...]  # handovers and their tasks
    ranks: tuple[int, ...]  # simulated ranks of each stage


def compile_plan(plan: Plan, detail: Detail = "op", *, shortcuts: bool = True) -> Compiled:
    """The program of a plan. `shortcuts=False` is the long way: no folding of steps or ranks."""
    explicit = detail == "tile" or plan.device.prefetch or not shortcuts
    ranks = (0,) if shortcuts else tuple(range(plan.split.tp))
    return _Builder(plan, detail, explicit, ranks).build()


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
    def __init__(self, plan: Plan, detail: Detail, explicit: bool, ranks: tuple[int, ...]) -> None:
        self.plan, self.detail, self.explicit, self.ranks = plan, detail, explicit, ranks
        self.private = plan.serial and links_disjoint(plan)
        self.tasks: list[Task] = []
        self.lanes: list[str] = []
        self.lane_index: dict[tuple[int, int, int], int] = {}
        self.slots: list[Slot] = []
        self.sends: list[tuple[Job, tuple[int, int]]] = []
        # (replica, micro) -> tasks that end the last job of that micro-batch so far
        self.ready: dict[tuple[int, int], tuple[int, ...]] = {}
        # first lane of a rank -> tasks that end the last job on it so far
        self.before: dict[int, tuple[int, ...]] = {}

    def build(self) -> Compiled:
        for job in self.plan.jobs:
            self._job(job)
            if len(self.tasks) > MOST_TASKS:
                raise Infeasible(
                    f"more than {MOST_TASKS:,} tasks in pass {job.number} of "
                    f"{len(self.plan.passes)} at detail {self.detail}; ask for fewer passes "
                    "(output), fewer layers, or detail op with shortcuts"
                )
        program = Program(self.tasks, self.lanes, self.plan.network.links)
        return Compiled(self.plan, program, tuple(self.slots), tuple(self.sends), self.ranks)

    def _lane(self, job: Job, rank: int) -> int:
        """First of the four lanes (host, hbm, core, link) of a device."""
        key = (job.replica, job.stage, rank)
        if key not in self.lane_index:
            self.lane_index[key] = len(self.lanes)
            device = self.plan.split.device(job.replica, job.stage, rank)
            self.lanes += [f"gpu{device}.{lane}" for lane in ("host", "hbm", "core", "link")]
        return self.lane_index[key]

    def _job(self, job: Job) -> None:
        arrival = self.ready.get((job.replica, job.micro), ())
        lanes = [self._lane(job, rank) for rank in self.ranks]
        if self.explicit:
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
        self.slots.append(Slot(job, 0, arrival, tuple(pieces), True))
        return after

    def _explicit(self, job: Job, arrival: tuple[int, ...], lanes: list[int]) -> tuple[int, ...]:
        """Every step of every simulated rank on its own lanes, ranks meeting in exchanges."""
        steps = [(work.placed, step) for work in job.work for step in work.block.steps]
        name = f"{job.phase}{job.number}.{job.micro}.stage{job.stage}"
        # A rank begins a job when the one before has ended: its launches do not run ahead.
        begins = [tuple(sorted({*arrival, *self.before.get(lane, ())})) for lane in lanes]
        emitters = [
            Emitter(self.tasks, lane, self.detail, self.plan.device.prefetch, begin)
            for lane, begin in zip(lanes, begins, strict=True)
        ]
        pieces: list[list[Piece]] = [[] for _ in lanes]
        for at, (placed, step) in enumerate(steps):
            following = steps[at + 1][1] if at + 1 < len(steps) else None
            label = f"{name}.{placed.path}.{step.name}"
            if step.cost:
                for emitter, found in zip(emitters, pieces, strict=True):
                    launch = emitter.operator(
                        label, step.cost, following.cost if following else None
                    )
                    found.append(Piece(placed, step, emitter.ends, launch))
                continue
            ends = tuple(e for emitter in emitters for e in emitter.ends)
            ends = self._exchange(label, step, ends, [lane + 3 for lane in lanes])
            for emitter, found in zip(emitters, pieces, strict=True):
                emitter.ends = ends
                found.append(Piece(placed, step, ends))
        for rank, found in enumerate(pieces):
            self.slots.append(Slot(job, self.ranks[rank], arrival, tuple(found), False))
            self.before[lanes[rank]] = emitters[rank].ends
        return tuple(e for emitter in emitters for e in emitter.ends)

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
        network, launch = self.plan.network, step.launch
        for number, sends in enumerate(exchange.rounds):
            tasks = [network.task(f"{name}.{number}.{s.src}-{s.dst}", s, after) for s in sends]
            if launch:  # passes before the first round, as it does for the exchange as a whole
                tasks = [msgspec.structs.replace(t, latency=t.latency + launch) for t in tasks]
                launch = 0
            after = tuple(self._add(task) for task in tasks)
        return after
