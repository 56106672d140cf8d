"""How often one run beats another, over random draws of their kernels' residuals."""

from __future__ import annotations

import zlib

from sim.account.intervals import Array, Class, beats, stretches
from sim.studies.whatif.parts import Breakdown
from sim.studies.whatif.subjects import RunSubject, Subject


def chance(before: Subject, after: Subject, was: Breakdown, now: Breakdown) -> float | None:
    """The share of draws in which `now` is shorter than `was`; None where residuals are unknown,
    or of serving runs. The same device draws the same factors on both sides."""
    if not isinstance(before, RunSubject) or not isinstance(after, RunSubject):
        return None
    drawn = [_draws(one, breakdown) for one, breakdown in ((before, was), (after, now))]
    return beats(float(now.total), drawn[1], float(was.total), drawn[0])


def _draws(subject: RunSubject, breakdown: Breakdown) -> Array | None:
    device, model = subject.resolved.machine.device, subject.resolved.model
    phase = {"ttft": "prefill", "tpot": "decode"}.get(breakdown.metric, "")
    if not phase:  # of both, and mostly of this
        phase = "encode" if model.decoder is None else _longer(subject)
    times: dict[Class, int] = {}
    for cause, x in breakdown.by("kind").items():
        if cause.kind:
            times[phase, cause.kind] = round(x)
    seed = zlib.crc32(device.name.encode())
    return stretches(times, device.efficiency, subject.resolved.precision.activations, seed)


def _longer(subject: RunSubject) -> str:
    """The phase that a run spends most of its time in."""
    spent = {str(key[0]): sum(states) for key, states in subject.result.account.by("phase").items()}
    return max(("prefill", "decode"), key=lambda phase: spent.get(phase, 0))


def sentence(share: float | None) -> str:
    """`the second is shorter in 83% of random draws`, or nothing."""
    return "" if share is None else f"the second is shorter in {share:.0%} of random draws"
