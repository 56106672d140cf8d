"""The difference of two breakdowns of one metric: which cause accounts for how much.

compare(A, A) is zero everywhere, compare(A, B) = -compare(B, A), and parts sum to the whole, all
of it exactly.
"""

from __future__ import annotations

from fractions import Fraction

import msgspec

from sim.clock import TICKS_PER_SECOND
from sim.studies.whatif.parts import Breakdown, Cause, Parts, in_order

NAMES = {"ttft": "TTFT", "tpot": "TPOT", "e2e": "E2E"}
# In a sentence, what is below this share of the largest item is told together.
SMALL = Fraction(1, 50)
UNITS = (("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9), ("ps", 10**12))


class Comparison(msgspec.Struct, frozen=True):
    """A metric before and after. All in ticks, as exact fractions."""

    metric: str
    before: Breakdown
    after: Breakdown
    change: Breakdown

    @property
    def ratio(self) -> float | None:
        """After over before."""
        return float(self.after.total / self.before.total) if self.before.total else None

    def rows(self, *fields: str) -> list[tuple[Cause, Fraction, Fraction, Fraction]]:
        """(cause, before, after, change) of everything that either has, in order."""
        parts = [b.by(*fields) for b in (self.before, self.after, self.change)]
        causes = {cause for one in parts for cause in one}
        ordered = in_order(causes) if "state" in fields else by_size(causes, parts[:2])
        return [(c, *(one.get(c, Fraction()) for one in parts)) for c in ordered]  # type: ignore[misc]

    def sentence(self) -> str:
        """`TPOT +3.2 ms = +2.9 HBM (KV), +0.5 link (all-reduce), -0.2 compute`."""
        total = self.change.total
        parts = self.change.by("state", "what")
        if not parts:
            return f"{metric_name(self.metric)}: no change"
        unit, size = unit_of([total, *parts.values()])
        most = max(map(abs, parts.values()))
        named = {c: x for c, x in parts.items() if abs(x) >= most * SMALL}
        rest = sum((x for c, x in parts.items() if c not in named), Fraction())
        items = [
            f"{signed(x * size)} {c.label}"
            for c, x in sorted(named.items(), key=lambda i: -abs(i[1]))
        ]
        items += [f"{signed(rest * size)} the rest"] if abs(rest) > most / 500 else []
        return f"{metric_name(self.metric)} {signed(total * size)} {unit} = {', '.join(items)}"


def compare(before: Breakdown, after: Breakdown) -> Comparison:
    """The same metric of two."""
    return Comparison(before.metric, before, after, after - before)


def by_size(causes: set[Cause], parts: list[Parts]) -> list[Cause]:
    """The largest first."""
    return sorted(causes, key=lambda c: (-max(p.get(c, Fraction()) for p in parts), c.kind, c.what))


def by_class(comparison: Comparison) -> dict[str, Parts]:
    """The change of every state by operator class, the largest class first."""
    change = comparison.change.by("kind", "state")
    classes: dict[str, Parts] = {}
    for cause, x in change.items():
        classes.setdefault(cause.kind, {})[Cause(cause.state)] = x
    return dict(sorted(classes.items(), key=lambda item: -abs(sum(item[1].values(), Fraction()))))


def metric_name(metric: str) -> str:
    """`TPOT`, `TTFT p90`, `pass 3`."""
    name, _, rest = metric.partition(":")
    return f"{NAMES.get(name, name)} {rest}".strip()


def axis_label(metric: str, unit: str) -> str:
    """What a picture says beside an axis of a metric. All metrics here are times."""
    return f"{metric_name(metric)} ({unit.replace('us', 'µs')}), less is better"


def unit_of(amounts: list[Fraction]) -> tuple[str, Fraction]:
    """(unit, units a tick) in which the largest of these amounts reads well."""
    most = max(map(abs, amounts), default=Fraction())
    for unit, parts in UNITS:
        size = Fraction(parts, TICKS_PER_SECOND)
        if most * size >= 1:
            return unit, size
    return UNITS[-1][0], Fraction(UNITS[-1][1], TICKS_PER_SECOND)


def figures(x: float) -> str:
    """A positive number with three figures: `10.0`, `8.59`, `1,234`."""
    if x < 0.995:
        return f"{x:.3g}"
    digits = 0 if x >= 99.95 else 1 if x >= 9.995 else 2
    return f"{x:,.{digits}f}"


def signed(x: Fraction | float) -> str:
    """Three figures with a sign; an exact 0 without."""
    if not x:
        return "0"
    value = float(x)
    digits = 1 if abs(value) >= 10 else 2
    return f"{value:+,.0f}" if abs(value) >= 100 else f"{value:+.{digits}f}"
