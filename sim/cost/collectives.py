"""Collectives as rounds of sends, and what a round costs on the links of a system.

An algorithm is a function from a group and a size to rounds; a round is a list of sends that
go at once, and ends when the last has arrived. To add one: a function and its closed form.

    ring all-reduce        2 (n-1) rounds of bytes/n     Patarasuk and Yuan 2009
    bidirectional ring     the same, half each way round
    direct                 2 rounds, every rank to every other bytes/n
    recursive doubling     log2(n) rounds of bytes       Thakur et al. 2005
    binary tree            2 ceil(log2 n) rounds of bytes (reduce, then broadcast)
    hierarchical           reduce-scatter within a node, ring across, all-gather within

Where the device states what a library takes (`hw_models.efficiency.CollectiveTerms`), "auto" is
that library, within one node or across; its bytes are those of the algorithm that it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from hw_models.efficiency import CollectiveTerms
from hw_models.system import System
from sim.clock import ticks
from sim.cost.arith import SCALAR
from sim.cost.kernels.collective import ACROSS, across, choices, exchange_seconds, rails_of, within
from sim.engine.des import Program, Task, run
from sim.engine.fluid import max_min
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


MADE_BY: dict[str, Callable[[Group, int], Rounds]] = {
    "ring": ring_all_reduce,
    "one-shot": one_shot_all_reduce,
    "two-shot": direct_all_reduce,
    "switch": switch_all_reduce,
}


class Exchange(msgspec.Struct, frozen=True):
    """A collective that was priced alone: its rounds and what it puts on links.

    `duration` is what the data takes at nominal rate, `latency` what passes before; together
    they are the exact time of the rounds where nothing else uses the links. `loads` are the
    mean bytes/s on each directed link while data flows. `library` is the one whose calibrated time
    this is: launch included, and the rounds tell its bytes, not its time.
    """

    algorithm: str
    rounds: tuple[tuple[Send, ...], ...]
    latency: int
    duration: int
    nbytes: int
    loads: tuple[tuple[int, float], ...]
    library: str = ""

    @property
    def time(self) -> int:
        return self.latency + self.duration


def _counted(rounds: Rounds) -> list[tuple[list[Send], int]]:
    """Rounds with how often each comes; one that is repeated is the same object."""
    found: dict[int, tuple[list[Send], int]] = {}
    for one in rounds:
        found[id(one)] = (one, found.get(id(one), (one, 0))[1] + 1)
    return list(found.values())


class Network:
    """The directed links of a system, numbered, and the price of sends on them."""

    def __init__(
        self,
        system: System,
        free: bool = False,
        libraries: Mapping[str, CollectiveTerms] | None = None,
    ) -> None:
        self.system, self.free, self.libraries = system, free, libraries or {}
        self.links: list[tuple[str, float]] = []
        self.index: dict[tuple[str, str], int] = {}
        for link in system.links:
            for hop in ((link.a, link.b), (link.b, link.a)):
                self.index[hop] = len(self.links)
                self.links.append((f"{hop[0]}->{hop[1]}", link.bandwidth))
        self._patterns: dict[tuple[tuple[int, int], ...], tuple[int, float, float] | None] = {}
        self._rounds: dict[tuple[Send, ...], tuple[int, int]] = {}
        self._exchanges: dict[tuple[str, Group, int, str], Exchange] = {}
        self._sends: dict[tuple[Send, ...], Exchange] = {}
        self._node = 0  # devices of a node, once it is asked for

    def task(
        self,
        name: str,
        send: Send,
        after: tuple[int, ...] = (),
        lanes: tuple[int, ...] = (),
    ) -> Task:
        """One send as a task of the engine: route latency, then the slowest link's rate."""
        if self.free or send.src == send.dst:
            return Task(name, 0, lanes, after)
        hops = self.system.route(send.src, send.dst)
        latency = sum(ticks(self.system.link(hop).latency) for hop in hops)
        rate = min(self.system.link(hop).bandwidth for hop in hops)
        loads = tuple((self.index[hop], rate) for hop in hops)
        return Task(name, ticks(send.nbytes / rate), lanes, after, latency, loads)

    def round_time(self, sends: tuple[Send, ...]) -> tuple[int, int]:
        """(latency, data time) of sends that go at once and alone, sharing links fairly."""
        if sends not in self._rounds:
            self._rounds[sends] = self._alike(sends) or self._simulated(sends)
        return self._rounds[sends]

    def _simulated(self, sends: tuple[Send, ...]) -> tuple[int, int]:
        tasks = [self.task("", send) for send in sends]
        total = run(Program(tasks, (), self.links)).makespan
        latency = min(total, max((t.latency for t in tasks), default=0))
        return latency, total - latency

    def _alike(self, sends: tuple[Send, ...]) -> tuple[int, int] | None:
        """The same in closed form where all sends begin, share and end alike, else None."""
        nbytes = sends[0].nbytes if sends else 0
        if any(send.nbytes != nbytes for send in sends):
            return None
        pattern = tuple((send.src, send.dst) for send in sends)
        if pattern not in self._patterns:
            self._patterns[pattern] = self._pattern(sends)
        found = self._patterns[pattern]
        if found is None:
            return None
        latency, rate, fraction = found
        return latency, round(ticks(nbytes / rate) / fraction)

    def _pattern(self, sends: tuple[Send, ...]) -> tuple[int, float, float] | None:
        """(latency, nominal bytes/s, the fraction of it) that all sends of a round have alike."""
        tasks = [self.task("", send) for send in sends]
        users: dict[int, int] = {}
        for task in tasks:
            for link, _ in task.loads:
                users[link] = users.get(link, 0) + 1
        shared = {
            i: task.loads
            for i, task in enumerate(tasks)
            if any(users[link] > 1 for link, _ in task.loads)
        }
        rates = max_min(shared, [bandwidth for _, bandwidth in self.links]) if shared else {}
        kinds = {
            (task.latency, task.loads[0][1] if task.loads else 0.0, rates.get(i, 1.0))
            for i, task in enumerate(tasks)
        }
        latency, rate, fraction = kinds.pop() if len(kinds) == 1 else (0, 0.0, 0.0)
        return (latency, rate, fraction) if rate else None

    def times(self, rounds: Rounds) -> tuple[int, int]:
        """(latency, data time) of rounds one after the other, alone on the links."""
        latency = duration = 0
        for one, count in _counted(rounds):
            wait, data = self.round_time(tuple(one))
            latency, duration = latency + count * wait, duration + count * data
        return latency, duration

    def price(self, algorithm: str, rounds: Rounds) -> Exchange:
        """Rounds one after the other, alone on the links."""
        return self.exchange(algorithm, rounds, *self.times(rounds))

    def exchange(
        self, algorithm: str, rounds: Rounds, latency: int, duration: int, library: str = ""
    ) -> Exchange:
        """Rounds whose time is known, with what they put on the links."""
        nbytes = 0
        carried: dict[int, int] = {}
        for one, count in _counted(rounds):
            for send in one:
                nbytes += count * send.nbytes
                for hop in self.system.route(send.src, send.dst):
                    link = self.index[hop]
                    carried[link] = carried.get(link, 0) + count * send.nbytes
        loads: tuple[tuple[int, float], ...] = ()
        if duration:
            rate = {link: b / (duration * 1e-12) for link, b in carried.items()}
            loads = tuple((i, min(r, self.links[i][1])) for i, r in sorted(rate.items()))
        frozen = tuple(tuple(one) for one in rounds)
        return Exchange(algorithm, frozen, latency, duration, nbytes, loads, library)

    def calibrated(self, op: str, group: Group, nbytes: int) -> Exchange | None:
        """The exchange as a calibrated library does it, or None."""
        n = len(group)
        if not self.libraries or n < 2:
            return None
        nodes = [self.node_of(rank) for rank in group]
        each = nodes.count(nodes[0])
        if each < n:
            found = across(self.libraries)
            if not found or any(nodes.count(node) != each for node in nodes):
                return None
            link = self.card(group[0], group[-1]) * rails_of(SCALAR, found[ACROSS], each)
        elif self.node_size(group) < n:
            return None
        else:
            found, link = within(self.libraries), self.injection(group)
        which, taken = exchange_seconds(SCALAR, found, op, n, nbytes, link)
        if which < 0:
            return None
        library, terms = choices(found)[which]
        algorithm = terms.protocols[taken.way].algorithm
        makes = all_gather if op == "all_gather" else MADE_BY[algorithm]
        rounds = makes(group, nbytes)
        latency, duration = ticks(taken.latency), ticks(taken.data)
        return self.exchange(f"{library} {algorithm}", rounds, latency, duration, library)

    def injection(self, group: Group) -> float:
        """Bytes/s that the first rank can send to the others, over all its cables to them."""
        first = {self.system.route(group[0], other)[0] for other in group[1:]}
        return sum(self.system.link(hop).bandwidth for hop in first)

    def card(self, src: int, dst: int) -> float:
        """Bytes/s of the slowest link between two devices."""
        return min(self.system.link(hop).bandwidth for hop in self.system.route(src, dst))

    def send(self, sends: tuple[Send, ...]) -> Exchange:
        """Sends that go at once, as one exchange."""
        if sends not in self._sends:
            self._sends[sends] = self._send(sends)
        return self._sends[sends]

    def _send(self, sends: tuple[Send, ...]) -> Exchange:
        """On the links as they are, or with a calibrated library's latency and share of them."""
        plain = self.price("send", [list(sends)])
        moving = [send for send in sends if send.src != send.dst]
        if not self.libraries or not moving or self.free:
            return plain
        far = any(self.node_of(send.src) != self.node_of(send.dst) for send in moving)
        found = across(self.libraries) if far else within(self.libraries)
        nbytes, data = max(send.nbytes for send in moving), plain.duration * 1e-12
        link = nbytes / data if data else 1.0  # that the links leave to a send
        which, taken = exchange_seconds(SCALAR, found, "send_recv", 2, nbytes, link)
        if which < 0:
            return plain
        times = ticks(taken.latency), ticks(taken.data)
        return self.exchange("send", [list(sends)], *times, choices(found)[which][0])

    def all_reduce(self, group: Group, nbytes: int, algorithm: str = "auto") -> Exchange:
        """The named all-reduce; "auto" is the calibrated library's where there is one, or else the
        fastest of those that the group allows."""
        key = ("all_reduce", group, nbytes, algorithm)
        if key not in self._exchanges:
            self._exchanges[key] = self._all_reduce(group, nbytes, algorithm)
        return self._exchanges[key]

    def _all_reduce(self, group: Group, nbytes: int, algorithm: str) -> Exchange:
        makers: dict[str, Callable[[], Rounds]] = {
            "ring": lambda: ring_all_reduce(group, nbytes),
            "bidirectional": lambda: bidirectional_all_reduce(group, nbytes),
            "direct": lambda: direct_all_reduce(group, nbytes),
            "doubling": lambda: doubling_all_reduce(group, nbytes),
            "tree": lambda: tree_all_reduce(group, nbytes),
            "hierarchical": lambda: hierarchical_all_reduce(group, nbytes, self.node_size(group)),
        }
        if algorithm != "auto":
            return self.price(algorithm, makers[algorithm]())
        library = self.calibrated("all_reduce", group, nbytes)
        if library:
            return library
        timed: list[tuple[str, Rounds, int, int]] = []
        for name, make in makers.items():
            try:
                rounds = make()
            except Infeasible:
                continue
            timed.append((name, rounds, *self.times(rounds)))
        return self.exchange(*min(timed, key=lambda found: found[2] + found[3]))

    def gather(self, group: Group, nbytes: int) -> Exchange:
        """All-gather of a tensor of `nbytes` in all: the calibrated library's, or a ring."""
        key = ("all_gather", group, nbytes, "auto")
        if key not in self._exchanges:
            self._exchanges[key] = self.calibrated("all_gather", group, nbytes) or self.price(
                "ring", all_gather(group, nbytes)
            )
        return self._exchanges[key]

    def node_of(self, rank: int) -> int:
        """The number of the node that a device lies on."""
        if not self._node:
            self._node = self.node_size(tuple(range(len(self.system.devices))))
        return rank // self._node

    def node_size(self, group: Group) -> int:
        """Ranks in a row that reach each other at the least latency seen in the group."""

        def latency(a: int, b: int) -> float:
            return sum(self.system.link(hop).latency for hop in self.system.route(a, b))

        near = latency(group[0], group[1]) if len(group) > 1 else 0.0
        size = 1
        while size < len(group) and latency(group[0], group[size]) <= near * 1.001:
            size += 1
        return size
