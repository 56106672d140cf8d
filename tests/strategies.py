"""Random programs, machines, models, batches and splits, all small, for the laws."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import strategies as st

from hw_models.device import Device, Hbm, Launch, OnChip, Peak
from hw_models.efficiency import Efficiency, GemmTerms
from hw_models.system import System, SystemSpec, Tier, build_system
from sim.engine.des import Program, Task
from sim.inputs.catalogue import Machine
from sim.mapping.parallelism import Parallelism
from sim.mapping.plan import Pass
from sim.scenario import Resolved, Scenario
from workloads.batch import Batch, Group, Sequence
from workloads.block import Lowering
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
from workloads.precision import Precision

SOURCE = "made up for a test"
BF16 = Precision()


def positive(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False)


# Programs of the engine ------------------------------------------------------------------


@st.composite
def programs(draw: Any, *, links: bool = False, releases: bool = True, most: int = 24) -> Program:
    """Tasks in a topological order, each on some lanes; with `links` some are transfers."""
    lanes = draw(st.integers(1, 4))
    count = draw(st.integers(1, most))
    bandwidth = draw(st.lists(st.sampled_from([1e9, 2e9, 5e9]), min_size=1, max_size=3))
    tasks = []
    for i in range(count):
        after = draw(st.sets(st.integers(0, i - 1), max_size=3)) if i else set()
        held = draw(st.sets(st.integers(0, lanes - 1), max_size=2))
        loads: tuple[tuple[int, float], ...] = ()
        if links and draw(st.booleans()):
            used = draw(st.sets(st.integers(0, len(bandwidth) - 1), min_size=1))
            share = draw(st.sampled_from([0.25, 0.5, 1.0]))
            loads = tuple((k, bandwidth[k] * share) for k in sorted(used))
        tasks.append(
            Task(
                name=f"t{i}",
                duration=draw(st.integers(0, 1000)),
                lanes=tuple(sorted(held)),
                after=tuple(sorted(after)),
                latency=draw(st.sampled_from([0, 0, 7])),
                loads=loads,
                release=draw(st.integers(0, 500)) if releases and draw(st.booleans()) else 0,
            )
        )
    names = [f"link{i}" for i in range(len(bandwidth))]
    return Program(
        tasks, [f"lane{i}" for i in range(lanes)], list(zip(names, bandwidth, strict=True))
    )


# Machines --------------------------------------------------------------------------------


@st.composite
def devices(draw: Any, *, prefetch: bool | None = None, overlap: str | None = None) -> Device:
    """A device so small that even a toy model takes many tiles."""
    core_kib = draw(st.sampled_from([1, 2, 8, 64]))
    shared = draw(st.sampled_from([0, 16, 256]))
    speed = draw(st.sampled_from([None, 5.0, 100.0]))
    on_chip = [
        OnChip(
            name="scratch",
            scope="core",
            capacity_KiB=core_kib,
            bandwidth_GBps=speed,
            source=SOURCE,
        )
    ]
    if shared:
        on_chip.append(OnChip(name="cache", scope="shared", capacity_KiB=shared, source=SOURCE))
    rate = draw(positive(0.01, 10))
    return Device(
        name="toy",
        vendor="nobody",
        kind="accelerator",
        clock_GHz=1.0,
        cores=draw(st.integers(1, 4)),
        matrix=Peak(TFLOPS={"bf16": rate, "fp8": 2 * rate}, source=SOURCE),
        vector=Peak(TFLOPS={"fp32": draw(positive(0.01, 1))}, source=SOURCE),
        hbm=Hbm(capacity_GB=1000.0, bandwidth_GBps=draw(positive(1, 1000)), source=SOURCE),
        on_chip=tuple(on_chip),
        launch=Launch(overhead_us=draw(st.sampled_from([0.0, 0.1, 3.5])), source=SOURCE),
        efficiency=draw(efficiencies()),
        overlap=overlap or draw(st.sampled_from(["double-buffered", "perfect"])),
        levels=draw(st.sampled_from(["parallel", "series"])),
        prefetch=draw(st.booleans()) if prefetch is None else prefetch,
        source=SOURCE,
    )


@st.composite
def efficiencies(draw: Any) -> Efficiency:
    if draw(st.booleans()):
        return Efficiency()
    return Efficiency(
        matrix=draw(positive(0.25, 1)),
        hbm=draw(positive(0.25, 1)),
        hbm_ramp_MB=draw(st.sampled_from([0.0, 0.001])),
        attention_ramp_tokens=draw(st.sampled_from([0.0, 16.0])),
        gemm={dtype: draw(gemm_terms()) for dtype in ("bf16", "fp8") if draw(st.booleans())},
        source=SOURCE,
    )


@st.composite
def gemm_terms(draw: Any) -> GemmTerms:
    return GemmTerms(
        floor_us=draw(st.sampled_from([None, 0.0, 2.0])),
        tiles=((8, 16), (16, 8), (4, 4))[: draw(st.integers(0, 3))],
        splits=draw(st.sampled_from([(1,), (1, 2, 4)])),
        matrix=draw(positive(0.25, 1)),
        edge=draw(st.sampled_from([0.0, 3.0])),
        wave_us=draw(st.sampled_from([0.0, 0.5])),
        slack=draw(st.sampled_from([0.0, 0.4, 1.0])),
        sag=draw(st.sampled_from([0.0, 0.2])),
        hbm=draw(positive(0.25, 1)),
        ramp_MB=draw(st.sampled_from([0.0, 0.001])),
        core_share=draw(st.sampled_from([0.5, 2.0, 64.0])),
        split_us=draw(st.sampled_from([0.0, 0.2])),
        split_ratio=draw(st.sampled_from([0.5, 3.0])),
        depth=draw(st.integers(1, 12)),
        choice=draw(st.sampled_from([0.0, 0.1, 0.6])),
        quantise=draw(st.sampled_from([0.0, 0.7])),
        quantise_us=draw(st.sampled_from([0.0, 1.0])),
        source=SOURCE,
    )


def tier(topology: str, size: int, bandwidth: float = 10.0, latency: float = 1.0) -> Tier:
    return Tier(
        topology=topology, size=size, bandwidth_GBps=bandwidth, latency_us=latency, source=SOURCE
    )


def system(*tiers: Tier) -> System:
    return build_system(SystemSpec(name="toys", device="toy", source=SOURCE, tiers=tiers))


@st.composite
def systems(draw: Any, least: int = 1) -> System:
    """A switch, a ring or a mesh, perhaps with a second tier of switches above."""
    topology = draw(st.sampled_from(["switch", "ring", "mesh"]))
    inner = draw(st.sampled_from([size for size in (1, 2, 3, 4, 8) if size >= min(least, 2)]))
    outer = max(-(-least // inner), draw(st.integers(1, 2)))
    tiers = [tier(topology, inner, draw(positive(1, 500)), draw(st.sampled_from([0.0, 0.7, 2.0])))]
    if outer > 1:
        tiers.append(tier("switch", outer, draw(positive(1, 50)), draw(positive(0, 9))))
    return system(*tiers)


# Models ----------------------------------------------------------------------------------


@st.composite
def attentions(draw: Any, *, causal: bool = True, plain: bool = False) -> Attention:
    """MHA, GQA or MQA, perhaps with a window; or MLA."""
    heads = draw(st.sampled_from([1, 2, 4, 8]))
    if not plain and draw(st.integers(0, 4)) == 0:
        latent = Latent(query_rank=draw(st.sampled_from([0, 12])), kv_rank=8, rope_dim=4)
        return Attention(
            heads=heads, kv_heads=heads, head_dim=12, value_dim=8, rotary=True, latent=latent
        )
    kv = draw(st.sampled_from([d for d in (1, 2, 4, 8) if heads % d == 0]))
    width = draw(st.sampled_from([4, 8]))
    bias = draw(st.booleans())
    return Attention(
        heads=heads,
        kv_heads=kv,
        head_dim=width,
        value_dim=width,
        causal=causal,
        window=draw(st.sampled_from([0, 0, 3, 8])) if causal else 0,
        rotary=draw(st.booleans()),
        qk_norm=draw(st.booleans()) and not plain,
        bias_q=bias,
        bias_k=bias,
        bias_v=bias,
        bias_out=draw(st.booleans()),
    )


@st.composite
def feed_forwards(draw: Any, *, dense: bool = False) -> Dense | Experts:
    inner = draw(st.sampled_from([8, 16, 48]))
    gated, activation = draw(st.booleans()), draw(st.sampled_from(["gelu", "relu", "silu"]))
    if dense or draw(st.integers(0, 2)):
        return Dense(inner=inner, gated=gated, activation=activation, bias=draw(st.booleans()))
    experts = draw(st.integers(1, 6))
    return Experts(
        experts=experts,
        top_k=draw(st.integers(1, experts)),
        inner=inner,
        gated=gated,
        activation=activation,
        shared_inner=draw(st.sampled_from([0, 8])),
        router_bias=draw(st.booleans()),
    )


@st.composite
def stacks(draw: Any, *, causal: bool, cross: bool, dense: bool, plain: bool, most: int) -> Stack:
    """Layers of one or two kinds in any order."""
    norm = draw(st.sampled_from(["layernorm", "rmsnorm"]))
    kinds = [
        Layer(
            attention=draw(attentions(causal=causal, plain=plain or not causal)),
            cross=draw(attentions(causal=False, plain=True)) if cross else None,
            ffn=draw(feed_forwards(dense=dense)),
            norm=norm,
            place=draw(st.sampled_from(["pre", "post", "sandwich"])),
        )
        for _ in range(draw(st.integers(1, 2)))
    ]
    return Stack(
        layers=tuple(draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=most))),
        embedding=Embedding(
            tokens=draw(st.integers(8, 100)),
            positions=draw(st.sampled_from([0, 64])),
            norm=draw(st.sampled_from([None, norm])),
        ),
        head=Head(
            vocab=draw(st.integers(8, 100)) if causal else 0,
            tied=draw(st.booleans()),
            pooler=not causal and draw(st.booleans()),
        ),
        final_norm=draw(st.sampled_from([None, norm])),
        relative_buckets=draw(st.sampled_from([0, 0, 4])),
    )


@st.composite
def models(
    draw: Any,
    *,
    kinds: tuple[str, ...] = ("encoder", "decoder", "both"),
    dense: bool = False,
    plain: bool = False,
    layers: int = 4,
) -> Model:
    """`dense` leaves out experts, `plain` leaves out MLA."""
    kind = draw(st.sampled_from(kinds))
    shape = {"dense": dense, "plain": plain, "most": layers}
    encoder = decoder = None
    if kind != "decoder":
        encoder = draw(stacks(causal=False, cross=False, **shape))
    if kind != "encoder":
        decoder = draw(stacks(causal=True, cross=kind == "both", **shape))
    hidden = draw(st.sampled_from([8, 16, 40]))
    return Model(name="toy", architecture="toy", hidden=hidden, encoder=encoder, decoder=decoder)


# Work ------------------------------------------------------------------------------------


@st.composite
def sequences(draw: Any, model: Model) -> Sequence:
    new = draw(st.sampled_from([1, 1, 2, 5, 17]))
    source = fed = 0
    if model.encoder and model.decoder:
        source, fed = draw(st.sampled_from([(0, 6), (6, 0), (4, 3)]))
    return Sequence(
        new=new,
        cached=draw(st.sampled_from([0, 1, 9, 30])) if model.decoder else 0,
        source=source,
        source_cached=fed,
        logits=draw(st.integers(0, min(2, new))),
    )


@st.composite
def batches(draw: Any, model: Model) -> Batch:
    groups = draw(st.lists(st.tuples(sequences(model), st.integers(1, 4)), min_size=1, max_size=3))
    return Batch(groups=tuple(Group(sequence=s, count=n) for s, n in groups))


lowerings = st.builds(
    Lowering,
    attention=st.sampled_from(["flash", "materialised"]),
    projections=st.sampled_from(["fused", "separate"]),
    fusion=st.booleans(),
)


@st.composite
def splits(draw: Any, model: Model, size: int, *, contend: bool = True) -> Parallelism:
    """A split that `model` can do for `size` sequences; without `contend` a serial one."""
    tp = draw(st.sampled_from([t for t in (1, 2, 4) if can_be_cut(model, t)]))
    pp = draw(st.integers(1, min(3, model.num_layers)))
    dp = draw(st.integers(1, min(2, size)))
    most = size // dp if contend or pp == 1 else 1
    stages: tuple[int, ...] = ()
    if pp > 1 and draw(st.booleans()):
        cuts = draw(
            st.lists(
                st.integers(1, model.num_layers - 1), min_size=pp - 1, max_size=pp - 1, unique=True
            )
        )
        edges = [0, *sorted(cuts), model.num_layers]
        stages = tuple(b - a for a, b in itertools.pairwise(edges))
    return Parallelism(
        tp=tp,
        pp=pp,
        dp=dp,
        microbatches=draw(st.integers(1, min(3, most))),
        stages=stages,
        collective=draw(st.sampled_from(["auto", "ring", "tree"])),
    )


def can_be_cut(model: Model, tp: int) -> bool:
    """Whether heads, key/value heads and inner widths can be dealt out to tp ranks."""
    layers = [layer for _, stack in model.stacks for layer in stack.layers]
    attentions = [a for layer in layers for a in (layer.attention, layer.cross) if a]
    heads = all(
        a.heads % tp == 0 and (a.kv_heads % tp == 0 or tp % a.kv_heads == 0) for a in attentions
    )
    widths = [getattr(layer.ffn, "shared_inner", 0) for layer in layers]
    widths += [layer.ffn.inner for layer in layers]
    return heads and all(width % tp == 0 for width in widths)


def static_passes(model: Model, size: int, prompt: int, output: int) -> tuple[Pass, ...]:
    """One encode; or a prefill and decode steps."""
    if model.decoder is None:
        return (Pass("encode", Batch.encode(size, prompt)),)
    source = 5 if model.encoder else 0
    first = Pass("prefill", Batch.prefill(size, prompt, source=source))
    more = [Pass("decode", Batch.decode(size, prompt + i, source=source)) for i in range(1, output)]
    return (first, *more)


@st.composite
def cases(
    draw: Any,
    *,
    contend: bool = True,
    prefetch: bool | None = None,
    detail: str = "op",
    shortcuts: bool = True,
    dense: bool = False,
    dp: bool = True,
) -> Resolved:
    """A model on a machine, split somehow, with passes to run: all that a run needs."""
    model = draw(models(dense=dense, layers=3))
    size = draw(st.integers(1, 4))
    split = draw(splits(model, size, contend=contend))
    if not dp:
        split = Parallelism(
            tp=split.tp,
            pp=split.pp,
            microbatches=split.microbatches,
            stages=split.stages,
            collective=split.collective,
        )
    passes = static_passes(
        model, size, draw(st.sampled_from([1, 7, 20])), draw(st.sampled_from([1, 3]))
    )
    machine = Machine("toys", draw(systems(least=split.devices)), draw(devices(prefetch=prefetch)))
    scenario = Scenario(
        model="toy",
        on="toys",
        parallelism=split,
        lowering=draw(lowerings),
        detail=detail,
        shortcuts=shortcuts,
    )
    return Resolved(scenario, model, machine, BF16, passes, 32)
