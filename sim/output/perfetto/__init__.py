"""A finished run as a trace for ui.perfetto.dev.

A result comes in; a file in Chrome's JSON format goes out, written line by line. The trace of a
serving run (`sim.serve.trace`) is put together from the same events. Nothing is computed here: all
times, rates and hand-offs come from `sim.account`.
"""

from sim.output.perfetto.trace import choose_passes, events, write_trace

__all__ = ["choose_passes", "events", "write_trace"]
