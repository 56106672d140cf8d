"""Where the requests of a serving run come from: a trace, or an arrival process with lengths."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from sim.errors import InputError
from sim.inputs.documents import checked
from sim.inputs.traces import Selection, Trace, read_trace
from sim.serve.config import RequestTraffic
from workloads.request import Request
from workloads.synthetic import (
    ClosedLoop,
    Constant,
    Empirical,
    LengthDistribution,
    Pairs,
    parse_arrivals,
    parse_lengths,
    synthetic,
)


class RequestSource:
    """The stream of requests that `traffic` describes.

    encoder: the model answers a prompt at once, without generating tokens. Raises InputError if
    the fields of `traffic` contradict one another.
    """

    def __init__(self, traffic: RequestTraffic, seed: int, *, encoder: bool) -> None:
        self.traffic, self.seed, self.encoder = traffic, seed, encoder
        self.arrivals = (
            checked("--arrivals", lambda: parse_arrivals(traffic.arrivals or ""))
            if traffic.arrivals
            else None
        )
        if not traffic.trace and self.arrivals is None:
            raise InputError("give a --trace FILE or --arrivals, e.g. poisson:4")
        self.trace = self._trace() if traffic.trace else None
        self.closed = self.arrivals if isinstance(self.arrivals, ClosedLoop) else None
        sessions = self.trace is not None and self.trace.format == "llmservingsim"
        if self.closed is not None and sessions:
            raise InputError(
                "sessions have an order and pauses of their own; do not give --arrivals closed:N"
            )
        self.feedback = self.closed is not None or sessions
        self._check_unused()

    def _trace(self) -> Trace:
        traffic = self.traffic
        assert traffic.trace is not None
        return read_trace(
            traffic.trace,
            Selection(
                on_bad_row=traffic.on_bad_row,
                window=traffic.window,
                rate_scale=traffic.rate_scale,
                limit=traffic.limit,
                shuffle_seed=self.seed if traffic.shuffle else None,
                limits=traffic.limits,
            ),
            arrivals=self.arrivals,
            seed=self.seed,
        )

    def _given(self, *names: str) -> str:
        """Those of the fields that are not as by default."""
        default = RequestTraffic()
        return ", ".join(n for n in names if getattr(self.traffic, n) != getattr(default, n))

    def _check_unused(self) -> None:
        unused = self._given("window", "rate_scale", "limit", "shuffle")
        if unused and not self.trace:
            raise InputError(f"{unused}: said of a trace, but no --trace is given")
        synthetic_only = self._given("prompt", "output", "num_requests")
        if synthetic_only and self.trace:
            raise InputError(
                f"{synthetic_only}: said of synthetic traffic, but --trace brings lengths of its "
                "own (to draw from them, give --arrivals and --prompt trace:FILE instead)"
            )

    def expected(self) -> int:
        """An estimate of the number of requests."""
        file = self.traffic.file
        if file is None:
            return self.traffic.num_requests
        # A row of the shortest format takes about 40 bytes.
        return min(self.traffic.limit or 2**62, file.stat().st_size // 40)

    def __iter__(self) -> Iterator[Request]:
        """The stream, from its start at each call."""
        if self.trace is not None:
            stream = iter(self.trace)
        else:
            arrivals, count = self.arrivals, self.traffic.num_requests
            assert arrivals is not None
            stream = checked(
                "--prompt and --output",
                lambda: synthetic(count, arrivals, *self._lengths(), self.seed),
            )
        if self.encoder:
            return (msgspec.structs.replace(q, output=0) for q in stream)
        return stream

    def _lengths(self) -> tuple[LengthDistribution | Pairs, LengthDistribution | None]:
        """Prompts and outputs; `trace:FILE` draws both of one and the same request of a trace."""
        traffic, encoder = self.traffic, self.encoder
        kind, colon, path = traffic.prompt.partition(":")
        if kind == "trace" and colon:
            # The arrival times of the trace are not used, so that a trace of lengths will do.
            rows = read_trace(
                path,
                Selection(on_bad_row=traffic.on_bad_row, limits=traffic.limits),
                arrivals=Constant(1.0),
            )
            pairs = [(q.prompt, q.output) for q in rows]
            prompts, outputs = zip(*pairs, strict=True) if pairs else ((), ())
            return (Empirical(prompts), None) if encoder else (Pairs(prompts, outputs), None)
        prompt = parse_lengths(traffic.prompt)
        return prompt, None if encoder else parse_lengths(traffic.output)
