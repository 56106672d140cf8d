"""Attention with terms: tiles by hand, sums, arrays, and errors on shapes that were not fitted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hw_models.device import Device
from hw_models.efficiency import DecodeTerms, PrefillTerms
from sim.cost.arith import SCALAR, VECTOR
from sim.cost.kernels import RESOURCES, priced
from sim.cost.kernels.attention import attention_times
from sim.cost.kernels.attention_shape import AttentionShape, attention_shape
from sim.cost.kernels.decode import decode_times
from sim.cost.kernels.prefill import chunk_times, grid_of
from sim.cost.kernels.price import Flops, Moved
from sim.cost.kernels.rates import Rates, rates_of
from sim.cost.model import CostModel
from sim.fidelity.calibrate.attention_rows import shape_of_rows
from sim.fidelity.calibrate.fit import Fit, fit_function
from sim.fidelity.calibrate.frames import pieces
from sim.fidelity.validate.formats import format_of
from sim.fidelity.validate.points import MeasuredFile
from sim.inputs.catalogue import load_device
from tests.strategies import devices
from workloads.attention import flash_attention
from workloads.batch import Batch, Group, Sequence
from workloads.model import Attention
from workloads.ops import Op
from workloads.precision import parse_precision

BF16 = parse_precision("bf16")
MEASURED = Path(__file__).parents[2] / "shared" / "data"
share, time_us = st.floats(0.05, 1.0), st.floats(0.0, 8.0)

chunk_terms = st.builds(
    PrefillTerms,
    floor_us=time_us,
    tile_rows=st.sampled_from([16, 64, 96, 128]),
    packed=st.booleans(),
    matrix=share,
    softmax=share,
    hbm=share,
    tile_us=time_us,
    empty_us=time_us,
    tail=st.floats(0.0, 1.0),
    append=st.floats(0.0, 4.0),
    depth=st.integers(1, 8),
)
line_terms = st.builds(
    DecodeTerms,
    floor_us=time_us,
    depth=st.integers(1, 8),
    hbm=share,
    matrix=share,
    block_us=time_us,
    split_us=time_us,
    regroup_us=st.sampled_from([0.0, 2.0]),
    head_share=share,
    core_share=st.sampled_from([0.0, 1.5, 30.0]),
)


@st.composite
def attentions(draw: Any) -> Attention:
    kv = draw(st.sampled_from([1, 2, 8]))
    width = draw(st.sampled_from([64, 80, 128]))
    return Attention(
        heads=kv * draw(st.sampled_from([1, 4, 7])),
        kv_heads=kv,
        head_dim=width,
        value_dim=width,
        causal=draw(st.booleans()),
        window=draw(st.sampled_from([0, 0, 64, 700])),
    )


sequences = st.builds(
    Sequence, new=st.sampled_from([1, 1, 2, 63, 128, 777]), cached=st.integers(0, 3000)
)
groups = st.lists(st.builds(Group, sequence=sequences, count=st.integers(1, 40)), min_size=1)


def calibrated(device: Device, chunk: PrefillTerms, decode: DecodeTerms) -> Device:
    terms = msgspec.structs.replace(
        device.efficiency, prefill={"bf16": chunk}, decode={"bf16": decode}
    )
    return msgspec.structs.replace(device, efficiency=terms)


def attend(attention: Attention, groups: list[Group]) -> Op:
    return flash_attention("attention", attention, Batch(groups=tuple(groups)), BF16)


@given(chunk_terms, attentions(), groups)
def test_tiles_are_those_of_a_count_by_hand(
    terms: PrefillTerms, attention: Attention, groups: list[Group]
) -> None:
    """Without a window: a tile of rows walks the keys that its last row sees."""
    attention = msgspec.structs.replace(attention, window=0)
    op = attend(attention, groups)
    shape = attention_shape(op.flash, op.traffic)
    found = grid_of(SCALAR, terms, shape).tiles(SCALAR, shape)
    each = attention.heads // attention.kv_heads if terms.packed else 1
    tiles, keys, most = 0, 0, 0
    for group in groups:
        s = group.sequence
        rows = [
            s.cached + row // each + 1 if attention.causal else s.context
            for row in range(s.new * each)
        ]
        starts = range(0, len(rows), terms.tile_rows)
        tiles += group.count * len(starts)
        most = max(most, len(starts))
        if each == 1 or s.new == 1:
            keys += group.count * sum(rows[i : i + terms.tile_rows][-1] for i in starts) * each
        else:  # packed rows of a token may lie in two tiles; the count keeps the fraction
            seen = [s.cached * each + min(i + terms.tile_rows, len(rows)) for i in starts]
            whole = [s.context * each] * len(starts)
            keys += group.count * sum(seen if attention.causal else whole)
    assert found.count == tiles
    assert found.keys == keys
    assert found.slots == most * sum(g.count for g in groups)


@given(devices(), chunk_terms, line_terms, attentions(), groups, st.randoms())
def test_order_and_grouping_of_sequences_do_not_matter(
    device: Device,
    chunk: PrefillTerms,
    decode: DecodeTerms,
    attention: Attention,
    groups: list[Group],
    rng: Any,
) -> None:
    costs = CostModel(calibrated(device, chunk, decode), "bf16")
    apart = [
        Group(sequence=g.sequence, count=n)
        for g in groups
        for n in ([g.count - 1, 1] if g.count > 1 else [g.count])
    ]
    rng.shuffle(apart)
    one, other = costs(attend(attention, groups)), costs(attend(attention, apart))
    assert one.duration == other.duration
    assert (one.compute, one.hbm, one.sram) == (other.compute, other.hbm, other.sram)


@given(
    devices(),
    chunk_terms,
    line_terms,
    attentions(),
    st.lists(st.tuples(st.integers(1, 40), sequences), min_size=1, max_size=6),
    st.sampled_from([None, *RESOURCES]),
)
def test_many_batches_at_once_cost_what_each_costs(
    device: Device,
    chunk: PrefillTerms,
    decode: DecodeTerms,
    attention: Attention,
    points: list[tuple[int, Sequence]],
    free: str | None,
) -> None:
    """Also where some decode and others do not."""
    device = calibrated(device, chunk, decode)
    rates = rates_of(device, "bf16", frozenset({free} - {None}))
    ops = [attend(attention, [Group(sequence=s, count=n)]) for n, s in points]
    flash = msgspec.structs.replace(
        ops[0].flash[0],
        **{
            name: np.array([getattr(op.flash[0], name) for op in ops])
            for name in ("sequences", "new", "context", "keys", "kv_bytes")
        },
    )
    traffic = msgspec.structs.replace(
        ops[0].traffic,
        **{
            name: np.array([getattr(op.traffic, name) for op in ops])
            for name in ("read", "written", "kv_read", "kv_written")
        },
    )
    zeros = np.zeros(len(ops), dtype=np.int64)
    moved = Moved(zeros, zeros, zeros)
    many = priced(
        VECTOR,
        rates,
        attention_times(
            VECTOR, rates, moved, Flops(zeros, zeros), zeros, attention_shape((flash,), traffic)
        ),
    )
    for i, op in enumerate(ops):
        asked = attention_shape(op.flash, op.traffic)
        alone = priced(
            SCALAR, rates, attention_times(SCALAR, rates, Moved(0, 0, 0), Flops(0, 0), 0, asked)
        )
        for name, value in alone._asdict().items():
            assert np.broadcast_to(getattr(many, name), len(ops))[i] == value, name


@given(devices(), line_terms, attentions(), st.integers(1, 600), st.integers(1, 4000))
def test_more_to_see_never_takes_less(
    device: Device, decode: DecodeTerms, attention: Attention, count: int, context: int
) -> None:
    assume(device.overlap == "double-buffered")
    costs = CostModel(calibrated(device, PrefillTerms(), decode), "bf16")

    def time(context: int) -> int:
        sequence = Sequence(new=1, cached=context - 1)
        return costs(attend(attention, [Group(sequence=sequence, count=count)])).duration

    slack = 4 * decode.depth  # whole ticks of a step
    assert time(context) <= time(context + 1) + slack


@given(devices(), chunk_terms, attentions(), groups)
def test_terms_of_a_chunk_leave_counts_and_states_whole(
    device: Device, chunk: PrefillTerms, attention: Attention, groups: list[Group]
) -> None:
    """Calibration changes times, never FLOPs or bytes; states add up."""
    op = attend(attention, groups)
    before, after = (
        CostModel(d, "bf16")(op) for d in (device, calibrated(device, chunk, DecodeTerms()))
    )
    assert (after.flops, after.hbm_bytes) == (before.flops, before.hbm_bytes)
    assert after.duration == after.launch + after.compute + after.hbm + after.sram


# --- errors on shapes that were not fitted ------------------------------------------------------

SHAPE = ["num_heads", "num_kv_heads", "head_dim", "window"]
MIXED = "vllm_runs/RTX4090_Llama-3.1-8B/kernels_tp1/attention.csv"


@cache
def rows_of(name: str, device: str, kv: str) -> pl.DataFrame:
    path = MEASURED / name
    if not path.exists():
        pytest.skip(f"needs {name} of ../shared/data")
    if path.suffix == ".csv":
        frame = pl.read_csv(path).rename({"time_us": "latency_us"})
        return frame.with_columns(num_heads=32, num_kv_heads=8, head_dim=128)
    frame = pl.read_parquet(path).filter(pl.col("device") == device)
    return frame.filter(pl.col("kv_dtype") == kv) if kv else frame


def halves(frame: pl.DataFrame, keys: list[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows by a hash of their shape: one half to fit, the other to score."""
    names = frame.select(pl.concat_str([pl.col(k).cast(pl.String) for k in keys], separator="/"))
    odd = [hashlib.md5(s.encode()).digest()[0] % 2 == 1 for s in names.to_series()]
    return frame.filter(pl.Series(odd)), frame.filter(~pl.Series(odd))


