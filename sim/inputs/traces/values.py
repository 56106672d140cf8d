"""From what stands in a trace to whole tokens and whole ticks, exactly.

Decimal text is never turned into a float: 0.1 s is 100,000,000,000 ticks. A value that
breaks a rule is a `BadRow`; the reader knows file and line and adds them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date
from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import lru_cache
from typing import Any

from sim.clock import TICKS_PER_SECOND
from sim.errors import is_text, quoted
from workloads.request import MOST_TOKENS

# A row of a trace by column; numbers of JSON with a fraction are kept as their text.
Row = Mapping[str, Any]
NOT_FINITE = {"nan", "inf", "infinity"}
# Columns of names, in which such a word is a name.
NAMES = {"Model", "Log Type", "Session ID", "request_id", "session_id", "id", "session", "model"}

# Powers of ten from a unit of time to ticks.
SECONDS, MILLISECONDS, NANOSECONDS = 12, 9, 3
# Beyond 30,000 years a time is a mistake; the bound keeps the arithmetic small.
_LAST = 10**24
_NUMBER = re.compile(
    r"[+-]?(?:[0-9]{1,40}(?:\.[0-9]{0,60})?|\.[0-9]{1,60})(?:[eE][+-]?[0-9]{1,3})?"
)
_CLOCK = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[ T]([0-9]{2}):([0-9]{2}):([0-9]{2})"
    r"(?:\.([0-9]{1,12}))?(Z|[+-][0-9]{2}:?[0-9]{2})?"
)
# More digits than any number that `_NUMBER` lets through.
_WIDE = Context(prec=200, rounding=ROUND_HALF_EVEN)


class BadRow(Exception):
    """A row that breaks a rule; `column` is "" where the row as a whole does."""

    def __init__(self, rule: str, column: str = "", value: object = None) -> None:
        super().__init__(rule)
        self.rule, self.column, self.value = rule, column, value

    def sentence(self) -> str:
        """What is wrong, without the place."""
        if not self.column:
            return self.rule
        return f"column `{self.column}` = {quoted(self.value)}: {self.rule}"


# Rows and their numbers in the file.
Rows = Iterator[tuple[int, Row | BadRow]]


def tokens(row: Row, column: str, least: int = 1) -> int:
    """A whole number of tokens, at least `least`; 374.0 is taken, 374.5 is not."""
    value = _cell(row, column)
    if type(value) is int:
        number = value
    elif type(value) is str and len(value) <= 12 and value.isascii() and value.isdecimal():
        number = int(value)
    else:
        exact = _decimal(value, column)
        if abs(exact) > MOST_TOKENS or exact != exact.to_integral_value():
            raise BadRow(f"must be a whole number up to {MOST_TOKENS}", column, value)
        number = int(exact)
    if not least <= number <= MOST_TOKENS:
        raise BadRow(f"must be at least {least} and at most {MOST_TOKENS} tokens", column, value)
    return number


def integer(row: Row, column: str) -> int:
    """Any whole number of 64 bits."""
    value = _cell(row, column)
    exact = _decimal(value, column)
    if abs(exact) >= 2**63 or exact != exact.to_integral_value():
        raise BadRow("must be a whole number", column, value)
    return int(exact)


def time(row: Row, column: str, unit: int) -> int:
    """A time in units of 10**unit ticks as ticks, rounded half to even below a tick."""
    value = _cell(row, column)
    if type(value) is str and len(value) <= 24 and value.isascii():
        # The common forms 12 and 12.345, fast; the rest goes through Decimal.
        digits_before, _, part = value.partition(".")
        digits = digits_before + part
        if len(part) <= unit and digits_before and digits.isdecimal():
            return _time_in_range(int(digits.ljust(len(digits_before) + unit, "0")), column, value)
    elif type(value) is int and 0 <= value < 10**SECONDS:
        return int(value * 10**unit)
    exact = _decimal(value, column)
    if not 0 <= exact < _LAST:
        raise BadRow("must be a time of 0 or later, in numbers", column, value)
    rounded = int(exact.scaleb(unit, _WIDE).to_integral_value(ROUND_HALF_EVEN))
    return _time_in_range(rounded, column, value)


def wall_clock(row: Row, column: str) -> int:
    """A date and time of day such as 2023-11-16 18:17:03.9799600 as ticks since year 1.

    An offset from UTC is subtracted; without one all rows are taken to share their zone.
    """
    value = _cell(row, column)
    match = _CLOCK.fullmatch(value) if isinstance(value, str) else None
    if not match:
        raise BadRow("must be a time such as 2023-11-16 18:17:03.9799600", column, value)
    year, month, day, hour, minute, second, part, zone = match.groups()
    days = _day(year, month, day)
    h, m, s = int(hour), int(minute), int(second)
    if days is None or h > 23 or m > 59 or s > 59:
        raise BadRow("is no time of the calendar", column, value)
    if zone and zone != "Z":
        away = int(zone[1:3]) * 60 + int(zone[-2:])
        m += -away if zone[0] == "+" else away
    total_seconds = ((days * 24 + h) * 60 + m) * 60 + s
    return total_seconds * TICKS_PER_SECOND + int((part or "0").ljust(SECONDS, "0"))


def text(row: Row, column: str) -> str:
    """A name, or "" where the cell is empty or absent."""
    value = row.get(column)
    if value is None or isinstance(value, str):
        if value and not is_text(value):
            raise BadRow("must be text of UTF-8", column, value)
        return value or ""
    if isinstance(value, list | dict | bool):
        raise BadRow("must be a name", column, value)
    return str(value)


@lru_cache(maxsize=1024)
def _day(year: str, month: str, day: str) -> int | None:
    try:
        return date(int(year), int(month), int(day)).toordinal()
    except ValueError:
        return None


def _cell(row: Row, column: str) -> Any:
    value = row.get(column)
    if value is None or value == "":
        raise BadRow(f"column `{column}` is missing or empty")
    return value


def _decimal(value: object, column: str) -> Decimal:
    """A number exactly as it is written; a float (of Parquet) as its shortest decimal."""
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise BadRow("must be a number", column, value)
    if isinstance(value, int) and value.bit_length() > 128:
        raise BadRow("must be a number of sensible size", column, "an integer of many digits")
    written = value.strip() if isinstance(value, str) else str(value)
    if not _NUMBER.fullmatch(written):
        raise BadRow("must be a finite number", column, value)
    return Decimal(written)


def _time_in_range(at: int, column: str, value: object) -> int:
    if not 0 <= at < _LAST:
        raise BadRow("must be a time of 0 or later, within 30,000 years", column, value)
    return at
