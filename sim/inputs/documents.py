"""Strict reading of TOML and JSON files into frozen records.

One rule for all files: a mistake is one sentence with the file, the key, the
value, the rule and a hint. Unknown keys are refused.
"""

from __future__ import annotations

import json
import math
import re
import stat
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from sim.errors import InputError, is_text, one_line, quoted, shortened
from sim.inputs.explain import explained

T = TypeVar("T")
Document = dict[str, Any]

MAX_BYTES = 4 * 2**20
MAX_TOML_BYTES = 2**19  # Python's reader takes about a second for these, and much less for JSON
MAX_DEPTH = 40
_PART = r"""(?:[A-Za-z0-9_-]++|"[^"\n]*+"|'[^'\n]*+')"""  # of a dotted key of TOML
_DOTTED = re.compile(rf"{_PART}(?:[ \t]*+\.[ \t]*+{_PART})*+")


def check_readable(path: Path) -> None:
    """Raise InputError for a pipe or a device in the place of a file, as reading it may never end,
    and OSError where nothing is there."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(f"{path}: not a regular file; write its content into a file first")


def read_text(path: Path) -> str:
    """The text of a small UTF-8 file."""
    most = MAX_BYTES if path.suffix == ".json" else MAX_TOML_BYTES
    try:
        check_readable(path)
        with path.open("rb") as file:
            content = file.read(most + 1)
        if len(content) > most:
            raise InputError(f"{path}: more than {most:,} bytes, where such files end; shorten it")
        return content.decode("utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start})") from None


def read_document(path: Path) -> Document:
    """The table that a .toml or .json file holds.

    Raises InputError for a file that cannot be read, a key that stands twice in one table, and a
    number that is not finite.
    """
    text = read_text(path)
    try:
        if path.suffix == ".json":
            parsed = json.loads(text, object_pairs_hook=without_doubles)
        else:
            _check_keys(text)
            parsed = tomllib.loads(text)
    except ValueError as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise InputError(f"{path}: not valid {kind} ({error})") from None
    except RecursionError:
        raise InputError(f"{path}: nested too deeply; tables end at {MAX_DEPTH} levels") from None
    if not isinstance(parsed, dict):
        raise InputError(f"{path}: holds a {type(parsed).__name__}, but a table is needed")
    _check_values(parsed, str(path))
    return parsed


def _check_keys(text: str) -> None:
    """Raise ValueError for a key of TOML of more parts than tables have levels: the reader's time
    grows with their square."""
    for match in _DOTTED.finditer(text):
        written = match[0]
        if written.count(".") >= MAX_DEPTH and len(re.findall(_PART, written)) > MAX_DEPTH:
            line = text.count("\n", 0, match.start()) + 1
            raise ValueError(
                f"line {line}: the key {shortened(written)} is nested too deeply; keys end at "
                f"{MAX_DEPTH} parts"
            )


def without_doubles(pairs: list[tuple[str, Any]]) -> Document:
    """A JSON object from its keys and values. Raises ValueError where a key stands twice."""
    table: Document = {}
    for key, value in pairs:
        if key in table:
            raise ValueError(f"the key {quoted(key)} stands twice in one object")
        table[key] = value
    return table


def _check_values(value: Any, where: str, key: str = "", depth: int = 0) -> None:
    """Raise InputError where a table holds NaN, an infinity or half a character (a lone surrogate
    of JSON), used or not, or is nested deeper than MAX_DEPTH."""
    if depth > MAX_DEPTH:
        raise InputError(f"{where}: nested too deeply; tables end at {MAX_DEPTH} levels")
    if isinstance(value, dict):
        for name, inner in value.items():
            if isinstance(name, str) and not is_text(name):
                raise InputError(f"{where}: the key {quoted(name)} is no text of UTF-8")
            _check_values(inner, where, f"{key}.{name}" if key else str(name), depth + 1)
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            _check_values(inner, where, f"{key}[{number}]", depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{where}: key `{shortened(key)}` = {value}: must be a finite number")
    elif isinstance(value, str) and not is_text(value):
        raise InputError(
            f"{where}: key `{shortened(key)}` = {quoted(value)}: must be text of UTF-8"
        )


def convert(document: Document, kind: type[T], where: str) -> T:
    """`document` as a `kind`; `where` names its file in the error."""
    _check_values(document, where)
    try:
        return msgspec.convert(document, kind, strict=True)
    except msgspec.ValidationError as error:
        raise InputError(one_line(explained(str(error), document, kind, where))) from None
    except RecursionError:
        raise InputError(f"{where}: nested too deeply; tables end at {MAX_DEPTH} levels") from None


def checked(where: str, build: Callable[[], T]) -> T:
    """Run `build`; a broken rule (ValueError) becomes an InputError with `where`."""
    try:
        return build()
    except (ValueError, OverflowError) as error:
        raise InputError(one_line(f"{where}: {error}")) from None
