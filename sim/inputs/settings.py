"""Fields of a record as settings: options of commands, keys of files, axes of grids."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_type_hints

import msgspec
from msgspec import NODEFAULT
from msgspec import inspect as fields


class Setting(msgspec.Struct, frozen=True):
    """One field of a record, or of a record nested in it.

    path: where it lies in the document. flag: its name on the command line, without dashes.
    short: its letter there, or "". aliases: longer names. group: the part of the help that has it.
    help: its description with its unit. info: its type. hint: the type with its range, as
    msgspec converts to it. default: NODEFAULT if it has none.
    """

    path: tuple[str, ...]
    flag: str
    short: str
    aliases: tuple[str, ...]
    group: str
    help: str
    info: fields.Type
    hint: Any
    default: Any


def settings_of(record: type[msgspec.Struct]) -> Iterator[Setting]:
    """The settings of a record in the order of its fields.

    The flag is the field's name with dashes, or `Meta(extra={"flag": ...})`; the letter is
    `Meta(extra={"short": ...})`, the help `Meta(description=...)`. The group is
    `Meta(extra={"group": ...})`, or the name of the nested record.
    """
    info = fields.type_info(record)
    assert isinstance(info, fields.StructType)
    yield from _inner(info, ())


def _inner(record: fields.StructType, path: tuple[str, ...]) -> Iterator[Setting]:
    hints = get_type_hints(record.cls, include_extras=True)
    for field in record.fields:
        info, place = field.type, (*path, field.encode_name)
        if isinstance(info, fields.StructType):
            yield from _inner(info, place)
            continue
        text, flag, short = "", field.encode_name.replace("_", "-"), ""
        group = path[0] if path else ""
        aliases: tuple[str, ...] = ()
        while isinstance(info, fields.Metadata | fields.UnionType):
            if isinstance(info, fields.Metadata):
                text = (info.extra_json_schema or {}).get("description", text)
                flag = (info.extra or {}).get("flag", flag)
                short = (info.extra or {}).get("short", short)
                group = (info.extra or {}).get("group", group)
                aliases = (info.extra or {}).get("aliases", aliases)
                info = info.type
            else:
                info = next(t for t in info.types if not isinstance(t, fields.NoneType))
        by_factory = field.default_factory is not NODEFAULT
        default = None if by_factory else field.default
        yield Setting(place, flag, short, aliases, group, text, info, hints[field.name], default)
