"""A scheduler's settings, and the service level that a run is held to."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from sim.clock import ticks
from workloads.model import Record

Positive = Annotated[int, Meta(gt=0, le=2**31)]
Seconds = Annotated[float, Meta(gt=0, le=9e6)]  # about 104 days, as `clock.LONGEST` allows
TtftBound = Annotated[
    Seconds | None,
    Meta(description="Bound of the time to first token, in seconds", extra={"flag": "slo-ttft"}),
]
TpotBound = Annotated[
    Seconds | None,
    Meta(description="Bound of the time per output token, in seconds", extra={"flag": "slo-tpot"}),
]
E2eBound = Annotated[
    Seconds | None,
    Meta(
        description="Bound of the time from arrival to last token, in seconds",
        extra={"flag": "slo-e2e"},
    ),
]


class Knobs(Record, frozen=True, kw_only=True):
    """A scheduler's settings, by their names in vLLM."""

    max_num_seqs: Annotated[Positive, Meta(description="Most sequences that run at once")] = 128
    max_num_batched_tokens: Annotated[Positive, Meta(description="Most tokens per step")] = 2048
    long_prefill_token_threshold: Annotated[
        int,
        Meta(ge=0, le=2**31),
        Meta(description="Most tokens of one prompt per step; 0: no bound"),
    ] = 0
    block_size: Annotated[Positive, Meta(description="Tokens per KV block")] = 16
    enable_prefix_caching: Annotated[
        bool, Meta(description="Reuse the KV cache of equal prefixes, by the hash ids of the trace")
    ] = False
    preemption: Annotated[
        Literal["recompute", "swap"],
        Meta(description="Drop the KV cache of a preempted request, or swap it to the host"),
    ] = "recompute"
    swap_bandwidth_GBps: Annotated[
        float,
        Meta(gt=0, le=1e9),
        Meta(description="Bandwidth of the host link, in GB/s per direction"),
    ] = 25.0
    max_wait_ms: Annotated[
        float,
        Meta(ge=0, le=1e9),
        Meta(description="Longest wait of the dynamic scheduler for a full batch, in ms"),
    ] = 10.0
    padded: Annotated[bool, Meta(description="Pad dynamic batches to the longest sequence")] = False

    def __post_init__(self) -> None:
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens = {self.max_num_batched_tokens} is below max_num_seqs = "
                f"{self.max_num_seqs}; every running sequence needs one token per step"
            )

    @property
    def max_wait_ticks(self) -> int:
        return ticks(self.max_wait_ms * 1e-3)


class Slo(Record, frozen=True, kw_only=True):
    """A service level: bounds that a good request meets, all that are given, and the share of
    the requests that has to be good. A refused request is not good."""

    ttft_s: TtftBound = None
    tpot_s: TpotBound = None
    e2e_s: E2eBound = None
    attainment: Annotated[
        float,
        Meta(gt=0, le=1),
        Meta(
            description="Share of the requests that must meet the bounds, 0 to 1",
            extra={"flag": "slo-attainment"},
        ),
    ] = 0.9

    @property
    def bounds(self) -> dict[str, float]:
        """The bounds that are given, in seconds."""
        given = {"ttft": self.ttft_s, "tpot": self.tpot_s, "e2e": self.e2e_s}
        return {name: bound for name, bound in given.items() if bound is not None}
