"""Which reader reads a table: its columns decide; the format with most columns comes first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from sim.errors import InputError, is_text, quoted
from sim.fidelity.validate.exchanges import collectives, vidur_network
from sim.fidelity.validate.kernels import attention, encoder_attention, experts, gemm
from sim.fidelity.validate.layers import llmcompass, vidur_mlp
from sim.fidelity.validate.measured import attention_mixed, elementwise
from sim.fidelity.validate.passes import neusight_passes, splitwise
from sim.fidelity.validate.points import MeasurementFormat
from sim.fidelity.validate.runs import has_run
from sim.fidelity.validate.serving import silicon
from sim.inputs.tables import read_table
from sim.inputs.traces.files import Limits

FORMATS: list[MeasurementFormat] = [
    MeasurementFormat(
        "e2e/silicon",
        ("backend", "model", "system", "isl", "osl", "tp", "ttft_ms", "tpot_ms"),
        silicon,
    ),
    MeasurementFormat(
        "e2e/splitwise",
        ("model", "hardware", "tensor_parallel", "prompt_size", "prompt_time", "token_time"),
        splitwise,
        ("batch_size", "token_size"),
    ),
    MeasurementFormat(
        "neusight passes", ("device", "model", "batch", "seq_len", "latency_ms"), neusight_passes
    ),
    MeasurementFormat(
        "moe",
        ("device", "dtype", "num_tokens", "topk", "num_experts", "latency_us"),
        experts,
        ("hidden", "inter", "moe_tp", "moe_ep"),
    ),
    MeasurementFormat(
        "attention",
        ("device", "dtype", "batch", "q_len", "kv_len", "num_heads", "num_kv_heads", "latency_us"),
        attention,
        ("head_dim",),
    ),
    MeasurementFormat(
        "attention_mixed",
        ("device", "dtype", "prefill_chunk", "kv_prefill", "n_decode", "num_heads", "latency_us"),
        attention_mixed,
        ("kv_decode", "num_kv_heads", "head_dim"),
    ),
    MeasurementFormat(
        "elementwise",
        ("device", "dtype", "op", "rows", "width", "read", "written", "latency_us"),
        elementwise,
    ),
    MeasurementFormat(
        "encoder_attention",
        ("device", "dtype", "batch", "seq_len", "num_heads", "head_dim", "latency_us"),
        encoder_attention,
    ),
    MeasurementFormat(
        "vidur/mlp",
        ("device", "op", "n_head", "n_embd", "num_tokens", "tp"),
        vidur_mlp,
        ("model", "n_kv_head", "n_expanded_embd", "use_gated_mlp", "latency_us"),
    ),
    MeasurementFormat(
        "vidur/network",
        ("network", "op", "num_workers", "devices_per_node", "bytes", "latency_us"),
        vidur_network,
    ),
    MeasurementFormat(
        "collectives",
        ("device", "mode", "op", "num_gpus", "bytes", "dtype", "latency_us"),
        collectives,
    ),
    MeasurementFormat(
        "neusight", ("device", "op", "b", "m", "n", "k", "dtype", "latency_us"), gemm
    ),
    MeasurementFormat("gemm", ("device", "dtype", "m", "n", "k", "latency_us"), gemm),
    MeasurementFormat("llmcompass", ("device", "op", "m", "n", "k", "latency_us"), llmcompass),
]
TABLES = (".parquet", ".csv")
MOST_ENTRIES = 5000


def format_of(frame: pl.DataFrame) -> MeasurementFormat | None:
    """The format whose columns a table has."""
    return next((f for f in FORMATS if set(f.columns) <= set(frame.columns)), None)


def files_of(path: Path) -> list[Path]:
    """A file, or the tables and runs of a folder. A folder with a meta.json is one run."""
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if not path.is_dir():
        return [path]
    if has_run(path):
        return [path]
    tables: list[Path] = []
    folders, seen = [path], 0
    while folders:
        for inside in sorted(folders.pop().iterdir()):
            seen += 1
            if not is_text(inside.name):
                raise InputError(
                    f"{path}: the name {quoted(inside.name)} below it is no UTF-8 text"
                )
            if seen > MOST_ENTRIES:
                raise InputError(
                    f"{path}: more than {MOST_ENTRIES:,} files lie below; name the folder of tables"
                )
            if inside.is_dir() and not has_run(inside):
                folders.append(inside)
            elif inside.is_dir() or inside.suffix in TABLES:
                tables.append(inside)
    return sorted(tables)


def sources(
    paths: list[Path], limits: Limits
) -> Iterator[tuple[Path, pl.DataFrame | None, MeasurementFormat | None]]:
    """Every table of `paths` with its format, None where none fits; runs have no frame."""
    for path in paths:
        for one in files_of(path):
            if one.is_dir():
                yield one, None, None
            else:
                frame = read_table(one, limits)
                yield one, frame, format_of(frame)
