"""Counts of operator graphs against the model's own parameters and against closed forms."""

from __future__ import annotations

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import BF16, batches, lowerings, models

from sim.inputs.catalogue import catalogue, load_model
from workloads import counts
from workloads.attention import pairs, seen
from workloads.batch import Batch, Sequence
from workloads.block import Lowering
from workloads.graph import Graph, build_graph
from workloads.model import (
    Attention,
    Dense,
    Embedding,
    Experts,
    Head,
    Latent,
    Layer,
    Model,
    Stack,
)
from workloads.routing import visited_experts

PLAIN = Lowering(fusion=False)
NAMES = sorted(catalogue("model"))


def gpt(layers: int = 3, d: int = 32, heads: int = 4, **attention: object) -> Model:
    """GPT-2's shape, or with another attention."""
    shape = {"heads": heads, "kv_heads": heads, "head_dim": d // heads, "value_dim": d // heads}
    layer = Layer(attention=Attention(**{**shape, **attention}), ffn=Dense(inner=4 * d))
    embedding = Embedding(tokens=100, positions=64)
    stack = Stack(layers=(layer,) * layers, embedding=embedding, head=Head(vocab=100))
    return Model(name="toy", architecture="toy", hidden=d, decoder=stack)


def long_batch(model: Model) -> Batch:
    """Enough tokens to visit every expert."""
    if model.decoder is None:
        return Batch.encode(1, 512)
    source = (model.source_tokens or 512) if model.encoder else 0
    return Batch.prefill(1, 8192, source=source)


# Weights ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_pass_reads_every_weight_once(name: str) -> None:
    """2 bytes a parameter; tables are looked up row by row, and a tied head reads one again."""
    model = load_model(name)
    graph = build_graph(model, long_batch(model), BF16)
    read = sum(op.traffic.weights for _, op in graph.ops() if op.name != "embed")
    tables = tied = 0
    for _, stack in model.stacks:
        e, tokens = stack.embedding, 0 if stack.embedding.shared else stack.embedding.tokens
        tables += (tokens + e.positions + e.types) * model.hidden
        tied += stack.head.vocab * model.hidden if stack.head.tied else 0
    assert read == 2 * (counts.parameters(model) - tables + tied)


@given(models(), st.data())
def test_weights_of_random_models(model: Model, data: st.DataObject) -> None:
    source = 50 if model.encoder and model.decoder else 0
    batch = Batch.prefill(1, 400, source=source) if model.decoder else Batch.encode(1, 400)
    graph = build_graph(model, batch, BF16, data.draw(lowerings))
    layers = sum(op.traffic.weights for place, op in graph.ops() if place.layer >= 0)
    whole = sum(
        counts.layer_parameters(layer, model.hidden) for _, s in model.stacks for layer in s.layers
    )
    assert layers == 2 * whole


@pytest.mark.parametrize(("tokens", "least"), [(1, 2), (2, 3), (1000, 8)])
def test_experts_that_are_visited(tokens: int, least: int) -> None:
    assert least <= visited_experts(8, 2, tokens) <= min(8, 2 * tokens)


@given(st.integers(1, 64), st.data(), st.integers(1, 5000))
def test_visited_experts_grow_with_tokens(experts: int, data: st.DataObject, tokens: int) -> None:
    top_k = data.draw(st.integers(1, experts))
    now, more = (visited_experts(experts, top_k, n) for n in (tokens, tokens + 1))
    assert top_k <= now <= more <= experts


# FLOPs -----------------------------------------------------------------------------------


def matrix_flops(graph: Graph) -> int:
    return sum(op.matrix_flops for place, op in graph.ops() if place.layer >= 0)


@given(st.integers(1, 4), st.sampled_from([8, 32, 64]), st.integers(1, 300))
def test_gpt2_layers(layers: int, d: int, length: int) -> None:
    """24 l d^2 + 4 l^2 d a layer; the causal half of the scores where they stay on chip."""
    model = gpt(layers, d)
    batch = Batch.prefill(1, length)
    whole = build_graph(model, batch, BF16, Lowering(attention="materialised"))
    assert matrix_flops(whole) == layers * (24 * length * d**2 + 4 * length**2 * d)
    half = build_graph(model, batch, BF16)
    assert matrix_flops(half) == layers * (24 * length * d**2 + 2 * length * (length + 1) * d)


@given(st.integers(1, 500), st.integers(0, 500), st.booleans(), st.sampled_from([0, 1, 7, 100]))
def test_pairs_by_counting(new: int, cached: int, causal: bool, window: int) -> None:
    if not causal:
        assert pairs(new, cached, causal=False) == new * (cached + new)
        return
    visible: set[int] = set()
    count = 0
    for query in range(cached, cached + new):
        first = max(0, query - window + 1) if window else 0
        count += query + 1 - first
        visible.update((first, query))
    assert pairs(new, cached, causal=True, window=window) == count
    assert seen(new, cached, window=window) == cached + new - min(visible)


@given(
    st.sampled_from([1, 2, 4]),
    st.sampled_from([0, 5]),
    st.lists(st.integers(1, 40), min_size=2, max_size=5),
    st.integers(1, 3),
)
def test_chunks_of_a_prompt_do_the_work_of_the_prompt(
    kv: int, window: int, chunks: list[int], count: int
) -> None:
    model = gpt(kv_heads=kv, window=window)
    whole = build_graph(model, Batch.prefill(count, sum(chunks)), BF16, PLAIN)
    done = flops = 0
    for i, chunk in enumerate(chunks):
        last = i + 1 == len(chunks)
        sequence = Sequence(new=chunk, cached=done, logits=1 if last else 0)
        flops += build_graph(model, Batch.uniform(count, sequence), BF16, PLAIN).flops
        done += chunk
    assert flops == whole.flops


@given(models(dense=True, plain=True), st.data())
def test_a_mixed_batch_is_the_sum_of_its_parts(model: Model, data: st.DataObject) -> None:
    """All but the weights, which are read once, add up."""
    one, other = data.draw(batches(model)), data.draw(batches(model))
    lowering = data.draw(lowerings)
    a, b, both = (build_graph(model, x, BF16, lowering) for x in (one, other, one + other))
    assert both.flops == a.flops + b.flops
    for field in ("read", "written", "kv_read", "kv_written"):
        parts = getattr(a.traffic, field) + getattr(b.traffic, field)
        assert getattr(both.traffic, field) == parts


# Cache -----------------------------------------------------------------------------------


def kv(model: Model, context: int, count: int = 1) -> tuple[int, int]:
    source = (model.source_tokens or 16) if model.encoder else 0
    graph = build_graph(model, Batch.decode(count, context, source=source), BF16)
    return graph.traffic.kv_read, graph.traffic.kv_written


@pytest.mark.parametrize("name", [n for n in NAMES if load_model(n).decoder])
def test_a_decode_step_reads_a_token_more_than_the_one_before(name: str) -> None:
    model = load_model(name)
    token = counts.kv_bytes_per_token(model, 16)
    assert model.decoder is not None
    windows = {layer.attention.window for layer in model.decoder.layers}
    context = 2000  # within every window
    assert all(w == 0 or w > context for w in windows)
    assert kv(model, context + 1)[0] - kv(model, context)[0] == token
    assert kv(model, context)[1] == token
    assert kv(model, context, count=3) == tuple(3 * x for x in kv(model, context))
    if windows != {0}:
        growing = sum(
            2 * layer.attention.kv_width
            for layer in model.decoder.layers
            if not layer.attention.window
        )
        late = max(windows) + 10
        assert kv(model, late + 1)[0] - kv(model, late)[0] == growing


@given(st.sampled_from([1, 2, 4]), st.integers(1, 300), st.integers(1, 50), st.booleans())
def test_grouped_heads_share_their_cache(heads: int, context: int, new: int, flash: bool) -> None:
    lowering = Lowering(attention="flash" if flash else "materialised")
    batch = Batch.of(Sequence(new=new, cached=context))
    one, all_ = (build_graph(gpt(kv_heads=h), batch, BF16, lowering).traffic for h in (heads, 4))
    assert (one.kv_read * 4, one.kv_written * 4) == (all_.kv_read * heads, all_.kv_written * heads)
    assert one.kv_read == 3 * 2 * 2 * heads * 8 * (context + new)


@given(st.integers(1, 400), st.integers(0, 400), st.sampled_from([0, 12]))
def test_latent_attention_takes_the_cheaper_form(new: int, cached: int, rank: int) -> None:
    """Both forms by hand: rebuild keys and values of the context, or fold that into the query."""
    latent = Latent(query_rank=rank, kv_rank=8, rope_dim=4)
    model = gpt(1, heads=4, head_dim=12, value_dim=8, latent=latent)
    batch = Batch.of(Sequence(new=new, cached=cached))
    scores = pairs(new, cached, causal=True)
    rebuild = 8 * 4 * (8 + 8)  # rank x heads x (plain + value)
    expanded = 2 * (cached + new) * rebuild + 2 * scores * 4 * (12 + 8)
    absorbed = 2 * new * rebuild + 2 * scores * 4 * (12 + 8)
    query = 32 * 12 + 12 * 48 if rank else 32 * 48
    rest = 2 * new * (query + 32 * (8 + 4) + 4 * 8 * 32 + 2 * 32 * 128)
    found = matrix_flops(build_graph(model, batch, BF16))
    assert found == rest + min(expanded, absorbed)


@given(st.integers(2, 300))
def test_latents_are_all_that_a_decode_step_reads(context: int) -> None:
    latent = Latent(kv_rank=8, rope_dim=4)
    model = gpt(1, heads=4, head_dim=12, value_dim=8, latent=latent)
    assert kv(model, context) == (2 * 12 * context, 2 * 12)


# Rewrites --------------------------------------------------------------------------------


@given(models(), st.data())
def test_fusion_changes_no_flops_and_moves_no_more(model: Model, data: st.DataObject) -> None:
    batch = data.draw(batches(model))
    kept = {
        "attention": data.draw(st.sampled_from(["flash", "materialised"])),
        "projections": data.draw(st.sampled_from(["fused", "separate"])),
    }
    plain = build_graph(model, batch, BF16, Lowering(**kept, fusion=False))
    fused = build_graph(model, batch, BF16, Lowering(**kept, fusion=True))
    assert fused.flops == plain.flops
    for field in ("weights", "kv_read", "kv_written"):
        assert getattr(fused.traffic, field) == getattr(plain.traffic, field)
    assert fused.traffic.read <= plain.traffic.read
    assert fused.traffic.written <= plain.traffic.written
    for a, b in zip(plain.placed, fused.placed, strict=True):
        members = [name for op in b.block.ops for name in (op.parts or (op.name,))]
        assert sorted(members) == sorted(a.block.graph)
        exchanged = [[op.exchange_bytes for op in g.ops if op.exchange] for g in (a.block, b.block)]
        assert exchanged[0] == exchanged[1]
        # Whoever needed an operator still comes after the one that it lives in.
        home = {m: op.name for op in b.block.ops for m in (op.parts or (op.name,))}
        reach = nx.transitive_closure(b.block.graph)
        for before, after in a.block.graph.edges:
            assert home[before] == home[after] or reach.has_edge(home[before], home[after])


@given(models(), st.data())
def test_the_whole_graph_is_in_one_flow(model: Model, data: st.DataObject) -> None:
    graph = build_graph(model, data.draw(batches(model)), BF16, data.draw(lowerings))
    whole = graph.expanded()
    assert nx.is_directed_acyclic_graph(whole)
    assert nx.is_weakly_connected(whole)
    ops = list(graph.ops())
    assert len(whole) == len(ops)
    assert sum(op.flops for _, op in whole.nodes(data="op")) == graph.flops
    for place in graph.placed:
        order = {op.name: i for i, op in enumerate(place.block.ops)}
        assert all(order[a] < order[b] for a, b in place.block.graph.edges)


@given(models(), st.data())
def test_separate_projections_do_the_same_work(model: Model, data: st.DataObject) -> None:
    batch = data.draw(batches(model))
    one, many = (
        build_graph(model, batch, BF16, Lowering(projections=p, fusion=False))
        for p in ("fused", "separate")
    )
    assert one.flops == many.flops
    assert one.traffic.weights == many.traffic.weights
    assert one.traffic.read <= many.traffic.read  # Q, K and V each read the input


def test_only_rows_that_need_logits_see_the_head() -> None:
    model = gpt()
    rows = {0: 0, 1: 1, 5: 5}
    for logits, expected in rows.items():
        graph = build_graph(model, Batch.of(Sequence(new=9, logits=logits)), BF16)
        head = [op.matrix_flops for _, op in graph.ops() if op.name == "lm_head"]
        assert sum(head) == 2 * expected * 32 * 100


def test_experts_by_hand() -> None:
    ffn = Experts(experts=4, top_k=2, inner=16, shared_inner=8)
    layer = Layer(attention=Attention(heads=2, kv_heads=2, head_dim=4, value_dim=4), ffn=ffn)
    stack = Stack(layers=(layer,), embedding=Embedding(tokens=10))
    model = Model(name="toy", architecture="toy", hidden=8, decoder=stack)
    graph = build_graph(model, Batch.prefill(1, 64), BF16)
    found = {op.name: op.matrix_flops for _, op in graph.ops()}
    assert found["router"] == 2 * 64 * 8 * 4
    assert found["experts_up"] == 2 * (64 * 2) * 8 * 32
    assert found["experts_down"] == 2 * (64 * 2) * 16 * 8
    assert found["shared_gate_up_proj"] == 2 * 64 * 8 * 16
