"""Measurement files as the frames that fit functions take: one per family and key.

A row keeps its place in its source, so that the same row is scored by the readers of
`sim.fidelity.validate`, and `shape`, by which rows are held out together.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import msgspec
import polars as pl

from sim.cost.kernels.collective import ACROSS
from sim.errors import InputError, MemorywallError, one_line, quoted, shortened
from sim.fidelity.validate.cells import Row
from sim.fidelity.validate.layers import profiled_attention, rows_of, vidur_op, vllm_op
from sim.fidelity.validate.names import device_of, dtype_of
from sim.fidelity.validate.points import MeasuredFile
from workloads.ops import Op
from workloads.precision import BITS

Key = tuple[str, str]  # family, number format or library


class FrameCell(msgspec.Struct, frozen=True):
    """A row of a source as a row of a family's frame."""

    key: Key
    shape: str
    columns: dict[str, Any]


class FramePiece(msgspec.Struct):
    """Rows of one source that belong to one family and key."""

    source: MeasuredFile
    rows: list[int] = []
    shapes: list[str] = []
    columns: list[dict[str, Any]] = []


def pieces(
    sources: list[MeasuredFile], device: str
) -> tuple[dict[Key, list[FramePiece]], dict[str, int]]:
    """Rows of `device` by family and key; and how many were left out, by reason."""
    by_key: dict[Key, list[FramePiece]] = {}
    left: dict[str, int] = {}
    for source in sources:
        mine: dict[Key, FramePiece] = {}
        for number, row in enumerate(source.frame.iter_rows(named=True)):
            cell = _cell(source, row, device)
            if isinstance(cell, str):
                left[cell] = left.get(cell, 0) + 1
                continue
            if cell.key not in mine:
                mine[cell.key] = FramePiece(source, [], [], [])
                by_key.setdefault(cell.key, []).append(mine[cell.key])
            piece = mine[cell.key]
            piece.rows.append(number)
            piece.shapes.append(cell.shape)
            piece.columns.append(cell.columns)
    return by_key, left


def _cell(source: MeasuredFile, row: Row, device: str) -> FrameCell | str:
    """The cell of a row, or why it has none."""
    maker = MAKERS.get(source.format)
    if maker is None:
        return f"{source.format} says nothing of single kernels"
    try:
        source.form.check(row)
        profile = source.profile.device if source.profile else device
        name = row.get("device") or row.get("network") or profile
        if name != device and device_of(name) != device:
            return f"of another device ({shortened(name)})"
        return maker(source, row)
    except MemorywallError as error:
        return str(error)
    except ValueError as error:  # a rule of the vocabulary of workloads
        return one_line(str(error))


def frame_of(parts: list[FramePiece], keep: Callable[[str], bool]) -> pl.DataFrame:
    """The rows of pieces whose shape is kept."""
    return pl.DataFrame(
        [c for p in parts for c, shape in zip(p.columns, p.shapes, strict=True) if keep(shape)],
        infer_schema_length=None,
    )


def held_out(piece: FramePiece, held: Callable[[str], bool]) -> MeasuredFile:
    """The rows of a source that were held out, as a source."""
    rows = [r for r, shape in zip(piece.rows, piece.shapes, strict=True) if held(shape)]
    return msgspec.structs.replace(piece.source, frame=piece.source.frame[rows])


def is_held(shape: str, share: float) -> bool:
    """Whether a shape is held out, the same in every run: by a hash of its name."""
    return (zlib.crc32(shape.encode()) % 1000) < share * 1000


# One function a format -------------------------------------------------------------------


def _gemm(source: MeasuredFile, row: Row) -> FrameCell:
    batch = int(row.get("b") or 1)
    columns = {**_of(row, "m", "n", "k"), "batch": batch, **_time(row)}
    columns["cold"] = bool(row.get("cold"))
    return FrameCell(("gemm", dtype_of(row["dtype"])), f"{row['n']}x{row['k']}x{batch}", columns)


def _attention(source: MeasuredFile, row: Row) -> FrameCell:
    decodes = row["q_len"] == 1 and row["kv_len"] > 1
    dtype = dtype_of(row["dtype"])
    names = ("batch", "q_len", "kv_len", "num_heads", "num_kv_heads", "head_dim")
    columns = {
        **_of(row, *names),
        "window": row.get("window") or 0,
        "kv_dtype": dtype_of(row["kv_dtype"]) if row.get("kv_dtype") else dtype,
        **_time(row),
    }
    shape = f"{row['num_heads']}/{row['num_kv_heads']}x{row['head_dim']} {columns['window']}"
    key = "fp8" if columns["kv_dtype"] == "fp8" else dtype  # terms are kept by the cache's format
    return FrameCell(("decode" if decodes else "prefill", key), shape, columns)


def _encoder(source: MeasuredFile, row: Row) -> FrameCell:
    columns = {**_of(row, "batch", "seq_len", "num_heads", "head_dim"), **_time(row)}
    shape = f"{row['num_heads']}x{row['head_dim']} {row['seq_len']}"
    return FrameCell(("encoder", dtype_of(row["dtype"])), shape, columns)


