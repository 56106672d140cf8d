"""The loop of measuring, calibrating, predicting and running: its parts without PyTorch, and with
it the whole of it on miniature models."""

from __future__ import annotations

from pathlib import Path

import msgspec
import polars as pl
import pytest

from sim import Scenario, Workload, load_device, run
from sim.errors import InputError
from sim.fidelity.calibrate.calibrate import Calibration
from sim.fidelity.measure import loop
from sim.fidelity.measure.cases import Case
from sim.fidelity.measure.loop import LoopStudy, Subject, close_loop, compared, in_order
from sim.fidelity.measure.loop_plot import draw
from sim.fidelity.measure.models import Timed
from sim.fidelity.measure.tables import Timing
from workloads.block import Lowering

GPT2 = Subject(model="gpt2", modules="gpt2", lengths=(64,), small={"n_embd": 24})
TIMING = Timing(1000.0, 10.0, 5)


def test_a_pass_is_priced_as_run_prices_it(tmp_path: Path) -> None:
    study = LoopStudy(folder=tmp_path, subjects=(GPT2,), steps=5)
    device = load_device("a100-sxm-80gb")
    devices = {m: {"pass": device, "step": device} for m in ("torch", "gpt2")}
    result = run(
        Scenario(
            model="gpt2",
            on=device.name,
            dtype="fp32",
            workload=Workload(prompt=64, output=5),
            lowering=Lowering(fusion=False),
        )
    )
    for phase, seconds in (("prefill", result.metrics.ttft_s), ("decode", result.metrics.tpot_s)):
        timed = Timed("gpt2", phase, 64, TIMING)
        assert loop.kernels_us(study, timed, devices) == pytest.approx(seconds * 1e6, rel=1e-9)


def test_heads_and_steps_are_priced_by_devices_of_their_own(tmp_path: Path) -> None:
    """A head by that of nn.Linear, a token by that of products of one row, and by no other."""
    study = LoopStudy(folder=tmp_path, subjects=(GPT2,), steps=2)
    device = load_device("a100-sxm-80gb")
    slower = msgspec.structs.replace(
        device, launch=msgspec.structs.replace(device.launch, overhead_us=1000.0)
    )
    slower = msgspec.structs.replace(
        slower, efficiency=msgspec.structs.replace(device.efficiency, gemm={})
    )
    token = Timed("gpt2", "decode", 64, TIMING)

    def priced(**slow: str) -> float:
        def of(modules: str) -> dict[str, object]:
            return {p: slower if slow.get(modules) == p else device for p in ("pass", "step")}

        return loop.kernels_us(study, token, {"torch": of("torch"), "gpt2": of("gpt2")})

    assert priced(torch="pass") == priced(gpt2="pass") == priced()
    head = priced(torch="step") - priced()
    assert 900 < head < 1100
    assert priced(gpt2="step") > priced() + 4 * 12 * 900


def example(study: LoopStudy) -> pl.DataFrame:
    device = load_device("a100-sxm-80gb")
    devices = {m: {"pass": device, "step": device} for m in ("torch", "gpt2")}
    points = [
        Timed("gpt2", phase, tokens, Timing(time * tokens, 5.0, 5))
        for phase, time in (("prefill", 90.0), ("decode", 70.0))
        for tokens in (64, 128)
    ]
    return compared(study, points, devices, {("gpt2", "prefill"): 100.0, ("gpt2", "decode"): 5.0})


def test_a_table_adds_up_and_is_drawn(tmp_path: Path) -> None:
    table = example(LoopStudy(folder=tmp_path, subjects=(GPT2,)))
    whole = table["kernels_us"] + table["python_us"]
    assert table["predicted_us"].to_list() == whole.to_list()
    error = (table["predicted_us"] / table["latency_us"] - 1) * 100
    assert table["error_pct"].to_list() == pytest.approx(error.to_list())
    draw(table, tmp_path / "loop")
    assert {p.suffix for p in tmp_path.iterdir()} >= {".png", ".svg"}


