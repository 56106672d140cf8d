"""The laws of serving, on random small streams, knobs, policies and prices."""

from __future__ import annotations

import random
from functools import cache
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import (
    Case,
    Prices,
    Run,
    cases,
    dispatch,
    random_case,
    replica,
    run,
    uneven,
    uneven_prices,
)

from sim.errors import InputError
from sim.mapping.parallelism import Parallelism
from sim.scenario import Scenario, resolve
from sim.serve.knobs import Knobs
from sim.serve.live import PARTS, QUEUE
from sim.serve.pricing import Prefill, Pricer
from sim.serve.routing import round_robin
from workloads.request import Request


def lawful(case: Case, found: Run) -> None:
    """Everything that holds of any run, whatever the case."""
    nobody_is_lost(case, found)
    memory_comes_back(case, found)
    requests_add_up(case, found)
    devices_add_up(case, found)
    steps_keep_the_knobs(case, found)
    if case.order == "fcfs":
        nobody_overtakes(found)


def nobody_is_lost(case: Case, found: Run) -> None:
    asked = {q.index: q for q in case.requests}
    served = {row.index: row for row in found.rows}
    assert len(served) == len(found.rows) == found.replica.finished
    assert len(found.refused) == found.replica.refused
    assert sorted([*served, *(q.index for q in found.refused)]) == sorted(asked)
    assert found.replica.outstanding == 0
    for index, row in served.items():
        q = asked[index]
        assert (row.prompt, row.output, row.arrival) == (q.prompt, q.output, q.arrival)
    size = case.knobs.block_size
    for q in case.requests:
        never = -(-(q.prompt + max(0, q.output - 1)) // size) > case.blocks
        assert never == (q in found.refused)


def memory_comes_back(case: Case, found: Run) -> None:
    """Blocks stay below the total at every change (WatchedBlocks), and at the end none is used."""
    blocks = found.replica.blocks
    assert blocks.used == 0
    assert not blocks.shared
    assert all(0 <= step.kv_blocks <= case.blocks for step in found.steps)


def requests_add_up(case: Case, found: Run) -> None:
    for row in found.rows:
        assert sum(row.account) == row.e2e
        assert min(row.account) >= 0
        assert row.account[QUEUE] == row.scheduled - row.arrival
        assert row.arrival <= row.scheduled < row.first_token <= row.last_token
        assert row.preemptions or row.account[PARTS.index("preempted")] == 0
        assert (row.last_token == row.first_token) == (row.output <= 1)
    assert sum(row.preemptions for row in found.rows) == found.replica.preempted
    worked = sum(sum(step.states) for step in found.steps)
    assert sum(row.device_share for row in found.rows) == worked


def devices_add_up(case: Case, found: Run) -> None:
    outcome = found.replica.outcome(0, 0)
    assert len(outcome.stages) == case.pp
    for stage in outcome.stages:
        assert sum(stage) == outcome.end
        assert min(stage) >= 0
    assert outcome.steps == len(found.steps)
    assert outcome.flops == sum(step.flops for step in found.steps)
    assert outcome.hbm_bytes == sum(step.hbm_bytes for step in found.steps)
    if found.rows:
        assert outcome.end >= max(row.last_token for row in found.rows)
    for number, stage in enumerate(outcome.stages):
        inside = [row for row in found.stages if row.stage == number]
        assert all(a.start + sum(a.states) <= b.start for a, b in pairwise(inside))
        assert not inside or stage[:5] == tuple(
            map(sum, zip(*(r.states for r in inside), strict=True))
        )
    if case.pp == 1:
        assert all(sum(step.states) == step.duration for step in found.steps)
        assert sum(outcome.stages[0][:5]) == sum(step.duration for step in found.steps)
    for one, two in zip(found.steps, found.steps[1:], strict=False):
        assert one.start + one.duration <= two.start


def steps_keep_the_knobs(case: Case, found: Run) -> None:
    """Tokens in equal tokens out, and no batch is larger than allowed."""
    prompts = sum(step.prefill_tokens for step in found.steps)
    decoded = sum(step.decode_tokens for step in found.steps)
    hits = sum(row.prefix_hit_tokens for row in found.rows)
    if not found.replica.preempted:
        assert prompts + hits == sum(row.prompt for row in found.rows)
        assert decoded == sum(max(0, row.output - 1) for row in found.rows)
    elif case.knobs.preemption == "swap":
        assert decoded == sum(max(0, row.output - 1) for row in found.rows)
    for step in found.steps:
        assert 0 < step.running <= case.knobs.max_num_seqs
        if case.scheduler == "chunked":
            assert step.prefill_tokens + step.decode_tokens <= case.knobs.max_num_batched_tokens


def nobody_overtakes(found: Run) -> None:
    """First come, first scheduled."""
    rows = sorted(found.rows, key=lambda row: row.index)
    starts = [row.scheduled for row in rows]
    assert starts == sorted(starts)


def batches_are_static(found: Run) -> None:
    """Nobody joins a static batch once it decodes."""
    decoding = [step.start for step in found.steps if step.decode_tokens]
    for a in found.rows:
        for b in found.rows:
            if a.scheduled < b.scheduled < a.last_token:
                assert not any(a.scheduled <= start < b.scheduled for start in decoding)


def holds(case: Case, rng: random.Random) -> None:
    """Every law of a case, and the runs that have to equal it."""
    found = run(case)
    lawful(case, found)
    if case.scheduler == "static" and not found.replica.preempted:
        batches_are_static(found)
    assert run(case) == found
    assert run(case, leap=False) == found
    if found.rows:
        stops = [rng.randrange(found.replica.now) for _ in range(4)]
        assert run(case, stops=stops) == found


@given(case=cases(), rng=st.randoms(use_true_random=False))
def test_laws(case: Case, rng: random.Random) -> None:
    holds(case, rng)


@pytest.mark.slow
def test_laws_hold_in_hundreds_of_runs() -> None:
    for seed in range(400):
        rng = random.Random(seed)
        holds(random_case(rng), rng)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(400, 10_400, 2500))
