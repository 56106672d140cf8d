"""Collectives as rounds of sends.

An algorithm is a function from a group and a size to rounds. A round is a list of sends that go at
once; it ends when the last has arrived. To add an algorithm: a function here, its name in
`ALGORITHMS`, and its closed form in `tests/test_collectives.py`.

    ring all-reduce        2 (n-1) rounds of bytes/n     Patarasuk and Yuan 2009
    bidirectional ring     the same, half in each direction
    direct                 2 rounds, every rank to every other bytes/n
    recursive doubling     log2(n) rounds of bytes       Thakur et al. 2005
    binary tree            2 ceil(log2 n) rounds of bytes (reduce, then broadcast)
    hierarchical           reduce-scatter within a node, ring across, all-gather within
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from sim.errors import Infeasible

Group = tuple[int, ...]


class Send(msgspec.Struct, frozen=True):
    """`nbytes` from device to device."""

    src: int
    dst: int
    nbytes: int


Rounds = list[list[Send]]


def ring_rounds(group: Group, nbytes: int, steps: int) -> Rounds:
    """`steps` rounds in which every rank sends one n-th to its right neighbour."""
    n = len(group)
    chunk = -(-nbytes // n)
    one = [Send(group[i], group[(i + 1) % n], chunk) for i in range(n)]
    return [one] * steps


def ring_all_reduce(group: Group, nbytes: int) -> Rounds:
    return ring_rounds(group, nbytes, 2 * (len(group) - 1))


def bidirectional_all_reduce(group: Group, nbytes: int) -> Rounds:
    """Two rings at once, each with half of the data, one to the right and one to the left."""
    right = ring_all_reduce(group, -(-nbytes // 2))
    left = ring_all_reduce(group[::-1], -(-nbytes // 2))
    return [a + b for a, b in zip(right, left, strict=True)]


def direct_all_reduce(group: Group, nbytes: int) -> Rounds:
    """Every rank sends every other its n-th, then every rank its sum to every other."""
    n = len(group)
    chunk = -(-nbytes // n)
    one = [Send(a, b, chunk) for a in group for b in group if a != b]
    return [one, one]


def one_shot_all_reduce(group: Group, nbytes: int) -> Rounds:
    """Every rank reads the whole vector of every other and adds up for itself."""
    return [[Send(a, b, nbytes) for a in group for b in group if a != b]]


def switch_all_reduce(group: Group, nbytes: int) -> Rounds:
    """The switch adds up: each rank's vector goes up once, and the sum comes down once."""
    return [[Send(a, b, nbytes) for a, b in zip(group, group[1:] + group[:1], strict=True)]]


def all_gather(group: Group, nbytes: int) -> Rounds:
    """Ring all-gather of a tensor of `nbytes` in all."""
    return ring_rounds(group, nbytes, len(group) - 1)


def doubling_all_reduce(group: Group, nbytes: int) -> Rounds:
    """Every rank exchanges the whole vector with a partner at distance 1, 2, 4, ..."""
    n = len(group)
    if n & (n - 1):
        raise Infeasible(
            f"recursive doubling needs a power of two ranks, not {n}; use ring or tree"
        )
    rounds: Rounds = []
    distance = 1
    while distance < n:
        rounds.append([Send(group[i], group[i ^ distance], nbytes) for i in range(n)])
        distance *= 2
    return rounds


def tree_all_reduce(group: Group, nbytes: int) -> Rounds:
    """Reduce up a binary tree to the first rank, then broadcast down it."""
    n = len(group)
    up: Rounds = []
    distance = 1
    while distance < n:
        pairs = range(0, n - distance, 2 * distance)
        up.append([Send(group[i + distance], group[i], nbytes) for i in pairs])
        distance *= 2
    down = [[Send(s.dst, s.src, s.nbytes) for s in one] for one in reversed(up)]
    return up + down


def hierarchical_all_reduce(group: Group, nbytes: int, node: int) -> Rounds:
    """Within nodes of `node` ranks: reduce-scatter; across: ring; within: all-gather."""
    n = len(group)
    if node <= 1 or n % node or n == node:
        raise Infeasible(
            f"a hierarchical all-reduce needs two nodes or more, all whole: here {n} ranks lie on "
            f"nodes of {node}; use ring"
        )
    nodes = [group[i : i + node] for i in range(0, n, node)]
    inner = [ring_rounds(one, nbytes, node - 1) for one in nodes]
    within = [[s for rounds in inner for s in rounds[step]] for step in range(node - 1)]
    shard = -(-nbytes // node)
    rails = [tuple(one[rank] for one in nodes) for rank in range(node)]
    outer = [ring_all_reduce(rail, shard) for rail in rails]
    across = [[s for rounds in outer for s in rounds[step]] for step in range(2 * (len(nodes) - 1))]
    return within + across + within


# By the algorithm that a calibrated protocol of a library runs (`hw_models.efficiency`).
BY_PROTOCOL: dict[str, Callable[[Group, int], Rounds]] = {
    "ring": ring_all_reduce,
    "one-shot": one_shot_all_reduce,
    "two-shot": direct_all_reduce,
    "switch": switch_all_reduce,
}

# All-reduces by the name that a scenario gives them; the third argument is the ranks of a node.
ALGORITHMS: dict[str, Callable[[Group, int, int], Rounds]] = {
    "ring": lambda group, nbytes, _: ring_all_reduce(group, nbytes),
    "bidirectional": lambda group, nbytes, _: bidirectional_all_reduce(group, nbytes),
    "direct": lambda group, nbytes, _: direct_all_reduce(group, nbytes),
    "doubling": lambda group, nbytes, _: doubling_all_reduce(group, nbytes),
    "tree": lambda group, nbytes, _: tree_all_reduce(group, nbytes),
    "hierarchical": hierarchical_all_reduce,
}


def counted(rounds: Rounds) -> list[tuple[list[Send], int]]:
    """Rounds with how often each comes; one that is repeated is the same object."""
    by_round: dict[int, tuple[list[Send], int]] = {}
    for one in rounds:
        by_round[id(one)] = (one, by_round.get(id(one), (one, 0))[1] + 1)
    return list(by_round.values())
