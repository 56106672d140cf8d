"""A program with its meaning: which task is which step of which job, on which rank."""

from __future__ import annotations

import msgspec

from sim.engine.des import Program
from sim.mapping.plan import Job, Plan
from sim.mapping.priced import Step
from workloads.graph import Placed


class Piece(msgspec.Struct, frozen=True):
    """One step at its place, and the tasks that end it on this rank.

    Folded, several steps share the one task that they are the inside of. Explicit, `launch` is
    the task that launches the step, -1 for an exchange. `stream` is the one that it runs on.
    """

    placed: Placed
    step: Step
    ends: tuple[int, ...]
    launch: int = -1
    stream: int = 0


class Slot(msgspec.Struct, frozen=True):
    """A job's tasks on one rank, with its pieces in order."""

    job: Job
    rank: int
    arrival: tuple[int, ...]  # handover tasks that it waits for
    pieces: tuple[Piece, ...]
    ends: tuple[int, ...]  # tasks after which it has ended
    folded: bool

    @property
    def is_single_task(self) -> bool:
        """Whether the job is one task, whose inside is known in closed form."""
        return self.folded and self.pieces[0].ends == self.ends


class Compiled(msgspec.Struct, frozen=True):
    """A program with the meaning of its tasks."""

    plan: Plan
    program: Program
    slots: tuple[Slot, ...]
    sends: tuple[tuple[Job, tuple[int, int]], ...]  # handovers and their tasks
    ranks: tuple[int, ...]  # simulated ranks of each stage
    streams: int = 1  # of each device
