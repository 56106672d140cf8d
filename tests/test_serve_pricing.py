"""Tables, sums and curves of the serving loop against the whole graph, to the picosecond."""

from __future__ import annotations

import random
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.cost.model import CostModel, room_for_queries
from sim.cost.pass_cost import PassCost
from sim.inputs.catalogue import Value
from sim.mapping.parallelism import Parallelism
from sim.scenario import Scenario, resolve
from sim.serve.pricing import Prefill, Pricer
from workloads.attention import decoding, flash_operator
from workloads.block import Lowering
from workloads.ops import Op

# model, machine, dtype, tp, pp, changes
SETTINGS: dict[str, tuple[str, str, str | None, int, int, dict[str, Value]]] = {
    "learned-positions": ("gpt2", "h100-sxm", None, 1, 1, {}),
    "grouped": ("llama-3.1-8b", "h100-sxm", None, 1, 1, {}),
    "grouped-split": ("llama-3.1-8b", "hgx-h100", None, 4, 2, {}),
    "windows": ("gemma-2-9b", "h100-sxm", None, 1, 1, {}),
    "windows-split": ("gemma-2-9b", "dgx-a100", None, 2, 2, {}),
    "experts": ("mixtral-8x7b", "hgx-h100", None, 2, 1, {}),
    "experts-staged": ("mixtral-8x7b", "dgx-a100", None, 4, 2, {}),
    "biased": ("qwen2-7b", "a100-sxm-80gb", None, 1, 1, {}),
    "biased-split": ("qwen2-7b", "hgx-h100", None, 2, 2, {}),
    "no-bf16": ("gpt2", "t4", "fp16", 1, 1, {}),
    "tpu": ("llama-3.1-8b", "tpu-v5e", None, 1, 1, {}),
    "perfect": ("gpt2", "survey-accelerator", "int8", 1, 1, {}),
    "series": ("gpt2", "survey-accelerator", "int8", 1, 1, {"device.levels": "series"}),
    "series-real": ("gpt2", "a100-sxm-80gb", None, 1, 1, {"device.levels": "series"}),
    "int8-cache": ("llama-3.1-8b", "a100-sxm-80gb", None, 1, 1, {}),
    "fp8-cache": ("llama-3.1-8b", "h100-sxm", None, 1, 1, {}),
    "tiles-of-one-head": ("llama-3.1-8b", "rtx-4090", None, 1, 1, {}),
    "no-terms": ("llama-3.1-8b", "h100-pcie", None, 1, 1, {}),
}
names = pytest.mark.parametrize("name", SETTINGS)


@cache
def pricers(name: str) -> tuple[Pricer, Pricer]:
    """(with tables, the long way) of one setting."""
    model, machine, dtype, tp, pp, changes = SETTINGS[name]
    scenario = Scenario(
        model=model,
        on=machine,
        dtype=dtype,
        kv_dtype=name.removesuffix("-cache") if name.endswith("-cache") else None,
        parallelism=Parallelism(tp=tp, pp=pp),
        set=changes,
    )
    resolved = resolve(scenario)
    return Pricer(resolved), Pricer(resolved, exact_graph=True)


def random_batch(rng: random.Random) -> tuple[list[int], list[Prefill]]:
    """Decoding contexts and chunks of prompts, not both empty."""
    contexts = [rng.randint(2, 6000) for _ in range(rng.choice([0, 1, 3, 40]))]
    chunks = [
        Prefill(
            rng.choice([1, 2, 100, 777, 2048, 4000, rng.randint(1, 9000)]),
            rng.choice([0, 0, 512, 5000]),
            rng.random() < 0.5,
        )
        for _ in range(rng.randint(0 if contexts else 1, 3))
    ]
    if chunks and rng.random() < 0.3:  # equal chunks are counted, not repeated
        chunks.append(chunks[0])
    return contexts, chunks


def assert_equal(name: str, rng: random.Random) -> None:
    tables, graph = pricers(name)
    contexts, chunks = random_batch(rng)
    assert tables.step(contexts, chunks) == graph.step(contexts, chunks), (name, contexts, chunks)