def test_laws_hold_in_ten_thousand_runs(first: int) -> None:
    for seed in range(first, first + 2500):
        rng = random.Random(seed)
        holds(random_case(rng), rng)


def test_random_runs_see_what_they_are_for() -> None:
    """Preemption of both kinds, refusals, prefix hits and bubbles all happen."""
    seen: set[str] = set()
    for seed in range(400):
        case = random_case(random.Random(seed))
        found = run(case)
        if found.replica.preempted:
            seen.add(f"{case.knobs.preemption} {min(case.pp, 2)}")
        seen.update(name for name, one in [("refused", found.refused)] if one)
        seen.update("hits" for row in found.rows if row.prefix_hit_tokens)
        seen.update("bubble" for row in found.rows if row.account[PARTS.index("bubble")])
    kinds = {f"{kind} {stages}" for kind in ("recompute", "swap") for stages in (1, 2)}
    assert seen == kinds | {"refused", "hits", "bubble"}


@pytest.mark.parametrize("calls", [1, 2, 5, 20])
def test_a_run_that_is_broken_off_adds_up(calls: int) -> None:
    """The batches that are under way are in the account of every stage, to their end."""
    requests = tuple(Request(i, 0, 40, 5) for i in range(6))
    found = replica(Case(requests=requests, pp=3), Prices(lambda *_: 100, 3, weights=(1, 5, 9)))
    for request in requests:
        found.replica.push(request)
    left = iter(range(calls))
    found.replica.stop = lambda: next(left, None) is None
    found.engine.run()
    for number, stage in enumerate((outcome := found.replica.outcome(0, 0)).stages):
        assert sum(stage) == outcome.end
        assert min(stage) >= 0
        assert sum(stage[:5]) == sum(sum(r.states) for r in found.stages if r.stage == number)


# With real prices -------------------------------------------------------------------------


@cache
def gpt2(pp: int, *, exact_graph: bool = False) -> Pricer:
    """Two layers of GPT-2, each on a device if pp = 2."""
    resolved = resolve(
        Scenario(
            model="gpt2",
            on="hgx-h100",
            parallelism=Parallelism(pp=pp),
            set={"model.n_layer": 2},
        )
    )
    return Pricer(resolved, exact_graph=exact_graph)


def real(case: Case) -> Case:
    """The case on the scale of real steps: times of microseconds."""
    requests = tuple(msgspec.structs.replace(q, arrival=q.arrival * 50_000) for q in case.requests)
    return case.but(requests=requests, pp=min(case.pp, 2), host=case.host * 100_000)


