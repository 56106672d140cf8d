"""Terms of a communication library from times of all-reduce, gather, scatter and all-to-all.

A library takes the fastest of its ways, which no search likes: which way serves a row flips. So
the minimum is soft at first, (sum t^-k)^(-1/k), and hard at last. Ways that few rows show stay near
where they start, which is what the measured A100 and H100 have in common.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import polars as pl

from hw_models.device import Device
from hw_models.efficiency import CollectiveTerms, Protocol
from sim.cost.arith import VECTOR
from sim.cost.fabric import Fabric
from sim.cost.kernels.collective import (
    ACROSS,
    NEVER,
    SERVES,
    Message,
    eager_seconds,
    exchange_seconds,
    largest,
    library_seconds,
    protocol_seconds,
    rails_of,
    within,
)
from sim.fidelity.calibrate.fit import Fit, fitter
from sim.fidelity.calibrate.search import Array, Search, search
from sim.fidelity.validate.names import system_of
from sim.inputs.catalogue import load_machine

INTEGERS = ("int8", "int32", "int64", "uint8")
MIB = 2.0**20
# Where a search starts, and what a library has where no row tells. 0 and 1 are not searched for.
NCCL = (
    Protocol(algorithm="ring", latency_us=6.0, round_us=0.8, bandwidth=0.025),  # LL
    Protocol(algorithm="ring", latency_us=7.0, round_us=1.05, bandwidth=0.45, copy=0.3),  # LL128
    Protocol(algorithm="ring", latency_us=20.0, round_us=1.5, bandwidth=0.77, copy=1.7),  # Simple
    Protocol(algorithm="switch", latency_us=40.0, bandwidth=0.7, least_ranks=8),  # NVLS
    Protocol(algorithm="direct", latency_us=8.0, bandwidth=1.0, copy=0.03),  # LL, peer by peer
    Protocol(algorithm="direct", latency_us=15.0, round_us=0.5, bandwidth=0.68, copy=3.0),
    Protocol(algorithm="send", latency_us=6.0, bandwidth=0.25),
    Protocol(algorithm="send", latency_us=12.0, bandwidth=0.77),
)
NODES = (
    Protocol(algorithm="ring", latency_us=20.0, round_us=3.0, bandwidth=0.15),  # LL, LL128
    Protocol(algorithm="ring", latency_us=60.0, round_us=10.0, bandwidth=0.7),  # Simple
    Protocol(algorithm="send", latency_us=15.0, bandwidth=0.7),
)
CUSTOM = (
    Protocol(algorithm="one-shot", latency_us=4.5, round_us=0.15, bandwidth=0.58),
    Protocol(algorithm="two-shot", latency_us=6.0, round_us=0.8, bandwidth=0.62),
    Protocol(algorithm="switch", latency_us=10.0, bandwidth=0.55, least_ranks=8),
)
STARTS = {"nccl": NCCL, "custom": CUSTOM, ACROSS: NODES}
RAILS = (1, 2, 4, 8, 0)  # network cards of a node that are tried
BOUNDS = {
    "latency_us": (0.5, 300.0),
    "round_us": (0.01, 50.0),
    "bandwidth": (0.005, 1.0),
    "copy": (0.003, 20.0),
}
SOFTNESS = (4.0, 10.0, 30.0, None)
TIES = 0.3  # weight, in rows, of a term's staying where it starts


def rows_of(frame: pl.DataFrame) -> dict[str, Any]:
    """Columns op, num_gpus, bytes, mode, dtype as arrays."""
    integer = (
        frame["dtype"].is_in(INTEGERS).to_numpy()
        if "dtype" in frame.columns
        else np.zeros(len(frame), dtype=bool)
    )
    mode = frame["mode"].to_numpy() if "mode" in frame.columns else np.full(len(frame), "graph")
    return {
        "op": frame["op"].to_numpy(),
        "n": frame["num_gpus"].to_numpy().astype(np.int64),
        "bytes": frame["bytes"].to_numpy().astype(np.float64),
        "in_switch": ~integer,
        "eager": np.array([str(m).endswith("eager") for m in mode]),
        "per_node": frame["per_node"].to_numpy().astype(np.float64)
        if "per_node" in frame.columns
        else np.ones(len(frame)),
    }


def link_of(device: Device) -> float:
    """Bytes/s, one direction, that a device has to the others of its node in the catalogue."""
    system = load_machine(system_of(device.name, 2)).system
    return Fabric(system).injection((0, 1))


def card_of(device: Device) -> float:
    """Bytes/s of a device's way to another node of the catalogue."""
    fabric = Fabric(load_machine(system_of(device.name, 9)).system)
    return fabric.card(0, len(fabric.system.devices) - 1)


def links_of(device: Device, key: str, rows: dict[str, Any], rails: int) -> Any:
    """Bytes/s of each row's exchange, as an array."""
    if key != ACROSS:
        return np.full(len(rows["op"]), link_of(device))
    cards = rails_of(VECTOR, CollectiveTerms(rails=rails), rows["per_node"])
    return card_of(device) * np.where(rows["op"] == "send_recv", 1.0, cards)


