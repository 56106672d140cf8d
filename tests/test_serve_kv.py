"""How full the KV cache is, by hand: where stages are several, over the time of all of them."""

from __future__ import annotations

import pytest
from serving import Case, Prices, Run, run

from sim.serve.columns import StepColumns
from sim.serve.knobs import Knobs
from sim.serve.summary import kv_usage
from workloads.request import Request


def mean_blocks(found: Run) -> float:
    """Blocks in use on the mean."""
    steps = StepColumns(0)
    for row in found.steps:
        steps.append(row)
    return kv_usage([steps], [found.replica.outcome(0, 0)], 1)["mean"]


def test_blocks_of_a_prompt_then_of_its_tokens() -> None:
    """16 tokens lie in one block while the prompt is read (15 + 45 ticks and 7 between), and in
    two while two more tokens are made (each 10 + 30 ticks and 7 between)."""
    case = Case(requests=(Request(0, 0, 16, 3),), knobs=Knobs(block_size=16), pp=2)
    prices = Prices(lambda contexts, new: 15 if new else 10, 2, handover=7, weights=(1, 3))
    assert mean_blocks(run(case, prices)) == pytest.approx((1 * 67 + 2 * 47 * 2) / (67 + 47 * 2))


def test_blocks_of_prompts_under_way_together() -> None:
    """Stages of 10 and 40 ticks. Prompts of one and three blocks start at 0 and 10 and come back
    at 50 and 90: one block for 10 ticks, four for 40, three for 40."""
    requests = (Request(0, 0, 16, 1), Request(1, 0, 48, 1))
    knobs = Knobs(block_size=16, max_num_batched_tokens=48, max_num_seqs=8)
    case = Case(requests=requests, knobs=knobs, pp=2, scheduler="prefill-first")
    found = run(case, Prices(lambda contexts, prefills: 10, 2, weights=(1, 4)))
    assert [row.last_token for row in found.rows] == [50, 90]
    assert mean_blocks(found) == pytest.approx((1 * 10 + 4 * 40 + 3 * 40) / 90)
