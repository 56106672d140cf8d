"""Changes of a scenario: any of its keys, to a value, by a factor or by a percentage.

`hbm.bandwidth_GBps=*2`, `batch=16`, `tp=*2`, `launch.overhead_us=-50%`, `dtype=w4a16`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from sim.errors import InputError, quoted, shortened
from sim.inputs.catalogue import Value, look_up, parse_change, split_changes, stated
from sim.inputs.documents import convert
from sim.studies.sweep.axes import Path, path_of
from sim.studies.sweep.registry import kind_of
from workloads.numbers import DECIMAL

_FACTOR = re.compile(rf"^([*/])\s*({DECIMAL})$")
_PERCENT = re.compile(rf"^(?=[+-])({DECIMAL})\s*%$")
LEAST_FACTOR = 1e-12


def changed(kind: str, document: Mapping[str, Any], texts: Iterable[str]) -> dict[str, Any]:
    """The document of a scenario of a kind (run or serve) with KEY=VALUE texts laid over it."""
    result = dict(document)
    texts = list(texts)
    if texts:  # what is changed is a scenario
        convert(result, kind_of(kind).record, "scenario")
    for text in texts:
        key, value = parse_change(text)
        path = path_of(key, kind_of(kind).keys, "--set")
        result = with_value(result, path, scaled(kind, result, path, value, text))
    return result


def scaled(kind: str, document: Mapping[str, Any], path: Path, value: Any, text: str = "") -> Any:
    """A value as it is, or where it is a factor (`*2`, `-10%`) the present one times the factor.

    text: what the user wrote, for messages.
    """
    if isinstance(value, str) and (by := factor(value)) is not None:
        return _times(current(kind, document, path), by, text or f"{path[-1]}={value}")
    return value


def with_value(document: Mapping[str, Any], path: Path, value: Any) -> dict[str, Any]:
    """A copy with one value replaced."""
    if len(path) == 1:
        return {**document, path[0]: value}
    return {**document, path[0]: {**document.get(path[0], {}), path[1]: value}}


def factor(text: str) -> float | None:
    """2.0 of `*2`, 0.5 of `/2`, 1.1 of `+10%`; None for anything else."""
    if match := _FACTOR.match(text):
        number = float(match[2])
        if not LEAST_FACTOR <= number <= 1 / LEAST_FACTOR:
            raise InputError(f"--set ...={text}: a factor lies above 0, from 1e-12 to 1e12")
        return number if match[1] == "*" else 1 / number
    if match := _PERCENT.match(text):
        by = 1 + float(match[1]) / 100
        if not 0 < by <= 1 / LEAST_FACTOR:
            rule = "nothing is left of the value" if by <= 0 else "at most +1e14 %"
            raise InputError(f"--set ...={text}: {rule}")
        return by
    return None


def current(kind: str, document: Mapping[str, Any], path: Path) -> Value:
    """The value that a scenario has now, defaults and earlier changes included."""
    if path[0] == "set":
        return number_of(document, path[1])
    filled = msgspec.to_builtins(convert(dict(document), kind_of(kind).record, "scenario"))
    place: Any = filled
    for step in path:
        place = place[step] if isinstance(place, dict) else None
    if not isinstance(place, int | float):
        raise InputError(
            f"--set {'.'.join(path)}: a factor needs a number to begin with; now it is "
            f"{quoted(place)}"
        )
    return place


def number_of(document: Mapping[str, Any], key: str) -> Value:
    """A value of the files that a scenario names, by its `--set` key."""
    changes = split_changes(document.get("set", {}))
    kind = next(name for name, mine in split_changes({key: 0}).items() if mine)
    ref = document["model"] if kind == "model" else document["on"]
    stated_document, where = stated(kind, ref, changes[kind])
    inner = key.removeprefix(f"{kind}.")
    return look_up(stated_document, inner, where)


def _times(value: Value, by: float, text: str) -> Value:
    if value is None:
        raise InputError(f"--set {shortened(text)}: no value is stated to multiply; give one")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"--set {text}: a factor needs a number; now it is {quoted(value)}")
    product = value * by
    if isinstance(value, int):
        if abs(product - round(product)) > 1e-9 * abs(product):
            raise InputError(
                f"--set {text}: {value} becomes {product:g}, but a whole number is due"
            )
        return round(product)
    return product


def from_flags(args: Sequence[str]) -> list[str]:
    """`--batch 16 --tp=2 --no-fusion` as KEY=VALUE texts."""
    texts: list[str] = []
    left = list(args)
    while left:
        flag = left.pop(0)
        if not flag.startswith("--") or len(flag) < 3:
            raise InputError(
                f"{quoted(flag)}: not expected here; a change is --set KEY=VALUE or --KEY VALUE"
            )
        name, given, value = flag[2:].partition("=")
        if not given and left and not left[0].startswith("--"):
            value = left.pop(0)
        elif not given:
            name, value = (name[3:], "false") if name.startswith("no-") else (name, "true")
        texts.append(f"{name.replace('-', '_') if '.' not in name else name}={value}")
    return texts


def from_value(value: Value) -> str:
    """A value as `parse_change` reads it back."""
    return str(value).lower() if isinstance(value, bool) else str(value)
