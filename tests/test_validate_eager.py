"""Rows that were measured from PyTorch itself: its own kernels, and the host's time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from hw_models.device import Device
from hw_models.efficiency import Efficiency, VectorTerms
from sim.cost.model import CostModel
from sim.fidelity.validate.eager import HOST_US, SOFTMAX, Eager, eager, passes_of
from sim.fidelity.validate.points import PredictionBench
from sim.fidelity.validate.session import read
from sim.inputs.catalogue import load_device, load_model
from workloads.ops import (
    Elements,
    activation,
    norm,
    vector,
)
from workloads.precision import parse_precision

FP16 = parse_precision("fp16")
WALKING = VectorTerms(
    floor_us=2.0, hbm=0.5, walk={"norm": 1500.0}, passes={"norm": 3.0}, hidden=0.5, source="made up"
)


def a100(**terms: Any) -> Device:
    efficiency = Efficiency(elementwise=terms)
    return msgspec.structs.replace(load_device("a100-sxm-80gb"), efficiency=efficiency)


def test_eager_kernels_pass_their_bytes_once() -> None:
    device = eager(a100(bf16=WALKING), "fp16", {"softmax": SOFTMAX})
    costs = CostModel(device, "fp16")
    size = 2**28
    once = 4 * size / (0.5 * device.hbm.bandwidth)
    kinds = {
        1.0: norm("n", "layernorm", 2**16, 2**12, FP16),
        SOFTMAX: vector("s", "softmax", size, Elements(size, size), FP16),
    }
    for passes, op in kinds.items():
        assert costs(op).hbm_time == pytest.approx(passes * once * 1e12, rel=1e-3), op.kind
    bare = a100()
    assert eager(bare, "fp16", {}) is bare


def test_the_code_of_a_model_passes_over_scores_and_activations() -> None:
    bench = Eager(PredictionBench(own=a100(bf16=WALKING)), "fp16")
    act = activation("a", "gelu", 4096, 4096, False, FP16)
    scores = vector("s", "softmax", 2**28, Elements(2**28, 2**28), FP16)
    of = {name: bench.costs("x", load_model(name)) for name in ("gpt2", "bert-base", "t5-large")}
    assert passes_of(load_model("gpt2"))["activation"] > 1
    assert of["gpt2"](act).hbm_time > 5 * of["bert-base"](act).hbm_time
    assert of["gpt2"](scores) == of["bert-base"](scores)
    assert of["bert-base"](scores).hbm_time > of["t5-large"](scores).hbm_time


def test_a_call_that_is_waited_for_takes_the_hosts_time_on_top(tmp_path: Path) -> None:
    own = a100(bf16=WALKING)
    frame = pl.DataFrame(
        [
            {"device": "A100", "op": op, "m": m, "n": n, "k": 0, "latency_us": 50.0}
            for op, m, n in (("gelu_fp16", 2**26, 1), ("layernorm_fp16", 4096, 4096))
        ]
        + [{"device": "A100", "op": "all_reduce", "m": 8, "n": 1, "k": 0, "latency_us": 12.0}]
    )
    frame.write_csv(tmp_path / "ops.csv")
    (source,) = read([tmp_path], None, None, [])
    gelu, layernorm, exchange = source.form.read(source, PredictionBench(own=own))
    costs = CostModel(eager(own, "fp16", {}), "fp16")
    for point, kind, op in (
        (gelu, "activation", activation("g", "gelu", 2**16, 2**10, False, FP16)),
        (layernorm, "norm", norm("n", "layernorm", 4096, 4096, FP16)),
    ):
        assert point.predicted is not None
        kernel = costs(op).duration * 1e-12
        assert point.predicted - kernel == pytest.approx(HOST_US[kind] * 1e-6, rel=1e-6)
    assert exchange.predicted is None
    assert "several devices" in exchange.reason