def predict(
    frame: pl.DataFrame,
    device: Device,
    library: str | None = None,
    libraries: Mapping[str, CollectiveTerms] | None = None,
) -> Array:
    """Seconds of each row, NaN where no library serves it: by `library` alone, or by whichever the
    device takes. A call outside a captured graph takes a copy of the message more, and
    at least what the host needs."""
    terms = device.efficiency.collectives if libraries is None else libraries
    used = {library: terms[library]} if library else within(terms)
    rows, key = rows_of(frame), library or ""
    link = links_of(device, key, rows, terms[key].rails if key == ACROSS else 0)
    result = np.full(len(frame), np.nan)
    for op in np.unique(rows["op"]):
        for in_switch in (True, False):
            mask = (rows["op"] == op) & (rows["in_switch"] == in_switch)
            if not mask.any() or op not in {o for ops in SERVES.values() for o in ops}:
                continue
            message = Message(rows["n"][mask], rows["bytes"][mask], link[mask], in_switch)
            which, time = exchange_seconds(VECTOR, used, op, message)
            result[mask] = np.where(which >= 0, time.latency + time.data, np.nan)
    hbm = device.hbm.bandwidth * device.efficiency.hbm
    called = eager_seconds(VECTOR, terms, result, rows["bytes"], hbm)
    return np.asarray(np.where(rows["eager"], called, result))


@fitter("collectives")
def fit(frame: pl.DataFrame, device: Device, key: str) -> Fit:
    """Protocols of the library `key`: "nccl" with rows of any exchange, "custom" with all-reduces
    of an engine, the larger of which are NCCL's (told apart by the device's terms of "nccl"),
    "across" with exchanges of several nodes."""
    rows = rows_of(frame)
    starts = STARTS.get(key, NCCL)
    measured = frame["latency_us"].to_numpy().astype(np.float64) * 1e-6
    if key == ACROSS:
        return _across(rows, measured, device)
    link = links_of(device, key, rows, 0)
    graph = ~rows["eager"]
    eager = (
        float(np.median(measured[~graph & (rows["bytes"] <= 2**16)] * 1e6))
        if (~graph & (rows["bytes"] <= 2**16)).any()
        else 0.0
    )
    nccl = device.efficiency.collectives.get("nccl") if key != "nccl" else None
    adds = None if nccl is None else any(p.algorithm == "switch" for p in nccl.protocols)
    most: dict[str, float] = {}
    undetermined: dict[str, str] = {}
    own = graph.copy()
    if key == "custom":
        if nccl is None:
            undetermined["most_MiB"] = "the device has no terms of nccl to hand over to"
        else:
            own &= rows["bytes"] <= 4 * MIB
    terms, result = _ways(starts, rows, measured, own, link, adds)
    if key == "custom" and nccl is not None:
        message = Message(rows["n"], rows["bytes"], link)
        other = library_seconds(VECTOR, nccl, "all_reduce", message)
        for _ in range(3):
            most = _handover(rows, measured, graph, terms, other.latency + other.data, link)
            bound = CollectiveTerms(protocols=terms, most_MiB=most)
            own = graph & (rows["bytes"] <= largest(VECTOR, bound, rows["n"]))
            terms, result = _ways(starts, rows, measured, own, link, adds)
    return Fit(
        family="collectives",
        key=key,
        terms=CollectiveTerms(
            protocols=tuple(_rounded(p) for p in terms),
            most_MiB=most,
            eager_us=round(eager, 2),
            source=f"fitted to {int(own.sum())} rows",
        ),
        undetermined=undetermined | result.undetermined,
        rows=int(own.sum()),
    )


def _across(rows: dict[str, Any], measured: Array, device: Device) -> Fit:
    """With the number of network cards a node that leaves the least error."""
    every = np.ones(len(measured), dtype=bool)
    tried = []
    for rails in RAILS if len(np.unique(rows["per_node"])) > 1 else (0,):
        link = links_of(device, ACROSS, rows, rails)
        ways, result = _searched(NODES, rows, measured, every, link)
        missed = np.log(_times(ways, rows, every, link, None)) - np.log(measured)
        tried.append((float(np.mean(np.abs(missed))), rails, ways, result))
    _, rails, ways, result = min(tried, key=lambda one: one[:2])
    return Fit(
        family="collectives",
        key=ACROSS,
        terms=CollectiveTerms(
            protocols=tuple(_rounded(p) for p in ways),
            rails=rails,
            source=f"fitted to {len(measured)} rows",
        ),
        undetermined=result.undetermined,
        rows=len(measured),
    )


