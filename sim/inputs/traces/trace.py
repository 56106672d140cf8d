"""A trace as a stream of requests: read, checked, cut to a window, scaled, shuffled.

Rows are read as the stream is consumed; memory does not grow with their number. The steps
come in this order: arrival, window, rate, limit, shuffle.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Literal, get_args

import msgspec

from sim.clock import TICKS_PER_SECOND
from sim.errors import InputError, hint, quoted
from sim.inputs.traces.files import Limits, TraceFile
from sim.inputs.traces.formats import FORMATS, Entry, tell
from sim.inputs.traces.rows import Source, open_source
from sim.inputs.traces.samples import trace_path
from sim.inputs.traces.stream import Clock, drawn, requests, scaled, shuffled
from sim.inputs.traces.values import BadRow
from workloads.request import Request
from workloads.synthetic import Arrivals, generator

OnBadRow = Literal["fail", "skip"]
# Seconds on the trace's clock from time 0; an end of None is open.
Window = tuple[float, float | None]
REASONS = 5


class Tally:
    """What one reading left out.

    skipped: bad rows. failures: requests that the trace itself records as failed.
    reasons: the first few bad rows, in one sentence each.
    """

    def __init__(self) -> None:
        self.skipped = 0
        self.failures = 0
        self.reasons: list[str] = []


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which requests of a trace are read, and how.

    on_bad_row: `fail` raises InputError at a bad row, `skip` leaves it out and counts it.
    window: (start, end) in seconds; requests of [start, end) are kept, and start becomes 0.
    rate_scale: 2 halves all times between arrivals (not the delays within a session).
    limit: the largest number of requests.
    shuffle_seed: the arrivals stay, the requests are permuted within blocks of 65,536 rows.
    limits: what the file may ask of its reader.
    """

    on_bad_row: OnBadRow = "fail"
    window: Window | None = None
    rate_scale: float = 1.0
    limit: int | None = None
    shuffle_seed: int | None = None
    limits: Limits = Limits()


EVERYTHING = Selection()


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a trace is read, in ticks and exact ratios."""

    skip: bool
    start: int
    end: int | None
    rate: Fraction
    limit: int | None
    shuffle_seed: int | None
    seed: int


class Trace:
    """The requests of a file; each iteration reads it again and gives the same.

    `skipped`, `failures` and `reasons` tell of the latest iteration.
    """

    def __init__(
        self,
        file: TraceFile,
        source: Source,
        form: str,
        arrivals: Arrivals | None,
        options: Options,
    ) -> None:
        self.file, self.path = file, file.path
        self.format = form
        self._source = source
        self._arrivals = arrivals
        self._options = options
        self._tally = Tally()

    @property
    def skipped(self) -> int:
        return self._tally.skipped

    @property
    def failures(self) -> int:
        return self._tally.failures

    @property
    def reasons(self) -> tuple[str, ...]:
        return tuple(self._tally.reasons)

    def __iter__(self) -> Iterator[Request]:
        self._tally = Tally()
        entries = self._entries(self._tally)
        if self._options.limit is not None:
            entries = islice(entries, self._options.limit)
        if self._options.shuffle_seed is not None:
            entries = shuffled(entries, self._options.shuffle_seed)
        return islice(requests(entries), self._options.limit)

    def _entries(self, tally: Tally) -> Iterator[tuple[int, Entry]]:
        """Good rows in the window and their arrivals."""
        form = FORMATS[self.format]
        process = drawn(self._arrivals, self._options.seed) if self._arrivals else None
        clock = Clock(rebase=form.rebase)
        for number, row in self._source.rows():
            try:
                if isinstance(row, BadRow):
                    raise row
                entry = form.parse(row)
                if entry is None:
                    tally.failures += 1
                    continue
                at = clock.read(entry.time) if process is None else next(process, None)
                if at is None or (self._options.end is not None and at >= self._options.end):
                    return
                if at < self._options.start:
                    continue
                at = scaled(at - self._options.start, self._options.rate)
            except BadRow as bad:
                self._refuse(number, bad, tally)
            else:
                yield at, entry

    def _refuse(self, number: int, bad: BadRow, tally: Tally) -> None:
        sentence = f"{self.path}, {self._source.unit} {number}: {bad.sentence()}"
        if not self._options.skip:
            raise InputError(f"{sentence} (`--on-bad-row skip` would leave it out, and count it)")
        tally.skipped += 1
        if len(tally.reasons) < REASONS:
            tally.reasons.append(sentence)


def read_trace(
    path: str | Path,
    selection: Selection = EVERYTHING,
    *,
    arrivals: Arrivals | None = None,
    lengths_alone: Arrivals | None = None,
    seed: int = 42,
) -> Trace:
    """The trace at `path`, or the sample of that name; its columns show its format.

    `arrivals` replaces the arrival times of the trace, with random numbers from `seed`; a trace
    without arrival times needs it, or takes `lengths_alone`. Each session takes one arrival, and
    the trace ends with the arrivals. Raises InputError for a selection that cannot be and for a
    file that is no trace.
    """
    file = TraceFile(trace_path(path), selection.limits)
    on_bad_row, limit, window = selection.on_bad_row, selection.limit, selection.window
    shuffle_seed = selection.shuffle_seed
    if on_bad_row not in get_args(OnBadRow):
        raise InputError(f"on_bad_row = {quoted(on_bad_row)}{hint(on_bad_row, get_args(OnBadRow))}")
    if limit is not None and limit < 0:
        raise InputError(f"limit = {limit}: must be 0 or more")
    start, end = window or (0, None)
    options = Options(
        skip=on_bad_row == "skip",
        start=_ticks(start, "window start"),
        end=None if end is None else _ticks(end, "window end"),
        rate=_ratio(selection.rate_scale),
        limit=limit,
        shuffle_seed=shuffle_seed,
        seed=seed,
    )
    if options.end is not None and options.end <= options.start:
        raise InputError(f"window = {start}, {end}: must end after its start")
    source = open_source(file, skip=options.skip)
    try:
        form = tell(source.columns)
        for used in (seed, shuffle_seed or 0):
            generator(used, "arrivals")  # refuses what is no seed
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    if not FORMATS[form].timed and arrivals is None:
        arrivals = lengths_alone
    if not FORMATS[form].timed and arrivals is None:
        raise InputError(
            f"{path}: {form} holds lengths without arrival times; "
            "give an arrival process such as poisson:6"
        )
    return Trace(file, source, form, arrivals, options)


def _ticks(seconds: float, what: str) -> int:
    """Seconds of an option as ticks, exactly as they are written."""
    try:
        exact = Decimal(str(seconds)) * TICKS_PER_SECOND
        if 0 <= exact < 10**24:
            return int(exact.to_integral_value())
    except InvalidOperation:
        pass
    raise InputError(f"{what} = {seconds} s: must be a time of 0 or later")


def _ratio(scale: float) -> Fraction:
    if not 1e-6 <= scale <= 1e6:
        raise InputError(f"rate_scale = {scale}: must lie from 1e-6 to 1e6")
    return Fraction(str(scale))
