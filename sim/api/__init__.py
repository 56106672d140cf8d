"""The functions that Python programs and notebooks call, and the results that they get.

Scenarios come in, or names with keys as keyword arguments. Results go out that show themselves,
become dictionaries, tables and pictures, and are written as the commands write them.
"""

from sim.api.runs import RunResult, run, simulate
from sim.api.served import ServeResult, serve
from sim.api.studies import (
    ComparisonResult,
    Recommendation,
    SensitivityResult,
    SweepResult,
    compare,
    recommend,
    sensitivity,
    sweep,
)

__all__ = [
    "ComparisonResult",
    "Recommendation",
    "RunResult",
    "SensitivityResult",
    "ServeResult",
    "SweepResult",
    "compare",
    "recommend",
    "run",
    "sensitivity",
    "serve",
    "simulate",
    "sweep",
]
