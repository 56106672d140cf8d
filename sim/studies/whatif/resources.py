"""The resources of a scenario as the `--set` keys that hold them, so that each can be scaled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from sim.inputs.catalogue import LAUNCH, LAUNCHES, split_changes, stated

# Of the kernels' own terms LAUNCHES are times that pass before anything works, these of links.
LATENCIES = ("latency_us", "round_us")
FREE_AT = 1e9  # so many times a rate or a size is free, and a time divided by it


class Resource(msgspec.Struct, frozen=True):
    """A resource, and the values of the keys that hold it.

    wall: its name as a limit, in a sentence. better: +1 for a rate or a size, -1 for a time that
    is lost. free: its name in `simulate(free=...)`, "" where the limit of its values says it.
    shown: the key of the value that is printed, with its unit.
    """

    name: str
    wall: str
    better: int
    free: str
    values: dict[str, float]
    shown: tuple[str, str]

    def scaled(self, by: float) -> dict[str, float]:
        """The keys with their values `by` times as large."""
        return {key: value * by for key, value in self.values.items()}

    @property
    def limit(self) -> dict[str, float]:
        """The keys at values that cost nothing."""
        return self.scaled(FREE_AT if self.better > 0 else 1 / FREE_AT)

    @property
    def now(self) -> str:
        """The value that it has."""
        key, unit = self.shown
        return f"{self.values[key]:,.5g} {unit}" if key in self.values else "-"


def resources_of(document: Mapping[str, Any], dtype: str) -> list[Resource]:
    """The resources that a scenario has; `dtype` is the format that it multiplies in."""
    changes = split_changes(document.get("set", {}))
    device, _ = stated("device", document["on"], changes["device"])
    system, _ = stated("system", document["on"], changes["system"])
    levels = range(len(device["on_chip"]))

    def held(*keys: str) -> dict[str, float]:
        return {key: value for key in keys if (value := _at(device, key)) is not None}

    def wires(*names: str) -> dict[str, float]:
        return {
            f"system.{part}.{i}.{name}": entry[name]
            for part in ("tiers", "links")
            for i, entry in enumerate(system.get(part, ()))
            for name in names
        }

    terms = {f"efficiency.{k}": v for k, v in _leaves(device.get("efficiency", {}))}
    launches = {k: v for k, v in terms.items() if k.endswith(LAUNCHES)}
    latencies = {k: v for k, v in terms.items() if k.endswith(LATENCIES)}
    inside = {k: v for k, v in terms.items() if k.endswith(("_us", "_ns"))}
    inside = {k: v for k, v in inside.items() if k not in launches and k not in latencies}
    peaks = [f"{part}.TFLOPS.{d}" for part in ("matrix", "vector") for d in device[part]["TFLOPS"]]
    last = levels[-1]
    first_wire = next(iter(wires("bandwidth_GBps")), "")
    first_wait = next(iter(wires("latency_us")), "")
    present = [
        (
            "FLOP/s",
            "arithmetic (the compute wall)",
            1,
            "compute",
            held(*peaks, "clock_GHz"),  # rows are walked in cycles of it
            f"matrix.TFLOPS.{dtype}",
            "TFLOP/s",
        ),
        (
            "HBM bandwidth",
            "HBM bandwidth (the memory wall)",
            1,
            "hbm",
            held("hbm.bandwidth_GBps"),
            "",
            "GB/s",
        ),
        ("HBM capacity", "HBM capacity", 1, "", held("hbm.capacity_GB"), "", "GB"),
        (
            "SRAM capacity",
            "on-chip capacity",
            1,
            "sram",
            held(*(f"on_chip.{i}.capacity_KiB" for i in levels)),
            f"on_chip.{last}.capacity_KiB",
            "KiB",
        ),
        (
            "SRAM bandwidth",
            "on-chip bandwidth",
            1,
            "",
            held(*(f"on_chip.{i}.bandwidth_GBps" for i in levels)),
            "",
            "GB/s",
        ),
        ("link bandwidth", "link bandwidth", 1, "", wires("bandwidth_GBps"), first_wire, "GB/s"),
        (
            "link latency",
            "link latency",
            -1,
            "",
            {**wires("latency_us"), **(latencies if system else {})},
            first_wait,
            "us",
        ),
        (
            "launch overhead",
            "launch overhead",
            -1,
            "launch",
            {**held(LAUNCH), **launches},
            LAUNCH,
            "us",
        ),
    ]
    resources = [
        Resource(name, wall, better, free, values, (key or next(iter(values), ""), unit))
        for name, wall, better, free, values, key, unit in present
    ]
    if inside:
        name, shown = "kernels' fixed times", ("", "")
        resources.append(Resource(name, "the fixed time of kernels", -1, "", inside, shown))
    if "host_time_us" in document:
        host = {"host_time_us": float(document["host_time_us"])}
        resources.append(
            Resource("host time", "the time of the host", -1, "", host, ("host_time_us", "us"))
        )
    return resources


def fixed_times(document: Mapping[str, Any]) -> dict[str, float]:
    """The keys of a scenario's machine that hold times: launches, floors, waves, latencies."""
    changes = split_changes(document.get("set", {}))
    device, _ = stated("device", document["on"], changes["device"])
    system, _ = stated("system", document["on"], changes["system"])
    leaves = {f"efficiency.{k}": v for k, v in _leaves(device.get("efficiency", {}))}
    leaves |= {f"launch.{k}": v for k, v in _leaves(device["launch"])}
    leaves |= {f"system.{k}": v for k, v in _leaves(system)}
    return {k: v for k, v in leaves.items() if k.endswith(("_us", "_ns"))}


def _at(document: Mapping[str, Any], key: str) -> float | None:
    place: Any = document
    for step in key.split("."):
        place = place[int(step)] if isinstance(place, list) else place[step]
    return None if place is None else float(place)


def _leaves(place: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """Every number with its dotted key."""
    if isinstance(place, dict | list):
        inner = place.items() if isinstance(place, dict) else enumerate(place)
        for name, value in inner:
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    elif isinstance(place, int | float) and not isinstance(place, bool):
        yield key, float(place)
