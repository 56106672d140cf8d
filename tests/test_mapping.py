"""Splits: what tensor, pipeline and data parallelism keep, and what is refused."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import (
    BF16,
    batches,
    can_be_cut,
    cases,
    devices,
    lowerings,
    models,
    splits,
    static_passes,
    system,
    tier,
)

from sim.errors import Infeasible, OutOfMemory
from sim.inputs.catalogue import catalogue, load_device, load_model
from sim.mapping.memory import Widest, check_memory, footprints
from sim.mapping.parallelism import Parallelism, check_devices, shard, stage_bounds
from sim.mapping.plan import Plan, PlanInput, make_plan
from workloads.batch import Batch
from workloads.block import Lowering
from workloads.counts import kv_bytes_per_token, parameters
from workloads.graph import build_graph
from workloads.model import Attention, Layer, Model, Stack
from workloads.ops import Op


def padded(model: Model, tp: int) -> Model:
    """The model that tp ranks really compute: vocabulary padded, scarce key/value heads copied."""

    def attention(a: Attention) -> Attention:
        return msgspec.structs.replace(a, kv_heads=max(a.kv_heads, tp))

    def layer(one: Layer) -> Layer:
        cross = attention(one.cross) if one.cross else None
        return msgspec.structs.replace(one, attention=attention(one.attention), cross=cross)

    def stack(s: Stack | None) -> Stack | None:
        if s is None:
            return None
        head = msgspec.structs.replace(s.head, vocab=-(-s.head.vocab // tp) * tp)
        return msgspec.structs.replace(s, layers=tuple(map(layer, s.layers)), head=head)

    return msgspec.structs.replace(
        model, encoder=stack(model.encoder), decoder=stack(model.decoder)
    )


def sharded(op: Op) -> bool:
    """Cut by tensor parallelism; a norm over heads is, but its scale is on every rank."""
    return bool(op.split) or op.name == "qk_norm"


def product_weights(op: Op) -> int:
    """Bytes of the matrices, without biases, which row-parallel ranks all keep."""
    return sum(g.batch * g.k * g.n * 2 for g in op.gemms if op.traffic.weights)


@given(models(), st.sampled_from([2, 4]), st.data())
def test_tensor_parallelism_does_the_same_work(model: Model, tp: int, data: st.DataObject) -> None:
    assume(can_be_cut(model, tp))
    local = shard(model, tp)
    batch = data.draw(batches(model))
    kept = Lowering(projections=data.draw(st.sampled_from(["fused", "separate"])), fusion=False)
    one = list(build_graph(local, batch, BF16, kept, ways=tp).ops())
    whole = list(build_graph(padded(model, tp), batch, BF16, kept).ops())
    for (_, mine), (_, all_) in zip(one, whole, strict=True):
        assert (mine.name, mine.split) == (all_.name, all_.split)
        if mine.name == "rotary":
            # MLA turns one shared part of the keys on every rank.
            assert tp * mine.flops >= all_.flops >= mine.flops
        elif mine.name == "embed":  # the rows of the token table are spread over the ranks
            assert mine.flops == all_.flops
            assert tp * mine.traffic.weights >= all_.traffic.weights >= mine.traffic.weights
        elif sharded(mine):
            assert tp * mine.flops == all_.flops
            assert tp * product_weights(mine) == product_weights(all_)
        else:
            assert (mine.flops, mine.traffic) == (all_.flops, all_.traffic)
        assert mine.exchange_bytes == all_.exchange_bytes


@pytest.mark.parametrize("name", sorted(catalogue("model")))
@pytest.mark.parametrize("tp", [2, 4, 8])
def test_catalogue_models_are_cut_or_refused(name: str, tp: int) -> None:
    model = load_model(name)
    if not can_be_cut(model, tp):
        with pytest.raises(Infeasible, match=rf"tp = {tp} .*mod"):
            shard(model, tp)
        return
    local = shard(model, tp)
    source = (model.source_tokens or 64) if model.encoder and model.decoder else 0
    batch = Batch.prefill(2, 64, source=source) if model.decoder else Batch.encode(2, 64)
    ours = sum(op.matrix_flops for _, op in build_graph(local, batch, BF16).ops() if op.split)
    all_ = build_graph(padded(model, tp), batch, BF16).ops()
    assert tp * ours == sum(op.matrix_flops for _, op in all_ if op.split)


def plan_of(
    model: Model, split: Parallelism, size: int, lowering: Lowering, device: object
) -> Plan:
    passes = static_passes(model, size, 7, 3)
    machine = system(tier("switch", split.devices))
    return make_plan(
        PlanInput(
            model=model,
            device=device,  # type: ignore[arg-type]
            system=machine,
            split=split,
            passes=passes,
            precision=BF16,
            lowering=lowering,
        )
    )


@given(models(dense=True), lowerings, devices(), st.data())
def test_stages_and_replicas_do_the_same_work(
    model: Model, lowering: Lowering, device: object, data: st.DataObject
) -> None:
    """Every operator in one stage; replicas and micro-batches share the sequences."""
    size = data.draw(st.integers(1, 4))
    split = data.draw(splits(model, size))
    split = msgspec.structs.replace(split, tp=1)
    plan = plan_of(model, split, size, lowering, device)
    flops = sum(work.block.flops for job in plan.jobs for work in job.work)
    graphs = [build_graph(model, one.batch, BF16, lowering) for one in plan.passes]
    assert flops == sum(graph.flops for graph in graphs)
    repeats = split.dp * split.microbatches  # each of them reads the weights for itself
    weights = sum(
        step.op.traffic.weights
        for job in plan.jobs
        for work in job.work
        for step in work.block.steps
        if step.op
        and step.op.name != "embed"
        and not step.op.name.endswith("absorb")
        and step.op.name != "kv_b_proj"
    )
    assert weights == repeats * sum(
        op.traffic.weights
        for graph in graphs
        for _, op in graph.ops()
        if op.name not in ("embed", "kv_b_proj") and not op.name.endswith("absorb")
    )
    placed = [
        (j.replica, j.number, j.micro, w.placed.path, j.stage) for j in plan.jobs for w in j.work
    ]
    assert len(placed) == repeats * sum(len(graph.placed) for graph in graphs)


@given(cases())
def test_hidden_states_go_to_a_stage_that_works_next(case: object) -> None:
    """A handover ends where the next job of the micro-batch runs, and starts where this one ran."""
    scenario, model = case.scenario, case.model  # type: ignore[attr-defined]
    split = scenario.parallelism
    plan = make_plan(
        PlanInput(
            model=model,
            device=case.machine.device,  # type: ignore[attr-defined]
            system=case.machine.system,  # type: ignore[attr-defined]
            split=split,
            passes=case.passes,  # type: ignore[attr-defined]
            precision=BF16,
            lowering=scenario.lowering,
        )
    )
    chains: dict[tuple[int, int], list[object]] = {}
    for job in plan.jobs:
        chains.setdefault((job.replica, job.micro), []).append(job)
    for jobs in chains.values():
        for job, following in zip(jobs, [*jobs[1:], None], strict=True):
            if following is None or following.stage == job.stage:
                assert job.handover is None
                continue
            ((sends),) = job.handover.rounds
            here, there = (split.group(j.replica, j.stage) for j in (job, following))
            assert [(s.src, s.dst) for s in sends] == list(zip(here, there, strict=True))


@given(st.integers(1, 200), st.integers(1, 64))
def test_stages_are_even(layers: int, pp: int) -> None:
    assume(pp <= layers)
    bounds = stage_bounds(layers, Parallelism(pp=pp))
    sizes = [b - a for a, b in itertools.pairwise(bounds)]
    assert (bounds[0], bounds[-1], len(sizes)) == (0, layers, pp)
    assert sizes == sorted(sizes, reverse=True)
    assert max(sizes) - min(sizes) <= 1


@given(models(), st.integers(1, 6), st.data())
def test_a_batch_is_split_without_loss(model: Model, parts: int, data: st.DataObject) -> None:
    batch = data.draw(batches(model))
    assume(parts <= batch.size)
    pieces = batch.split(parts)
    sizes = [piece.size for piece in pieces]
    assert sizes == sorted(sizes, reverse=True)
    assert sum(sizes) == batch.size
    assert sizes[0] - sizes[-1] <= 1
    for field in ("tokens", "source_tokens", "logits"):
        assert sum(getattr(piece, field) for piece in pieces) == getattr(batch, field)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_every_device_has_one_place(tp: int, pp: int, dp: int) -> None:
    split = Parallelism(tp=tp, pp=pp, dp=dp)
    places = [d for r in range(dp) for s in range(pp) for d in split.group(r, s)]
    assert sorted(places) == list(range(split.devices))


@pytest.mark.parametrize(
    ("name", "tp", "said"),
    [
        ("gpt2", 8, r"tp = 8 does not divide the 12 attention heads of gpt2 \(12 mod 8 = 4\)"),
        ("gpt2", 5, r"the 3072 feed-forward width of gpt2 \(3072 mod 5 = 2\); use a tp among 1, 2"),
        ("deepseek-v3", 3, r"tp = 3 does not divide the 128 attention heads .*\(128 mod 3 = 2\)"),
    ],
)
def test_a_tp_that_does_not_divide_is_refused(name: str, tp: int, said: str) -> None:
    with pytest.raises(Infeasible, match=said):
        shard(load_model(name), tp)


def test_key_value_heads_that_cannot_be_shared_out_are_refused() -> None:
    model = load_model(
        "llama-3.1-8b",
        {
            "num_attention_heads": 24,
            "num_key_value_heads": 4,
            "head_dim": 128,
            "intermediate_size": 14400,
        },
    )
    with pytest.raises(Infeasible, match=r"tp = 6 neither divides the 4 .*\(4 mod 6 = 4\).*"):
        shard(model, 6)


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ({"pp": 13}, "pp = 13 stages for the 12 layers of m; use pp <= 12"),
        ({"pp": 2, "stages": (6, 5)}, r"stages = 6 \+ 5 = 11 layers in 2 stages; m has 12"),
        ({"pp": 3, "stages": (6, 6)}, "12 layers in 2 stages; m has 12 layers and pp = 3"),
        ({"stages": (6, 6)}, "in 2 stages; m has 12 layers and pp = 1"),
    ],
)
def test_stages_that_do_not_add_up_are_refused(split: dict[str, object], said: str) -> None:
    with pytest.raises(Infeasible, match=said):
        stage_bounds(12, Parallelism(**split), "m")  # type: ignore[arg-type]


def test_more_devices_than_there_are_is_refused() -> None:
    with pytest.raises(Infeasible, match="tp 4 x pp 2 x dp 3 = 24 devices, but box has 8"):
        check_devices(Parallelism(tp=4, pp=2, dp=3), 8, "box")


@pytest.mark.parametrize("knob", ["dp", "microbatches"])
def test_more_parts_than_sequences_is_refused(knob: str) -> None:
    split = Parallelism(**{knob: 3})  # type: ignore[arg-type]
    with pytest.raises(Infeasible, match=f"{knob} = 3: a batch of 2 cannot be split into 3"):
        plan_of(load_model("gpt2"), split, 2, Lowering(), load_device("h100-sxm"))


# Memory ----------------------------------------------------------------------------------


@given(models(), st.data())
def test_a_lone_device_keeps_every_weight_once(model: Model, data: st.DataObject) -> None:
    batch = data.draw(batches(model))
    device = load_device("h100-sxm")
    (one,) = footprints(model, device, Parallelism(), Widest(batch, 64), BF16, Lowering())
    assert one.weights == 2 * parameters(model)


@given(models(), st.data())
def test_stages_keep_every_weight_and_copies_of_tables(model: Model, data: st.DataObject) -> None:
    batch, device = data.draw(batches(model)), load_device("h100-sxm")
    pp = data.draw(st.integers(1, model.num_layers))
    found = footprints(model, device, Parallelism(pp=pp), Widest(batch, 64), BF16, Lowering())
    tables = sum(max(s.embedding.tokens, s.head.vocab) for _, s in model.stacks)
    extra = sum(one.weights for one in found) - 2 * parameters(model)
    assert 0 <= extra <= 2 * model.hidden * tables


@pytest.mark.parametrize("name", ["gpt2", "llama-3.1-8b", "mixtral-8x7b", "deepseek-v3"])
def test_the_cache_is_what_the_model_says(name: str) -> None:
    model, batch = load_model(name), Batch.prefill(3, 100)
    for pp in (1, 2):
        split = Parallelism(pp=pp)
        found = footprints(
            model, load_device("h100-sxm"), split, Widest(batch, 150), BF16, Lowering()
        )
        assert sum(one.kv for one in found) == 3 * 150 * kv_bytes_per_token(model, 16)


def test_what_does_not_fit_is_refused_with_the_sum() -> None:
    model, device = load_model("llama-3.1-70b"), load_device("h100-sxm")
    found = footprints(
        model, device, Parallelism(), Widest(Batch.prefill(1, 128), 128), BF16, Lowering()
    )
    said = r"weights 141\.11 \+ KV 0\.04 \+ activations .* = 141\..* GB of 85\.90 GB"
    with pytest.raises(OutOfMemory, match=said):
        check_memory(found, model.name, device.name)
