"""`memorywall timeline`: the flags of a close look."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from sim.cli.whatif import changed
from sim.clock import ticks
from sim.errors import InputError

_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "": 1.0}
_TIME = re.compile(r"^(\d+\.?\d*(?:[eE][+-]?\d+)?)(s|ms|us|ns|)$")


def timeline(
    context: typer.Context,
    scenario: Annotated[str, typer.Argument(help="As of `run`, or its result folder")],
    window: Annotated[str | None, typer.Option(help="FROM:TO, e.g. 1ms:2.5ms")] = None,
    number: Annotated[
        int | None, typer.Option("--pass", help="A pass; the first that decodes, or the first")
    ] = None,
    layer: Annotated[int | None, typer.Option(help="A layer of the pass, operators named")] = None,
    device: Annotated[list[int] | None, typer.Option(help="Only this one; may be repeated")] = None,
    critical: Annotated[bool, typer.Option(help="Draw the critical path")] = True,
    out: Annotated[Path, typer.Option("--out", "-o", help="NAME.png or NAME.svg: both")] = Path(
        "timeline.png"
    ),
) -> None:
    """Draw what devices do when: a window, a layer, a device, with the critical path."""
    from sim.output.plots.timeline_view import View, plot_view
    from sim.studies.whatif.session import Pictured
    from sim.studies.whatif.subjects import RunSubject, subject

    options = changed(context, Pictured)
    if window and layer is not None:
        raise InputError("--window and --layer both say what to show; give one")
    one = subject(scenario, options.on, options.set)
    if not isinstance(one, RunSubject):
        raise InputError(
            "timeline: a static run is needed; of serving write a Perfetto trace with "
            "`serve --out DIR --trace-window FROM:TO`"
        )
    view = View(
        window=span(window) if window else None,
        number=number,
        layer=layer,
        devices=tuple(device or ()),
        critical=critical,
    )
    stem = out.with_suffix("") if out.suffix in (".png", ".svg") else out
    stem.parent.mkdir(parents=True, exist_ok=True)
    for path in plot_view(one.result, stem, view, options.size):
        typer.echo(f"  written to {path}")


def span(text: str) -> tuple[int, int]:
    """`1ms:2.5ms` in ticks. Raises InputError."""
    first, _, last = text.partition(":")
    found = [_TIME.match(part.strip()) for part in (first or "0", last)]
    begin, end = (ticks(float(m[1]) * _UNITS[m[2]]) if m else -1 for m in found)
    if not 0 <= begin < end:
        raise InputError(f"--window {text!r}: write it as FROM:TO with s, ms or us, e.g. 1ms:2.5ms")
    return begin, end
