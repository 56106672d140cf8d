"""Measuring: grids, tables and device files without PyTorch; with it, a few kernels for real."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import polars as pl
import pytest
from typer.testing import CliRunner

from hw_models.device import Device
from sim.cli.app import app
from sim.errors import InputError
from sim.fidelity.calibrate.device_file import save_device
from sim.fidelity.measure import session
from sim.fidelity.measure.bodies import kernel_name
from sim.fidelity.measure.buffers import Body
from sim.fidelity.measure.cases import GRIDS, KERNELS, MODULES, grid
from sim.fidelity.measure.cpu import keep_freed_memory, library_function
from sim.fidelity.measure.host import HostDescription, slug, this_host
from sim.fidelity.measure.models import RealModel
from sim.fidelity.measure.plan import MeasurementPlan
from sim.fidelity.measure.starting import cpu_device
from sim.fidelity.measure.tables import MeasurementTables, Timing
from sim.fidelity.measure.timer import cpu_timing, summary
from sim.fidelity.validate.formats import format_of
from sim.fidelity.validate.points import MeasuredFile, PredictionBench
from sim.inputs.catalogue import load_device

FORMAT_OF = {"attention_prefill": "attention", "attention_decode": "attention"}
FORMAT_OF["copy"] = "elementwise"
HEADS = {"framework": "torch", "version": "0", "kernel": "k"}
EXCHANGE_HEADS = {"library": "gloo", "mode": "gloo", "num_gpus": 2}


def filled(out: Path, kernels: tuple[str, ...] = KERNELS) -> MeasurementTables:
    """Tables of the quick grid, with times that are in the ratio of the work."""
    tables = MeasurementTables(out, "a-machine")
    for case in grid(kernels, ("fp32",), quick=True):
        heads = EXCHANGE_HEADS if case.table == "collectives" else HEADS
        tables.add(case, heads, Timing(5.0 + case.flops / 1e5 + case.nbytes / 1e4, 0.1, 7))
    tables.save()
    return tables


@pytest.mark.parametrize("kernel", KERNELS)
def test_no_case_of_a_grid_stands_twice(kernel: str) -> None:
    cases = list(GRIDS[kernel]("fp32")) + list(GRIDS[kernel]("bf16"))
    assert len({case.key for case in cases}) == len(cases)
    assert all(case.nbytes > 0 for case in cases)


def test_the_grid_of_products_shows_floor_ramp_crossover_and_waves() -> None:
    cases = list(GRIDS["gemm"]("fp32"))
    weights = {c.columns["n"] * c.columns["k"] for c in cases}
    rows = {c.columns["m"] for c in cases}
    assert min(weights) * 4 <= 2**20
    assert max(weights) * 4 >= 2**27
    assert min(rows) == 1
    assert max(rows) >= 4096
    beside = {c.columns["m"] for c in cases if c.columns["n"] == c.columns["k"] == 2048}
    assert {128, 129, 256, 257} <= beside


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_is_written_is_read_by_validation(kernel: str, tmp_path: Path) -> None:
    tables = filled(tmp_path)
    path = tables.path(kernel)
    frame = pl.read_csv(path) if path.suffix == ".csv" else pl.read_parquet(path)
    form = format_of(frame)
    assert form is not None
    assert form.name == FORMAT_OF.get(kernel, kernel)
    if kernel != "collectives":  # one machine has no links
        device = example_device(tables)
        points = list(form.read(MeasuredFile(path, form, frame), PredictionBench(own=device)))
        assert [p.reason for p in points if p.predicted is None] == []
        assert len(points) == len(frame)


def example_device(tables: MeasurementTables) -> Device:
    host = HostDescription("a-machine", "A", 2, 2.5, "assumed", this_host().caches, 8 * 2**30)
    return cpu_device("a-machine", host, tables.frame("gemm"), tables.frame("copy"))


def test_the_device_to_start_from_reads_back_and_bounds_its_own_measurements(
    tmp_path: Path,
) -> None:
    tables = filled(tmp_path)
    device = example_device(tables)
    path = tmp_path / "a-machine.toml"
    save_device(device, path, "a heading")
    assert load_device(str(path)) == device
    peak = device.matrix.flops("fp32")
    assert peak is not None
    gemm = tables.frame("gemm")
    rate = (2 * gemm["m"] * gemm["n"] * gemm["k"] / gemm["latency_us"] * 1e6).max()
    assert peak == pytest.approx(rate, rel=0.05)
    assert all("measured" in s.source for s in (device.matrix, device.hbm, device.launch))


def test_a_measurement_goes_on_where_it_stopped(tmp_path: Path) -> None:
    filled(tmp_path, ("gemm",))
    again = MeasurementTables(tmp_path, "a-machine")
    again.load(KERNELS)
    cases = grid(("gemm", "elementwise"), ("fp32",), quick=True)
    known = [again.has(case, kernel="k") for case in cases]
    assert known == [case.table == "gemm" for case in cases]
    assert not any(again.has(case, kernel="another") for case in cases)


def test_a_folder_of_another_machine_is_refused(tmp_path: Path) -> None:
    filled(tmp_path)
    with pytest.raises(InputError, match="holds measurements of a-machine, not of b"):
        MeasurementTables(tmp_path, "b").load(KERNELS)


def test_modules_of_different_kinds_have_kernels_of_different_names() -> None:
    for case in grid(("gemm", "attention_decode"), ("fp32",), quick=True):
        assert len({kernel_name(case, modules) for modules in MODULES}) == 2


def test_without_pytorch_one_sentence_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'memorywall\[measure\]'"):
        session.measure(MeasurementPlan(out=tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--only", "gem"], "did you mean 'gemm'"),
        (["--modules", "gpt3"], "did you mean 'gpt2'"),
    ],
)
def test_a_word_that_is_not_known_is_refused(
    flags: list[str], sentence: str, tmp_path: Path
) -> None:
    done = CliRunner().invoke(app, ["measure", "--out", str(tmp_path), *flags])
    assert isinstance(done.exception, InputError)
    assert sentence in str(done.exception)


def test_the_machine_is_read_from_its_files(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(
        "vendor_id : V\nmodel name : Fast(R) CPU X-12 @ 3.00GHz\ncpu MHz : 3100.5\n"
    )
    (tmp_path / "proc/meminfo").write_text("MemTotal:  16777216 kB\n")
    cache = tmp_path / "sys/devices/system/cpu/cpu0/cache/index3"
    cache.mkdir(parents=True)
    for name, text in (("level", "3"), ("size", "24M"), ("type", "Unified")):
        (cache / name).write_text(text)
    (cache / "shared_cpu_list").write_text("0-3,8")
    host = this_host(tmp_path)
    assert (host.name, host.clock, host.memory) == ("fast-x-12", 3.1005, 2**34)
    assert msgspec.structs.astuple(host.caches[0]) == (3, 24576.0, 5, True)
    assert slug("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"


def test_a_machine_that_tells_nothing_has_stated_assumptions(tmp_path: Path) -> None:
    host = this_host(tmp_path)
    assert host.cores >= 1
    assert not any(cache.reported for cache in host.caches)


def test_timings_are_medians_with_half_the_distance_of_quartiles() -> None:
    timing = summary([1e-6, 2e-6, 3e-6, 4e-6, 100e-6])
    assert (timing.latency_us, timing.repeats) == (3.0, 5)
    calls: list[int] = []
    assert cpu_timing(Body(calls.append), 0.001).repeats >= 5
    assert calls == list(range(len(calls)))  # each call has its own number, so buffers rotate


@pytest.mark.slow
@pytest.mark.parametrize("modules", MODULES)
def test_measure_quick_on_this_machine(modules: str, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the extra memorywall[measure] is not installed")
    runner = CliRunner()
    flags = ["measure", "--quick", "--out", str(tmp_path), "--modules", modules]
    flags += ["--device-name", "here"]
    first = runner.invoke(app, flags)
    assert first.exit_code == 0, first.output
    frame = pl.read_parquet(tmp_path / "kernels/gemm.parquet")
    assert (frame["latency_us"] > 0).all()
    assert set(frame["device"]) == {"here"}
    device = load_device(str(tmp_path / "here.toml"))
    assert device.matrix.TFLOPS.keys() >= {"bf16"} or device.matrix.TFLOPS.keys() >= {"fp32"}
    again = runner.invoke(app, flags)
    assert "0 kernels measured" in again.output


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="gloo between forked processes")
def test_two_processes_reduce_over_gloo_when_asked(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="the extra memorywall[measure] is not installed")
    if torch.cuda.is_available():
        pytest.skip("gloo is for machines without a GPU")
    flags = ["measure", "--quick", "--only", "all-reduce", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, flags)
    assert done.exit_code == 0, done.output
    frame = pl.read_csv(tmp_path / "kernels/collectives.csv")
    assert set(frame["num_gpus"]) == {2}
    assert (frame["latency_us"] > 0).all()


TINY = """
name = "tiny"
architecture = "gpt2"
source = "made up for this test"

