"""Short words for processes and distributions, as a command line takes them.

poisson:6    gamma:6:cv=2    constant:4    piecewise:60@2,60@8    closed:32:think=1.5
fixed:512    uniform:16-1024    lognormal:mean=500,cv=1.2,max=8192    zipf:alpha=1.2,max=4096
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from difflib import get_close_matches
from typing import Any, TypeVar

from workloads.numbers import decimal_number, whole_number
from workloads.synthetic.arrivals import (
    Arrivals,
    ClosedLoop,
    Constant,
    Gamma,
    Piecewise,
    Poisson,
)
from workloads.synthetic.lengths import Fixed, LengthDistribution, Lognormal, Uniform, Zipf

T = TypeVar("T")
# Builds a value from what stands behind the name.
Builder = Callable[[str], T]


def parse_arrivals(text: str) -> Arrivals:
    """The arrival process that `text` names, such as `poisson:6`."""
    return _parse(text, _ARRIVALS, "arrivals")


def parse_lengths(text: str) -> LengthDistribution:
    """The distribution of lengths that `text` names, such as `uniform:16-1024`."""
    return _parse(text, _LENGTHS, "lengths")


def _parse(text: str, known: dict[str, tuple[Builder[T], str]], what: str) -> T:
    name, _, rest = text.strip().partition(":")
    if name not in known:
        close = get_close_matches(name, known, n=1, cutoff=0.6)
        tip = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
        raise ValueError(f"{what} {text!r}: unknown kind {name!r}; {tip}")
    build, example = known[name]
    try:
        return build(rest)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{what} {text!r}: {error}; an example is {example}") from None


def _gamma(rest: str) -> Arrivals:
    rate, _, options = rest.partition(":")
    return Gamma(_number(rate), **_options(options, {"cv": _number}, needs={"cv"}))


def _closed(rest: str) -> Arrivals:
    users, _, options = rest.partition(":")
    think = _options(options, {"think": _number}).get("think", 0.0)
    return ClosedLoop(_whole(users), think)


def _piecewise(rest: str) -> Arrivals:
    pieces = []
    for piece in rest.split(","):
        duration, at, rate = piece.partition("@")
        if not at:
            raise ValueError(f"piece {piece!r} is not of the form SECONDS@RATE")
        pieces.append((_number(duration), _number(rate)))
    return Piecewise(tuple(pieces))


def _uniform(rest: str) -> LengthDistribution:
    low, dash, high = rest.partition("-")
    if not dash:
        raise ValueError(f"{rest!r} is not of the form LOW-HIGH")
    return Uniform(_whole(low), _whole(high))


def _lognormal(rest: str) -> LengthDistribution:
    known = {"mean": _number, "cv": _number, "max": _whole}
    return Lognormal(**_options(rest, known, needs={"mean", "cv"}))


def _zipf(rest: str) -> LengthDistribution:
    known = {"alpha": _number, "max": _whole}
    return Zipf(**_options(rest, known, needs={"alpha", "max"}))


def _options(
    text: str, known: Mapping[str, Callable[[str], Any]], needs: AbstractSet[str] = frozenset()
) -> dict[str, Any]:
    """`key=value,key=value` as numbers; unknown, doubled and missing keys are refused."""
    options: dict[str, Any] = {}
    for part in text.split(",") if text else []:
        key, equals, value = part.partition("=")
        key = key.strip()
        if not equals:
            raise ValueError(f"{part!r} is not of the form KEY=VALUE")
        if key not in known:
            raise ValueError(f"unknown key {key!r}, known: {', '.join(known)}")
        if key in options:
            raise ValueError(f"key {key!r} is given twice")
        options[key] = known[key](value)
    missing = sorted(needs - options.keys())
    if missing:
        raise ValueError(f"{' and '.join(missing)} must be given")
    return options


def _number(text: str) -> float:
    return _read(text, decimal_number)


def _whole(text: str) -> int:
    return _read(text, whole_number)


def _read(text: str, reader: Builder[T]) -> T:
    try:
        return reader(text)
    except ValueError as error:
        raise ValueError(f"{text!r} {error}") from None


_ARRIVALS: dict[str, tuple[Builder[Arrivals], str]] = {
    "poisson": (lambda rest: Poisson(_number(rest)), "poisson:6 (requests per second)"),
    "gamma": (_gamma, "gamma:6:cv=2 (requests per second, variation of the gaps)"),
    "constant": (lambda rest: Constant(_number(rest)), "constant:4 (requests per second)"),
    "piecewise": (_piecewise, "piecewise:60@2,60@8 (seconds at requests per second)"),
    "closed": (_closed, "closed:32:think=1.5 (users, seconds between answer and request)"),
}
_LENGTHS: dict[str, tuple[Builder[LengthDistribution], str]] = {
    "fixed": (lambda rest: Fixed(_whole(rest)), "fixed:512"),
    "uniform": (_uniform, "uniform:16-1024"),
    "lognormal": (_lognormal, "lognormal:mean=500,cv=1.2,max=8192"),
    "zipf": (_zipf, "zipf:alpha=1.2,max=4096"),
}
