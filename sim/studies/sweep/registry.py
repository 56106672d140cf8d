"""The two kinds of point by name: a static run and a serving run."""

from __future__ import annotations

from sim.studies.sweep.kinds import Kind
from sim.studies.sweep.static import STATIC


def kind_of(name: str) -> Kind:
    """`run` or `serve`. The module of `serve` is imported at its first use."""
    if name == "run":
        return STATIC
    from sim.studies.sweep.serving import SERVING

    return SERVING
