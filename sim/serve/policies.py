"""Batching policies: what the next step of a replica works on.

A policy is a class with `plan(queue)`. It takes requests from `queue.waiting` by `queue.admit` and
returns a `Work`: chunks of prompts, and whether the decoding requests each
generate a token. Register one in POLICIES, or name it by its import path ("module:Class").
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable
from typing import Protocol

import msgspec

from sim.errors import InputError, hint
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
        while not short and queue.preempted == before and budget > 0:
            admitted = queue.admit(min(budget, queue.chunk_limit), whole=False)
            if admitted is None:
                break
            if admitted[1]:
                chunks.append(admitted)
            budget -= admitted[1] or 1  # who is swapped in decodes one
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
            admitted = queue.admit(room, whole=True)
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
    made = imported("scheduler", name, POLICIES)
    if not isinstance(made, type) or not callable(getattr(made, "plan", None)):
        raise InputError(f"scheduler {name!r} is not a class with a method `plan`")
    try:
        found: Policy = made()
    except TypeError as error:
        raise InputError(f"scheduler {name!r} cannot be made without arguments ({error})") from None
    return found


def imported(what: str, name: str, known: Iterable[str]) -> object:
    """What `module:attribute` names. Raises InputError."""
    module, found, attribute = name.partition(":")
    if not (module and found and attribute):
        raise InputError(f"{what} {name!r} is not known{hint(name, known)}")
    # A command that is installed does not look into the folder that it is called in.
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # whatever the module does when it is run
        said = f"{type(error).__name__}: {error}"
        raise InputError(f"{what} {name!r} cannot be imported ({said})") from None


ORDERS = {
    "fcfs": lambda request: 0.0,
    "shortest": lambda request: float(request.prompt),
    "priority": lambda request: -float(request.priority),
}
