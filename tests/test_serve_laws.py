"""The laws of serving, on random small streams, knobs, policies and prices."""

from __future__ import annotations

from serving import Case, Run

from sim.serve.live import PARTS, QUEUE


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