def _ways(
    starts: tuple[Protocol, ...],
    rows: dict[str, Any],
    measured: Array,
    mask: Any,
    link: Array,
    adds: bool | None,
) -> tuple[tuple[Protocol, ...], Search]:
    """The ways that fit the rows under `mask`. A switch that `adds` up is believed in, if it is
    not known from another library, where the errors of what it could serve fall by a third."""
    plain = _searched(
        tuple(p for p in starts if p.algorithm != "switch"), rows, measured, mask, link
    )
    least = [p.least_ranks for p in starts if p.algorithm == "switch"]
    if adds is False:
        return plain
    could = mask & rows["in_switch"] & (rows["op"] == "all_reduce")
    could &= rows["n"] >= min(least, default=2)
    if not least or not could.any():
        return plain

    def error(ways: tuple[Protocol, ...]) -> float:
        times = _times(ways, rows, could, link, None)
        return float(np.mean(np.abs(np.log(times) - np.log(measured[could]))))

    together = _searched(starts, rows, measured, mask, link)
    return together if adds or error(together[0]) < 0.67 * error(plain[0]) else plain


def _searched(
    starts: tuple[Protocol, ...],
    rows: dict[str, Any],
    measured: Array,
    mask: Any,
    link: Array,
) -> tuple[tuple[Protocol, ...], Search]:
    """The ways with searched terms; those that no row could take are left out."""
    seen = set(rows["op"][mask])
    most = int(rows["n"][mask].max()) if mask.any() else 0
    floats = bool(rows["in_switch"][mask].any())
    ways = tuple(
        p
        for p in starts
        if seen & set(SERVES[p.algorithm])
        and most >= p.least_ranks
        and (p.algorithm != "switch" or floats)
    )
    first = {
        f"{i}.{p.algorithm}.{term}": float(np.log(getattr(p, term)))
        for i, p in enumerate(ways)
        for term in BOUNDS
        if getattr(p, term) not in (0.0, 1.0)
    }
    limits = {
        term: (float(np.log(low)), float(np.log(high))) for term, (low, high) in BOUNDS.items()
    }
    bounds = {name: limits[name.rpartition(".")[2]] for name in first}
    target = np.concatenate([measured[mask], np.ones(len(first))])
    weights = np.concatenate([np.ones(int(mask.sum())), np.full(len(first), TIES)])
    values, result = dict(first), Search(values=first, undetermined={})
    for soft in SOFTNESS:

        def both(terms: dict[str, float], soft: float | None = soft) -> Array:
            times = _times(_named(ways, terms), rows, mask, link, soft)
            return np.concatenate([times, [np.exp(terms[name] - first[name]) for name in first]])

        result = search(both, target, values, bounds, weights)
        values = result.values
    return _named(ways, values), result


def _named(ways: tuple[Protocol, ...], terms: dict[str, float]) -> tuple[Protocol, ...]:
    """The ways with terms given by their logarithms."""
    changed: list[dict[str, float]] = [{} for _ in ways]
    for name, value in terms.items():
        number, _, term = name.split(".")
        changed[int(number)][term] = float(np.exp(value))
    return tuple(msgspec.structs.replace(p, **c) for p, c in zip(ways, changed, strict=True))


def _rounded(p: Protocol) -> Protocol:
    return msgspec.structs.replace(p, **{term: float(f"{getattr(p, term):.4g}") for term in BOUNDS})


def _times(
    ways: tuple[Protocol, ...], rows: dict[str, Any], mask: Any, link: Array, soft: float | None
) -> Array:
    """Seconds of the rows under `mask`, by the minimum over ways, soft or hard."""
    link = link[mask]
    op, n, nbytes = rows["op"][mask], rows["n"][mask], rows["bytes"][mask]
    total = np.full((len(ways), len(op)), NEVER)
    for i, p in enumerate(ways):
        for one in SERVES[p.algorithm]:
            latency, data = protocol_seconds(p, one, Message(n, nbytes, link))
            serves = (op == one) & (n >= p.least_ranks)
            if p.algorithm == "switch":
                serves &= rows["in_switch"][mask]
            total[i] = np.where(serves, latency + data, total[i])
    least = np.asarray(total.min(axis=0))
    if soft is None:
        return least
    return np.asarray(least * np.sum((total / least) ** -soft, axis=0) ** (-1 / soft))


def _handover(
    rows: dict[str, Any],
    measured: Array,
    graph: Any,
    ways: tuple[Protocol, ...],
    other: Array,
    link: Array,
) -> dict[str, float]:
    """Largest message of the engine's own all-reduce by ranks: what splits the rows best between
    its `ways` and `other`, the times of NCCL."""
    most: dict[str, float] = {}
    for n in np.unique(rows["n"][graph]):
        mask = graph & (rows["n"] == n)
        order = np.argsort(rows["bytes"][mask], kind="stable")
        sizes = rows["bytes"][mask][order]
        logs = np.log(measured[mask][order])
        own = np.abs(np.log(_times(ways, rows, mask, link, None)[order]) - logs)
        his = np.abs(np.log(other[mask][order]) - logs)
        # The first i rows are the engine's.
        costs = [own[:i].sum() + his[i:].sum() for i in range(len(sizes) + 1)]
        i = int(np.argmin(costs))
        if i == 0:
            most[str(n)] = sizes[0] / MIB / 2
        else:  # halfway, in logarithms, to the first that is NCCL's
            above = sizes[i] if i < len(sizes) else sizes[-1]
            most[str(n)] = float(f"{np.sqrt(sizes[i - 1] * above) / MIB:.4g}")
    return most
