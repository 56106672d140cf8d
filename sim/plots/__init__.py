"""Pictures of a finished run. matplotlib is imported when a picture is drawn, not before."""

from sim.plots.account import plot_account
from sim.plots.roofline import plot_roofline
from sim.plots.style import SERIES, STATE_COLOURS, figure, save
from sim.plots.timeline import plot_timeline

__all__ = [
    "SERIES",
    "STATE_COLOURS",
    "figure",
    "plot_account",
    "plot_roofline",
    "plot_timeline",
    "save",
]
