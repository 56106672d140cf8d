"""A serving run as one document: the traffic, the policies, the split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from sim.inputs.traces.files import Expansion, Limits, LineBytes
from sim.inputs.traces.samples import trace_path
from sim.mapping.parallelism import Parallelism
from sim.scenario import Dtype, KvDtype, MachineName, ModelName, Seed, Settings
from sim.serve.knobs import Knobs, Positive, Slo
from workloads.block import Lowering
from workloads.model import Record


class RequestTraffic(Record, frozen=True, kw_only=True):
    """Where requests come from: a trace file, or an arrival process with lengths.

    With a trace, `arrivals` replaces its times. `window` is in seconds of the trace's clock.
    """

    trace: Annotated[
        str | None,
        Meta(
            description="Request trace: a file, whose columns show its format, or a sample of "
            "`traces list`"
        ),
    ] = None
    arrivals: Annotated[
        str | None,
        Meta(
            description="Arrival process, in requests per second: poisson:4, gamma:4:cv=2, "
            "constant:4, piecewise:60@2,60@8; or closed:32 clients. It replaces "
            "the times of a trace"
        ),
    ] = None
    prompt: Annotated[
        str,
        Meta(
            description="Tokens per prompt: fixed:512, uniform:16-1024, "
            "lognormal:mean=500,cv=1, zipf:..., or trace:FILE for the prompts "
            "and outputs of a trace"
        ),
    ] = "fixed:512"
    output: Annotated[str, Meta(description="Tokens per output, written like --prompt")] = (
        "fixed:128"
    )
    num_requests: Annotated[Positive, Meta(description="Requests of synthetic traffic")] = 1000
    window: Annotated[
        tuple[float, float] | None, Meta(description="Part of the trace, in seconds: FROM:TO")
    ] = None
    rate: Annotated[
        Annotated[float, Meta(gt=0, le=1e9)] | None,
        Meta(
            description="Requests per second: the pace of a trace or of arrivals is scaled to it, "
            "with its burstiness"
        ),
    ] = None
    rate_scale: Annotated[
        float, Meta(ge=1e-6, le=1e6), Meta(description="Factor of the arrival rate")
    ] = 1.0
    limit: Annotated[
        Positive | None, Meta(description="Serve only the first requests, so many")
    ] = None
    shuffle: Annotated[bool, Meta(description="Shuffle the lengths over the arrivals")] = False
    on_bad_row: Annotated[
        Literal["fail", "skip"], Meta(description="What to do with a bad row of the trace")
    ] = "fail"
    max_line_bytes: LineBytes = Limits().line_bytes
    max_blank_lines: Annotated[
        int, Meta(ge=0, le=2**31), Meta(description="Most empty lines of the trace in a row")
    ] = Limits().blank_lines
    max_expansion: Expansion = Limits().expansion

    @property
    def file(self) -> Path | None:
        """The file of the trace, of a sample's name, too."""
        return trace_path(self.trace) if self.trace else None

    @property
    def limits(self) -> Limits:
        """What the trace may ask of its reader."""
        return Limits(
            line_bytes=self.max_line_bytes,
            blank_lines=self.max_blank_lines,
            expansion=self.max_expansion,
        )


class Serving(Record, frozen=True, kw_only=True):
    """Everything that decides a serving run.

    engine names what the engine's host adds to the kernels of a step (`sim.serve.host`);
    host_time_us adds to every step on top: 0 to 2000 in engines of 2025, 25,000 to 40,000 in vLLM
    of 2023.
    """

    model: ModelName
    on: MachineName
    traffic: RequestTraffic = msgspec.field(default_factory=RequestTraffic)
    scheduler: Annotated[
        str,
        Meta(
            description="chunked, prefill-first, static, dynamic, or module:Class",
            extra={"group": "knobs"},
        ),
    ] = "chunked"
    order: Annotated[
        str,
        Meta(
            description="Order of waiting requests: fcfs, shortest, or priority (high first)",
            extra={"group": "knobs"},
        ),
    ] = "fcfs"
    router: Annotated[
        str,
        Meta(
            description="round-robin, least-outstanding, least-kv or prefix-aware",
            extra={"group": "parallelism"},
        ),
    ] = "round-robin"
    replicas: Annotated[
        Positive,
        Meta(
            description="Copies of the model, each with the same split",
            extra={"group": "parallelism"},
        ),
    ] = 1
    parallelism: Parallelism = msgspec.field(default_factory=Parallelism)
    lowering: Lowering = msgspec.field(default_factory=Lowering)
    knobs: Knobs = msgspec.field(default_factory=Knobs)
    slo: Slo = msgspec.field(default_factory=Slo)
    dtype: Dtype = None
    kv_dtype: KvDtype = None
    gpu_memory_utilization: Annotated[
        float,
        Meta(gt=0, le=1),
        Meta(description="Share of the HBM that may be used, 0 to 1", extra={"group": "memory"}),
    ] = 0.9
    kv_blocks: Annotated[
        Positive | None,
        Meta(
            description="KV blocks per replica, instead of what fits into memory",
            extra={"group": "memory"},
        ),
    ] = None
    engine: Annotated[
        str | None,
        Meta(
            description="Host time of an engine: vllm-0.12, trtllm-1.0, or a TOML; none if not "
            "given",
            extra={"group": "engine"},
        ),
    ] = None
    host_time_us: Annotated[
        float,
        Meta(ge=0, le=1e9),
        Meta(
            description="More host time per step, in us: 0 to 2000 in engines of 2025, "
            "30000 in 2023",
            extra={"group": "engine"},
        ),
    ] = 0.0
    shortcuts: Annotated[
        bool, Meta(description="Use tables of step times and jump over equal decode steps")
    ] = True
    keep_steps: Annotated[
        bool, Meta(description="Keep one row per step", extra={"flag": "steps"})
    ] = True
    seed: Annotated[Seed, Meta(description="Seed of all random numbers")] = 42
    set: Settings = msgspec.field(default_factory=dict)
