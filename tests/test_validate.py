"""Validation predicts rows with the one cost model, counts what it cannot, and gates."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from sim.cli.app import app
from sim.cost.model import CostModel
from sim.errors import InputError
from sim.fidelity.validate.names import device_of, dtype_of, model_of, system_of
from sim.fidelity.validate.points import PredictionBench
from sim.fidelity.validate.serving import config_of, engine_of, means, parts
from sim.inputs.catalogue import load_device
from sim.serve.host import engines
from sim.serve.serving import serve
from workloads.ops import (
    Matmul,
    linear,
)
from workloads.precision import parse_precision


def _gemms(path: Path, factor: float, extra: str | None = None) -> None:
    """A table whose times are the model's own, times `factor`."""
    costs, form = CostModel(load_device("h100-sxm"), "bf16"), parse_precision("bf16")
    rows = []
    for m in (1, 64, 4096):
        op = linear("x", "ffn", Matmul(m, 4096, 8192), form)
        row = {"device": "h100_sxm", "dtype": "bfloat16", "m": m, "n": 8192, "k": 4096}
        rows.append({**row, "latency_us": costs(op).duration / 1e6 * factor})
    if extra:
        rows.append({**rows[0], "device": extra})
    pl.DataFrame(rows).write_csv(path)


def test_rows_at_the_models_own_times_have_no_error(tmp_path: Path) -> None:
    _gemms(tmp_path / "gemm.csv", 1.25)
    ran = CliRunner().invoke(app, ["validate", str(tmp_path), "--out", str(tmp_path / "out")])
    assert ran.exit_code == 0, ran.output
    found = pl.read_csv(next((tmp_path / "out").glob("*-gemm.csv")))
    assert found["error"].to_list() == pytest.approx([1 / 1.25 - 1] * 3, rel=1e-6)
    assert found["m"].to_list() == [1, 64, 4096]  # the source's own columns stand beside
    assert (tmp_path / "out" / "predicted.png").stat().st_size > 10_000
    scores = pl.read_csv(tmp_path / "out" / "scores.csv")
    assert scores["median_pct"].to_list() == pytest.approx([20.0] * 3, rel=1e-6)


@pytest.mark.parametrize(("most", "code"), [("19", 1), ("21", 0)])
def test_max_median_is_a_gate(tmp_path: Path, most: str, code: int) -> None:
    _gemms(tmp_path / "gemm.csv", 1.25)
    ran = CliRunner().invoke(app, ["validate", str(tmp_path), "--max-median", most])
    assert ran.exit_code == code
    assert ("more than --max-median" in " ".join(ran.output.split())) == bool(code)


def test_a_row_that_cannot_be_predicted_is_counted_with_its_reason(tmp_path: Path) -> None:
    _gemms(tmp_path / "gemm.csv", 1.0, extra="abacus")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    ran = CliRunner().invoke(app, ["validate", str(tmp_path)])
    assert ran.exit_code == 0, ran.output
    flat = " ".join(ran.output.replace("│", " ").split())
    assert "device 'abacus' is not in" in flat
    assert "no known format" in flat
    # The device that was asked for stands in for it.
    ran = CliRunner().invoke(app, ["validate", str(tmp_path), "--device", "h100-sxm"])
    assert "abacus" not in ran.output


def test_a_cell_that_cannot_be_is_a_reason_and_no_error_of_the_model(tmp_path: Path) -> None:
    head = "device,framework,version,kernel,dtype,m,n,k,latency_us"
    rows = ("-8,64,64,1.5", "8,64,64,inf", "8,64,64,1e300", "8,64,,1.5", "8,64,many,1.5")
    for at, row in enumerate(rows):
        (tmp_path / f"{at}.csv").write_text(f"{head}\na100_sxm,x,1,gemm,bf16,{row}\n")
    ran = CliRunner().invoke(app, ["validate", str(tmp_path), "--out", str(tmp_path / "out")])
    assert ran.exit_code == 0, ran.output
    flat = " ".join(ran.output.replace("│", " ").split())
    for said in ("column 'm' has", "column 'latency_us' has", "the measured time is not between"):
        assert said in flat
    for said in ("column 'k' has an empty cell", "column 'k' has a cell that is no number"):
        assert said in flat
    assert "supported between" not in flat