@names
@settings(max_examples=12)
@given(rng=st.randoms(use_true_random=False))
def test_tables_equal_the_whole_graph(name: str, rng: random.Random) -> None:
    assert pricers(name)[0].tabled
    assert_equal(name, rng)


@pytest.mark.slow
@names
def test_tables_equal_the_whole_graph_often(name: str) -> None:
    for seed in range(150):
        assert_equal(name, random.Random(seed))


@names
@given(count=st.integers(1, 300), extra=st.integers(0, 2_000_000))
def test_decode_curve_equals_the_sums(name: str, count: int, extra: int) -> None:
    tables, _ = pricers(name)
    visible = count + extra
    for attention, _ in tables.attentions:
        line = tables.decode_attention(attention, count)
        op = flash_operator("", attention, [decoding(count, visible)], tables.precision)
        assert line(visible) == tables.costs.price(op)


def test_a_mixed_step_builds_no_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the prompt whose query rows fill their room on chip; a longer one needs its operator,
    as one token does, and costs the same either way."""
    tables, graph = pricers("grouped")
    ((attention, _),) = tables.attentions
    rows = attention.heads // attention.kv_heads * 2 * attention.head_dim * 4
    longest = room_for_queries(tables.costs.rates.reuse) // rows
    price, priced = CostModel.price, []

    def counted(costs: CostModel, op: Op) -> PassCost:
        priced.append(op)
        return price(costs, op)

    monkeypatch.setattr(CostModel, "price", counted)
    for new, operators in ((2, 0), (longest, 0), (longest + 1, 1), (1, 1)):
        chunks = [Prefill(new, 300, True), Prefill(40, 0, False)]
        priced.clear()
        found = tables.step([500, 70], chunks)
        assert len(priced) == operators, new
        assert found == graph.step([500, 70], chunks), new


# model, machine, lowering, tp, pp
APART: dict[str, tuple[str, str, Lowering, int, int]] = {
    "encoder": ("bert-base", "h100-sxm", Lowering(), 1, 1),
    "encoder-split": ("bert-large", "dgx-a100", Lowering(), 2, 2),
    "encoder-written": ("roberta-base", "l4", Lowering(attention="materialised"), 1, 1),
    "written": ("gpt2", "h100-sxm", Lowering(attention="materialised"), 1, 1),
    "written-split": ("llama-3.1-8b", "hgx-h100", Lowering(attention="materialised"), 4, 2),
    "latents": ("deepseek-v3", "hgx-h200", Lowering(), 8, 1),  # the cache has two forms
    "latents-written": ("deepseek-v3", "hgx-h200", Lowering(attention="materialised"), 4, 2),
}


@cache
def apart(name: str) -> tuple[Pricer, Pricer]:
    model, machine, lowering, tp, pp = APART[name]
    scenario = Scenario(
        model=model, on=machine, lowering=lowering, parallelism=Parallelism(tp=tp, pp=pp)
    )
    resolved = resolve(scenario)
    return Pricer(resolved), Pricer(resolved, exact_graph=True)


@pytest.mark.parametrize("name", APART)
@settings(max_examples=6)
@given(rng=st.randoms(use_true_random=False))
def test_attention_without_sums_is_priced_from_its_own_operators(
    name: str, rng: random.Random
) -> None:
    apart_, graph = apart(name)
    assert not apart_.tabled
    assert apart_.separable
    assert not graph.separable
    contexts, chunks = random_batch(rng)
    if name.startswith("encoder"):
        contexts, chunks = [], [Prefill(rng.randint(1, 512), 0, True) for _ in range(3)]
    prices = apart_.step(contexts, chunks)
    assert prices == graph.step(contexts, chunks)
    assert all(sum(price[:5]) > 0 <= min(price) for price in prices)


@names
def test_a_step_costs_at_least_its_parts(name: str) -> None:
    """No stage is free, and one more sequence makes no step cheaper in FLOPs or bytes."""
    tables, _ = pricers(name)
    one: list[PassCost] = tables.step([100], [])
    two: list[PassCost] = tables.step([100, 4000], [])
    for a, b in zip(one, two, strict=True):
        assert min(sum(a[:5]), a[5], a[6]) > 0
        assert a[5] < b[5]
        assert a[6] < b[6]
