"""Charts of a report as plain data that Plotly draws in the browser.

Plotly reads a few tags in texts, so every text from outside goes through `text` here. It draws
`%{...}` in a template, so names stand in `customdata` and never in a template.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from sim.errors import printable
from sim.output.plots.style import FAINT, INK, SERIES, STATE_COLOURS, STATE_NAMES

Trace = dict[str, Any]
BAR_HEIGHT, AROUND = 26, 100  # pixels: of a bar with its gap, and of axis and legend
OTHER = SERIES[-1]  # the colour of a state that has none
LEGEND = {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.0, "yanchor": "bottom"}
GRID = {"gridcolor": "#E6E6E6", "zeroline": False, "linecolor": FAINT, "automargin": True}


class View(msgspec.Struct, frozen=True):
    """One choice of a chart: the traces whose `meta` is its number are shown, with its layout."""

    label: str
    layout: dict[str, Any] = {}


class Chart(msgspec.Struct, frozen=True):
    """A chart: Plotly's traces and layout. With `views` a list above it chooses among them."""

    name: str
    title: str
    data: Sequence[Trace]
    layout: dict[str, Any]
    note: str = ""
    views: Sequence[View] = ()
    choose: str = "show"  # the word before the list


def text(value: Any) -> str:
    """A text from outside as Plotly shows it: no tags in it."""
    return html.escape(printable(str(value)), quote=False)


def micro(amounts: str) -> str:
    """Our own words about times as a page writes them: with the sign of micro, not a u."""
    return amounts.replace(" us", " µs")


def colour_of(state: str) -> str:
    """The colour of a state as in the pictures."""
    return STATE_COLOURS.get(state, OTHER)


def name_of(state: str) -> str:
    """The name of a state as in the pictures."""
    return STATE_NAMES.get(state, state)


def layout(height: int, **more: Any) -> dict[str, Any]:
    """The look that all charts share."""
    return {
        "height": height,
        "font": {"family": "DejaVu Sans, Helvetica, Arial, sans-serif", "size": 12, "color": INK},
        "margin": {"l": 10, "r": 40, "t": 40, "b": 50},
        "modebar": {"orientation": "v", "bgcolor": "white"},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "legend": {**LEGEND, "traceorder": "normal"},
        "hoverlabel": {"align": "left", "namelength": -1},
        **more,
    }


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis with a name and its unit."""
    return {"title": {"text": title, "standoff": 8}, **GRID, **more}


def bar_look(title: str, bars: int = 1) -> dict[str, Any]:
    """The layout of so many horizontal bars, the first on top."""
    return layout(
        AROUND + BAR_HEIGHT * max(2, bars),
        barmode="stack",
        bargap=0.25,
        hovermode="closest",
        xaxis=axis(title, rangemode="tozero"),
        yaxis={**GRID, "autorange": "reversed", "type": "category", "fixedrange": True},
    )


Bars = Sequence[tuple[str, Mapping[str, float]]]  # label, amount by state


class Stacked(msgspec.Struct, frozen=True, kw_only=True):
    """Horizontal bars that add up their states, with a view for each way to divide the time.

    axis: what the amounts are, with their `unit`. colours, names: of the states.
    """

    name: str
    title: str
    views: Mapping[str, Bars]
    unit: str
    axis: str
    note: str = ""
    colours: Mapping[str, str] = msgspec.field(default_factory=lambda: STATE_COLOURS)
    names: Mapping[str, str] = msgspec.field(default_factory=lambda: STATE_NAMES)

    def chart(self) -> Chart:
        """The bars as a chart."""
        data, choices = [], []
        for number, (label, bars) in enumerate(self.views.items()):
            data += [{**t, "meta": number, "visible": number == 0} for t in self._traces(bars)]
            choices.append(View(label, {"height": bar_look("", len(bars))["height"]}))
        look = bar_look(f"{self.axis} ({self.unit})", len(next(iter(self.views.values()))))
        views = choices if len(choices) > 1 else ()
        return Chart(self.name, self.title, data, look, self.note, views)

    def _traces(self, bars: Bars) -> Iterable[Trace]:
        totals = [sum(parts.values()) for _, parts in bars]
        for state in dict.fromkeys(state for _, parts in bars for state in parts):
            x = [parts.get(state, 0.0) for _, parts in bars]
            if any(x):
                name = self.names.get(state, state)
                yield {
                    "type": "bar",
                    "orientation": "h",
                    "name": name,
                    "y": [text(label) for label, _ in bars],
                    "x": x,
                    "customdata": [
                        a / all_ if all_ else 0.0 for a, all_ in zip(x, totals, strict=True)
                    ],
                    "marker": {"color": self.colours.get(state, OTHER)},
                    "hovertemplate": f"%{{y}}<br>{name}: %{{x:.4~g}} {self.unit}"
                    " (%{customdata:.1%})<extra></extra>",
                }
