"""The two arithmetics that formulas are done in: plain numbers, or numpy arrays of them.

Both give the same bits: the same IEEE operations in the same order, rounding half to even.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from sim.clock import LONGEST, TICKS_PER_SECOND, ticks
from sim.errors import InputError


class Arith(msgspec.Struct, frozen=True):
    """The functions that differ between numbers and arrays. `where` evaluates both sides."""

    max: Callable[..., Any]  # of two or more
    min: Callable[..., Any]
    ceil: Callable[[Any], Any]  # to a whole number that stays a float in arrays
    floor: Callable[[Any], Any]
    log2: Callable[[Any], Any]
    sqrt: Callable[[Any], Any]
    where: Callable[[Any, Any, Any], Any]
    rint: Callable[[Any], Any]  # to the nearest integer, half to even
    ticks: Callable[[Any], Any]  # seconds to ticks


def _most(first: Any, *rest: Any) -> Any:
    for other in rest:
        first = np.maximum(first, other)
    return first


def _least(first: Any, *rest: Any) -> Any:
    for other in rest:
        first = np.minimum(first, other)
    return first


def _integers(x: Any) -> Any:
    return np.asarray(x).astype(np.int64)


def _many_ticks(seconds: Any) -> Any:
    scaled = np.asarray(seconds, dtype=np.float64) * TICKS_PER_SECOND
    if not (np.all(scaled >= 0) and np.all(scaled < LONGEST)):
        raise InputError(
            f"a duration of {float(np.max(np.abs(scaled))) * 1e-12:.4g} s is outside 0 s to 106 "
            "days; lower the work or check the rates"
        )
    return np.rint(scaled).astype(np.int64)


SCALAR = Arith(
    max=max,
    min=min,
    ceil=math.ceil,
    floor=math.floor,
    log2=math.log2,
    sqrt=math.sqrt,
    where=lambda condition, a, b: a if condition else b,
    rint=round,
    ticks=ticks,
)
VECTOR = Arith(
    max=_most,
    min=_least,
    ceil=np.ceil,
    floor=np.floor,
    log2=np.log2,
    sqrt=np.sqrt,
    where=np.where,
    rint=lambda x: _integers(np.rint(x)),
    ticks=_many_ticks,
)
