"""A device as a TOML file that `load_device` gives back equal; values at their defaults are left
out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import tomli_w

from hw_models.device import Device
from sim.inputs.catalogue import load_device
from sim.output.files import atomic_write


def save_record(record: msgspec.Struct, path: Path, heading: str) -> None:
    """Write a record with comment lines before it."""
    lines = "".join(f"# {line}".rstrip() + "\n" for line in heading.splitlines())
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        text = flat(tomli_w.dumps(plain(record)))
        temporary.write_text(f"{lines}\n{text}", encoding="utf-8")


def save_device(device: Device, path: Path, heading: str) -> None:
    """Write a device, and see that it can be read back."""
    save_record(device, path, heading)
    if load_device(str(path)) != device:
        raise AssertionError(f"{path} does not give back the device that was written")


def flat(text: str) -> str:
    """Arrays of numbers on one line each: tomli_w puts every number on a line of its own."""
    return re.sub(
        r"\[\n[\s\d.,\[\]e+-]*?\n\](?=\n|$)", lambda m: re.sub(r"\s+|,(?=\s*\])", "", m[0]), text
    ).replace("],[", "], [")


def plain(record: msgspec.Struct) -> dict[str, Any]:
    """A record as tables and values, tables last, without what is at its default."""
    values: dict[str, Any] = {}
    tables: dict[str, Any] = {}
    for field in msgspec.structs.fields(record):
        value = getattr(record, field.name)
        if value is None or value == _default(field):
            continue
        simple = _value(value)
        is_table = isinstance(simple, dict) or _tables(simple)
        (tables if is_table else values)[field.encode_name] = simple
    return values | tables


def _default(field: msgspec.structs.FieldInfo) -> Any:
    if field.default is not msgspec.NODEFAULT:
        return field.default
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return msgspec.NODEFAULT


def _value(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return plain(value)
    if isinstance(value, dict):
        return {k: _value(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_value(v) for v in value]
    return value


def _tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)
