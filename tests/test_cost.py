"""Prices of operators: continuity, exact counts, what overlaps, number formats of the parts."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_models.device import Device
from sim import Parallelism, Scenario, Workload, load_device, load_model, run
from sim.cost.model import CostModel
from sim.mapping.memory import Widest, footprints
from sim.scenario import resolve
from workloads.attention import flash_attention
from workloads.batch import Batch, Sequence
from workloads.block import Lowering
from workloads.counts import parameters
from workloads.graph import build_graph
from workloads.huggingface import model_from_config
from workloads.precision import Precision, parse_precision

BF16 = Precision()
H100 = CostModel(load_device("h100-sxm"), "bf16")


def without_attention_terms(device: Device) -> Device:
    """The device with one efficiency and one ramp for all attention."""
    plain = msgspec.structs.replace(device.efficiency, prefill={}, decode={}, encoder={})
    return msgspec.structs.replace(device, efficiency=plain)


PLAIN = CostModel(without_attention_terms(H100.device), "bf16")


@pytest.mark.parametrize("cached", [0, 512, 8192])
@pytest.mark.parametrize("name", ["llama-3.1-8b", "gpt2"])
def test_attention_has_no_jump_in_the_new_tokens(name: str, cached: int) -> None:
    decoder = load_model(name).decoder
    assert decoder is not None
    attention = decoder.layers[0].attention

    def cost(new: int) -> int:
        batch = Batch.uniform(16, Sequence(new=new, cached=cached))
        return PLAIN(flash_attention("attention", attention, batch, BF16)).duration

    most = 3.0 if cached else 4.1  # twice the queries, which see up to twice the keys
    for new in (1, 2, 4, 16, 64, 256):
        assert cost(new) <= cost(2 * new) <= most * cost(new)


def test_a_prompt_reaches_the_share_that_the_device_states() -> None:
    """attention * S / (S + S0) of the peak, causal FLOPs counted once."""
    decoder = load_model("llama-3.1-8b").decoder
    assert decoder is not None
    terms = PLAIN.device.efficiency
    for prompt in (512, 2048, 16384):
        op = flash_attention(
            "attention", decoder.layers[0].attention, Batch.prefill(1, prompt), BF16
        )
        rates = PLAIN.rates
        compute = PLAIN.times(op, PLAIN.moved(op)).compute
        reached = op.matrix_flops / (compute - op.vector_flops / rates.vector) / rates.peak
        stated = terms.attention * prompt / (prompt + terms.attention_ramp_tokens)
        assert reached == pytest.approx(stated, rel=0.01)


@given(st.sampled_from(["mixtral-8x7b", "qwen3-30b-a3b"]), st.integers(1, 300))
def test_experts_do_the_work_of_their_tokens_and_no_more(name: str, tokens: int) -> None:
    model = load_model(name)
    decoder = model.decoder
    assert decoder is not None
    ffn = decoder.layers[-1].ffn
    graph = build_graph(model, Batch.decode(tokens, 8), BF16, Lowering(fusion=False))
    ops = [op for placed, op in graph.ops() if placed.layer == model.num_layers - 1]
    products = sum(op.matrix_flops for op in ops if op.name in ("experts_up", "experts_down"))
    routed = tokens * ffn.top_k  # type: ignore[union-attr]
    assert products == routed * 2 * 3 * model.hidden * ffn.inner


def test_what_is_hidden_ran_at_the_same_time() -> None:
    result = run(Scenario(model="llama-3.1-8b", on="h100-sxm", workload=Workload(prompt=512)))
    for job in result.record.compiled.plan.jobs[:2]:
        for work in job.work:
            for step in work.block.steps:
                if step.cost:
                    p = step.cost.pipeline
                    assert 0 <= step.cost.hidden <= min(p.hbm_busy, p.compute_busy)
                    assert p.makespan >= p.hbm_busy + p.compute_busy - step.cost.hidden


def test_weight_only_formats_leave_the_tables_alone() -> None:
    resolved = resolve(Scenario(model="llama-3.1-8b", on="h100-sxm", dtype="w4a16"))
    model = resolved.model
    tables = 2 * model.hidden * 128256 + model.hidden  # embedding, LM head, final norm
    print_ = footprints(
        model,
        resolved.machine.device,
        Parallelism(),
        Widest(Batch.prefill(1, 8), 8),
        resolved.precision,
        Lowering(),
    )[0]
    assert print_.weights == 2 * tables + (parameters(model) - tables) // 2


CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 100,
    "torch_dtype": "bfloat16",
}


@pytest.mark.parametrize(
    ("stated", "dtype"),
    [
        ({"quant_method": "fp8", "activation_scheme": "dynamic"}, "fp8"),
        ({"quant_method": "awq", "bits": 4}, "w4a16"),
        ({"quant_method": "gptq", "bits": 8}, "w8a16"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "w4a16"),
    ],
)
def test_a_quantised_config_says_so(stated: dict[str, object], dtype: str) -> None:
    model = model_from_config({**CONFIG, "quantization_config": stated}, name="toy")
    assert model.dtype == dtype
    assert parse_precision(model.dtype, model.kv_dtype).kv == "bf16"


def test_an_unknown_quantisation_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"quant_method = 'quip'.*known: awq"):
        model_from_config({**CONFIG, "quantization_config": {"quant_method": "quip"}}, name="toy")


def test_latencies_are_means_over_sequences() -> None:
    """Three sequences in micro-batches of two and one: the first counts twice."""
    split = Parallelism(pp=2, microbatches=2)
    result = run(
        Scenario(
            model="gpt2",
            on="hgx-h100",
            workload=Workload(batch=3, prompt=64, output=2),
            parallelism=split,
        )
    )
    ends = [
        max(result.record.timeline.end[i] for i in slot.pieces[-1].ends)
        for slot in result.record.compiled.slots
        if slot.job.number == 0 and slot.job.stage == 1
    ]
    assert result.metrics.ttft_s == pytest.approx((2 * ends[0] + ends[1]) / 3 * 1e-12)
