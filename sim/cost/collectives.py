"""Collectives and sends between devices, priced.

Where the device states what a library takes (`hw_models.efficiency.CollectiveTerms`), the
algorithm "auto" is that library, within one node or across; its bytes are those of the algorithm
that it runs. Else "auto" is the fastest algorithm of `sim.cost.rounds` that the group allows.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from hw_models.efficiency import CollectiveTerms
from hw_models.system import System
from sim.clock import ticks
from sim.cost.arith import SCALAR
from sim.cost.fabric import Fabric
from sim.cost.kernels.collective import (
    ACROSS,
    Message,
    across,
    choices,
    exchange_seconds,
    rails_of,
    within,
)
from sim.cost.rounds import ALGORITHMS, BY_PROTOCOL, Group, Rounds, Send, all_gather
from sim.errors import Infeasible


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


class Network:
    """Prices of exchanges over the links of a system; each is priced once."""

    def __init__(
        self,
        system: System,
        free: bool = False,
        libraries: Mapping[str, CollectiveTerms] | None = None,
    ) -> None:
        self.fabric, self.libraries = Fabric(system, free), libraries or {}
        self._exchanges: dict[tuple[str, Group, int, str], Exchange] = {}
        self._sends: dict[tuple[Send, ...], Exchange] = {}

    def price(self, algorithm: str, rounds: Rounds) -> Exchange:
        """Rounds one after the other, alone on the links."""
        return self.exchange(algorithm, rounds, *self.fabric.times(rounds))

    def exchange(
        self, algorithm: str, rounds: Rounds, latency: int, duration: int, library: str = ""
    ) -> Exchange:
        """Rounds whose time is known, with what they put on the links."""
        nbytes, carried = self.fabric.carried(rounds)
        loads: tuple[tuple[int, float], ...] = ()
        if duration:
            rate = {link: b / (duration * 1e-12) for link, b in carried.items()}
            capacity = self.fabric.links
            loads = tuple((i, min(r, capacity[i][1])) for i, r in sorted(rate.items()))
        frozen = tuple(tuple(one) for one in rounds)
        return Exchange(algorithm, frozen, latency, duration, nbytes, loads, library)

    def calibrated(self, op: str, group: Group, nbytes: int) -> Exchange | None:
        """The exchange as a calibrated library does it, or None."""
        n = len(group)
        if not self.libraries or n < 2:
            return None
        nodes = [self.fabric.node_of(rank) for rank in group]
        each = nodes.count(nodes[0])
        if each < n:
            fitted = across(self.libraries)
            if not fitted or any(nodes.count(node) != each for node in nodes):
                return None
            link = self.fabric.card(group[0], group[-1]) * rails_of(SCALAR, fitted[ACROSS], each)
        elif self.fabric.node_size(group) < n:
            return None
        else:
            fitted, link = within(self.libraries), self.fabric.injection(group)
        which, time = exchange_seconds(SCALAR, fitted, op, Message(n, nbytes, link))
        if which < 0:
            return None
        library, terms = choices(fitted)[which]
        algorithm = terms.protocols[time.protocol].algorithm
        makes = all_gather if op == "all_gather" else BY_PROTOCOL[algorithm]
        rounds = makes(group, nbytes)
        latency, duration = ticks(time.latency), ticks(time.data)
        return self.exchange(f"{library} {algorithm}", rounds, latency, duration, library)

    def send(self, sends: tuple[Send, ...]) -> Exchange:
        """Sends that go at once, as one exchange."""
        if sends not in self._sends:
            self._sends[sends] = self._send(sends)
        return self._sends[sends]

    def _send(self, sends: tuple[Send, ...]) -> Exchange:
        """On the links as they are, or with a calibrated library's latency and share of them."""
        plain = self.price("send", [list(sends)])
        moving = [send for send in sends if send.src != send.dst]
        if not self.libraries or not moving or self.fabric.free:
            return plain
        far = any(self.fabric.node_of(send.src) != self.fabric.node_of(send.dst) for send in moving)
        terms = across(self.libraries) if far else within(self.libraries)
        nbytes, data = max(send.nbytes for send in moving), plain.duration * 1e-12
        link = nbytes / data if data else 1.0  # that the links leave to a send
        which, time = exchange_seconds(SCALAR, terms, "send_recv", Message(2, nbytes, link))
        if which < 0:
            return plain
        times = ticks(time.latency), ticks(time.data)
        return self.exchange("send", [list(sends)], *times, choices(terms)[which][0])

    def all_reduce(self, group: Group, nbytes: int, algorithm: str = "auto") -> Exchange:
        """The named all-reduce; "auto" is the calibrated library's where there is one, or else the
        fastest of those that the group allows."""
        key = ("all_reduce", group, nbytes, algorithm)
        if key not in self._exchanges:
            self._exchanges[key] = self._all_reduce(group, nbytes, algorithm)
        return self._exchanges[key]

    def _all_reduce(self, group: Group, nbytes: int, algorithm: str) -> Exchange:
        node = self.fabric.node_size(group)
        if algorithm != "auto":
            return self.price(algorithm, ALGORITHMS[algorithm](group, nbytes, node))
        library = self.calibrated("all_reduce", group, nbytes)
        if library:
            return library
        timed: list[tuple[str, Rounds, int, int]] = []
        for name, make in ALGORITHMS.items():
            try:
                rounds = make(group, nbytes, node)
            except Infeasible:
                continue
            timed.append((name, rounds, *self.fabric.times(rounds)))
        return self.exchange(*min(timed, key=lambda one: one[2] + one[3]))

    def gather(self, group: Group, nbytes: int) -> Exchange:
        """All-gather of a tensor of `nbytes` in all: the calibrated library's, or a ring."""
        key = ("all_gather", group, nbytes, "auto")
        if key not in self._exchanges:
            self._exchanges[key] = self.calibrated("all_gather", group, nbytes) or self.price(
                "ring", all_gather(group, nbytes)
            )
        return self._exchanges[key]
