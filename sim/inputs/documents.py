"""Strict reading of TOML and JSON files into frozen records.

One rule for all files: what is wrong is told in one sentence with the file, the key, the
value, the rule and a hint. Unknown keys are refused.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from sim.errors import InputError, hint, one_line

T = TypeVar("T")
Document = dict[str, Any]

MAX_BYTES = 4 * 2**20
MAX_DEPTH = 40
_AT = re.compile(r"^(?P<what>.*?)(?: - at `(?P<path>[^`]*)`)?$", re.DOTALL)
_UNKNOWN = re.compile(r"unknown field `(?P<field>[^`]*)`")


def read_text(path: Path) -> str:
    """The text of a small UTF-8 file."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: {path.stat().st_size} bytes; input files end at {MAX_BYTES}")
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start})") from None


def read_document(path: Path) -> Document:
    """The table that a .toml or .json file holds."""
    text = read_text(path)
    try:
        parsed = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except ValueError as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise InputError(f"{path}: not valid {kind} ({error})") from None
    except RecursionError:
        raise InputError(f"{path}: nested too deeply; tables end at {MAX_DEPTH} levels") from None
    if not isinstance(parsed, dict):
        raise InputError(f"{path}: holds a {type(parsed).__name__}, but a table is needed")
    return parsed


def convert(document: Document, kind: type[T], where: str) -> T:
    """`document` as a `kind`; `where` names its file in the error."""
    try:
        return msgspec.convert(document, kind, strict=True)
    except msgspec.ValidationError as error:
        raise InputError(one_line(_explain(str(error), document, kind, where))) from None
    except RecursionError:
        raise InputError(f"{where}: nested too deeply; tables end at {MAX_DEPTH} levels") from None


def checked(where: str, build: Callable[[], T]) -> T:
    """Run `build`; a rule that it finds broken (ValueError) is told with `where`."""
    try:
        return build()
    except (ValueError, OverflowError) as error:
        raise InputError(one_line(f"{where}: {error}")) from None


def _explain(message: str, document: Document, kind: type, where: str) -> str:
    match = _AT.match(message)
    what, path = (match["what"], match["path"] or "$") if match else (message, "$")
    key = path.removeprefix("$").removeprefix(".")
    unknown = _UNKNOWN.search(what)
    if unknown:
        field = unknown["field"]
        place = f"{key}.{field}" if key else field
        return f"{where}: unknown key `{place}`" + hint(field, _fields_at(kind, path))
    text = what[:1].lower() + what[1:]
    if text.startswith("invalid enum value"):
        allowed = ", ".join(_values_at(kind, path))
        text = f"not one of {allowed}" if allowed else text
    if not key:
        return f"{where}: {text}"
    return f"{where}: key `{key}` = {_shown(_value_at(document, path))}: {text}"


def _steps(path: str) -> list[str | int]:
    found = re.findall(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]", path)
    return [name or (int(index) if index.isdigit() else "...") for name, index in found]


def _value_at(document: Any, path: str) -> Any:
    value = document
    for step in _steps(path):
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return "(missing)"
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


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
