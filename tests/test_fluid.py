"""Max-min fair sharing: its definition, and what the engine makes of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.engine.des import Program, Task, run
from sim.engine.fluid import max_min

CLOSE = 1e-6


@st.composite
def flows(draw: Any) -> tuple[dict[int, list[tuple[int, float]]], list[float]]:
    """Transfers over some of up to four links, none faster than its links."""
    capacity = draw(st.lists(st.floats(1, 100), min_size=1, max_size=4))
    transfers = {}
    for i in range(draw(st.integers(1, 8))):
        used = draw(st.sets(st.integers(0, len(capacity) - 1), min_size=1))
        transfers[i] = [(k, capacity[k] * draw(st.floats(0.01, 1))) for k in sorted(used)]
    return transfers, capacity


Flows = tuple[dict[int, list[tuple[int, float]]], list[float]]


def used_of(transfers: dict[int, list[tuple[int, float]]], share: dict[int, float]) -> list[float]:
    used = [0.0] * 4
    for i, loads in transfers.items():
        for link, load in loads:
            used[link] += share[i] * load
    return used


@given(flows())
def test_no_link_carries_more_than_it_can(case: Flows) -> None:
    transfers, capacity = case
    share = max_min(transfers, capacity)
    assert all(0 < s <= 1 for s in share.values())
    for used, most in zip(used_of(transfers, share), capacity, strict=False):
        assert used <= most * (1 + CLOSE)


@given(flows())
def test_who_could_go_faster_shares_a_full_link_with_nobody_faster(case: Flows) -> None:
    """The bottleneck property, which defines max-min fairness (Bertsekas and Gallager 6.5.2)."""
    transfers, capacity = case
    share = max_min(transfers, capacity)
    used = used_of(transfers, share)
    rate = {i: share[i] * max(load for _, load in loads) for i, loads in transfers.items()}
    for i, loads in transfers.items():
        if share[i] >= 1 - CLOSE:
            continue
        assert any(
            used[link] >= capacity[link] * (1 - CLOSE)
            and all(
                rate[j] <= rate[i] * (1 + CLOSE)
                for j, others in transfers.items()
                if any(link == other for other, _ in others)
            )
            for link, _ in loads
        )


@given(flows(), st.randoms(use_true_random=False))
def test_the_order_of_transfers_does_not_matter(case: Flows, random: Any) -> None:
    transfers, capacity = case
    order = list(transfers)
    random.shuffle(order)
    again = max_min({i: transfers[i] for i in order}, capacity)
    assert again == pytest.approx(max_min(transfers, capacity), rel=CLOSE)


@given(st.integers(1, 6), st.integers(1, 10**6))
def test_equal_transfers_on_one_link_take_turns(count: int, duration: int) -> None:
    tasks = [Task(f"t{i}", duration, loads=((0, 1e9),)) for i in range(count)]
    assert run(Program(tasks, (), [("link", 1e9)])).end == [count * duration] * count


@given(st.integers(1, 10**6), st.integers(0, 10**6), st.integers(1, 10**6))
def test_a_late_comer(first: int, late: int, second: int) -> None:
    """Alone until `late`, then at half rate until one of the two has ended."""
    link = ((0, 5e9),)
    tasks = [Task("a", first, loads=link), Task("b", second, loads=link, release=late)]
    end = run(Program(tasks, (), [("link", 5e9)])).end
    if late >= first:
        assert end == [first, late + second]
    else:
        left = first - late
        short = late + 2 * min(left, second)
        whole = first + second
        expected = [short, whole] if left < second else [whole, short]
        assert all(abs(e - x) <= 1 for e, x in zip(end, expected, strict=True))


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 1000)), min_size=1, max_size=12))
def test_a_shared_link_never_rests_and_never_hurries(jobs: list[tuple[int, int]]) -> None:
    """Conservation: the last arrival is that of one server working through all of it."""
    tasks = [Task("t", d, loads=((0, 2e9),), release=r) for r, d in jobs]
    clock = 0
    for release, duration in sorted(jobs):
        clock = max(clock, release) + duration
    makespan = run(Program(tasks, (), [("link", 2e9)])).makespan
    assert abs(makespan - clock) <= 2 * len(jobs)  # a rounding at each change of rate


def test_transfers_on_different_links_do_not_meet() -> None:
    tasks = [Task("a", 70, loads=((0, 1e9),)), Task("b", 90, loads=((1, 1e9),))]
    assert run(Program(tasks, (), [("x", 1e9), ("y", 1e9)])).end == [70, 90]


def test_a_parking_lot() -> None:
    # The long transfer crosses both links; each short one gets what is left on its own.
    share = max_min({0: [(0, 1.0), (1, 1.0)], 1: [(0, 1.0)], 2: [(1, 2.0)]}, [1.0, 2.0])
    assert share == pytest.approx({0: 0.5, 1: 0.5, 2: 0.75})
