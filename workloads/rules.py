"""Rules of records in words: what msgspec says of a value that breaks one, as a user reads it."""

from __future__ import annotations

import re

_TYPES = re.compile(r"Expected `(?P<due>[^`]*)`, got `(?P<got>[^`]*)`")
_LENGTH = re.compile(r"Expected `(?P<what>\w+)` of length (?P<sign>[<>=]+) (?P<bound>\d+)")
_BOUND = re.compile(r"Expected `[^`]*` (?P<sign>[<>]=?) (?P<bound>\S+)")
_MISSING = re.compile(r"Object missing required field `(?P<field>[^`]*)`")
_BOUNDS = {">=": "at least", "<=": "at most", ">": "above", "<": "below", "==": "exactly"}
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "nothing",
}


def rule_in_words(what: str) -> str:
    """The rule behind an error of msgspec, in words."""
    if match := _TYPES.fullmatch(what):
        return f"must be {_named(match['due'])}, not {_named(match['got'])}"
    if match := _LENGTH.fullmatch(what):
        unit = {"str": "characters", "array": "entries"}.get(match["what"], "keys")
        return f"must have {_BOUNDS[match['sign']]} {match['bound']} {unit}"
    if match := _BOUND.fullmatch(what):
        return f"must be {_BOUNDS[match['sign']]} {match['bound'].removesuffix('.0')}"
    if match := _MISSING.fullmatch(what):
        return f"the key `{match['field']}` is missing"
    return what[:1].lower() + what[1:]


def _named(types: str) -> str:
    """`int | null` as words."""
    names = [_WORDS.get(name.strip(), name.strip()) for name in types.split("|")]
    names = [name for name in dict.fromkeys(names) if name != _WORDS["null"]] or names
    return " or ".join(names)
