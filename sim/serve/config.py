"""A serving run as one document: the traffic, the policies, the split."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from sim.inputs.catalogue import Value
from sim.mapping.parallelism import Parallelism
from sim.serve.knobs import Knobs, Positive
from sim.serve.summary import Slo
from workloads.block import Lowering
from workloads.model import Record


class Traffic(Record, frozen=True, kw_only=True):
    """Where requests come from: a trace file, or an arrival process with lengths.

    With a trace, `arrivals` replaces its times. `window` is in seconds of the trace's clock.
    """

    trace: str | None = None
    arrivals: str | None = None
    prompt: str = "fixed:512"
    output: str = "fixed:128"
    num_requests: Positive = 1000
    window: tuple[float, float] | None = None
    rate_scale: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    limit: Positive | None = None
    shuffle: bool = False
    on_bad_row: Literal["fail", "skip"] = "fail"


class Serving(Record, frozen=True, kw_only=True):
    """Everything that decides a serving run.

    engine names what the engine's host adds to the kernels of a step (`sim.serve.host`);
    host_time_us adds to every step on top: 0 to 2000 in engines of 2025, 25,000 to 40,000 in vLLM
    of 2023 (../shared/reference/accuracy.md point 9).
    """

    model: str
    on: str
    traffic: Traffic = msgspec.field(default_factory=Traffic)
    scheduler: str = "chunked"
    order: str = "fcfs"
    router: str = "round-robin"
    replicas: Positive = 1
    parallelism: Parallelism = msgspec.field(default_factory=Parallelism)
    lowering: Lowering = msgspec.field(default_factory=Lowering)
    knobs: Knobs = msgspec.field(default_factory=Knobs)
    slo: Slo = msgspec.field(default_factory=Slo)
    dtype: str | None = None
    kv_dtype: str | None = None
    gpu_memory_utilization: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.9
    kv_blocks: Positive | None = None
    engine: str | None = None
    host_time_us: Annotated[float, msgspec.Meta(ge=0, le=1e9)] = 0.0
    shortcuts: bool = True
    keep_steps: bool = True
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 42
    set: dict[str, Value] = msgspec.field(default_factory=dict)
