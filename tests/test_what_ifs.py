"""Named what-ifs: every file runs, and every mechanism keeps the law that its formula states."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import msgspec
import pytest

from sim import InputError, Scenario, Workload
from sim.scenario import Resolved, resolve
from sim.simulation import simulate
from sim.studies.whatif.answers import shown
from sim.studies.whatif.buffers import local_bytes, matmul_time
from sim.studies.whatif.evaluate import exited, speculated
from sim.studies.whatif.mechanisms import Area, Exits, LocalBuffers, Sparsity, Speculative, Tiers
from sim.studies.whatif.named import Answer, answer, load, studies
from sim.studies.whatif.runs import break_down
from workloads.ops import Gemm

COMMAND = Path(sys.executable).with_name("memorywall")
BITS = {"a_bits": 8, "b_bits": 8, "out_bits": 8}


def point(batch: int = 1, output: int = 5, model: str = "gpt2") -> Resolved:
    work = Workload(batch=batch, prompt=32, output=output)
    return resolve(Scenario(model=model, on="l4", dtype="fp16", workload=work))


def tpot(resolved: Resolved) -> Fraction:
    return break_down(simulate(resolved), "tpot").total


@pytest.fixture(scope="module")
def answers() -> dict[str, Answer]:
    """All of them, with short outputs where the claim does not ask for length."""
    long = {"quantised-weights", "batch-size", "encoder-or-decoder"}
    return {name: answer(load(name)) for name in studies() if name not in long}


def test_every_variant_can_be_run(answers: dict[str, Answer]) -> None:
    for name, found in answers.items():
        assert not [o.reason for o in found.outcomes if o.reason], name
        assert all(told.ours is not None for told in found.claims), name


def test_counts_are_those_that_the_survey_prints(answers: dict[str, Answer]) -> None:
    told = [t for a in answers.values() for t in a.claims if t.claim.of == "intensity"]
    assert len(told) >= 5
    for one in told:
        assert shown(one) == one.claim.printed


def test_directions(answers: dict[str, Answer]) -> None:
    def times(name: str) -> list[Fraction]:
        return [o.breakdown.total for o in answers[name].outcomes if o.breakdown]

    dense, structured, unsupported, packed, skipped, _ = times("pruning")
    assert dense == unsupported > structured
    assert packed > skipped
    assert times("fewer-kv-heads") == sorted(times("fewer-kv-heads"), reverse=True)
    near, far, middle, together, *_ = times("tiered-memory")
    assert near < together < middle < far
    apart, turned, hidden, hidden_turned = times("scratchpad-or-accumulator")
    assert apart > turned > hidden == hidden_turned


@pytest.mark.slow
def test_long_studies_reproduce_their_counts() -> None:
    told = answer(load("quantised-weights")).claims
    assert [shown(t) for t in told] == ["92.3", "48.8", "46.2", "27.1"]


def test_sparsity_is_bytes_and_steps() -> None:
    product = simulate(point()).record.compiled.plan.jobs[0].work[1].block.steps
    op = next(s.op for s in product if s.op and s.op.kind == "ffn")
    masked = Sparsity(density=0.25, store="bitmask").rewrite(op)
    assert masked.traffic.weights == pytest.approx(
        op.traffic.weights * (16 * 0.25 + 1) / 16, rel=1e-6
    )
    assert masked.flops == op.flops
    skipping = Sparsity(density=0.5, store="2:4", skip=True).rewrite(op)
    assert skipping.matrix_flops * 2 == op.matrix_flops
    assert skipping.traffic.weights == pytest.approx(op.traffic.weights * 9 / 16, rel=1e-6)
    assert Sparsity(density=0.1).rewrite(op) == op
    with pytest.raises(ValueError, match="2:4 keeps half"):
        Sparsity(density=0.3, store="2:4")


def test_a_far_memory_as_fast_as_hbm_is_hbm() -> None:
    one = point()
    bandwidth = one.machine.device.hbm.bandwidth_GBps
    same = Tiers(bandwidth_GBps=bandwidth, weights=0.5, kv=0.5).rewriter(one.machine.device)
    assert simulate(one, rewrite=same).makespan == simulate(one).makespan
    slow = Tiers(bandwidth_GBps=bandwidth / 4, weights=1, kv=1).rewriter(one.machine.device)
    quarter = resolve(
        msgspec.structs.replace(one.scenario, set={"hbm.bandwidth_GBps": bandwidth / 4})
    )
    assert tpot(one) < break_down(simulate(one, rewrite=slow), "tpot").total <= tpot(quarter)


def test_tokens_of_a_cycle() -> None:
    how = Speculative(draft="gpt2", tokens=3, acceptance=0.5)
    assert how.expected == pytest.approx(1 + 0.5 + 0.25 + 0.125)
    assert Speculative(draft="gpt2", tokens=3, acceptance=1.0).expected == 4
    assert Speculative(draft="gpt2", tokens=3, acceptance=0.0).expected == 1


def test_speculation_is_its_passes() -> None:
    """Nothing accepted: a token a cycle, so a draft step and a pass of two tokens each."""
    one = point()
    document = {"model": "gpt2", "on": "l4", "dtype": "fp16"}
    none = speculated(one, document, Speculative(draft="gpt2", tokens=1, acceptance=0.0))
    drafts = sum(x for c, x in none.parts.items() if c.kind.startswith("draft "))
    assert drafts == pytest.approx(float(tpot(one)), rel=1e-3)
    assert none.total > 2 * tpot(one) * Fraction(99, 100)
    every = speculated(one, document, Speculative(draft="gpt2", tokens=1, acceptance=1.0))
    assert 2 * every.total == pytest.approx(float(none.total), rel=1e-3)


def test_exits_of_one_are_the_model_itself() -> None:
    one = point(batch=2)
    assert exited(one, Exits(at=(1.0,), shares=(1.0,))).total == tpot(one)
    half = exited(one, Exits(at=(0.5, 1.0), shares=(1.0, 0.0))).total
    assert half < tpot(one)
    some = Exits(at=(0.5, 1.0), shares=(0.5, 0.5))
    assert some.weights(1) == [0.5, 0.5]
    assert some.weights(3) == [0.125, 0.875]
    assert some.layers(12) == [6, 12]
    with pytest.raises(ValueError, match="the last exit is the end"):
        Exits(at=(0.25, 0.5), shares=(0.5, 0.5))


def test_moved_area_is_kept() -> None:
    device = point().machine.device
    area = Area(move=0.25, mac_um2=3000, bit_um2=0.3, dtype="fp16")
    changes = dict(text.split("=") for text in area.changes(device))
    macs = device.matrix.TFLOPS["fp16"] * 1e12 / 2 / (device.clock_GHz * 1e9)
    key = next(k for k in changes if k.endswith("capacity_KiB"))
    number = int(key.split(".")[1])
    bits = (float(changes[key]) - device.on_chip[number].capacity_KiB) * 1024 * 8
    assert bits * area.bit_um2 == pytest.approx(macs * 0.25 * area.mac_um2)
    assert float(changes["matrix.TFLOPS.fp16"]) == 0.75 * device.matrix.TFLOPS["fp16"]


def test_local_bytes_against_every_tile() -> None:
    gemm = Gemm(m=100, k=64, n=70, **BITS)
    buffers = LocalBuffers(scratchpad_KiB=4, accumulator_KiB=8)
    tried = [
        100 * 64 * -(-70 // tn) + 64 * 70 * -(-100 // tm) + 100 * 70
        for tm in range(16, 129, 16)
        for tn in range(16, 97, 16)
        if 4 * tm * tn <= 8192 and 32 * (tm + tn) <= 4096
    ]
    assert local_bytes(gemm, buffers) == min(tried)
    roomy = LocalBuffers(scratchpad_KiB=1e4, accumulator_KiB=1e4)
    assert local_bytes(gemm, roomy) == gemm.bytes


def test_hidden_loads_leave_the_arithmetic() -> None:
    one = resolve(Scenario(model="bert-base", on="survey-accelerator", dtype="int8"))
    states = matmul_time(one, LocalBuffers(scratchpad_KiB=256, accumulator_KiB=128)).by("state")
    assert {cause.state for cause in states} == {"compute"}


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(
        'title = "t"\nquestion = "q"\nhow = "h"\nsource = "s"\nmetric = "tpot"\n'
        'scenario = { model = "gpt2", on = "l4", workload = { prompt = 8, output = 2 } }\n'
        'variants = [{ name = "a" }, { name = "b", changes = { "hbm.bandwidth_GBps" = "*2" } }]\n'
    )
    found = answer(load(str(mine)), on="t4", changes=["dtype=fp16"])
    assert found.customised
    assert "on t4" in found.outcomes[0].name
    mine.write_text(mine.read_text().replace('name = "b"', 'name = "a"'))
    with pytest.raises(InputError, match="each with a name of its own"):
        load(str(mine))
    with pytest.raises(InputError, match="did you mean 'pruning'"):
        load("prunin")


@pytest.mark.parametrize(
    ("call", "said", "written"),
    [
        (["what-if", "show", "pruning"], 'title    = "Pruning"', ""),
        (["what-if", "list"], "early-exit", ""),
        (["what-if", "run", "fewer-kv-heads"], "1 (multi-query)", "fewer-kv-heads.png"),
        (["sensitivity", "gpt2", "--on", "l4", "--output", "2"], "limits TPOT", "sensitivity.svg"),
        (["trend", "gpt2", "--on", "l4", "--years", "2"], "carried forward", "trend.csv"),
    ],
)
def test_the_commands(tmp_path: Path, call: list[str], said: str, written: str) -> None:
    out = ["--out", str(tmp_path), "--size", "column"] if written else []
    done = subprocess.run([COMMAND, *call, *out], capture_output=True, text=True, check=True)
    assert said in done.stdout
    assert not written or (tmp_path / written).is_file()