def test_pairs_are_in_order_where_the_longer_is_predicted_longer() -> None:
    table = pl.DataFrame({"latency_us": [1.0, 2.0, 3.0], "predicted_us": [5.0, 4.0, 6.0]})
    assert in_order(table) == (2, 3)


def test_a_file_that_holds_no_times_is_named(tmp_path: Path) -> None:
    path = tmp_path / "models.json"
    path.write_text('[{"model": "gpt2"}]')
    with pytest.raises(InputError, match=r"models\.json: holds no times of models"):
        loop.real(LoopStudy(folder=tmp_path, subjects=(GPT2,)), path, again=False)


TINY_BERT = """
name = "tiny-bert"
architecture = "bert"
source = "made up for this test"
[config]
hidden_size = 128
intermediate_size = 256
num_hidden_layers = 2
num_attention_heads = 2
max_position_embeddings = 64
vocab_size = 100
"""
TINY_GPT2 = """
name = "tiny-gpt2"
architecture = "gpt2"
source = "made up for this test"
[config]
n_embd = 128
n_layer = 2
n_head = 2
n_positions = 64
vocab_size = 100
"""


def small(case: Case) -> bool:
    """Of each kernel as many shapes as tell its terms, the smallest."""
    c = case.columns
    if case.table == "gemm":
        return bool(c["n"] * c["k"] <= (2048**2 if c["m"] == 1 else 768**2) and c["m"] <= 64)
    if case.table == "elementwise":
        return bool(c["rows"] <= 16 and c["width"] <= 1024)
    if case.table == "copy":
        return bool(c["rows"] <= 4096)
    return bool((c.get("kv_len") or c["seq_len"]) <= 64 and c["batch"] <= 4)


@pytest.mark.slow
def test_the_loop_closes_on_miniature_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("torch", "transformers"):
        pytest.importorskip(package, reason="the extra memorywall[measure] is not installed")
    for name, text in (("bert", TINY_BERT), ("gpt2", TINY_GPT2)):
        (tmp_path / f"{name}.toml").write_text(text)
    bert = Subject(
        model=str(tmp_path / "bert.toml"),
        modules="torch",
        lengths=(16, 48),
        small={"hidden_size": 4, "intermediate_size": 8},
    )
    gpt2 = Subject(
        model=str(tmp_path / "gpt2.toml"), modules="gpt2", lengths=(16, 48), small={"n_embd": 4}
    )
    study = LoopStudy(
        folder=tmp_path / "out", subjects=(bert, gpt2), repeats=3, steps=4, few=8, case_s=0.002
    )
    made: list[Calibration] = []
    table = close_loop(study, small, show=made.append)
    fitted = [{o.key[0]: o.rows for o in m.outcomes if o.fit} for m in made]
    assert [set(f) for f in fitted] == [
        {"gemm", "elementwise", "prefill", "decode"},
        {"gemm"},
        {"gemm", "elementwise", "encoder"},
        {"gemm"},
    ]
    assert [f["gemm"] for f in fitted[1::2]] == [10, 10]  # of one row
    assert fitted[0]["gemm"] > 8
    points = [(Path(m).stem, p, n) for m, p, n in table.select("model", "phase", "tokens").rows()]
    assert points == [
        ("bert", "encode", 16),
        ("bert", "encode", 48),
        *(("gpt2", phase, n) for n in (16, 48) for phase in ("prefill", "decode")),
    ]
    assert (table["kernels_us"] > 0).all()
    ratio = table["predicted_us"] / table["latency_us"]
    assert 0.3 < ratio.min() <= ratio.max() < 3
    draw(table, study.folder / "loop")
    # Again: nothing is measured that is known.
    monkeypatch.setattr(loop, "RealModel", None)
    monkeypatch.setattr("sim.fidelity.measure.bench.body", None)
    assert close_loop(study, small).equals(table)