@settings(max_examples=60)
@given(case=cases(), rng=st.randoms(use_true_random=False))
def test_laws_with_real_prices(case: Case, rng: random.Random) -> None:
    case = real(case)
    found = run(case, gpt2(case.pp))
    lawful(case, found)
    assert run(case, gpt2(case.pp), leap=False) == found
    if found.rows:
        stops = [rng.randrange(found.replica.now) for _ in range(3)]
        assert run(case, gpt2(case.pp), stops=stops) == found


@pytest.mark.parametrize("seed", range(8))
def test_shortcuts_change_nothing(seed: int) -> None:
    """Tables and leaps against the whole graph of every step."""
    case = real(random_case(random.Random(seed)))
    case = case.but(requests=case.requests[:5])
    long_way = run(case, gpt2(case.pp, exact_graph=True), leap=False)
    assert run(case, gpt2(case.pp)) == long_way


# Equivalences ------------------------------------------------------------------------------


@given(prompt=st.integers(1, 300), output=st.integers(1, 40), size=st.integers(1, 16))
def test_chunked_prefill_without_bounds_is_whole_prefill(
    prompt: int, output: int, size: int
) -> None:
    knobs = Knobs(max_num_batched_tokens=2**31, block_size=size)
    case = Case(requests=(Request(0, 5, prompt, output),), knobs=knobs)
    assert (
        run(case) == run(case.but(scheduler="prefill-first")) == run(case.but(scheduler="static"))
    )


@given(case=cases(pp=1))
def test_of_many_prompts_too(case: Case) -> None:
    """Where nothing decodes in between, a budget without bounds takes prompts whole."""
    requests = tuple(msgspec.structs.replace(q, output=min(1, q.output)) for q in case.requests)
    knobs = msgspec.structs.replace(
        case.knobs, max_num_batched_tokens=2**31, long_prefill_token_threshold=0
    )
    case = case.but(requests=requests, knobs=knobs, scheduler="chunked")
    assert run(case) == run(case.but(scheduler="prefill-first"))


@given(prompt=st.integers(2, 300), budget=st.integers(1, 300))
def test_chunks_cover_the_prompt(prompt: int, budget: int) -> None:
    knobs = Knobs(max_num_seqs=1, max_num_batched_tokens=budget)
    found = run(Case(requests=(Request(0, 0, prompt, 1),), knobs=knobs))
    whole, rest = divmod(prompt, budget)
    assert [s.prefill_tokens for s in found.steps] == [budget] * whole + [rest] * (rest > 0)


@given(case=cases())
def test_two_replicas_in_turn_equal_two_runs(case: Case) -> None:
    together = [replica(case, uneven_prices(case), number=n) for n in (0, 1)]
    dispatch(case.requests, together, round_robin, lambda _: None)
    for number, one in enumerate(together):
        mine = tuple(q for q in case.requests if q.index % 2 == number)
        alone = run(case.but(requests=mine), number=number)
        assert one.rows == alone.rows
        assert one.steps == alone.steps
        if mine:
            assert one.replica.steps == alone.replica.steps


# What cannot go wrong silently --------------------------------------------------------------


def test_prefix_blocks_must_be_whole() -> None:
    knobs = Knobs(block_size=16, enable_prefix_caching=True)
    case = Case(requests=(Request(0, 0, 30, 1, hashes=(1, 2), hash_tokens=24),), knobs=knobs)
    with pytest.raises(InputError, match="block_size = 16 does not divide the 24 tokens"):
        run(case)


def test_a_padded_batch_shares_its_time_by_real_tokens() -> None:
    knobs = Knobs(max_wait_ms=0.0, padded=True)
    requests = (Request(0, 0, 30, 0), Request(1, 0, 10, 0))
    found = run(Case(requests=requests, knobs=knobs, scheduler="dynamic"))
    (step,) = found.steps
    assert step.prefill_tokens == 40
    assert step.duration == uneven([], [Prefill(30, 0, True)] * 2)
    assert sum(row.device_share for row in found.rows) == step.duration


def test_leaps_end_where_who_waits_may_come_in() -> None:
    """After a preemption, and after kept prefixes were dropped that it would have used."""
    for seed in (379, 13066):
        case = random_case(random.Random(seed))
        assert run(case) == run(case, leap=False)
