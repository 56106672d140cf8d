"""Batching policies: what the next step of a replica works on.

A policy is a class with `plan(queue)`. It takes requests from `queue.waiting` by `queue.admit` and
returns a `Work`: chunks of prompts, and whether the decoding requests each
generate a token. Register one in POLICIES, or name it by its import path ("module:Class").
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from sim.errors import InputError, quoted
from sim.inputs.plugins import explained, imported, place_of
from sim.serve.live import Live
from sim.serve.queue import RequestQueue


class Work(msgspec.Struct, frozen=True):
    """A step: chunks of prompts, and whether all decoding requests take part.

    wake: with nothing to do, the tick at which to ask again. padded: every chunk costs as much
    as the longest.
    """

    chunks: list[tuple[Live, int]]
    decode: bool
    wake: int = 0
    padded: bool = False


class Policy(Protocol):
    """What a batching policy has to do."""

    def plan(self, queue: RequestQueue) -> Work: ...


class ChunkedPrefill:
    """Decode first, then chunks of prompts up to the token budget (Sarathi-Serve, vLLM v1).

    Source: Agrawal et al. 2024, arXiv 2403.02310.
    """

    def plan(self, queue: RequestQueue) -> Work:
        before = queue.preempted
        short = not queue.make_room(0, None)
        budget = queue.knobs.max_num_batched_tokens - len(queue.decoding)
        chunks: list[tuple[Live, int]] = []
        for live in list(queue.filling):
            size = min(live.target - live.computed, budget, queue.chunk_limit)
            if live not in queue.filling or size <= 0:
                continue
            if not queue.make_room(queue.growth(live, size), live):
                short = True
                continue
            queue.grow(live, size)
            chunks.append((live, size))
            budget -= size
        while queue.waiting and not short and queue.preempted == before and budget > 0:
            admitted = queue.admit(min(budget, queue.chunk_limit), entire=False)
            if admitted is None:
                break
            if admitted[1]:
                chunks.append(admitted)
            budget -= admitted[1] or 1  # who is swapped in decodes one
        if queue.preempted > before:
            chunks = [(live, size) for live, size in chunks if live in queue.filling]
        return Work(chunks, queue.take_decode())


class PrefillFirst:
    """Whole prompts as soon as they fit, else a decode step (Orca, vLLM v0).

    Source: Yu et al. 2022 (Orca, OSDI 22); Kwon et al. 2023, arXiv 2309.06180.
    """

    def plan(self, queue: RequestQueue) -> Work:
        budget = queue.knobs.max_num_batched_tokens
        chunks: list[tuple[Live, int]] = []
        while budget > 0:
            # A prompt beyond the budget goes alone; it could not go otherwise.
            room = budget if chunks else 2**62
            admitted = queue.admit(room, entire=True)
            if admitted is None:
                break
            if admitted[1]:
                chunks.append(admitted)
            budget -= admitted[1]
        if chunks:
            return Work(chunks, False)
        queue.make_room(0, None)
        return Work([], queue.take_decode())


class Static:
    """A batch is filled, run until its last request has ended, and only then replaced.

    Its prompts may take several steps; decoding begins when the batch is full or nobody waits,
    and from then on nobody joins.
    """

    def plan(self, queue: RequestQueue) -> Work:
        if any(queue.has_decoded(live) for live in queue.running):
            queue.make_room(0, None)
            work = Work([], queue.take_decode())
        else:
            work = PrefillFirst().plan(queue)
        if work.decode:
            queue.blocked = True
        return work


class Dynamic:
    """Whole requests gathered until the batch is full (sequences or tokens) or the first has
    waited long enough.

    For encoders (embedding, classification). `padded` runs a batch at its longest length; the
    token budget counts tokens without their padding. What generates goes on continuously.
    """

    def plan(self, queue: RequestQueue) -> Work:
        knobs = queue.knobs
        if queue.decoding or queue.filling or not queue.waiting:
            return PrefillFirst().plan(queue)
        due = min(live.since for _, live in queue.waiting) + knobs.max_wait_ticks
        tokens = sum(live.target for _, live in queue.waiting)
        full = len(queue.waiting) >= knobs.max_num_seqs or tokens >= knobs.max_num_batched_tokens
        if not full and queue.now < due:
            return Work([], False, wake=due)
        work = PrefillFirst().plan(queue)
        return msgspec.structs.replace(work, padded=knobs.padded)


POLICIES: dict[str, type[Policy]] = {
    "chunked": ChunkedPrefill,
    "prefill-first": PrefillFirst,
    "static": Static,
    "dynamic": Dynamic,
}


def policy(name: str) -> Policy:
    """A policy by its name or its import path. Raises InputError with what is known."""
    if name in POLICIES:
        return POLICIES[name]()
    plugin = imported("scheduler", name, POLICIES)
    if not isinstance(plugin, type) or not callable(getattr(plugin, "plan", None)):
        raise InputError(f"scheduler {quoted(name)} is not a class with a method `plan`")
    with explained("scheduler", name, "cannot be created without arguments: it raised"):
        return PluginPolicy(name, plugin())


class PluginPolicy:
    """A policy that a user has written. Each of its errors becomes one sentence."""

    def __init__(self, name: str, policy: Policy) -> None:
        self.name, self.policy = name, policy

    def plan(self, queue: RequestQueue) -> Work:
        queue.decode_taken = False
        with explained("scheduler", self.name):
            work = self.policy.plan(queue)
        mistake = _mistake(work, queue)
        if mistake:
            place = place_of(type(self.policy).plan)
            raise InputError(f"scheduler {quoted(self.name)}: `plan` returned {mistake}{place}")
        return work


def _mistake(work: object, queue: RequestQueue) -> str:
    """What is wrong with the work that a plug-in planned; "" if nothing is."""
    if not isinstance(work, Work):
        return f"a {type(work).__name__}, where a `Work` is needed"
    if type(work.wake) is not int or type(work.decode) is not bool:
        return "a `Work` whose `wake` is no int or whose `decode` is no bool"
    if work.decode != queue.decode_taken:
        return f"decode = {work.decode}, but `queue.take_decode()` said {queue.decode_taken}"
    seen: set[int] = set()
    for chunk in work.chunks if isinstance(work.chunks, list) else [work.chunks]:
        if not (isinstance(chunk, tuple) and len(chunk) == 2 and isinstance(chunk[0], Live)):
            return f"a {type(chunk).__name__} as a chunk, where (request, tokens) is needed"
        live, size = chunk
        number, left = live.request.index, live.target - live.computed
        if live not in queue.filling or number in seen:
            return f"a chunk of request {number}, which has no prompt left or is there twice"
        if type(size) is not int or not 1 <= size <= left:
            return f"a chunk of {size!r} tokens of request {number}, which has {left} left"
        held = live.blocks + len(live.shared) * queue.blocks.per_hash(live.request)
        if held < queue.blocks.needed(live.computed + size):
            return f"a chunk of request {number} whose blocks it did not take (`queue.grow`)"
        seen.add(number)
    return ""


ORDERS = {
    "fcfs": lambda request: 0.0,
    "shortest": lambda request: float(request.prompt),
    "priority": lambda request: -float(request.priority),
}
