"""Public request traces. A CSV or JSON Lines file comes in; its columns tell its format.

A stream of `Request` records goes out, read in bounded memory.
A row that cannot be a request is counted with its reason.
"""

from sim.inputs.traces.formats import FORMATS, Entry, Format
from sim.inputs.traces.trace import Selection, Trace, read_trace
from sim.inputs.traces.values import BadRow

__all__ = ["FORMATS", "BadRow", "Entry", "Format", "Selection", "Trace", "read_trace"]
