"""Public request traces as streams of `Request`, told apart by their columns."""

from sim.traces.formats import FORMATS, Entry, Format
from sim.traces.trace import Trace, read_trace
from sim.traces.values import BadRow

__all__ = ["FORMATS", "BadRow", "Entry", "Format", "Trace", "read_trace"]
