"""Systems by the name of their device: `4xl40s` is four L40S on the link of such a box."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from hw_models.record import NonNegative, Positive, Record, Source
from sim.errors import InputError, hint
from sim.inputs.documents import Document, convert, read_document

USUAL = 8  # devices that a server takes, where no larger system is on record
_NAME = re.compile(r"^([1-9][0-9]{0,3})\s?x[\s-]?([a-z].*)$", re.ASCII)


class Box(Record, frozen=True, kw_only=True):
    """The link of some devices in a server that takes `most` of them; see `hw_models.system`."""

    devices: tuple[str, ...]
    topology: Literal["switch", "ring", "mesh"]
    most: Annotated[int, msgspec.Meta(gt=0, le=4096)]
    bandwidth_GBps: Positive
    latency_us: NonNegative
    source: Source


class Boxes(Record, frozen=True):
    """The file `hw_models/boxes.toml`."""

    boxes: tuple[Box, ...]


def box_of(ref: str, systems: Mapping[str, Path], devices: Mapping[str, Path]) -> Document | None:
    """The document of the system `N x DEVICE`; None if the text is no such name.

    Raises InputError for a device that is not known, has no link on record, or does not fit so
    often into one server.
    """
    match = _NAME.match(ref)
    if ref in systems or not match:
        return None
    count, device = int(match[1]), match[2]
    if device not in devices:
        raise InputError(f"--on {ref}: no device is called {device!r}{hint(device, devices)}")
    tier = _tier(device, systems)
    if tier is None:
        raise InputError(
            f"--on {ref}: no link between several {device} is on record; write a system as TOML, "
            "for which `systems show pcie-4x-l40s` is a pattern"
        )
    most = max(USUAL, tier["size"])
    if count > most:
        larger = [name for name, path in systems.items() if _device(path) == device]
        raise InputError(
            f"--on {ref}: one server takes at most {most} of {device}; take a system of "
            f"several servers{hint(device, larger)}"
        )
    return {
        "name": f"{count}x-{device}",
        "device": device,
        "source": f"{count} of {device} in one server",
        "tiers": [{**tier, "size": count, "bandwidth_GBps": _bandwidth(tier, count)}],
    }


def _tier(device: str, systems: Mapping[str, Path]) -> dict[str, Any] | None:
    """The tier of the largest system of one tier with this device, or of its box."""
    known = [
        document["tiers"][0]
        for path in systems.values()
        if (document := _system(path)).get("device") == device and len(document["tiers"]) == 1
    ]
    if known:
        return dict(max(known, key=lambda tier: int(tier["size"])))
    for box in _boxes():
        if device in box.devices:
            tier: dict[str, Any] = msgspec.structs.asdict(box)
            del tier["devices"]
            size = tier.pop("most")
            return {**tier, "size": size}
    return None


def _bandwidth(tier: dict[str, Any], count: int) -> float:
    """GB/s that a device sends: in a mesh it has one link to each other device."""
    own = float(tier["bandwidth_GBps"])
    links = tier["size"] - 1
    return own * max(1, count - 1) / links if tier["topology"] == "mesh" and links else own


def _device(path: Path) -> str:
    return str(_system(path).get("device"))


@lru_cache(maxsize=256)
def _system(path: Path) -> Document:
    return {"tiers": [], **read_document(path)}


@lru_cache(maxsize=1)
def _boxes() -> tuple[Box, ...]:
    path = Path(str(resources.files("hw_models"))) / "boxes.toml"
    return convert(read_document(path), Boxes, str(path)).boxes
