"""`memorywall serve`: the flags of a serving run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sim.errors import InputError


def serve(
    model: Annotated[str, typer.Argument(help="As of `run`, or a serving TOML")],
    on: Annotated[str | None, typer.Option(help="A device or a system: name or TOML")] = None,
    trace: Annotated[
        str | None, typer.Option(help="A request trace; its format is told by its columns")
    ] = None,
    arrivals: Annotated[
        str | None,
        typer.Option(
            help="poisson:4, gamma:4:cv=2, constant:4, piecewise:60@2,60@8, closed:32; "
            "with --trace it replaces the trace's times"
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            help="Lengths: fixed:512, uniform:16-1024, lognormal:mean=500,cv=1, zipf:..., "
            "or trace:FILE for prompts and outputs of a trace"
        ),
    ] = None,
    output: Annotated[str | None, typer.Option(help="Lengths of outputs, as of prompts")] = None,
    num_requests: Annotated[int | None, typer.Option(help="Of synthetic traffic")] = None,
    window: Annotated[str | None, typer.Option(help="Seconds of the trace, FROM:TO")] = None,
    rate_scale: Annotated[float | None, typer.Option(help="Arrivals so many times as fast")] = None,
    limit: Annotated[int | None, typer.Option(help="The first so many requests")] = None,
    shuffle: Annotated[bool | None, typer.Option(help="Shuffle lengths over arrivals")] = None,
    on_bad_row: Annotated[str | None, typer.Option(help="fail or skip")] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="chunked, prefill-first, static, dynamic, or module:Class")
    ] = None,
    order: Annotated[
        str | None, typer.Option(help="fcfs, shortest, or priority (the higher first)")
    ] = None,
    router: Annotated[
        str | None,
        typer.Option(help="round-robin, least-outstanding, least-kv or prefix-aware"),
    ] = None,
    replicas: Annotated[int | None, typer.Option(help="Copies of the split, each alike")] = None,
    tp: Annotated[int | None, typer.Option(help="Tensor parallel ranks")] = None,
    pp: Annotated[int | None, typer.Option(help="Pipeline stages")] = None,
    collective: Annotated[str | None, typer.Option(help="As of `run`")] = None,
    dtype: Annotated[str | None, typer.Option(help="As of `run`")] = None,
    kv_dtype: Annotated[str | None, typer.Option(help="Format of the KV cache")] = None,
    attention: Annotated[str | None, typer.Option(help="flash or materialised")] = None,
    fusion: Annotated[bool | None, typer.Option(help="Fuse element-wise operators")] = None,
    routing: Annotated[str | None, typer.Option(help="As of `run`")] = None,
    max_num_seqs: Annotated[int | None, typer.Option(help="Running sequences at most")] = None,
    max_num_batched_tokens: Annotated[int | None, typer.Option(help="Tokens a step")] = None,
    long_prefill_token_threshold: Annotated[
        int | None, typer.Option(help="Tokens of one prompt a step, 0: no bound")
    ] = None,
    block_size: Annotated[int | None, typer.Option(help="Tokens a KV block")] = None,
    enable_prefix_caching: Annotated[
        bool | None, typer.Option(help="Keep prompts by the trace's hash ids")
    ] = None,
    preemption: Annotated[str | None, typer.Option(help="recompute or swap")] = None,
    swap_bandwidth: Annotated[
        float | None, typer.Option("--swap-bandwidth-GBps", help="Of the host link, one direction")
    ] = None,
    max_wait_ms: Annotated[float | None, typer.Option(help="Of the dynamic scheduler")] = None,
    padded: Annotated[bool | None, typer.Option(help="Dynamic batches at longest length")] = None,
    gpu_memory_utilization: Annotated[float | None, typer.Option(help="Share of HBM")] = None,
    kv_blocks: Annotated[int | None, typer.Option(help="Instead of what fits")] = None,
    host_time_us: Annotated[
        float | None,
        typer.Option(help="Host time a step: 0 to 2000 in engines of 2025, 30000 in 2023"),
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="Host time of an engine: vllm-0.12, trtllm-1.0, or a TOML")
    ] = None,
    slo_ttft: Annotated[float | None, typer.Option(help="Seconds, for goodput")] = None,
    slo_tpot: Annotated[float | None, typer.Option(help="Seconds, for goodput")] = None,
    slo_e2e: Annotated[float | None, typer.Option(help="Seconds, for goodput")] = None,
    shortcuts: Annotated[bool | None, typer.Option(help="Tables and leaps")] = None,
    steps: Annotated[bool | None, typer.Option(help="Keep a row a step")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random")] = None,
    change: Annotated[list[str] | None, typer.Option("--set", help="As of `run`")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the result folder here")] = None,
    table_format: Annotated[str, typer.Option("--format", help="csv or parquet")] = "csv",
    pictures: Annotated[bool, typer.Option(help="Draw PNG and SVG into --out")] = True,
    trace_window: Annotated[
        str | None, typer.Option(help="Seconds to write as a Perfetto trace, FROM:TO")
    ] = None,
) -> None:
    """Serve a stream of requests, and account for the time of each and of every device."""
    from sim.serve.session import serve_scenario, serving_of

    if table_format not in ("csv", "parquet"):
        raise InputError(f"--format {table_format!r}: use csv or parquet")
    flags: dict[str, Any] = {
        "on": on,
        "scheduler": scheduler,
        "order": order,
        "router": router,
        "replicas": replicas,
        "dtype": dtype,
        "kv_dtype": kv_dtype,
        "gpu_memory_utilization": gpu_memory_utilization,
        "kv_blocks": kv_blocks,
        "engine": engine,
        "host_time_us": host_time_us,
        "shortcuts": shortcuts,
        "keep_steps": steps,
        "seed": seed,
        "traffic": {
            "trace": trace,
            "arrivals": arrivals,
            "prompt": prompt,
            "output": output,
            "num_requests": num_requests,
            "window": span(window, "--window"),
            "rate_scale": rate_scale,
            "limit": limit,
            "shuffle": shuffle,
            "on_bad_row": on_bad_row,
        },
        "parallelism": {"tp": tp, "pp": pp, "collective": collective},
        "lowering": {"attention": attention, "fusion": fusion, "routing": routing},
        "knobs": {
            "max_num_seqs": max_num_seqs,
            "max_num_batched_tokens": max_num_batched_tokens,
            "long_prefill_token_threshold": long_prefill_token_threshold,
            "block_size": block_size,
            "enable_prefix_caching": enable_prefix_caching,
            "preemption": preemption,
            "swap_bandwidth_GBps": swap_bandwidth,
            "max_wait_ms": max_wait_ms,
            "padded": padded,
        },
        "slo": {"ttft_s": slo_ttft, "tpot_s": slo_tpot, "e2e_s": slo_e2e},
    }
    serve_scenario(
        serving_of(model, flags, list(change or [])),
        out=out,
        table_format=table_format,
        pictures=pictures,
        trace_window=span(trace_window, "--trace-window"),
    )


def span(text: str | None, flag: str) -> tuple[float, float] | None:
    """`FROM:TO` in seconds. Raises InputError."""
    if text is None:
        return None
    first, found, last = text.partition(":")
    try:
        begin, end = float(first or 0), float(last)
    except ValueError:
        begin = end = 0.0
    if not found or not 0 <= begin < end:
        raise InputError(f"{flag} {text!r}: write it as FROM:TO in seconds, e.g. 60:120")
    return begin, end
