"""From entries to requests: their clock, their rate, their order and their numbers."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import islice

from sim.clock import LONGEST, TICKS_PER_SECOND
from sim.errors import InputError
from sim.inputs.traces.formats import Entry
from sim.inputs.traces.values import BadRow
from workloads.request import Request
from workloads.synthetic import Arrivals, generator

# Entries move within blocks of this many, the most that a shuffle holds.
SHUFFLE_BLOCK = 2**16


class Clock:
    """Times of rows from the start of the trace, in an order that never goes back."""

    def __init__(self, *, rebase: bool) -> None:
        self._base: int | None = None if rebase else 0
        self._latest = 0

    def read(self, time: int | None) -> int:
        assert time is not None, "a format without times needs arrivals"
        if self._base is None:
            self._base = time
        at = time - self._base
        if at < self._latest:
            raise BadRow(
                f"arrives {(self._latest - at) / TICKS_PER_SECOND:g} s before the row above; "
                "sort the trace by arrival"
            )
        self._latest = at
        return at


def scaled(at: int, rate: Fraction) -> int:
    """`at` divided by `rate`, rounded half to even."""
    if rate != 1:
        at = round(at / rate)
    if at >= LONGEST:
        raise BadRow("arrives later than 106 days after the start; cut the trace by a window")
    return at


def requests(entries: Iterator[tuple[int, Entry]]) -> Iterator[Request]:
    """Numbered requests; the calls of a session follow one another."""
    index = 0
    for at, e in entries:
        yield Request(
            index, at, e.prompt, e.output, e.hashes, e.hash_tokens, e.priority, e.id, e.session
        )
        for call in e.then:
            index += 1
            yield Request(
                index,
                at,
                call.prompt,
                call.output,
                session=call.session,
                after=index - 1,
                delay=call.delay,
            )
        index += 1


def shuffled(entries: Iterator[tuple[int, Entry]], seed: int) -> Iterator[tuple[int, Entry]]:
    """The same arrivals with the entries permuted, a block at a time."""
    rng = generator(seed, "shuffle")
    while block := list(islice(entries, SHUFFLE_BLOCK)):
        order = rng.permutation(len(block)).tolist()
        yield from ((at, block[k][1]) for (at, _), k in zip(block, order, strict=True))


def drawn(process: Arrivals, seed: int) -> Iterator[int]:
    """The arrivals of a process; a rule that it finds broken is the user's to mend."""
    try:
        yield from process.ticks(seed)
    except ValueError as error:
        raise InputError(str(error)) from None
