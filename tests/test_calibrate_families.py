"""Fits of streams, experts and exchanges find what made the data; held-out errors are small."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from hw_models.device import Device
from hw_models.efficiency import CollectiveTerms, ExpertTerms, VectorTerms
from sim.cost.model import CostModel
from sim.fidelity.calibrate import collectives, elementwise, experts
from sim.fidelity.validate.kernels import expert_ops
from sim.inputs.catalogue import load_device
from workloads.ops import activation, norm
from workloads.precision import parse_precision

DATA = Path(__file__).parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="../shared/data is not here")


def bare(name: str, **terms: Any) -> Device:
    """A device with no terms of these families but `terms`."""
    device = load_device(name)
    none: dict[str, Any] = {"elementwise": {}, "experts": {}, "collectives": {}}
    efficiency = msgspec.structs.replace(device.efficiency, **(none | terms))
    return msgspec.structs.replace(device, efficiency=efficiency)


def score(predicted: Any, frame: pl.DataFrame) -> tuple[float, float]:
    """(median, p90) of the absolute error in per cent."""
    error = np.abs(predicted * 1e6 / frame["latency_us"].to_numpy() - 1) * 100
    return float(np.median(error)), float(np.quantile(error, 0.9))


def timed(frame: pl.DataFrame, seconds: Any) -> pl.DataFrame:
    return frame.with_columns(pl.Series("latency_us", seconds * 1e6))


# What made the data ----------------------------------------------------------------------


def test_a_fit_of_streams_finds_their_terms() -> None:
    made = VectorTerms(
        floor_us=3.0,
        hbm=0.8,
        cached=0.4,
        cached_gain=0.5,
        walk={"norm": 1500.0, "rotary": 800.0},
        hidden=0.3,
        passes={"norm": 2.0, "rotary": 1.2},
        depth=elementwise.DEPTH,
    )
    rows = [
        {"op": op, "rows": 2**i, "width": width, "read": read * width, "written": width}
        for op, read in (("residual", 2), ("norm", 1), ("rotary", 1))
        for i in range(16)
        for width in (4096, 16384)
    ]
    device = bare("h100-sxm")
    frame = pl.DataFrame(rows)
    frame = timed(frame, elementwise.predict(frame, device, "bf16", made))
    fit = elementwise.fit(frame, device, "bf16")
    found = fit.terms
    assert isinstance(found, VectorTerms)
    assert fit.undetermined == {}
    for name in ("floor_us", "hbm", "cached", "cached_gain", "hidden"):
        assert getattr(found, name) == pytest.approx(getattr(made, name), rel=0.05), name
    assert found.passes == pytest.approx(made.passes, rel=0.05)
    assert found.walk == pytest.approx(made.walk, rel=0.05)


def test_streams_that_nobody_moves_once_leave_the_rate() -> None:
    frame = pl.DataFrame(
        [
            {"op": "norm", "rows": 2**i, "width": 4096, "read": 4096, "written": 4096}
            for i in range(16)
        ]
    )
    device = bare("h100-sxm")
    frame = timed(frame, elementwise.predict(frame, device, "bf16", VectorTerms()))
    assert "hbm" in elementwise.fit(frame, device, "bf16").undetermined


def mixtures() -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "num_tokens": tokens,
                "hidden": 4096,
                "inter": 1536,
                "topk": 8,
                "num_experts": 128,
                "moe_tp": 1,
                "moe_ep": ranks,
                "routing": routing,
            }
            for tokens in (1, 8, 64, 512, 4096, 16384)
            for ranks in (1, 4)
            for routing in ("balanced", "power_law_1.2")
        ]
    )


def test_a_fit_of_experts_finds_their_terms() -> None:
    made = ExpertTerms(floor_us=12.0, hbm=0.8, matrix=0.5, combine=0.4, depth=4)
    device, frame = bare("h100-sxm"), mixtures()
    frame = timed(frame, experts.predict(frame, device, "bf16", made))
    found = experts.fit(frame, device, "bf16").terms
    for name in ("floor_us", "hbm", "matrix", "combine", "depth"):
        assert getattr(found, name) == pytest.approx(getattr(made, name), rel=0.05), name


def test_a_fit_prices_what_the_simulator_prices() -> None:
    terms = ExpertTerms(floor_us=12.0, hbm=0.8, matrix=0.5, combine=0.4, depth=4)
    device, frame, form = bare("h100-sxm"), mixtures(), parse_precision("bf16")
    costs = CostModel(bare("h100-sxm", experts={"bf16": terms}), "bf16")
    alone = [
        sum(costs(op).duration for op in expert_ops(row, form))
        for row in frame.iter_rows(named=True)
    ]
    together = experts.predict(frame, device, "bf16", terms) * 1e12
    assert together == pytest.approx(alone, abs=1)


def test_a_fit_of_a_library_finds_its_times() -> None:
    made = CollectiveTerms(protocols=collectives.NCCL)
    rows = [
        {"op": op, "num_gpus": n, "bytes": 2**i, "mode": "NCCL", "dtype": "half"}
        for op in ("all_reduce", "all_gather", "alltoall")
        for n in (2, 4, 8)
        for i in range(9, 30)
    ]
    device, frame = bare("h100-sxm"), pl.DataFrame(rows)
    frame = timed(frame, collectives.predict(frame, device, "nccl", {"nccl": made}))
    noisy = frame.with_columns(pl.col("latency_us") * (1.0 + 0.05 * (pl.col("bytes").log(2) % 2)))
    found = collectives.fit(noisy, device, "nccl").terms
    assert isinstance(found, CollectiveTerms)
    predicted = collectives.predict(frame, device, "nccl", {"nccl": found})
    assert score(predicted, frame)[1] < 6


def test_rings_across_nodes_and_sends_find_their_terms() -> None:
    """Among them how many network cards of a node carry rings."""
    made = CollectiveTerms(protocols=collectives.NODES, rails=4)
    rows = [
        {"op": op, "num_gpus": 2 * each, "bytes": 2**i, "mode": "nccl", "dtype": "half"}
        | {"per_node": each}
        for op, most in (("all_reduce", 8), ("send_recv", 1))
        for each in (1, 2, 4, 8)[:most]
        for i in range(11, 27)
    ]
    device, frame = bare("h100-sxm"), pl.DataFrame(rows)
    frame = timed(frame, collectives.predict(frame, device, "across", {"across": made}))
    noisy = frame.with_columns(pl.col("latency_us") * (1.0 + 0.05 * (pl.col("bytes").log(2) % 2)))
    found = collectives.fit(noisy, device, "across").terms
    assert isinstance(found, CollectiveTerms)
    assert found.rails == 4
    predicted = collectives.predict(frame, device, "across", {"across": found})
    assert score(predicted, frame)[1] < 6


def test_the_message_at_which_an_engine_hands_over_is_found() -> None:
    nccl = CollectiveTerms(protocols=collectives.NCCL)
    own = CollectiveTerms(protocols=collectives.CUSTOM[:2], most_MiB={"2": 6.0, "4": 12.0})
    rows = [
        {"op": "all_reduce", "num_gpus": n, "bytes": 2**i, "mode": "graph", "dtype": "half"}
        for n in (2, 4)
        for i in range(9, 30)
    ]
    device, frame = bare("h100-sxm", collectives={"nccl": nccl}), pl.DataFrame(rows)
    seconds = collectives.predict(frame, device, None, {"nccl": nccl, "custom": own})
    found = collectives.fit(timed(frame, seconds), device, "custom").terms
    assert isinstance(found, CollectiveTerms)
    assert 4.0 <= found.most_MiB["2"] < 8.0
    assert 8.0 <= found.most_MiB["4"] < 16.0


# Measurements ----------------------------------------------------------------------------


def half(frame: pl.DataFrame, *columns: str) -> pl.Series:
    """One of two halves, by a hash of these columns."""
    keys = frame.select(pl.concat_str([pl.col(c).cast(pl.Utf8) for c in columns], separator="|"))
    return pl.Series([zlib.crc32(key.encode()) % 2 == 1 for key in keys.to_series()])


@pytest.mark.slow
@needs_data
@pytest.mark.parametrize(("name", "key"), [("a100_sxm", "a100-sxm-80gb"), ("h100_sxm", "h100-sxm")])
def test_all_reduces_that_were_not_fitted(name: str, key: str) -> None:
    """Custom and NCCL together: 7 / 18 is asked for."""
    frame = pl.read_csv(DATA / "kernels" / "collectives.csv").filter(pl.col("device") == name)
    held = half(frame, "num_gpus", "bytes", "dtype")
    errors = []
    for fitted in (True, False):
        device, rows = bare(key), frame.filter(held == fitted)
        for library, mine in (
            ("nccl", pl.col("mode") == "NCCL"),
            ("custom", pl.col("mode") != "NCCL"),
        ):
            terms = collectives.fit(rows.filter(mine), device, library).terms
            found = device.efficiency.collectives | {library: terms}
            device = bare(key, collectives=found)
        rest = frame.filter((held != fitted) & (pl.col("op") == "all_reduce"))
        for library, mode in (("nccl", "NCCL"), (None, "vllm_graph")):
            some = rest.filter(pl.col("mode") == mode)
            predicted = collectives.predict(some, device, library)
            errors += np.abs(predicted * 1e6 / some["latency_us"].to_numpy() - 1).tolist()
    assert 100 * np.median(errors) < 7
    assert 100 * np.quantile(errors, 0.9) < 18


@pytest.mark.slow
@needs_data
def test_mixtures_that_were_not_fitted() -> None:
    """20 / 60 is asked for."""
    frame = pl.read_parquet(DATA / "kernels" / "moe.parquet")
    held = half(frame, "hidden", "inter", "topk", "num_experts")
    device = bare("h100-sxm", elementwise=load_device("h100-sxm").efficiency.elementwise)
    for fitted in (True, False):
        terms = experts.fit(frame.filter(held == fitted), device, "bf16").terms
        assert isinstance(terms, ExpertTerms)
        rest = frame.filter(held != fitted)
        median, p90 = score(experts.predict(rest, device, "bf16", terms), rest)
        assert median < 10
        assert p90 < 45


def test_streams_are_priced_as_they_are_fitted() -> None:
    """Also their arithmetic, which a fit does not know of, is under the walk."""
    terms = VectorTerms(
        floor_us=2.0, hbm=0.9, walk={"norm": 1200.0, "activation": 1300.0}, hidden=0.5, depth=1
    )
    device = bare("a100-sxm-80gb", elementwise={"fp16": terms})
    costs, form = CostModel(device, "fp16"), parse_precision("fp16")
    for op, kind, read in (
        (activation("a", "silu", 4096, 28672, True, form), "activation", 2),
        (norm("n", "rmsnorm", 4096, 8192, form), "norm", 1),
    ):
        row = {"op": kind, "rows": 4096, "width": op.width}
        frame = pl.DataFrame([{**row, "read": read * op.width, "written": op.width}])
        (fitted,) = elementwise.predict(frame, device, "fp16", terms)
        assert costs(op).duration * 1e-12 == pytest.approx(fitted, rel=1e-3), kind
