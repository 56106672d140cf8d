"""Resources shared max-min fairly by concurrent tasks (progressive filling).

Source: Bertsekas and Gallager, Data Networks, 2nd ed., section 6.5.2. All tasks grow at
the same pace until a resource is full or a task has reached its nominal rate; those stop, the
rest go on. A resource is a link, an HBM, arithmetic units: whatever has a capacity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Loads = Sequence[tuple[int, float]]  # (resource, load on it at the nominal rate of the task)


def max_min(tasks: Mapping[int, Loads], capacity: Sequence[float]) -> dict[int, float]:
    """The fraction of its nominal rate that each task gets, in (0, 1].

    `tasks` maps an id to its loads; `capacity` is by resource, in one unit (as the loads are).
    The fair rate of a task is that on its most loaded resource.
    """
    top = {i: max(rate for _, rate in loads) for i, loads in tasks.items()}
    rate = dict.fromkeys(tasks, 0.0)
    left = {resource: capacity[resource] for loads in tasks.values() for resource, _ in loads}
    active = set(tasks)
    while active:
        weight: dict[int, float] = dict.fromkeys(left, 0.0)
        for i in active:
            for resource, load in tasks[i]:
                weight[resource] += load / top[i]
        room = [left[resource] / w for resource, w in weight.items() if w > 0]
        step = min(min(room), min(top[i] - rate[i] for i in active))
        for resource, w in weight.items():
            left[resource] -= step * w
        for i in active:
            rate[i] += step
        full = {
            resource
            for resource, w in weight.items()
            if w > 0 and left[resource] <= 1e-9 * capacity[resource]
        }
        done = {
            i
            for i in active
            if rate[i] >= top[i] * (1 - 1e-12) or any(resource in full for resource, _ in tasks[i])
        }
        active -= done
    return {i: min(1.0, rate[i] / top[i]) for i in tasks}
