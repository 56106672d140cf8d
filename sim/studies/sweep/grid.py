"""The request of a sweep: a scenario, the axes along which it changes, the points of their grid."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from math import prod
from typing import Any

import msgspec

from sim.errors import InputError
from sim.inputs.documents import convert
from sim.studies.sweep.axes import Axis, parse_axis
from sim.studies.sweep.changes import scaled
from sim.studies.sweep.expression import Expression
from sim.studies.sweep.log import fingerprint
from sim.studies.sweep.registry import kind_of

MOST_POINTS = 250_000  # about a gigabyte


class Sweep(msgspec.Struct, frozen=True):
    """A request: a document of a scenario, and axes along which it changes.

    where: a condition over the values of a point. option: what else a kind can do with a point
    (`max-rate`).
    """

    kind: str
    base: dict[str, Any]
    axes: tuple[Axis, ...]
    where: str = ""
    option: str = ""


def sweep_of(
    kind: str,
    base: dict[str, Any],
    grids: Iterable[str],
    where: str = "",
    option: str = "",
) -> Sweep:
    """A sweep from the texts of --grid and --where. Raises InputError."""
    axes = [_resolved(parse_axis(text, kind_of(kind).keys), kind, base) for text in grids]
    paths = [axis.path for axis in axes]
    for axis in axes:
        if paths.count(axis.path) > 1:
            raise InputError(f"--grid {axis.name}: this key has two axes; put all values on one")
    size = prod(len(axis.values) for axis in axes)
    if size > MOST_POINTS:
        raise InputError(f"a grid of {size:,} points; {MOST_POINTS:,} at most, take larger steps")
    return Sweep(kind, base, tuple(axes), where, option)


def _resolved(axis: Axis, kind: str, base: dict[str, Any]) -> Axis:
    """An axis whose factors (`*2`, `-10%`) are values: those of the scenario times the factor."""
    values = tuple(scaled(kind, base, axis.path, value) for value in axis.values)
    return msgspec.structs.replace(axis, values=values)


def points_of(sweep: Sweep) -> list[tuple[Any, ...]]:
    """The values of every point that `where` lets through, in the order of the axes as given."""
    every = product(*(axis.values for axis in sweep.axes))
    if not sweep.where:
        return list(every)
    condition = Expression(sweep.where, "--where")
    known = _named(sweep)
    names = [axis.name for axis in sweep.axes]
    points = [v for v in every if condition({**known, **dict(zip(names, v, strict=True))})]
    if not points:
        raise InputError(f"--where {sweep.where!r}: no point of the grid is left")
    return points


def _named(sweep: Sweep) -> dict[str, Any]:
    """Values of the scenario by the names of its keys, for conditions."""
    kind = kind_of(sweep.kind)
    filled = msgspec.to_builtins(convert(sweep.base, kind.record, "scenario"))
    names = dict(sweep.base.get("set", {}))
    for name, path in kind.keys.items():
        place: Any = filled
        for step in path:
            place = place.get(step) if isinstance(place, dict) else None
        names[name] = place
    return names


def document(sweep: Sweep, values: tuple[Any, ...]) -> dict[str, Any]:
    """The document of one point."""
    changed = dict(sweep.base)
    fresh: set[str] = set()
    for axis, value in zip(sweep.axes, values, strict=True):
        head = axis.path[0]
        if len(axis.path) == 1:
            changed[head] = value
            continue
        if head not in fresh:
            fresh.add(head)
            changed[head] = dict(changed.get(head, {}))
        changed[head][axis.path[1]] = value
    return changed


def described(sweep: Sweep) -> dict[str, Any]:
    """The request as plain data, with the version that answers it."""
    return {"memorywall": fingerprint(), **msgspec.to_builtins(sweep)}
