"""Loads of experts: they add up, no token visits an expert twice, skew leaves experts cold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim import Scenario, Workload, run
from workloads.block import Lowering
from workloads.routing import expert_rows, exponent, skew

routings = st.sampled_from(["uniform", "balanced", "power-law:1.01", "power-law:1", "power-law:2"])


@given(st.integers(1, 64), st.data(), st.integers(1, 3000), routings)
def test_loads_add_up(experts: int, data: st.DataObject, tokens: int, routing: str) -> None:
    top_k = data.draw(st.integers(1, experts))
    groups = expert_rows(experts, top_k, tokens, routing)
    rows = [r for _, r in groups]
    assert sum(n * r for n, r in groups) == tokens * top_k
    assert top_k <= sum(n for n, _ in groups) <= min(experts, tokens * top_k)
    assert rows == sorted(rows, reverse=True)
    assert rows[-1] >= 1
    if routing != "uniform":
        assert rows[0] <= tokens


def test_a_steeper_law_is_more_skewed() -> None:
    even = expert_rows(128, 8, 64, "balanced")
    assert even == ((128, 4),)
    for routing in ("power-law:1.01", "power-law:1.5"):
        skewed = expert_rows(128, 8, 64, routing)
        assert sum(n for n, _ in skewed) < 128
        assert skewed[0][1] > 4
    busiest = [float(w[0] / w.sum()) for w in (skew(128, 512, 64, a) for a in (0.5, 1.0, 1.5, 2.0))]
    assert busiest == sorted(busiest)


@pytest.mark.parametrize("routing", ["", "even", "power-law", "power-law:x", "power-law:-1"])
def test_what_is_no_routing_is_said(routing: str) -> None:
    with pytest.raises(ValueError, match=r"uniform, balanced, or power-law:A"):
        exponent(routing)


def test_skew_reads_fewer_weights_in_a_run() -> None:
    def read(routing: str) -> int:
        result = run(
            Scenario(
                model="qwen3-30b-a3b",
                on="h100-sxm",
                workload=Workload(batch=32, prompt=16, output=2),
                lowering=Lowering(routing=routing),
            )
        )
        return result.metrics.hbm_bytes

    assert read("power-law:1.2") < read("uniform") < read("balanced")
