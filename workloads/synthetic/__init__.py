"""Synthetic streams of requests: an arrival process, lengths and one seed.

Arrivals, prompts and outputs each draw from a stream of their own. Only one chunk is held
at a time, and the stream does not depend on its size.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from workloads.request import Request
from workloads.synthetic.arrivals import (
    Arrivals,
    ClosedLoop,
    Constant,
    Gamma,
    Piecewise,
    Poisson,
)
from workloads.synthetic.lengths import (
    Empirical,
    Fixed,
    LengthDistribution,
    Lognormal,
    Pairs,
    Uniform,
    Zipf,
)
from workloads.synthetic.specs import parse_arrivals, parse_lengths
from workloads.synthetic.streams import CHUNK, generator

__all__ = [
    "Arrivals",
    "ClosedLoop",
    "Constant",
    "Empirical",
    "Fixed",
    "Gamma",
    "LengthDistribution",
    "Lognormal",
    "Pairs",
    "Piecewise",
    "Poisson",
    "Uniform",
    "Zipf",
    "generator",
    "parse_arrivals",
    "parse_lengths",
    "synthetic",
]


def synthetic(
    num_requests: int,
    arrivals: Arrivals,
    prompt: LengthDistribution | Pairs,
    output: LengthDistribution | None = None,
    seed: int = 42,
    *,
    chunk: int = CHUNK,
) -> Iterator[Request]:
    """`num_requests` requests, or fewer where the arrivals end before (`Piecewise`).

    `Pairs` as the prompt brings its own outputs; without outputs the requests are passes
    through an encoder.
    """
    if num_requests < 0:
        raise ValueError(f"num_requests = {num_requests}: must be 0 or more")
    if chunk < 1:
        raise ValueError(f"chunk = {chunk}: must be 1 or more")
    if isinstance(prompt, Pairs) and output is not None:
        raise ValueError("pairs bring their own outputs; leave the output away")
    if prompt == Fixed(0):
        raise ValueError("a prompt of 0 tokens cannot be served; use at least 1")
    times = islice(arrivals.ticks(seed, chunk=chunk), num_requests)
    lengths = _lengths(prompt, Fixed(0) if output is None else output, seed, chunk)
    # zip asks the times first, so that no length is drawn for a request that never comes.
    both = enumerate(zip(times, lengths, strict=False))
    return (Request(index, time, read, written) for index, (time, (read, written)) in both)


def _lengths(
    prompt: LengthDistribution | Pairs, output: LengthDistribution, seed: int, chunk: int
) -> Iterator[tuple[int, int]]:
    """Prompt and output of one request after the other, without end."""
    if isinstance(prompt, Pairs):
        rng = generator(seed, "lengths")
        while True:
            prompts, outputs = prompt.draw_pairs(rng, chunk)
            yield from zip(prompts.tolist(), outputs.tolist(), strict=True)
    prompt_rng, output_rng = generator(seed, "prompt"), generator(seed, "output")
    while True:
        prompts, outputs = prompt.draw(prompt_rng, chunk), output.draw(output_rng, chunk)
        yield from zip(prompts.tolist(), outputs.tolist(), strict=True)
