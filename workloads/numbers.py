"""Numbers in text: finite, in the digits 0 to 9. Every option and file uses these two readers."""

from __future__ import annotations

import math
import re

WHOLE = r"[+-]?[0-9]+"
DECIMAL = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_WHOLE, _DECIMAL = re.compile(WHOLE), re.compile(DECIMAL)
MOST_DIGITS = 40


def whole_number(text: str) -> int:
    """The whole number that `text` writes. Raises ValueError for anything else."""
    written = text.strip()
    if not _WHOLE.fullmatch(written):
        raise ValueError("must be a whole number, written in the digits 0 to 9")
    if len(written) > MOST_DIGITS:
        raise ValueError(f"must have at most {MOST_DIGITS} digits")
    return int(written)


def decimal_number(text: str) -> float:
    """The finite number that `text` writes. Raises ValueError for anything else."""
    written = text.strip()
    if not _DECIMAL.fullmatch(written):
        raise ValueError("must be a finite number, written in the digits 0 to 9")
    if len(written) > MOST_DIGITS:
        raise ValueError(f"must have at most {MOST_DIGITS} digits")
    number = float(written)
    if math.isinf(number):
        raise ValueError("must be a finite number; this one is too large")
    return number
