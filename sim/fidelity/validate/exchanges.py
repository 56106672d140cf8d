"""Exchanges between devices: framework and NCCL benchmarks, vidur's DGX tables."""

from __future__ import annotations

from collections.abc import Iterator

from sim.cost.arith import SCALAR
from sim.cost.collectives import Network
from sim.cost.kernels.collective import OPS, Message, eager_seconds, within
from sim.cost.kernels.collective import exchange_seconds as library_exchange
from sim.cost.rounds import Group, Send, ring_rounds
from sim.errors import InputError, quoted
from sim.fidelity.validate.cells import Row
from sim.fidelity.validate.names import dtype_of
from sim.fidelity.validate.points import (
    TICKS_A_SECOND,
    MeasuredFile,
    Place,
    PredictionBench,
    Reading,
    ScoredPoint,
    between,
    priced,
)

INF = float("inf")


def exchange_seconds(
    bench: PredictionBench,
    op: str,
    group: tuple[str, int],
    nbytes: int,
    mode: str = "",
    *,
    in_switch: bool = True,
) -> float:
    """Seconds of one exchange within a node, with its launch; `nbytes` as nccl-tests counts them.

    `group` is (device, number of GPUs). `mode` "nccl" allows only that library; a mode that ends in
    "eager" is a call outside a captured graph. `in_switch` says that a switch can add up the number
    format.
    """
    device, gpus = group
    network, ranks = bench.network(device, gpus), tuple(range(gpus))
    libraries = network.libraries
    if mode.startswith("nccl"):
        libraries = {name: terms for name, terms in libraries.items() if name.startswith("nccl")}
    if (libraries := within(libraries)) and op in OPS:
        link = network.fabric.injection(ranks)
        message = Message(gpus, nbytes, link, in_switch)
        which, time = library_exchange(SCALAR, libraries, op, message)
        if which >= 0:
            seconds = float(time.latency + time.data)
            if mode.endswith("eager"):
                hbm = bench.costs(device, "fp32").rates.bandwidth
                seconds = float(eager_seconds(SCALAR, libraries, seconds, nbytes, hbm))
            return seconds
    return _priced(network, ranks, op, nbytes, bench.costs(device, "fp32").launch) / TICKS_A_SECOND


def _priced(network: Network, group: Group, op: str, nbytes: int, launch: int) -> int:
    """Ticks of a calibrated library, or behind a launch on the links alone."""
    seconds = None
    if op == "all_reduce":
        seconds = network.all_reduce(group, nbytes)
    elif op in ("send_recv", "sendrecv", "p2p"):
        seconds = network.send((Send(group[0], group[-1], nbytes),))
    if seconds and seconds.library:
        return seconds.time
    return launch + _ring(network, group, op, nbytes)


def _ring(network: Network, group: Group, op: str, nbytes: int) -> int:
    """Ticks on the links alone, where no library is calibrated."""
    if op == "all_reduce":
        return network.all_reduce(group, nbytes).time
    if op == "all_gather":
        return network.gather(group, nbytes).time
    if op == "reduce_scatter":
        return network.price("ring", ring_rounds(group, nbytes, len(group) - 1)).time
    if op in ("alltoall", "all_to_all"):
        chunk = -(-nbytes // len(group))
        sends = [Send(a, b, chunk) for a in group for b in group if a != b]
        return network.price("direct", [sends]).time
    if op in ("send_recv", "sendrecv", "p2p"):
        return network.send((Send(group[0], group[-1], nbytes),)).time
    raise InputError(f"exchange {quoted(op)} is not known")


def across_seconds(
    bench: PredictionBench, device: str, op: str, gpus: int, per_node: int, nbytes: int
) -> float:
    """One exchange of `per_node` devices on each of several nodes, as `exchange_seconds`."""
    machine = bench.cluster(device)
    network = Network(machine.system, libraries=machine.device.efficiency.collectives)
    node = network.fabric.node_size(tuple(range(len(machine.system.devices))))
    nodes = gpus // per_node
    if per_node > node or nodes * node > len(machine.system.devices):
        raise InputError(
            f"{gpus} workers at {per_node} a node do not fit on {machine.name} with nodes of {node}"
        )
    group = tuple(i * node + j for i in range(nodes) for j in range(per_node))
    return _priced(network, group, op, nbytes, bench.costs(device, "fp32").launch) / TICKS_A_SECOND


def size_regime(nbytes: int) -> str:
    return between(
        nbytes,
        (64 * 1024, "<= 64 KiB"),
        (8 * 2**20, "64 KiB to 8 MiB"),
        (INF, "> 8 MiB"),
    )


def collectives(source: MeasuredFile, bench: PredictionBench) -> Iterator[ScoredPoint]:
    """nccl-tests and a framework's custom all-reduce within one node."""

    def place(row: Row, device: str) -> Place:
        nccl = row["mode"].lower().startswith("nccl")
        kind = "NCCL" if nccl else f"custom {row['mode'].rpartition('_')[2]}"
        regime = f"{row['num_gpus']} GPUs, {size_regime(row['bytes'])}"
        name = f"{source.format} {row['op']} {kind}"
        return Place(name, device, dtype_of(row["dtype"]), regime, "", str(row["bytes"]))

    def price(row: Row, device: str) -> float:
        gpus, mode = row["num_gpus"], row["mode"].lower()
        adds = not dtype_of(row["dtype"]).startswith("int")
        return exchange_seconds(
            bench, row["op"], (device, gpus), row["bytes"], mode, in_switch=adds
        )

    return priced(source, bench, place, price)


def vidur_network(source: MeasuredFile, bench: PredictionBench) -> Iterator[ScoredPoint]:
    """all_reduce and send_recv of a DGX, within a node and across nodes."""

    def place(row: Row, device: str) -> Place:
        within = row["devices_per_node"] >= row["num_workers"]
        where = "within a node" if within else "across nodes"
        regime = f"{row['num_workers']} GPUs, {size_regime(row['bytes'])}"
        name = f"{source.format} {row['op']} {where}"
        return Place(name, device, "fp16", regime, "", str(row["bytes"]))

    def price(row: Row, device: str) -> float:
        gpus, each = row["num_workers"], row["devices_per_node"]
        if each < gpus:
            return across_seconds(bench, device, row["op"], gpus, each, row["bytes"])
        return exchange_seconds(bench, row["op"], (device, gpus), row["bytes"], "nccl")

    return priced(source, bench, place, price, Reading(lambda row: row["network"]))
