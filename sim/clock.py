"""Time is an integer number of picoseconds, so that sums are exact everywhere."""

from __future__ import annotations

from sim.errors import InputError

TICKS_PER_SECOND = 10**12
# About 106 days; a duration beyond it is a mistake in the input, not a simulation.
LONGEST = 2**63


def ticks(seconds: float) -> int:
    """The one way from seconds to ticks (picoseconds), rounded half to even.

    Raises InputError for a duration that is negative, not a number, or beyond 106 days.
    """
    exact = seconds * TICKS_PER_SECOND
    if not 0 <= exact < LONGEST:
        raise InputError(
            f"a duration of {seconds:.4g} s is outside 0 s to 106 days; lower the work or check "
            "the rates"
        )
    return round(exact)


def seconds(t: int) -> float:
    """Ticks as seconds, for output."""
    return t / TICKS_PER_SECOND
