"""The directed links of a system, numbered, and what sends on them take."""

from __future__ import annotations

from hw_models.system import System
from sim.clock import ticks
from sim.cost.rounds import Group, Rounds, Send, counted
from sim.engine.des import Program, Task, run
from sim.engine.fluid import max_min


class Fabric:
    """Links of a system as shared resources. `free` says that they cost nothing (what-if)."""

    def __init__(self, system: System, free: bool = False) -> None:
        self.system, self.free = system, free
        self.links: list[tuple[str, float]] = []  # (name, bytes/s)
        self.index: dict[tuple[str, str], int] = {}
        for link in system.links:
            for hop in ((link.a, link.b), (link.b, link.a)):
                self.index[hop] = len(self.links)
                self.links.append((f"{hop[0]}->{hop[1]}", link.bandwidth))
        self._patterns: dict[tuple[tuple[int, int], ...], tuple[int, float, float] | None] = {}
        self._rounds: dict[tuple[Send, ...], tuple[int, int]] = {}
        self._node = 0  # devices of a node, once it is needed

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
        known = self._patterns[pattern]
        if known is None:
            return None
        latency, rate, fraction = known
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
        for one, count in counted(rounds):
            wait, data = self.round_time(tuple(one))
            latency, duration = latency + count * wait, duration + count * data
        return latency, duration

    def carried(self, rounds: Rounds) -> tuple[int, dict[int, int]]:
        """(bytes of all sends together, bytes by the link that they cross)."""
        nbytes = 0
        by_link: dict[int, int] = {}
        for one, count in counted(rounds):
            for send in one:
                nbytes += count * send.nbytes
                for hop in self.system.route(send.src, send.dst):
                    link = self.index[hop]
                    by_link[link] = by_link.get(link, 0) + count * send.nbytes
        return nbytes, by_link

    def injection(self, group: Group) -> float:
        """Bytes/s that the first rank can send to the others, over all its cables to them."""
        first = {self.system.route(group[0], other)[0] for other in group[1:]}
        return sum(self.system.link(hop).bandwidth for hop in first)

    def card(self, src: int, dst: int) -> float:
        """Bytes/s of the slowest link between two devices."""
        return min(self.system.link(hop).bandwidth for hop in self.system.route(src, dst))

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
