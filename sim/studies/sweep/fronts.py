"""Which points are good: an objective, a condition on results, a Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sim.errors import InputError, hint, quoted
from sim.studies.sweep.expression import Expression
from sim.studies.sweep.kinds import Column

Record = dict[str, Any]


class Metric:
    """A column by which points are compared: `tpot_s`, `min:devices`, `max:mfu`."""

    def __init__(self, text: str, columns: dict[str, Column], flag: str) -> None:
        sense, colon, name = text.rpartition(":")
        numeric = {n: c for n, c in columns.items() if c.kind is not str}
        if name not in numeric:
            raise InputError(f"{flag} {text!r}: no such column{hint(name, numeric)}")
        sense = sense if colon else columns[name].better
        if sense not in ("min", "max"):
            raise InputError(f"{flag} {text!r}: say which way is better, min:{name} or max:{name}")
        self.name, self.sign = name, 1 if sense == "max" else -1
        self.sense = sense
        self.text = f"{sense}:{name}"

    def score(self, record: Record) -> float | None:
        """Higher is better; None where the point has no such value."""
        value = record.get(self.name)
        return None if value is None else self.sign * value


def usable(records: Sequence[Record], having: str = "") -> list[Record]:
    """Points that could be computed and that meet a condition on their cells."""
    good = [r for r in records if r["status"] == "ok"]
    if not having:
        return good
    condition = Expression(having, "--having")
    return [
        r
        for r in good
        if all(r.get(n) is not None for n in condition.names if n in r) and condition(r)
    ]


def check_having(having: str, axes: Mapping[str, Any], columns: Mapping[str, Column]) -> None:
    """Whether a condition names columns alone, and compares what can be compared, before anything
    runs. Raises InputError. `axes` have a value of each axis."""
    if not having:
        return
    condition = Expression(having, "--having")
    sample = {**{name: column.kind(1) for name, column in columns.items()}, **axes}
    for name in sorted(condition.names):
        if name not in sample:
            raise InputError(
                f"--having {quoted(having)}: no column {quoted(name)}{hint(name, sample)}"
            )
    condition.check_types(sample)


def ranked(records: Sequence[Record], metric: Metric) -> list[Record]:
    """The best first; ties in the order of the grid."""
    scored = [(metric.score(r), r) for r in records]
    kept = [(s, r) for s, r in scored if s is not None]
    return [r for _, r in sorted(kept, key=lambda pair: -pair[0])]


def pareto(records: Sequence[Record], first: Metric, second: Metric) -> list[Record]:
    """Points that no other beats in one metric without losing in the other, the best in the
    first metric first. Of equal points the earliest stands for all."""
    front: list[Record] = []
    best: float | None = None
    kept = [r for r in records if first.score(r) is not None and second.score(r) is not None]
    for r in sorted(kept, key=lambda r: (-(first.score(r) or 0), -(second.score(r) or 0))):
        score = second.score(r)
        assert score is not None
        if best is None or score > best:
            front.append(r)
            best = score
    return front