def test_a_steady_closed_loop_is_linear_in_the_terms_of_an_engine(tmp_path: Path) -> None:
    """The parts that calibration takes apart give back what `serve` says with the terms in."""
    terms = {"step_us": 700.0, "sequence_us": 30.0, "decode_share": 0.25, "prefill_share": 0.5}
    (tmp_path / "e.toml").write_text(
        "\n".join(
            ['name = "e"', 'source = "made up here"', *(f"{k} = {v}" for k, v in terms.items())]
        )
    )
    row = {"backend": "x", "model": "Llama-3.1-8B", "isl": 300, "osl": 40, "batch_size": 12}
    bench = PredictionBench()
    found = parts(config_of(row, bench, "h100-sxm", "none"))
    with_terms = config_of(row, bench, "h100-sxm", str(tmp_path / "e.toml"))
    tpot = means(serve(with_terms))[1]
    expected = (
        found.decode * 1.25 + found.prefill * 1.5 + found.steps * 700e-6 + found.sequences * 30e-6
    )
    assert tpot == pytest.approx(expected, rel=1e-6)


def test_nothing_to_read_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    ran = CliRunner().invoke(app, ["validate", str(tmp_path)])
    assert isinstance(ran.exception, InputError)


def test_a_benchmark_is_replayed_as_its_publisher_runs_it() -> None:
    """Ten requests a client; without a version lengths vary and the host works ahead."""
    row = {"backend": "vllm", "model": "Llama-3.1-8B", "isl": 1000, "osl": 50, "batch_size": 6}
    row |= {"gemm_quant_mode": "fp8", "backend_version": "0.12.0"}
    stated, bench = config_of(row, PredictionBench(), "h100-sxm"), PredictionBench()
    assert (stated.engine, stated.kv_dtype) == ("vllm-0.12", "bf16")
    assert (stated.traffic.prompt, stated.traffic.num_requests) == ("fixed:1000", 60)
    # One prompt fits into a step beside the tokens of the others, two do not.
    assert 1006 <= stated.knobs.max_num_batched_tokens < 2000
    unstated = config_of(row | {"backend_version": None}, bench, "h100-sxm")
    assert (unstated.engine, unstated.kv_dtype) == ("vllm-async", "fp8")
    assert (unstated.traffic.prompt, unstated.traffic.output) == (
        "uniform:800-1000",
        "uniform:40-50",
    )
    assert engine_of(row | {"backend_version": "0.14.1"}) == "vllm-async"
    assert engine_of(row | {"backend": "another"}) == "generic"
    assert {engine_of(row | {"backend": b}) for b in ("vllm", "trtllm", "x")} <= set(engines())


@pytest.mark.parametrize(
    ("name", "device"),
    [
        ("a100_sxm", "a100-sxm-80gb"),
        ("NVIDIA_A100-PCIE-40GB", "a100-pcie-40gb"),
        ("NVIDIA_A100_80GB_PCIe", "a100-pcie-80gb"),
        ("NVIDIA_A100-SXM4-40GB", "a100-sxm-40gb"),
        ("NVIDIA_H100_80GB_HBM3", "h100-sxm"),
        ("h200_sxm", "h200"),
        ("b200_sxm", "b200"),
        ("Tesla_T4", "t4"),
        ("Tesla_P4", "p4"),
        ("Tesla_V100-PCIE-32GB", "v100-pcie"),
        ("NVIDIA_L4", "l4"),
        ("l40s", "l40s"),
        ("a40", "a40"),
        ("A100x4", "a100-sxm-80gb"),
        ("h100-80gb", "h100-sxm"),
        ("AMD_Instinct_MI210", "mi210"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("gh200", "gh200"),
    ],
)
def test_names_of_devices(name: str, device: str) -> None:
    assert device_of(name) == device


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b"),
        ("Qwen/Qwen3-32B-FP8", "qwen3-32b"),
        ("llama2-70b", "llama-2-70b"),
        ("Meta-Llama-3-8B", "llama-3-8b"),
        ("gpt3_27", "gpt3-2.7b"),
        ("opt_13", "opt-1.3b"),
        ("gpt3_xl", "gpt3-xl-3072"),
        ("switchxl4", "switch-xl-4"),
        ("bloom-176b", "bloom-176b"),
        ("mistralai/Mixtral-8x7B-v0.1", "mixtral-8x7b"),
        ("bert_large", "bert-large"),
    ],
)
def test_names_of_models(name: str, model: str) -> None:
    assert model_of(name) == model


def test_names_of_formats_and_systems() -> None:
    assert dtype_of("torch.bfloat16") == "bf16"
    assert system_of("h100-sxm", 4) == "hgx-h100"
    with pytest.raises(InputError, match="no system of 4 x t4"):
        system_of("t4", 4)