def _experts(source: MeasuredFile, row: Row) -> FrameCell:
    names = ("num_tokens", "hidden", "inter", "topk", "num_experts", "moe_tp", "moe_ep")
    columns = {**_of(row, *names), "routing": row.get("routing") or "balanced", **_time(row)}
    shape = f"{row['hidden']}x{row['inter']} {row['topk']}/{row['num_experts']}"
    return FrameCell(("experts", dtype_of(row["dtype"])), shape, columns)


def _collectives(source: MeasuredFile, row: Row) -> FrameCell:
    library = "nccl" if str(row["mode"]).lower().startswith("nccl") else "custom"
    columns = {**_of(row, "op", "num_gpus", "bytes", "mode", "dtype"), **_time(row)}
    shape = f"{row['op']} {row['num_gpus']} {row['bytes']}"
    return FrameCell(("collectives", library), shape, columns)


def _vidur_network(source: MeasuredFile, row: Row) -> FrameCell:
    if row["op"] not in ("all_reduce", "send_recv"):
        raise InputError(f"exchange {quoted(row['op'])} is not known")
    far = row["devices_per_node"] < row["num_workers"]
    columns = {
        "op": row["op"],
        "num_gpus": row["num_workers"],
        "bytes": row["bytes"],
        "mode": "nccl",
        "dtype": "half",
        **_time(row),
    }
    if far:
        columns["per_node"] = row["devices_per_node"]
    shape = f"{row['op']} {row['num_workers']} {row['bytes']}"
    return FrameCell(("collectives", ACROSS if far else "nccl"), shape, columns)


def _vidur_mlp(source: MeasuredFile, row: Row) -> FrameCell:
    return _operator(
        vidur_op(row), row["num_tokens"], "fp16", f"{row['op']} {row['tp']}", _time(row)
    )


def _dense(source: MeasuredFile, row: Row) -> FrameCell:
    rows, what = rows_of(row), source.profiled
    op = vllm_op(what, row["layer"], rows)
    time = {"latency_us": float(row["time_us"])}
    return _operator(op, rows, what.dtype, f"{row['layer']} {rows}", time)


def _operator(op: Op, rows: int, dtype: str, shape: str, time: dict[str, float]) -> FrameCell:
    """A product, or a stream by the elements per row that it reads and writes."""
    if op.gemms:
        g = op.gemms[0]
        product = {"m": g.m, "n": g.n, "k": g.k, "batch": g.batch, **time}
        return FrameCell(("gemm", dtype), shape, product)
    bits = BITS[dtype]
    written = round(op.traffic.written * 8 / bits / rows)
    read = round(op.traffic.read * 8 / bits / rows) or written
    columns: dict[str, Any] = {
        "op": op.kind,
        "rows": rows,
        "width": op.width or written,
        "read": read,
        "written": written,
        **time,
    }
    return FrameCell(("elementwise", dtype), shape, columns)


def _mixed(source: MeasuredFile, row: Row) -> FrameCell:
    what = source.profiled
    attention = profiled_attention(what)
    heads = {
        "num_heads": attention.heads,
        "num_kv_heads": attention.kv_heads,
        "head_dim": attention.head_dim,
        "window": attention.window,
        "kv_dtype": what.dtype,
    }
    names = ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode")
    new, ones, context = row["prefill_chunk"], row["n_decode"], row["kv_decode"]
    before = row["kv_prefill"]
    time = {"latency_us": float(row["time_us"])}
    shape = f"{new} {before} {ones} {context}"
    if new:  # a chunk alone is a mixed batch in which none decodes
        return FrameCell(("mixed", what.dtype), shape, {**_of(row, *names), **heads, **time})
    columns = {"batch": ones, "q_len": 1, "kv_len": context, **heads, **time}
    return FrameCell(("decode", what.dtype), shape, columns)


def _attention_mixed(source: MeasuredFile, row: Row) -> FrameCell:
    dtype = dtype_of(row["dtype"])
    names = ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode")
    columns = {**_of(row, *names, "num_heads", "num_kv_heads", "head_dim"), "window": 0}
    shape = " ".join(str(row[name]) for name in names)
    return FrameCell(("mixed", dtype), shape, {**columns, "kv_dtype": dtype, **_time(row)})


def _elementwise(source: MeasuredFile, row: Row) -> FrameCell:
    if row["op"] == "copy":
        raise InputError("a plain copy, which no operator of a model makes")
    names = ("op", "rows", "width", "read", "written")
    shape = f"{row['op']} {row['rows']}x{row['width']}"
    return FrameCell(
        ("elementwise", dtype_of(row["dtype"])), shape, {**_of(row, *names), **_time(row)}
    )


def _of(row: Row, *names: str) -> Row:
    return {name: row[name] for name in names}


def _time(row: Row) -> dict[str, float]:
    time = float(row["latency_us"])
    if not time > 0:
        raise InputError(f"measured time {time} us is not above 0")
    return {"latency_us": time}


Maker = Callable[[MeasuredFile, Row], FrameCell]
MAKERS: dict[str, Maker] = {
    "gemm": _gemm,
    "neusight": _gemm,
    "attention": _attention,
    "attention_mixed": _attention_mixed,
    "encoder_attention": _encoder,
    "elementwise": _elementwise,
    "moe": _experts,
    "collectives": _collectives,
    "vidur/network": _vidur_network,
    "vidur/mlp": _vidur_mlp,
    "vllm_runs dense": _dense,
    "vllm_runs attention": _mixed,
}
