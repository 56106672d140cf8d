"""What every record of hardware data shares: strict keys, bounds, a source, and copies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

import msgspec

Positive = Annotated[float, msgspec.Meta(gt=0, le=1e15)]
NonNegative = Annotated[float, msgspec.Meta(ge=0, le=1e15)]
Fraction = Annotated[float, msgspec.Meta(gt=0, le=1)]
Source = Annotated[str, msgspec.Meta(min_length=8)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9.\-]*$", max_length=100)]


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the frozen, keyword-only, strictly loaded records."""

    def with_(self, **changes: Any) -> Self:
        """A copy with values changed; a double underscore leads into a nested record, a mapping or
        an entry by its name or number: `device.with_(hbm__bandwidth_GBps=6700,
        matrix__TFLOPS__bf16=1200)`. Raises ValueError for a key or a value that it cannot have.
        """
        plain = msgspec.to_builtins(self)
        for key, value in changes.items():
            *steps, last = key.split("__")
            place: Any = plain
            for step in steps:
                place = _entered(place, step, key)
            if not isinstance(place, dict) or (steps == [] and last not in plain):
                raise ValueError(f"{key}: {type(self).__name__} has no such key")
            place[last] = value
        return msgspec.convert(plain, type(self))


def _entered(place: Any, step: str, key: str) -> Any:
    if isinstance(place, Mapping) and step in place:
        return place[step]
    if isinstance(place, list | tuple):
        for number, entry in enumerate(place):
            if step in (str(number), isinstance(entry, dict) and entry.get("name")):
                return entry
    raise ValueError(f"{key}: there is no {step!r}")
