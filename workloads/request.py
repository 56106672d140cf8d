"""One request of a stream: when it comes, what it reads, what it writes.

A request is plain data, as there are millions of them; it knows no policy and no hardware. Times
are ticks (picoseconds, 10**12 per second) from the start of the stream.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal["generate", "encode"]

# The bound of every other size in `workloads`; it lies far above any context in use.
MOST_TOKENS = 2**31
# About 106 days: the longest time that a simulation covers.
LONGEST = 2**63


class Request(msgspec.Struct, frozen=True, gc=False):
    """A request to serve.

    index: its place in the stream, from 0.
    arrival: ticks from the start.
    prompt, output: tokens read and generated; output 0 is a pass through an encoder.
    hashes: ids of the prompt's blocks of `hash_tokens` tokens (the last may be partial); two
        requests share a prefix as far as their ids are equal from the first on.
    priority: what it means is the scheduler's business.
    id, session: names that the source gave, "" if none.
    after, delay: the request comes `delay` ticks after the request of index `after` has
        finished. Its arrival is then unknown until the run; the field holds the arrival of
        the first request of the chain, a lower bound. -1 means that it waits for none.
    """

    index: int
    arrival: int
    prompt: int
    output: int
    hashes: tuple[int, ...] = ()
    hash_tokens: int = 0
    priority: int = 0
    id: str = ""
    session: str = ""
    after: int = -1
    delay: int = 0

    def __post_init__(self) -> None:
        # One comparison a field: streams of a million pass through here.
        if not (
            0 <= self.arrival < LONGEST
            and 0 < self.prompt <= MOST_TOKENS
            and 0 <= self.output <= MOST_TOKENS
            and -1 <= self.after < self.index
            and 0 <= self.delay < LONGEST
            and (not self.hashes or self.hash_tokens > 0)
        ):
            raise ValueError(_broken(self))

    @property
    def kind(self) -> Kind:
        """`encode` if nothing is generated, else `generate`."""
        return "generate" if self.output else "encode"


def _broken(request: Request) -> str:
    """The rule that a refused request breaks, in one sentence."""
    where = f"request {request.index}"
    if request.index < 0:
        return f"{where}: an index counts from 0"
    if not 0 <= request.arrival < LONGEST:
        return f"{where}: arrival = {request.arrival} ticks is outside 0 to 106 days"
    if not 0 < request.prompt <= MOST_TOKENS:
        return f"{where}: prompt = {request.prompt} tokens is outside 1 to {MOST_TOKENS}"
    if not 0 <= request.output <= MOST_TOKENS:
        return f"{where}: output = {request.output} tokens is outside 0 to {MOST_TOKENS}"
    if not -1 <= request.after < request.index:
        return f"{where}: after = {request.after} must be -1 or the index of an earlier request"
    if not 0 <= request.delay < LONGEST:
        return f"{where}: delay = {request.delay} ticks is outside 0 to 106 days"
    return f"{where}: {len(request.hashes)} hashes need hash_tokens > 0, the tokens of a block"
