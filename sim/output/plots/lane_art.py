"""How a lane looks: intervals as they are, or their shares of each pixel as a small image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sim.account.lanes import LANES
from sim.output.plots.lane_data import Intervals, Lane, Window, pixels
from sim.output.plots.style import STATE_COLOURS
from sim.states import STATES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LANE_COLOURS = dict(zip(LANES, ("launch", "compute", "hbm", "link"), strict=True))
PIXELS, ROWS = 800, 48  # of a lane
EXACT = 260  # intervals up to which each is drawn as it is
STATE, PART = 1.7, 0.8  # heights of the two kinds of lanes


class TimeAxis(NamedTuple):
    """The horizontal axis of a picture: the ticks that it shows, the tick that is 0, and the
    ticks of one unit."""

    window: Window
    origin: int
    size: float

    def at(self, ticks: Any) -> Any:
        """The place of ticks on the axis; numbers or arrays."""
        return (ticks - self.origin) / self.size


def draw_states(ax: Axes, lane: Lane, axis: TimeAxis, y: float) -> None:
    """The states as they follow one another, or stacked by their shares of each pixel."""
    window = axis.window
    seen = {s: lane.states[s].between(window) for s in STATES}
    if exact(lane, window):
        for state, intervals in seen.items():
            _bars(ax, intervals, axis, y, STATE, STATE_COLOURS[state])
        return
    edges = pixels(window, PIXELS)
    shares = [seen[s].binned(edges) / np.diff(edges) for s in STATES]
    _image(ax, shares, [STATE_COLOURS[s] for s in STATES], axis.at(edges), y, STATE)


def draw_part(ax: Axes, lane: Lane, part: str, axis: TimeAxis, y: float) -> None:
    """A part of a device: full height where it is busy, less where it is busy at times."""
    window = axis.window
    intervals, height = lane.busy[part].between(window), PART - 0.16
    colour = STATE_COLOURS[LANE_COLOURS[part]]
    if exact(lane, window):
        _bars(ax, intervals, axis, y, height, colour)
        return
    edges = pixels(window, PIXELS)
    share = intervals.binned(edges) / np.diff(edges)
    _image(ax, [share], [colour], axis.at(edges), y, height)


def exact(lane: Lane, window: Window) -> bool:
    """Whether a window holds so little that each interval is drawn as it is."""
    return sum(len(lane.states[s].between(window).begin) for s in STATES) <= EXACT


def _bars(
    ax: Axes, intervals: Intervals, axis: TimeAxis, y: float, height: float, colour: str
) -> None:
    from matplotlib.collections import PolyCollection

    left, right = axis.at(intervals.begin), axis.at(intervals.end)
    top = y + height * intervals.duty
    corners = [[(a, y), (b, y), (b, t), (a, t)] for a, b, t in zip(left, right, top, strict=True)]
    ax.add_collection(PolyCollection(corners, facecolor=colour, linewidth=0, zorder=2))


def _image(
    ax: Axes,
    shares: list[npt.NDArray[np.float64]],
    colours: list[str],
    edges: npt.NDArray[np.float64],
    y: float,
    height: float,
) -> None:
    """Shares stacked from below, one column per pixel, so that the file stays small."""
    from matplotlib.colors import to_rgba

    level = (np.arange(ROWS) + 0.5)[:, None] / ROWS
    picture = np.zeros((ROWS, len(edges) - 1, 4))
    below = np.zeros(len(edges) - 1)
    for share, colour in zip(shares, colours, strict=True):
        picture[(level > below) & (level <= below + share)] = to_rgba(colour)
        below = below + share
    ax.imshow(
        picture,
        extent=(float(edges[0]), float(edges[-1]), y, y + height),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        zorder=2,
    )
