"""Devices wired together: links, switches, and the routes between devices.

A `System` is a list of nodes and links; `graph` is the same as a networkx graph on
which routes are shortest paths. `SystemSpec` is what a TOML file says: either tiers
(groups of equal devices behind a switch, a ring or a full mesh, nested) or links.
"""

from __future__ import annotations

import itertools
from functools import cached_property
from typing import Annotated, Literal

import msgspec
import networkx as nx

from hw_models.record import Name, NonNegative, Positive, Record, Source

MOST = 65536  # devices of a system, and links of one of its tiers


class Link(Record, frozen=True, kw_only=True):
    """A full-duplex cable: `bandwidth_GBps` each way, `latency_us` for a first byte."""

    a: str
    b: str
    bandwidth_GBps: Positive
    latency_us: NonNegative
    source: Source

    @property
    def bandwidth(self) -> float:
        """Bytes per second, one direction."""
        return self.bandwidth_GBps * 1e9

    @property
    def latency(self) -> float:
        """Seconds."""
        return self.latency_us * 1e-6


class Tier(Record, frozen=True, kw_only=True):
    """`size` equal members joined by a switch, a ring or a full mesh.

    The first tier joins devices; the next joins groups of the tier below it, every
    device having its own link into the upper switch (one network card a device).
    `bandwidth_GBps` is what one device can send, one direction; `latency_us` is from
    device to device across this tier.
    """

    topology: Literal["switch", "ring", "mesh"]
    size: Annotated[int, msgspec.Meta(gt=0, le=4096)]
    bandwidth_GBps: Positive
    latency_us: NonNegative
    source: Source


class SystemSpec(Record, frozen=True, kw_only=True):
    """A system as a file states it: a device by name, and tiers or explicit links."""

    name: Name
    device: Name
    source: Source
    tiers: tuple[Tier, ...] = ()
    devices: Annotated[int, msgspec.Meta(ge=0, le=MOST)] = 0
    switches: tuple[str, ...] = ()
    links: tuple[Link, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.tiers) == bool(self.devices):
            raise ValueError("a system states either `tiers`, or `devices` with `links`, not both")
        if self.tiers and (self.links or self.switches):
            raise ValueError("`links` and `switches` go with `devices`, not with `tiers`")
        total = 1
        for tier in self.tiers:
            total *= tier.size
            cables = total * (tier.size - 1 if tier.topology == "mesh" else 2) // 2
            if max(total, cables) > MOST:
                raise ValueError(
                    f"tiers of {' x '.join(str(t.size) for t in self.tiers)} devices are more than "
                    f"{MOST} devices or links; a {tier.topology} of {tier.size} is too large here"
                )


class System:
    """Nodes "gpu0", "gpu1", ... and switches, joined by links.

    Raises ValueError when a link names a node that does not exist, joins a node to
    itself, is stated twice, or when a device cannot be reached.
    """

    def __init__(self, name: str, devices: int, switches: tuple[str, ...], links: tuple[Link, ...]):
        self.name = name
        self.devices = tuple(f"gpu{i}" for i in range(devices))
        self.switches = switches
        self.links = links
        self._routes: dict[tuple[int, int], tuple[tuple[str, str], ...]] = {}
        self._check()

    def _check(self) -> None:
        nodes = {*self.devices, *self.switches}
        if len(nodes) != len(self.devices) + len(self.switches):
            raise ValueError(f"system {self.name!r} names a node twice among {self.switches}")
        seen: set[frozenset[str]] = set()
        for link in self.links:
            for end in (link.a, link.b):
                if end not in nodes:
                    raise ValueError(
                        f"link {link.a}-{link.b} ends at {end!r}, which is no node; "
                        f"nodes are gpu0..gpu{len(self.devices) - 1}"
                        + (f" and {', '.join(self.switches)}" if self.switches else "")
                    )
            pair = frozenset((link.a, link.b))
            if len(pair) == 1:
                raise ValueError(f"link {link.a}-{link.b} joins a node to itself")
            if pair in seen:
                raise ValueError(f"link {link.a}-{link.b} is stated twice; add up its bandwidth")
            seen.add(pair)
        if not nx.is_connected(self.graph):
            lost = sorted(nodes - nx.node_connected_component(self.graph, "gpu0"))
            raise ValueError(f"{', '.join(lost[:4])} cannot be reached from gpu0; add a link")

    @cached_property
    def graph(self) -> nx.Graph:
        """The topology. Edge attribute `link` is the Link; weight `latency` in seconds."""
        graph = nx.Graph()
        graph.add_nodes_from(self.devices, kind="device")
        graph.add_nodes_from(self.switches, kind="switch")
        for link in self.links:
            graph.add_edge(link.a, link.b, link=link, latency=link.latency)
        return graph

    def route(self, src: int, dst: int) -> tuple[tuple[str, str], ...]:
        """Directed hops of the path of least latency from device `src` to device `dst`.

        Among equal latencies the path with the fewest hops is taken.
        """
        key = (src, dst)
        if key not in self._routes:
            path = nx.shortest_path(
                self.graph, self.devices[src], self.devices[dst], weight=_latency_then_hops
            )
            self._routes[key] = tuple(itertools.pairwise(path))
        return self._routes[key]

    def link(self, hop: tuple[str, str]) -> Link:
        """The link of a directed hop."""
        link: Link = self.graph.edges[hop]["link"]
        return link


def _latency_then_hops(a: str, b: str, data: dict[str, float]) -> float:
    return data["latency"] + 1e-12


def build_system(spec: SystemSpec) -> System:
    """Wire up what a file states. Tiers nest: tier 0 joins devices, tier 1 joins groups."""
    if not spec.tiers:
        return System(spec.name, spec.devices, spec.switches, spec.links)
    count = 1
    switches: list[str] = []
    links: list[Link] = []
    total = 1
    for tier in spec.tiers:
        total *= tier.size
    for depth, tier in enumerate(spec.tiers):
        group = count * tier.size
        if tier.topology != "switch" and depth > 0:
            raise ValueError(f"tier {depth} is a {tier.topology}; only tier 0 may be one")
        for first in range(0, total, group):
            members = [f"gpu{i}" for i in range(first, first + group)]
            if tier.size > 1:
                wired = _wire(tier, members, f"tier{depth}.switch{first // group}")
                switches += [n for n in wired[0] if n not in switches]
                links += wired[1]
        count = group
    return System(spec.name, total, tuple(switches), tuple(links))


def _wire(tier: Tier, members: list[str], switch: str) -> tuple[list[str], list[Link]]:
    def cable(a: str, b: str, bandwidth: float, latency: float) -> Link:
        return Link(a=a, b=b, bandwidth_GBps=bandwidth, latency_us=latency, source=tier.source)

    n = len(members)
    if tier.topology == "switch":
        # Device to device crosses two cables, so each carries half of the latency.
        half = tier.latency_us / 2
        return [switch], [cable(m, switch, tier.bandwidth_GBps, half) for m in members]
    if tier.topology == "ring":
        pairs = [(members[i], members[(i + 1) % n]) for i in range(n if n > 2 else n - 1)]
        share = tier.bandwidth_GBps / min(2, n - 1)
    else:
        pairs = [(members[i], members[j]) for i in range(n) for j in range(i + 1, n)]
        share = tier.bandwidth_GBps / (n - 1)
    return [], [cable(a, b, share, tier.latency_us) for a, b in pairs]
