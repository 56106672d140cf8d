"""What `memorywall serve` does: merge flags, serve with progress, write, print."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from rich.console import Console

from sim.clock import seconds, ticks
from sim.cost.model import matrix_rate
from sim.errors import InputError
from sim.output.folder import check_replaceable
from sim.output.html.page import add_report, check_report
from sim.output.options import Output, Report
from sim.output.report import counted, duration
from sim.output.terminal import print_document, terminal
from sim.serve.config import RequestTraffic, Serving
from sim.serve.host import host_of, load_engine
from sim.serve.intervals import in_summary
from sim.serve.knobs import Slo
from sim.serve.output import SERVE_RESULT, ServeFiles, print_summary, write_serve
from sim.serve.record import ServeRecord
from sim.serve.serving import Served, serve
from sim.serve.shard import Progress, Reached
from sim.serve.summary import Fleet, summarise
from sim.states import BUBBLE, STATES

SHOWN_ENGINE = "vllm-0.12"  # whose host time is told where a run has none


class ServeOutput(Output, frozen=True, kw_only=True):
    """What `serve` writes."""

    report: Report = False
    trace_window: Annotated[
        tuple[float, float] | None,
        Meta(
            description="Part to write as a Perfetto trace, in seconds: FROM:TO",
            extra={"group": "output"},
        ),
    ] = None


def files_of(serving: Serving) -> list[str | None]:
    """The names that a serving run may read as files."""
    traffic = serving.traffic
    lengths = (text.partition(":")[2] for text in (traffic.prompt, traffic.output))
    return [serving.model, serving.on, traffic.trace, *lengths]


def serve_scenario(serving: Serving, output: ServeOutput, inputs: Iterable[str] = ()) -> Served:
    """Serve, write the result folder if one is named, and print the tables: in this order, so that
    a reader who has seen enough (`| head`) costs no result.

    After Ctrl-C the same, with what is finished. The results do not replace one of the `inputs`.
    """
    console, out, trace_window = terminal(), output.out, output.trace_window
    check_report(output.report, out)
    check_replaceable(out, SERVE_RESULT, [*inputs, *files_of(serving)])
    if trace_window and not (out and serving.keep_steps):
        raise InputError("--trace-window needs --out, and the steps, which --no-steps drops")
    window_ticks = ticks_of(trace_window)  # before any work: it may lie beyond all times
    with progress_lines(serving.traffic) as progress:
        served = serve(serving, progress)
    if not (len(served.requests) or served.refused or served.interrupted or served.skipped):
        window = " in the window" if serving.traffic.window else ""
        raise InputError(f"{serving.traffic.trace or serving.traffic.arrivals}: no request{window}")
    metrics = summary(served)
    try:
        if out:
            files = ServeFiles(
                output.table_format,
                output.pictures,
                heading(served),
                window_ticks,
                served.serving.slo.bounds,
            )
            write_result(served, metrics, out, files)
            if output.report:
                from sim.serve.page import serve_page

                add_report(out, SERVE_RESULT, serve_page)
    finally:  # print the tables even if writing fails
        show_served(served, metrics, console)
    if out:
        console.print(f"  written to {out}/")
    print_document("serve", lambda: serve_document(served, metrics))
    return served


def serve_document(served: Served, metrics: dict[str, Any]) -> dict[str, Any]:
    """A serving run as plain data: its scenario, and its summary."""
    return {"serving": msgspec.to_builtins(served.serving), "summary": metrics}


def write_result(
    served: Served, metrics: dict[str, Any], folder: Path, files: ServeFiles
) -> list[Path]:
    """Write the result folder of a run; returns its files."""
    return write_serve(
        folder, config=config(served), summary=metrics, record=record_of(served), files=files
    )


def record_of(served: Served) -> ServeRecord:
    """What the files and pictures of a run are made from."""
    serving, resolved = served.serving, served.resolved
    return ServeRecord(
        served.requests,
        served.steps or None,
        served.stages,
        serving.parallelism,
        (kv_blocks(served) or 0) * serving.replicas or None,
        matrix_rate(resolved.machine.device, resolved.precision.activations),
    )


def show_served(served: Served, metrics: dict[str, Any], console: Console) -> None:
    """The tables, and what was left out."""
    console.print()
    console.print(heading(served), style="bold")
    console.print(f"  {served.capacity.sentence()}")
    if served.interrupted:
        console.print(
            "  interrupted: the numbers below are those of the requests that had finished"
        )
    if served.skipped:
        console.print(
            f"  {counted(served.skipped, 'bad row')} skipped, the first: {served.reasons[0]}"
        )
    if served.failures:
        failures = counted(served.failures, "request")
        console.print(f"  {failures} that the trace records as failed left out")
    if served.refused:
        shown = "; ".join(map(str, served.refused[:6]))
        shown += "; ..." if served.refusals > 6 else ""
        refused = counted(served.refusals, "request")
        console.print(f"  {refused} can never fit into the KV memory, by number: {shown}")
    if note := host_note(served, metrics):
        console.print(f"  {note}")
    print_summary(metrics, console)


def host_note(served: Served, metrics: dict[str, Any]) -> str:
    """What the host of a measured engine would add to a mean step; "" where a run has host time."""
    serving = served.serving
    if serving.engine or serving.host_time_us or not metrics["steps"]:
        return ""
    split = serving.parallelism
    busy = sum(metrics["account_ps"][state] for state in STATES[:BUBBLE])
    kernels = round(busy / (split.tp * split.pp * metrics["steps"]))
    sequences = round(metrics["output_tokens"] / metrics["steps"])
    added = host_of(load_engine(SHOWN_ENGINE)).added(kernels, sequences, prompts=False)
    return (
        f"host time: none; --engine {SHOWN_ENGINE} would add about {duration(seconds(added))} to a "
        f"mean step of {duration(seconds(kernels))}"
    )


def ticks_of(window: tuple[float, float] | None) -> tuple[int, int] | None:
    """Seconds as ticks."""
    return (ticks(window[0]), ticks(window[1])) if window else None


def heading(served: Served) -> str:
    """The run in one line."""
    s = served.serving
    what = Path(s.traffic.trace).name if s.traffic.trace else s.traffic.arrivals or ""
    split = [
        f"{name} {value}"
        for name, value in (("tp", s.parallelism.tp), ("pp", s.parallelism.pp))
        if value > 1
    ]
    copies = [f"{s.replicas} replicas"] if s.replicas > 1 else []
    parts = ", ".join([s.scheduler, *split, *copies, what])
    return f"{served.resolved.model.name} on {served.resolved.machine.name}: {parts}"


def summary(served: Served) -> dict[str, Any]:
    """The metrics of a run."""
    serving, resolved = served.serving, served.resolved
    split, device = serving.parallelism, resolved.machine.device
    metrics = summarise(
        served.requests,
        served.outcomes,
        Fleet(
            devices=split.tp * split.pp * serving.replicas,
            tp=split.tp,
            matrix_peak_flops=matrix_rate(device, resolved.precision.activations),
            hbm_bandwidth=device.hbm.bandwidth,
            kv_blocks_total=kv_blocks(served),
        ),
        served.makespan,
        slo=serving.slo if serving.slo != Slo() else None,
        steps=served.steps or None,
    )
    return {
        **metrics,
        "interrupted": served.interrupted,
        "interval_80": in_summary(served, metrics),
    }


def kv_blocks(served: Served) -> int | None:
    """Blocks of a replica; None for models that keep no keys and values."""
    return served.capacity.blocks if served.capacity.block_bytes else None


def config(served: Served) -> dict[str, Any]:
    """Everything that decided the result."""
    resolved = served.resolved
    return {
        "memorywall": version("memorywall"),
        "seed": served.serving.seed,
        "serving": msgspec.to_builtins(served.serving),
        "model": msgspec.to_builtins(resolved.model),
        "device": msgspec.to_builtins(resolved.machine.device),
        "precision": msgspec.to_builtins(resolved.precision),
        "kv_capacity_bytes": msgspec.to_builtins(served.capacity),
        "refused_requests": msgspec.to_builtins(served.refused),
        "skipped_rows": served.skipped,
        "failed_in_trace": served.failures,
        "interrupted": served.interrupted,
    }


def share_done(traffic: RequestTraffic) -> Callable[[Reached], float]:
    """The share of a run that is done, from how far it is: of its requests where their number is
    known, else of the bytes of its trace."""
    total = traffic.limit if traffic.trace else traffic.num_requests
    size = traffic.file.stat().st_size if traffic.file else 0

    def share(at: Reached) -> float:
        shares = [at.finished / total if total else 0.0, at.bytes_read / size if size else 0.0]
        return max(shares)

    return share


@contextmanager
def progress_lines(traffic: RequestTraffic) -> Iterator[Progress | None]:
    """Finished requests, simulated time, bytes read, speed and time to go, on a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    share = share_done(traffic)
    start = last = time.monotonic()

    def report(at: Reached) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < 0.5:
            return
        last = now
        spent, done = now - start, share(at)
        read = f"{at.bytes_read / 1e6:,.1f} MB read, " if traffic.trace else ""
        left = f", {(1 - done) * spent / done:,.0f} s to go" if 0 < done < 1 else ""
        sys.stderr.write(
            f"\r\033[K{read}{at.finished:,} requests finished, {at.simulated:,.0f} s simulated, "
            f"{at.finished / spent:,.0f} requests/s, "
            f"{at.simulated / spent:,.0f} times real time{left} "
        )
        sys.stderr.flush()

    try:
        yield report
    finally:
        sys.stderr.write("\r\033[K")