def usual(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.filter(
        (pl.col("head_dim") == 128) & (pl.col("window") == 0) & (pl.col("num_heads") >= 8)
    )


def errors(fit: Fit, frame: pl.DataFrame, rates: Rates) -> tuple[float, float]:
    """Median and 90th percentile of the absolute error, %."""
    asked = shape_of_rows(frame, fit.key)
    price: Callable[..., Any] = decode_times if fit.family == "decode" else chunk_times
    ticks = priced(VECTOR, rates, price(VECTOR, rates, fit.terms, asked)).duration
    measured = frame["latency_us"].cast(pl.Float64).to_numpy()
    wrong = np.abs(ticks * 1e-6 / measured - 1) * 100
    return float(np.median(wrong)), float(np.quantile(wrong, 0.9))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "file", "measured", "name", "key", "keys", "bounds"),
    [
        ("prefill", "prefill", "a100_sxm", "a100-sxm-80gb", "bf16", SHAPE, (5, 17)),
        ("prefill", "prefill", "h100_sxm", "h100-sxm", "bf16", SHAPE, (5, 17)),
        ("decode", "decode", "a100_sxm", "a100-sxm-80gb", "bf16", SHAPE, (7, 22)),
        ("decode", "decode", "h100_sxm", "h100-sxm", "bf16", SHAPE, (7, 22)),
        ("decode", "decode", "h100_sxm", "h100-sxm", "fp8", SHAPE, (7, 22)),
        ("encoder", "", "h100_sxm", "h100-sxm", "bf16", SHAPE[:1] + SHAPE[2:3], (10, 31)),
        ("mixed", "", "", "rtx-4090", "bf16", ["prefill_chunk", "kv_prefill"], (15, 45)),
    ],
)
def test_shapes_that_were_not_fitted(
    family: str,
    file: str,
    measured: str,
    name: str,
    key: str,
    keys: list[str],
    bounds: tuple[float, float],
) -> None:
    path = f"kernels/attention_{file}.parquet" if file else MIXED
    if family == "encoder":
        path = "kernels/encoder_attention.parquet"
    kv = "" if not file else "fp8" if key == "fp8" else "bfloat16"
    frame = rows_of(path, measured, kv)
    if family == "prefill":
        frame = frame.filter(pl.col("q_len") > 1)
    if family == "mixed":
        frame = frame.filter(pl.col("prefill_chunk") > 0)
    fitted, others = halves(frame, keys)
    device = load_device(name)
    function = fit_function(family)
    assert function is not None
    fit = function(fitted, device, key)
    assert isinstance(fit.terms, PrefillTerms | DecodeTerms)
    scored = usual(others) if file else others
    median, most = errors(fit, scored, rates_of(device, "bf16"))
    assert median <= bounds[0]
    assert most <= bounds[1]


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_a_kernel_of_a_row_is_that_of_the_operator(dtype: str) -> None:
    """What is fitted is what is priced."""
    frame = pl.DataFrame(
        {
            "batch": [3, 40, 2],
            "q_len": [1, 1, 300],
            "kv_len": [900, 17, 300],
            "num_heads": [32, 32, 32],
            "num_kv_heads": [8, 8, 8],
            "head_dim": [128, 128, 128],
            "window": [0, 64, 64],
        }
    )
    many = shape_of_rows(frame, dtype)
    for i, row in enumerate(frame.iter_rows(named=True)):
        shape = Attention(heads=32, kv_heads=8, head_dim=128, value_dim=128, window=row["window"])
        cached = row["kv_len"] - row["q_len"]
        batch = Batch.prefill(row["batch"], row["q_len"], cached=cached)
        op = flash_attention("attention", shape, batch, parse_precision(dtype))
        one = attention_shape(op.flash, op.traffic)
        for field in AttentionShape._fields:
            if field not in ("chunks", "causal"):
                value = np.broadcast_to(np.asarray(getattr(many, field)), 3)[i]
                assert value == getattr(one, field), field


