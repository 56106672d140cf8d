"""The axes of a grid: which key of a scenario, and which values it takes.

`tp=1,2,4`, `batch=1:256:x2` (times 2 up to 256), `prompt=0:8192:+1024`, `pp=1:4` (steps of 1),
`hbm.bandwidth_GBps=2000,3350`, `prompt=fixed:512,lognormal:mean=500,cv=1`. Bars part values,
too, and must where they hold commas of their own: `stages=[40,40]|[41,39]`, brackets being lists.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec

from hw_models.device import Device
from sim.errors import InputError, hint, quoted, shortened
from sim.inputs.catalogue import parse_value
from sim.inputs.settings import settings_of
from workloads.numbers import DECIMAL

Path = tuple[str, ...]
MOST_VALUES = 1_000_000
_RANGE = re.compile(rf"^({DECIMAL}):({DECIMAL})(?::([x+])({DECIMAL}))?$")


class Axis(msgspec.Struct, frozen=True):
    """`name` as the user wrote it, its place in the document of a scenario, its values."""

    name: str
    path: Path
    values: tuple[Any, ...]


def keys_of(kind: type[msgspec.Struct]) -> dict[str, Path]:
    """Every key of a scenario by its short name (`tp`), by its dotted name (`parallelism.tp`), and
    by its flag (`slo_ttft`)."""
    keys: dict[str, Path] = {}
    for setting in settings_of(kind):
        if setting.path != ("set",):
            flags = (name.replace("-", "_") for name in (setting.flag, *setting.aliases))
            for name in (setting.path[-1], *flags, ".".join(setting.path)):
                keys.setdefault(name, setting.path)
    return keys


def parse_axis(text: str, keys: dict[str, Path]) -> Axis:
    """`KEY=VALUES` of --grid. Raises InputError."""
    key, equals, raw = text.partition("=")
    key, raw = key.strip(), raw.strip()
    if not equals or not key or not raw:
        raise InputError(
            f"--grid {quoted(text)}: write it as KEY=VALUES, e.g. tp=1,2,4 or batch=1:256:x2"
        )
    return Axis(
        key, path_of(key, keys, "--grid"), tuple(parse_values(raw, f"--grid {quoted(text)}"))
    )


def path_of(key: str, keys: Mapping[str, Path], flag: str) -> Path:
    """Where a key that `flag` names lies in the document. A dotted one that is no scenario's own,
    and a field of a device, is a set-path, of the hardware or of the model."""
    if key in keys:
        return keys[key]
    if "." in key or key in Device.__struct_fields__:
        return ("set", key)
    short = [name for name in keys if "." not in name]
    raise InputError(
        f"{flag} {shortened(key)}: no such key of a scenario{hint(key, short)}; a number of the "
        "hardware is named by its path, e.g. hbm.bandwidth_GBps"
    )


def parse_values(raw: str, where: str) -> list[Any]:
    """The values of an axis, in the order in which they are written."""
    match = _RANGE.match(raw)
    if match:
        return _range(match, where)
    bars = "|" in raw or raw.startswith("[")
    parts = [part.strip() for part in (raw.split("|") if bars else _split(raw))]
    if not all(parts):
        raise InputError(f"{where}: an empty value among {', '.join(map(repr, parts))}")
    return [_value(part, where) for part in parts]


def _split(raw: str) -> list[str]:
    """At commas, but for those within `lognormal:mean=500,cv=1` or `piecewise:60@2,60@8`."""
    parts: list[str] = []
    for piece in raw.split(","):
        if parts and ":" in parts[-1] and ":" not in piece and ("=" in piece or "@" in piece):
            parts[-1] += f",{piece}"
        else:
            parts.append(piece)
    return parts


def _value(part: str, where: str) -> Any:
    if part.startswith("["):
        try:
            return msgspec.json.decode(part)
        except msgspec.DecodeError as error:
            raise InputError(f"{where}: {quoted(part)} is no list ({error})") from None
    return parse_value(part, where)


def _range(match: re.Match[str], where: str) -> list[int | float]:
    """Exact in decimal, so that 0.1:0.5:+0.1 ends at 0.5."""
    first, last = Decimal(match[1]), Decimal(match[2])
    times, step = match[3] == "x", Decimal(match[4] or 1)
    if last < first or (times and (step <= 1 or first <= 0)) or (not times and step <= 0):
        rule = "a factor above 1 from above 0" if times else "a step above 0"
        raise InputError(f"{where}: a range goes up, by {rule}: FIRST:LAST:x2 or FIRST:LAST:+8")
    integral = all("." not in t and "e" not in t.lower() for t in match.group(1, 4) if t)
    values: list[int | float] = []
    at = first
    while at <= last:
        values.append(int(at) if integral else float(at))
        at = at * step if times else at + step
        if len(values) > MOST_VALUES:
            raise InputError(f"{where}: more than {MOST_VALUES:,} values; take a larger step")
    return values
