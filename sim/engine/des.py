"""The discrete-event engine: tasks, lanes and shared resources. It knows no transformer.

A lane serves one task at a time, in the order of the program (a stream). A task starts when
all it comes after has ended, its release has passed and it heads each of its lanes. A task with
loads waits its latency and then shares resources with other tasks (`sim.engine.flows`).

Events of one tick are handled in the order in which they were scheduled (`sim.engine.processes`);
with lanes in program order the result does not depend on it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from sim.engine.flows import Flows
from sim.engine.fluid import Loads
from sim.engine.processes import Engine
from sim.errors import Deadlock


class Task(msgspec.Struct, frozen=True, gc=False):
    """One unit of work. Times in ticks; `after` and `lanes` are indices.

    With `loads` it uses shared resources: `latency`, then `duration` at nominal rate, longer
    where a resource is over-subscribed. Loads are (resource, amount per second at that rate).
    """

    name: str
    duration: int
    lanes: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    latency: int = 0
    loads: Loads = ()
    release: int = 0


class Program(msgspec.Struct, frozen=True):
    """What the engine runs: tasks, names of lanes, names and capacities of shared resources.

    All capacities are in one unit (bytes/s of links, or shares of 1): the fluid model makes
    loads on different resources equal.
    """

    tasks: Sequence[Task]
    lanes: Sequence[str] = ()
    resources: Sequence[tuple[str, float]] = ()


class Timeline(msgspec.Struct, frozen=True):
    """When each task of a program started and ended, in ticks.

    paces: by task, how fast it went on from which tick on, as a fraction of its nominal rate; a
    task that is not there went on at its nominal rate throughout.
    """

    program: Program
    start: list[int]
    end: list[int]
    paces: dict[int, list[tuple[int, float]]] = msgspec.field(default_factory=dict)

    @property
    def makespan(self) -> int:
        return max(self.end, default=0)


def run(program: Program, on_progress: Callable[[int], None] | None = None) -> Timeline:
    """Run every task once. Raises Deadlock naming the tasks that wait for one another."""
    return _Run(program, on_progress).result()


class _Run:
    def __init__(self, program: Program, on_progress: Callable[[int], None] | None) -> None:
        self.program, self.tasks = program, program.tasks
        self.on_progress = on_progress
        count = len(self.tasks)
        self.engine = Engine()
        self.start = [-1] * count
        self.end = [-1] * count
        self.missing = [len(t.after) + (1 if t.release else 0) for t in self.tasks]
        self.then: list[list[int]] = [[] for _ in range(count)]
        self.queues: list[deque[int]] = [deque() for _ in program.lanes]
        self.idle = [True] * len(program.lanes)
        capacity = [amount for _, amount in program.resources]
        self.paces: dict[int, list[tuple[int, float]]] = {}
        self.flows = Flows(self.engine, capacity, self.finish, self.paces)
        self.done = 0
        for i, task in enumerate(self.tasks):
            for before in task.after:
                self.then[before].append(i)
            for lane in task.lanes:
                self.queues[lane].append(i)

    def result(self) -> Timeline:
        for i, task in enumerate(self.tasks):
            if task.release:
                self.engine.after(task.release, self._released, i)
            elif not self.missing[i]:
                self._try(i)
        self.engine.run()
        if self.done < len(self.tasks):
            raise Deadlock(_explain(self))
        return Timeline(self.program, self.start, self.end, self.paces)

    def _released(self, event: Any) -> None:
        self._met(event.value)

    def _met(self, i: int) -> None:
        self.missing[i] -= 1
        if not self.missing[i]:
            self._try(i)

    def _try(self, i: int) -> None:
        """Start task i if nothing holds it back any more."""
        if self.missing[i] or self.start[i] >= 0:
            return
        task = self.tasks[i]
        queues, idle = self.queues, self.idle
        for lane in task.lanes:
            if not idle[lane] or queues[lane][0] != i:
                return
        for lane in task.lanes:
            idle[lane] = False
            queues[lane].popleft()
        self.start[i] = self.engine.now
        if task.loads:
            self.engine.after(task.latency, self._flow, i)
        else:
            self.engine.after(task.latency + task.duration, self._finished, i)

    def _flow(self, event: Any) -> None:
        task = self.tasks[event.value]
        self.flows.begin(event.value, task.duration, task.loads)

    def _finished(self, event: Any) -> None:
        self.finish(event.value)

    def finish(self, i: int) -> None:
        self.end[i] = self.engine.now
        self.done += 1
        if self.on_progress and not self.done & 1023:
            self.on_progress(self.done)
        lanes = self.tasks[i].lanes
        for lane in lanes:
            self.idle[lane] = True
        for after in self.then[i]:
            self._met(after)
        for lane in lanes:
            queue = self.queues[lane]
            if queue:
                self._try(queue[0])


def _explain(state: _Run) -> str:
    """Follow what each stuck task waits for until a task comes up twice."""
    heads = {i for queue in state.queues for i in list(queue)[:1]}
    stuck = next(i for i, end in enumerate(state.end) if end < 0)
    path: list[int] = []
    i = stuck
    while i not in path:
        path.append(i)
        task = state.tasks[i]
        before = [b for b in task.after if state.end[b] < 0]
        ahead = [
            state.queues[lane][0]
            for lane in task.lanes
            if i not in heads or state.queues[lane][0] != i
        ]
        i = (before + [a for a in ahead if a != i])[0]
    cycle = [*path[path.index(i) :], i]
    names = " -> ".join(state.tasks[j].name or f"task {j}" for j in cycle[:12])
    waiting = len(state.tasks) - state.done
    return f"deadlock: {waiting} tasks never start; they wait in a circle: {names}"
