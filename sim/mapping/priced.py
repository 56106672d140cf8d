"""A block with its operators priced for one rank: costs, and the exchanges that TP adds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from sim.clock import ticks
from sim.cost.collectives import Exchange, Network
from sim.cost.model import Cost, CostModel
from sim.cost.pass_cost import PassCost
from sim.states import NOTHING, Ticks, add
from workloads.graph import Placed
from workloads.ops import Op

Rewrite = Callable[[Op], Op]


class Step(msgspec.Struct, frozen=True):
    """One thing a device does: an operator with its cost, or an exchange between devices."""

    name: str
    kind: str
    op: Op | None
    cost: Cost | None
    exchange: Exchange | None
    launch: int

    @property
    def duration(self) -> int:
        """Ticks when nothing contends."""
        if self.cost:
            return self.cost.duration
        assert self.exchange is not None
        return self.launch + self.exchange.time

    @property
    def states(self) -> Ticks:
        """Its own time by state, when nothing contends."""
        if self.cost:
            c = self.cost
            return (c.compute, c.hbm, c.sram, 0, c.launch, 0, 0)
        assert self.exchange is not None
        return (0, 0, 0, self.exchange.time, self.launch, 0, 0)

    @property
    def price(self) -> PassCost:
        """Its cost on one rank."""
        c, flops = self.states, self.cost.flops if self.cost else 0
        return PassCost(*c[:5], flops, self.cost.hbm_bytes if self.cost else 0)

    @property
    def bound(self) -> str:
        return self.cost.bound if self.cost else "collective"


class PricedBlock(msgspec.Struct, frozen=True):
    """The steps of a block in order, with their sums."""

    steps: tuple[Step, ...]
    duration: int
    by_kind: dict[str, Ticks]
    flops: int  # of one rank
    hbm_bytes: int
    link_bytes: int  # of all ranks together


class PlacedWork(msgspec.Struct, frozen=True):
    """A priced block at its place in the model."""

    placed: Placed
    block: PricedBlock


class TensorGroup(msgspec.Struct, frozen=True):
    """The devices that share each layer, the network between them, and how they exchange.

    `algorithm` is that of all-reduces. A group of none or of one device exchanges nothing.
    """

    network: Network
    devices: tuple[int, ...] = ()
    algorithm: str = "auto"


def price_blocks(
    blocks: Sequence[Placed],
    costs: CostModel,
    group: TensorGroup,
    rewrite: Rewrite | None = None,
) -> tuple[PlacedWork, ...]:
    """Price blocks of one rank's graph; equal layers share one priced block.

    Behind an operator whose output is spread over the ranks of `group` stands the exchange:
    an all-reduce of partial sums, or an all-gather of slices.
    """
    known: dict[int, PricedBlock] = {}
    work = []
    for placed in blocks:
        key = id(placed.block)
        if key not in known:
            ops = placed.block.ops
            ops = tuple(map(rewrite, ops)) if rewrite else ops
            known[key] = _price(ops, costs, group)
        work.append(PlacedWork(placed, known[key]))
    return tuple(work)


def exchange_step(name: str, exchange: Exchange, costs: CostModel, free: bool = False) -> Step:
    """An exchange as a step; it is launched like any kernel. `free` says that links cost nothing.

    The time of a calibrated library has the launch in it: as much of its latency is set apart.
    """
    launch = costs.launch
    if exchange.library:
        within = min(ticks(costs.device.launch.overhead_us * 1e-6), exchange.latency)
        launch = min(launch, within)
        rest = (0, 0) if free else (exchange.latency - within, exchange.duration)
        exchange = msgspec.structs.replace(exchange, latency=rest[0], duration=rest[1])
    return Step(name, "collective", None, None, exchange, launch)


def output_exchange(
    kind: str, name: str, nbytes: int, costs: CostModel, group: TensorGroup
) -> Step:
    """What stands behind an operator whose output of `nbytes` is spread over a group: an all-reduce
    of partial sums ("sum"), or an all-gather of slices ("gather")."""
    if kind == "sum":
        exchange = group.network.all_reduce(group.devices, nbytes, group.algorithm)
        name = f"{name}.all_reduce"
    else:
        exchange = group.network.gather(group.devices, nbytes)
        name = f"{name}.all_gather"
    return exchange_step(name, exchange, costs, group.network.fabric.free)


def _price(ops: tuple[Op, ...], costs: CostModel, group: TensorGroup) -> PricedBlock:
    steps: list[Step] = []
    for op in ops:
        cost = costs(op)
        steps.append(Step(op.name, op.kind, op, cost, None, cost.launch))
        if op.exchange and len(group.devices) > 1:
            nbytes = op.exchange_bytes
            steps.append(output_exchange(op.exchange, op.name, nbytes, costs, group))
    by_kind: dict[str, Ticks] = {}
    for step in steps:
        by_kind[step.kind] = add(by_kind.get(step.kind, NOTHING), step.states)
    return PricedBlock(
        tuple(steps),
        sum(s.duration for s in steps),
        by_kind,
        sum(s.cost.flops for s in steps if s.cost),
        sum(s.cost.hbm_bytes for s in steps if s.cost),
        sum(s.exchange.nbytes for s in steps if s.exchange),
    )
