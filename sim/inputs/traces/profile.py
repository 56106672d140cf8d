"""What a trace holds: its rate, its burstiness, its lengths, its shared prefixes."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import msgspec
import numpy as np

from sim.clock import TICKS_PER_SECOND
from workloads.request import Request

PERCENTILES = (50, 90, 99)


class Lengths(msgspec.Struct, frozen=True):
    """Tokens per request: mean, percentiles by PERCENTILES, largest."""

    mean: float
    percentiles: tuple[float, ...]
    largest: int


class TraceProfile(msgspec.Struct, frozen=True):
    """Numbers of a trace.

    span_s: from the first arrival to the last. rate: requests per second over that span, None
    without arrival times. burstiness: the standard deviation of the gaps between arrivals over
    their mean; 1 for a Poisson process, above it for bursts. sessions: of more than one request.
    shared_prompt: the share of prompt tokens in blocks whose hash occurred before.
    """

    requests: int
    span_s: float
    rate: float | None
    burstiness: float | None
    prompt: Lengths
    output: Lengths
    sessions: int
    shared_prompt: float | None


def profile_of(requests: Iterable[Request], *, timed: bool = True) -> TraceProfile:
    """The profile of a stream of requests. Raises ValueError for an empty one.

    timed: whether its arrivals are those of the trace.
    """
    arrivals, prompts, outputs = array("q"), array("q"), array("q")
    seen: set[int] = set()
    by_session: dict[str, int] = {}
    hashed = shared = 0
    for request in requests:
        arrivals.append(request.arrival)
        prompts.append(request.prompt)
        outputs.append(request.output)
        if request.session:
            by_session[request.session] = by_session.get(request.session, 0) + 1
        for number, block in enumerate(request.hashes):
            rest = request.prompt - number * request.hash_tokens
            hashed += min(rest, request.hash_tokens)
            shared += min(rest, request.hash_tokens) if block in seen else 0
        seen.update(request.hashes)
    if not arrivals:
        raise ValueError("holds no request")
    ticks = np.frombuffer(arrivals, np.int64)
    gaps = np.diff(ticks)
    span = float(ticks[-1] - ticks[0]) / TICKS_PER_SECOND
    spread_out = timed and span > 0
    return TraceProfile(
        len(arrivals),
        span if timed else 0.0,
        len(gaps) / span if spread_out else None,
        float(gaps.std() / gaps.mean()) if spread_out else None,
        _lengths(prompts),
        _lengths(outputs),
        sum(count > 1 for count in by_session.values()),
        shared / hashed if hashed else None,
    )


def _lengths(tokens: array[int]) -> Lengths:
    values = np.frombuffer(tokens, np.int64)
    ranks = tuple(float(x) for x in np.percentile(values, PERCENTILES))
    return Lengths(float(values.mean()), ranks, int(values.max()))
