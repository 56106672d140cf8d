"""A scheduler's settings."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from sim.clock import ticks
from workloads.model import Record

Positive = Annotated[int, msgspec.Meta(gt=0, le=2**31)]


class Knobs(Record, frozen=True, kw_only=True):
    """A scheduler's settings, by their names in vLLM."""

    max_num_seqs: Positive = 128
    max_num_batched_tokens: Positive = 2048
    long_prefill_token_threshold: Annotated[int, msgspec.Meta(ge=0)] = 0
    block_size: Positive = 16
    enable_prefix_caching: bool = False
    preemption: Literal["recompute", "swap"] = "recompute"
    swap_bandwidth_GBps: Annotated[float, msgspec.Meta(gt=0)] = 25.0  # host link, one direction
    max_wait_ms: Annotated[float, msgspec.Meta(ge=0, le=1e9)] = 10.0  # of the dynamic policy
    padded: bool = False

    def __post_init__(self) -> None:
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens = {self.max_num_batched_tokens} is below max_num_seqs = "
                f"{self.max_num_seqs}; every running sequence needs a token a step"
            )

    @property
    def max_wait_ticks(self) -> int:
        return ticks(self.max_wait_ms * 1e-3)
