"""Errors of msgspec as sentences that name the file, the key, the value, the rule and a hint."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from sim.errors import hint, quoted, shortened
from workloads.rules import rule_in_words

_AT = re.compile(r"^(?P<what>.*?)(?: - at `(?P<path>[^`]*)`)?$", re.DOTALL)
_UNKNOWN = re.compile(r"unknown field `(?P<field>[^`]*)`")
MOST_TRIED = 1000  # entries of a table of which one is wrong


def explained(message: str, document: Any, kind: type, where: str) -> str:
    """One sentence about an error of msgspec, with the file, the key, the value, the rule.

    message: the text of its error. document, kind: what was converted, and to which type. where:
    the file, or the part of the command line.
    """
    match = _AT.match(message)
    what, path = (match["what"], match["path"] or "$") if match else (message, "$")
    path = _named_path(message, path, document, kind)
    key = path.removeprefix("$").removeprefix(".")
    unknown = _UNKNOWN.search(what)
    if unknown:
        field = unknown["field"]
        place = f"{key}.{field}" if key else field
        return f"{where}: unknown key `{shortened(place)}`" + hint(field, _fields_at(kind, path))
    text = rule_in_words(what)
    if what.startswith("Invalid enum value"):
        allowed = _values_at(kind, path)
        value = str(_value_at(document, path))
        text = f"not one of {', '.join(allowed)}" + _close(value, allowed) if allowed else text
    if not key:
        return f"{where}: {text}"
    return f"{where}: key `{shortened(key)}` = {quoted(_value_at(document, path))}: {text}"


def _named_path(message: str, path: str, document: Any, kind: type) -> str:
    """`path` with the key of the entry that is wrong in the place of `[...]`, which stands for any
    key of a table. The entries are tried one by one."""
    before, dots, after = path.partition("[...]")
    table = _value_at(document, before)
    if not dots or not isinstance(table, dict):
        return path
    for key, value in list(table.items())[:MOST_TRIED]:
        try:
            msgspec.convert(_with_only(document, _steps(before), {key: value}), kind, strict=True)
        except msgspec.ValidationError as error:
            if str(error) == message:
                return f'{before}["{key}"]{after}'
    return path


def _with_only(document: Any, steps: list[str | int], table: Any) -> Any:
    """`document` with the table at `steps` replaced."""
    if not steps:
        return table
    step, *rest = steps
    copy: Any = {**document} if isinstance(document, dict) else [*document]
    copy[step] = _with_only(copy[step], rest, table)
    return copy


def _steps(path: str) -> list[str | int]:
    parts = re.findall(r'\.([^.\[\]]+)|\[(\d+|\.\.\.)\]|\["(.*?)"\]', path)
    return [name or key or (int(index) if index.isdigit() else "...") for name, index, key in parts]


def _value_at(document: Any, path: str) -> Any:
    value = document
    for step in _steps(path):
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return "(missing)"
    return value


def _close(word: str, known: list[str]) -> str:
    """`; did you mean 'x'?` where something like `word` is known."""
    return tip if (tip := hint(word, known)).startswith("; did") else ""


def _fields_at(kind: Any, path: str) -> list[str]:
    """Names that are allowed in the table at `path` of a record type."""
    info = _type_at(kind, path)
    if isinstance(info, msgspec.inspect.StructType):
        return [f.encode_name for f in info.fields]
    return []


def _values_at(kind: Any, path: str) -> list[str]:
    """Values that are allowed at `path`, where they are a fixed list."""
    info = _type_at(kind, path)
    if isinstance(info, msgspec.inspect.LiteralType):
        return [str(value) for value in info.values]
    return []


def _type_at(kind: Any, path: str) -> Any:
    """The msgspec type at `path` of a record type."""
    info: Any = msgspec.inspect.type_info(kind)
    for step in _steps(path):
        info = _only(info)
        if isinstance(info, msgspec.inspect.StructType):
            info = {f.encode_name: f.type for f in info.fields}.get(str(step), info)
        elif isinstance(info, msgspec.inspect.VarTupleType | msgspec.inspect.ListType):
            info = info.item_type
        elif isinstance(info, msgspec.inspect.DictType):
            info = info.value_type
    return _only(info)


def _only(info: Any) -> Any:
    """A type without its `Meta`; of a union its table or list of values."""
    if isinstance(info, msgspec.inspect.Metadata):
        return _only(info.type)
    if isinstance(info, msgspec.inspect.UnionType):
        wanted = msgspec.inspect.StructType | msgspec.inspect.LiteralType
        return next((t for t in map(_only, info.types) if isinstance(t, wanted)), info)
    return info
