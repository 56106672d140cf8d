"""`memorywall measure`: the flags of timing this machine's kernels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def measure(
    out: Annotated[Path, typer.Option(help="Write tables and device file here; go on from there")],
    device_name: Annotated[
        str | None, typer.Option(help="Name of the device; as the machine calls itself")
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(
            help="copy, gemm, attention (or attention_prefill, ...), encoder_attention, "
            "elementwise, all-reduce; with commas"
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="fp32, bf16, fp16, with commas; bf16 on a GPU (fp16 before Ampere), else fp32"
        ),
    ] = None,
    modules: Annotated[
        str, typer.Option(help="Whose calls: torch, or gpt2 (as transformers' GPT-2 makes them)")
    ] = "torch",
    threads: Annotated[int, typer.Option(min=0, help="Of a CPU; 0: as PyTorch takes")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="A few small shapes, in seconds")] = False,
) -> None:
    """Time kernels on the machine at hand, for `validate` and `calibrate`, in under ten minutes."""
    from sim.fidelity.measure.session import MeasurementPlan, measure
    from sim.output.report import terminal

    console = terminal()
    plan = MeasurementPlan(
        out=out,
        device_name=device_name,
        only=words(only),
        dtypes=words(dtype),
        modules=modules,
        quick=quick,
        threads=threads,
    )
    done = measure(plan, console.print)
    console.print(
        f"  {done.measured} kernels measured in {done.seconds:.0f} s, {done.known} were known"
        + (f", {done.left_out} left out (too large or too slow)" if done.left_out else "")
    )
    if done.interrupted:
        console.print("  interrupted: what is measured is kept; the same command goes on")
    if done.file.is_file():
        console.print(
            f"  memorywall calibrate {out}/kernels --device {done.file}   # its efficiency terms"
        )
    if done.interrupted:
        raise SystemExit(130)


def words(text: str | None) -> tuple[str, ...]:
    """The words of a list with commas."""
    return tuple(w.strip() for w in (text or "").split(",") if w.strip())