[config]
n_embd = 32
n_layer = 2
n_head = 2
n_positions = 64
vocab_size = 100
"""


@pytest.mark.slow
def test_a_model_of_the_catalogues_form_runs_for_real(tmp_path: Path) -> None:
    for package in ("torch", "transformers"):
        pytest.importorskip(package, reason="the extra memorywall[measure] is not installed")
    file = tmp_path / "tiny.toml"
    file.write_text(TINY)
    found = RealModel(str(file)).passes(tokens=16, repeats=3, steps=4)
    assert [(t.phase, t.timing.repeats) for t in found] == [("prefill", 3), ("decode", 9)]
    assert all(t.timing.latency_us > 0 for t in found)


def test_freed_memory_is_kept_and_given_back_where_the_c_library_can() -> None:
    """Both are asked of the library that this process runs on; another one has neither."""
    kept = keep_freed_memory()
    assert kept == (library_function("mallopt") is not None)
    assert library_function("no such function") is None


def test_something_before_a_call_is_untimed_and_comes_before_each() -> None:
    now = [0.0]
    did: list[str] = []

    def takes(what: str, seconds: float) -> None:
        did.append(what)
        now[0] += seconds

    body = Body(lambda i: takes("call", 3e-6), 1, lambda: takes("before", 1.0))
    timing = cpu_timing(body, 4.5, lambda: now[0])
    assert timing.latency_us == pytest.approx(3.0)
    assert did == ["call", "call", *["before", "call"] * 5]
