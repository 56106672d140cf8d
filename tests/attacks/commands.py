"""Commands that take a moment each, to which an attack adds something."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Attempt(NamedTuple):
    """A command and what is special about it.

    prepare: makes its file, where that takes long enough to be left to those who try it.
    """

    what: str
    words: tuple[str, ...]
    prepare: Callable[[], object] | None = None


QUICK = ("--no-pictures",)
TINY = ("gpt2", "--on", "h100-sxm")
POINTS = (*TINY, "--grid", "batch=1,2", "--workers", "1")
SERVE = ("serve", *TINY, "--prompt", "fixed:32", "--output", "fixed:4", *QUICK)
DRAWN = ("--arrivals", "poisson:20", "--num-requests", "10")
COMMANDS: dict[str, tuple[str, ...]] = {
    "run": ("run", *TINY, "--output", "2", "--no-what-if", *QUICK),
    "serve": (*SERVE, *DRAWN),
    "sweep": ("sweep", *POINTS, *QUICK),
    "map": ("map", *POINTS, *QUICK),
    "recommend": ("recommend", *POINTS, "--devices", "1", "--slo-ttft", "1"),
    "compare": ("compare", *TINY, "--set", "output=2", *QUICK),
    "sensitivity": ("sensitivity", *TINY, "--set", "output=2", *QUICK),
    "trend": ("trend", "gpt2", "--set", "output=2", *QUICK),
    "timeline": ("timeline", *TINY, "--set", "output=2"),
    "validate": ("validate", "missing", *QUICK),
    "calibrate": ("calibrate", "missing", "--device", "h100-sxm"),
    "measure": ("measure", "--only", "nothing", "--quick"),
}
