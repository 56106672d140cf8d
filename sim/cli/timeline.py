"""`memorywall timeline`: draw a part of a run."""

from __future__ import annotations

import re

import typer

from sim.cli.options import open_record_of
from sim.cli.whatif import Subject
from sim.clock import ticks
from sim.errors import InputError, quoted
from workloads.numbers import DECIMAL

_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "": 1.0}
_TIME = re.compile(rf"^(?!-)({DECIMAL})(s|ms|us|ns|)$")


def timeline(context: typer.Context, scenario: Subject) -> None:
    """Draw what devices do when: a window, a layer, a device, with the critical path."""
    from sim.output.files import check_file
    from sim.output.plots.timeline_view import View, plot_view
    from sim.output.terminal import print_document, terminal
    from sim.studies.whatif.session import TimelineOptions
    from sim.studies.whatif.subjects import RunSubject, subject

    options = open_record_of(context, TimelineOptions)
    if options.window and options.layer is not None:
        raise InputError("--window and --layer both say what to show; give one")
    out = options.picture
    stem = out.with_suffix("") if out.suffix in (".png", ".svg") else out
    for path in (out, *(stem.with_name(stem.name + suffix) for suffix in (".png", ".svg"))):
        check_file(path)
    one = subject(scenario, options.on, options.set)
    if not isinstance(one, RunSubject):
        raise InputError(
            "timeline: a static run is needed; of serving write a Perfetto trace with "
            "`serve --out DIR --trace-window FROM:TO`"
        )
    view = View(
        window=span(options.window) if options.window else None,
        number=options.number,
        layer=options.layer,
        devices=options.device,
        critical=options.critical,
    )
    written = plot_view(one.result, stem, view, options.size)
    for path in written:
        terminal().print(f"  written to {path}")
    print_document("timeline", lambda: {"files": [str(path) for path in written]})


def span(text: str) -> tuple[int, int]:
    """`1ms:2.5ms` in ticks. Raises InputError."""
    first, _, last = text.partition(":")
    matches = [_TIME.match(part.strip()) for part in (first or "0", last)]
    begin, end = (ticks(float(m[1]) * _UNITS[m[2]]) if m else -1 for m in matches)
    if not 0 <= begin < end:
        raise InputError(
            f"--window {quoted(text)}: write it as FROM:TO with s, ms or us, e.g. 1ms:2.5ms"
        )
    return begin, end
