"""The options of `memorywall measure`, as one record."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from workloads.model import Record

ClockName = Literal["wall", "cpu"]
QUICK_CASE_S = 0.02


class MeasurementPlan(Record, frozen=True, kw_only=True):
    """Which kernels are measured, how, and where the tables go.

    case_s: seconds spent on one case. longest_s: a case whose single call takes longer is left
    out. clock: wall time, or the CPU time of one thread.
    """

    out: Annotated[
        Path, Meta(description="Folder for tables and device file; a second run continues there")
    ]
    device_name: Annotated[
        str | None, Meta(description="Name of the device; the machine's own name if not given")
    ] = None
    only: Annotated[
        tuple[str, ...],
        Meta(
            description="Kernels to measure: copy, gemm, attention (or attention_prefill, ...), "
            "encoder_attention, elementwise, all-reduce; with commas"
        ),
    ] = ()
    dtypes: Annotated[
        tuple[str, ...],
        Meta(
            description="Number formats: fp32, bf16, fp16, with commas; if not given, bf16 on a "
            "GPU (fp16 before Ampere) and fp32 on a CPU",
            extra={"flag": "dtype"},
        ),
    ] = ()
    modules: Annotated[
        str,
        Meta(description="Whose calls to time: torch, or gpt2 (as transformers' GPT-2 makes them)"),
    ] = "torch"
    threads: Annotated[
        int, Meta(ge=0, le=4096), Meta(description="Threads of a CPU; 0: PyTorch decides")
    ] = 0
    quick: Annotated[bool, Meta(description="Measure a few small shapes, in seconds")] = False
    case_s: Annotated[float, Meta(gt=0, le=3600)] = 0.25
    longest_s: Annotated[float, Meta(gt=0, le=3600)] = 0.4
    clock: ClockName = "wall"

    @property
    def seconds_per_case(self) -> float:
        """Seconds that one case may take."""
        return QUICK_CASE_S if self.quick else self.case_s
