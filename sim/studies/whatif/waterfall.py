"""The bars of a difference, between what it was and what it became."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, NamedTuple

from sim.output.plots.style import FAINT, STATE_COLOURS
from sim.serve.plots import PART_COLOURS
from sim.studies.whatif.compare import SMALL, Comparison, by_class, compare
from sim.studies.whatif.parts import Breakdown, Cause, in_order

COLOURS = {**STATE_COLOURS, **PART_COLOURS}
NEGLIGIBLE = Fraction(1, 500)  # of the largest bar: the rest is not drawn below it

CUT = Fraction(1, 4)  # below this share of the whole the axis does not begin at 0


class Step(NamedTuple):
    """A part of the change: the label of its row, its state, ticks, colour."""

    label: str
    state: str
    change: Fraction
    colour: str


def steps_by_state(comparison: Comparison) -> list[Step]:
    """The change cause by cause; what is small is told together."""
    parts = comparison.change.by("state", "what")
    most = max(map(abs, parts.values()), default=Fraction())
    shown = [c for c in in_order(parts) if abs(parts[c]) >= most * SMALL]
    rest = sum((x for c, x in parts.items() if c not in shown), Fraction())
    steps = [Step(c.label, c.state, parts[c], COLOURS[c.state]) for c in shown]
    return steps + _rest(rest, most)


def steps_by_class(comparison: Comparison) -> list[Step]:
    """The change by operator class and state: the states of a class share a row."""
    classes = by_class(comparison)
    flat = [(kind, c, x) for kind, parts in classes.items() for c, x in parts.items()]
    most = max((abs(x) for _, _, x in flat), default=Fraction())
    steps = [
        Step(kind or "all operators", c.state, x, COLOURS[c.state])
        for kind, c, x in flat
        if abs(x) >= most * SMALL
    ]
    return steps + _rest(sum((x for _, _, x in flat if abs(x) < most * SMALL), Fraction()), most)


def _rest(rest: Fraction, most: Fraction) -> list[Step]:
    return [Step("the rest", "", rest, FAINT)] if abs(rest) > most * NEGLIGIBLE else []


def axis_begin(low: Fraction, high: Fraction) -> Fraction:
    """Where an axis begins whose bars end between two amounts: at 0, or nearer where the change
    would else be too small to see."""
    cut = low < high < low / (1 - CUT)
    return max(Fraction(), low - (high - low) * 3 / 4) if cut else Fraction()


def comparison_of(document: Mapping[str, Any]) -> tuple[Comparison, tuple[str, str]]:
    """A comparison and the names of both, from what `report.described` made of them."""

    def side(key: str) -> Breakdown:
        parts = {
            Cause(p["state"], p["what"], p["class"]): Fraction(p[key]["exact"])
            for p in document["parts"]
        }
        return Breakdown(document["metric"], {c: x for c, x in parts.items() if x})

    names = document["before"]["name"], document["after"]["name"]
    return compare(side("before"), side("after")), names
