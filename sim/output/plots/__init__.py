"""Pictures of a finished run. A result and its account come in; PNG and SVG files go out.

matplotlib is imported when a picture is drawn, not before.
"""

from sim.output.plots.account import plot_account
from sim.output.plots.roofline import plot_roofline
from sim.output.plots.style import SERIES, STATE_COLOURS, figure, save
from sim.output.plots.timeline import plot_timeline

__all__ = [
    "SERIES",
    "STATE_COLOURS",
    "figure",
    "plot_account",
    "plot_roofline",
    "plot_timeline",
    "save",
]
