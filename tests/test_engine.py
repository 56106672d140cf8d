"""Laws and exact oracles of the engine on random programs."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import programs

from sim.engine.des import Program, Task, Timeline, run
from sim.errors import Deadlock

ROOT = Path(__file__).parents[1]


def work(task: Task) -> int:
    return task.latency + task.duration


def critical_path(program: Program) -> int:
    ends: list[int] = []
    for task in program.tasks:
        begin = max([task.release, *(ends[i] for i in task.after)])
        ends.append(begin + work(task))
    return max(ends)


def lane_loads(program: Program) -> list[int]:
    return [
        sum(work(t) for t in program.tasks if lane in t.lanes) for lane in range(len(program.lanes))
    ]


@given(programs(links=True))
def test_a_task_runs_once_after_its_dependencies_and_release(program: Program) -> None:
    times = run(program)
    for i, task in enumerate(program.tasks):
        assert times.start[i] >= max([task.release, *(times.end[j] for j in task.after)])
        if task.loads:
            # A shared transfer is rounded to whole ticks once a change of its rate.
            assert times.end[i] - times.start[i] >= work(task) - 2 * len(program.tasks)
        else:
            assert times.end[i] - times.start[i] == work(task)


@given(programs(links=True))
def test_a_lane_serves_one_task_at_a_time_in_program_order(program: Program) -> None:
    times = run(program)
    for lane in range(len(program.lanes)):
        held = [i for i, task in enumerate(program.tasks) if lane in task.lanes]
        for a, b in itertools.pairwise(held):
            assert times.end[a] <= times.start[b]


@given(programs())
def test_the_makespan_lies_between_its_bounds(program: Program) -> None:
    makespan = run(program).makespan
    latest = max(task.release for task in program.tasks)
    assert max(critical_path(program), *lane_loads(program)) <= makespan
    assert makespan <= latest + sum(map(work, program.tasks))


@given(programs(links=True, releases=False))
def test_sharing_links_never_takes_longer_than_taking_turns(program: Program) -> None:
    # Where a link is full somebody moves at full rate in sum; only rounding can add to it.
    rounding = 2 * len(program.tasks) ** 2
    assert run(program).makespan <= sum(map(work, program.tasks)) + rounding


@given(programs(), st.integers(2, 1000))
def test_all_times_scaled_scale_the_answer(program: Program, factor: int) -> None:
    tasks = [
        msgspec.structs.replace(
            t,
            duration=t.duration * factor,
            latency=t.latency * factor,
            release=t.release * factor,
        )
        for t in program.tasks
    ]
    slow = run(Program(tasks, program.lanes, program.resources))
    assert slow.end == [factor * t for t in run(program).end]


gaps = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=40)


@given(gaps)
def test_lindley(jobs: list[tuple[int, int]]) -> None:
    """One server, FIFO: W(n+1) = max(0, W(n) + S(n) - A(n))."""
    arrival, tasks, waits = 0, [], []
    wait = 0
    for i, (gap, service) in enumerate(jobs):
        if i:
            wait = max(0, wait + jobs[i - 1][1] - gap)
        arrival += gap
        waits.append(wait)
        tasks.append(Task(f"job{i}", service, (0,), release=arrival))
    times = run(Program(tasks, ["server"]))
    starts = zip(times.start, tasks, strict=True)
    assert [start - task.release for start, task in starts] == waits


@given(st.lists(st.lists(st.integers(0, 60), min_size=3, max_size=3), min_size=1, max_size=20))
def test_tandem_queue(jobs: list[list[int]]) -> None:
    """Unlimited buffers: C(i, j) = max(C(i, j-1), C(i-1, j)) + S(i, j)."""
    tasks: list[Task] = []
    done = [0, 0, 0]
    for i, services in enumerate(jobs):
        for j, service in enumerate(services):
            after = (len(tasks) - 1,) if j else ()
            tasks.append(Task(f"job{i}.{j}", service, (j,), after))
            done[j] = max(done[j - 1] if j else 0, done[j]) + service
    times = run(Program(tasks, ["a", "b", "c"]))
    assert times.end[-3:] == done


@given(st.integers(1, 12), st.integers(1, 8), st.integers(1, 100))
def test_a_pipeline_of_equal_stages(micro: int, stages: int, t: int) -> None:
    tasks = [
        Task(f"{m}.{p}", t, (p,), (m * stages + p - 1,) if p else ())
        for m in range(micro)
        for p in range(stages)
    ]
    times = run(Program(tasks, [str(p) for p in range(stages)]))
    assert times.makespan == (micro + stages - 1) * t


def test_a_cycle_is_named() -> None:
    tasks = [Task("a", 1, after=(2,)), Task("b", 1, after=(0,)), Task("c", 1, after=(1,))]
    with pytest.raises(Deadlock, match=r"3 tasks never start.*a -> c -> b -> a"):
        run(Program([*tasks, Task("free", 1)]))


def test_a_task_that_waits_for_itself_is_named() -> None:
    with pytest.raises(Deadlock, match="me -> me"):
        run(Program([Task("me", 1, after=(0,))]))


def test_crossed_lanes_are_named() -> None:
    # Lane 0 has x before y; y comes before x.
    with pytest.raises(Deadlock, match="x -> y -> x"):
        run(Program([Task("x", 1, (0,), (1,)), Task("y", 1, (0,))], ["lane"]))


@given(programs(), st.data())
def test_a_program_with_a_cycle_never_ends_quietly(program: Program, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(program.tasks) - 1))
    last = data.draw(st.integers(first, len(program.tasks) - 1))
    tasks = list(program.tasks)
    for i in range(first + 1, last + 1):
        tasks[i] = msgspec.structs.replace(tasks[i], after=(*tasks[i].after, i - 1))
    tasks[first] = msgspec.structs.replace(tasks[first], after=(*tasks[first].after, last))
    with pytest.raises(Deadlock, match="->"):
        run(Program(tasks, program.lanes, program.resources))


def times_of(timeline: Timeline) -> str:
    return hashlib.sha256(repr((timeline.start, timeline.end)).encode()).hexdigest()


def sample_program() -> Program:
    """Shared links, lanes and releases without any randomness."""
    links = [("x", 3e9), ("y", 7e9)]
    tasks = [
        Task(
            f"t{i}",
            1000 + 37 * i % 91,
            (i % 3,),
            (i - 4,) if i % 5 == 4 else (),
            latency=i % 7,
            loads=((i % 2, 3e9), (1, 2e9 + i)) if i % 2 == 0 else (),
            release=(i * i) % 53,
        )
        for i in range(60)
    ]
    return Program(tasks, ["a", "b", "c"], links)


def test_another_process_gives_the_same_bytes() -> None:
    code = "import test_engine as t; print(t.times_of(t.run(t.sample_program())))"
    seen = {times_of(run(sample_program()))}
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
        out = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        seen.add(out.stdout.strip())
    assert len(seen) == 1


@settings(max_examples=30)
@given(programs(links=True), programs(links=True))
def test_two_runs_do_not_know_of_each_other(one: Program, other: Program) -> None:
    alone = run(one)
    run(other)
    again = run(one)
    assert (alone.start, alone.end) == (again.start, again.end)


@pytest.mark.parametrize("count", [100, 1000])
def test_an_event_a_task_is_all_it_takes(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    events = 0
    steps = simpy.Environment.step

    def counted(self: object) -> None:
        nonlocal events
        events += 1
        steps(self)

    monkeypatch.setattr(simpy.Environment, "step", counted)
    tasks = [
        Task(f"t{i}", 3, (i % 4,), tuple(range(max(0, i - 3), i)), release=i if i % 10 == 0 else 0)
        for i in range(count)
    ]
    run(Program(tasks, ["a", "b", "c", "d"]))
    released = sum(1 for task in tasks if task.release)
    # One more is simpy's own look into the empty queue.
    assert count + released <= events <= count + released + 1


def test_progress_is_told() -> None:
    told: list[int] = []
    run(Program([Task("t", 1) for _ in range(3000)]), told.append)
    assert told == [1024, 2048]


def test_an_empty_program_takes_no_time() -> None:
    assert run(Program([])).makespan == 0