def test_rows_over_an_8_bit_cache_have_terms_of_their_own() -> None:
    """They are fitted apart, and priced apart."""
    count = 40
    frame = pl.DataFrame(
        {
            "device": "h100_sxm",
            "dtype": "bfloat16",
            "kv_dtype": ["bfloat16", "fp8"] * (count // 2),
            "batch": [1 + 7 * i for i in range(count)],
            "q_len": 1,
            "kv_len": [16 << (i % 9) for i in range(count)],
            "num_heads": 32,
            "num_kv_heads": 8,
            "head_dim": 128,
            "latency_us": [20.0 if i % 2 else 10.0 for i in range(count)],
        }
    )
    form = format_of(frame)
    assert form is not None
    found, left = pieces([MeasuredFile(Path("rows.csv"), form, frame)], "h100-sxm")
    assert not left
    assert {key: len(parts[0].rows) for key, parts in found.items()} == {
        ("decode", "bf16"): count // 2,
        ("decode", "fp8"): count // 2,
    }
    floors = {"bf16": 10.0, "fp8": 20.0}
    terms = {key: DecodeTerms(floor_us=floor, depth=1) for key, floor in floors.items()}
    device = load_device("h100-sxm")
    device = msgspec.structs.replace(
        device, efficiency=msgspec.structs.replace(device.efficiency, decode=terms)
    )
    shape = Attention(heads=32, kv_heads=8, head_dim=128, value_dim=128)
    batch = Batch.decode(1, 16)
    costs = CostModel(device, "bf16")
    for form_of_cache, floor in floors.items():
        op = flash_attention("attention", shape, batch, parse_precision("bf16", form_of_cache))
        assert costs(op).launch == round(floor * 1e6)
