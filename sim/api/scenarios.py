"""Scenarios from the arguments of a function, as commands make them from flags."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from sim.errors import InputError
from sim.inputs.overlay import overlay
from sim.studies.sweep.axes import path_of
from sim.studies.sweep.changes import changed, from_value, with_value
from sim.studies.sweep.registry import kind_of
from sim.studies.sweep.session import base_of

Keys = Mapping[str, Any]


def document_of(
    scenario: Any, on: str | None, keys: Keys, *, kind: str = "", grids: Iterable[str] = ()
) -> tuple[str, dict[str, Any]]:
    """(run or serve, document) of a scenario with keys over it.

    scenario: a `Scenario`, a `Serving`, a model, or the TOML of a scenario. keys: as `--set` takes
    them, with their values, or the name of a nested record with a mapping; `set` is a mapping of
    hardware and model keys to values or factors ("*2", "-10%"). kind: run or serve; if not given,
    the names of the keys and of the `grids` (texts of --grid) decide. Raises InputError.
    """
    keys = dict(keys)
    hardware = keys.pop("set", {})
    texts = [f"{key}={from_value(value)}" for key, value in hardware.items()]
    if isinstance(scenario, str) and kind:
        found, base = kind, overlay(scenario, {"on": on}, kind_of(kind).record)
    elif isinstance(scenario, str):
        named = [f"{key}=x" for key in keys]
        found, base = base_of(scenario, on, [], [*named, *grids])
    elif isinstance(scenario, msgspec.Struct):
        base = msgspec.to_builtins(scenario)
        found = "serve" if "traffic" in base else "run"
        base = {**base, "on": on or base["on"]}
    else:
        raise InputError("a scenario is a Scenario, a Serving, a model's name or a TOML file")
    for key, value in keys.items():
        if isinstance(value, Mapping) and key in kind_of(found).record.__struct_fields__:
            base = {**base, key: {**base.get(key, {}), **value}}
        else:
            base = with_value(base, path_of(key, kind_of(found).keys, "key"), value)
    return found, changed(found, base, texts)


def grid_texts(grid: Mapping[str, Any]) -> list[str]:
    """Axes as texts of --grid: a list of values, or a text such as "1:64:x2"."""
    texts = []
    for key, values in grid.items():
        if isinstance(values, str):
            texts.append(f"{key}={values}")
            continue
        parts = [from_value(value) for value in values]
        bars = any("," in part for part in parts)
        texts.append(f"{key}={('|' if bars else ',').join(parts)}")
    return texts
