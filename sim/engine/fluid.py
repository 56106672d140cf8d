"""Links shared max-min fairly by concurrent transfers (progressive filling).

Source: Bertsekas and Gallager, Data Networks, 2nd ed., section 6.5.2. All transfers grow at
the same pace until a link is full or a transfer has reached its own top rate; those stop, the
rest go on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Loads = Sequence[tuple[int, float]]  # (link, bytes/s on it at the transfer's nominal rate)


def max_min(transfers: Mapping[int, Loads], capacity: Sequence[float]) -> dict[int, float]:
    """The fraction of its nominal rate that each transfer gets, in (0, 1].

    `transfers` maps an id to its loads; `capacity` is bytes/s by link. The rate that is
    made equal is bytes/s on a transfer's busiest link.
    """
    top = {i: max(rate for _, rate in loads) for i, loads in transfers.items()}
    rate = dict.fromkeys(transfers, 0.0)
    left = {link: capacity[link] for loads in transfers.values() for link, _ in loads}
    active = set(transfers)
    while active:
        weight: dict[int, float] = dict.fromkeys(left, 0.0)
        for i in active:
            for link, load in transfers[i]:
                weight[link] += load / top[i]
        room = [left[link] / w for link, w in weight.items() if w > 0]
        step = min(min(room), min(top[i] - rate[i] for i in active))
        for link, w in weight.items():
            left[link] -= step * w
        for i in active:
            rate[i] += step
        full = {link for link, w in weight.items() if w > 0 and left[link] <= 1e-9 * capacity[link]}
        done = {
            i
            for i in active
            if rate[i] >= top[i] * (1 - 1e-12) or any(link in full for link, _ in transfers[i])
        }
        active -= done
    return {i: min(1.0, rate[i] / top[i]) for i in transfers}
