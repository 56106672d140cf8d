"""One price: `run`, `sweep` and `serve` take the cost of a pass from the same operators.

A new kind of operator is a builder in the model's graph and an entry in `KERNELS`; a new attention
is an entry in `CORES`. Nothing else has to know of them.
"""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import Case, run

from sim.account.stalls import WAIT
from sim.cost.arith import Arith
from sim.cost.kernels.price import Moved, Times
from sim.cost.kernels.rates import Rates
from sim.cost.kernels.registry import KERNELS
from sim.inputs.catalogue import Value
from sim.mapping.parallelism import Parallelism
from sim.mapping.plan import Pass
from sim.scenario import Resolved, Scenario, Workload, resolve
from sim.serve.pricing import Prefill, Pricer
from sim.simulation import simulate
from sim.states import STATES
from sim.studies.sweep.closed import closed_rows
from sim.studies.sweep.points import StaticPoint, prepare
from sim.studies.sweep.static import row
from workloads.attention import CORES, Attended, Core, attended, flash_attention
from workloads.batch import Batch, Sequence
from workloads.block import Lowering
from workloads.model import Attention, Model
from workloads.ops import Op, Traffic
from workloads.precision import Precision, packed
from workloads.request import Request

# A step of `serve` against `run` of the same batch ----------------------------------------------

# model, machine, changes, splits (tp, pp)
SETTINGS: list[tuple[str, str, dict[str, Value], list[tuple[int, int]]]] = [
    ("gpt2", "hgx-h100", {"model.n_layer": 3}, [(1, 1), (2, 1), (1, 3), (4, 2)]),
    ("llama-3.1-8b", "dgx-a100", {"model.num_hidden_layers": 4}, [(1, 1), (8, 1), (2, 2), (1, 4)]),
    ("gemma-2-9b", "h100-sxm", {"model.num_hidden_layers": 2}, [(1, 1)]),
    ("qwen2-7b", "hgx-h200", {"model.num_hidden_layers": 3}, [(1, 1), (4, 1), (2, 3)]),
    ("mixtral-8x7b", "hgx-h100", {"model.num_hidden_layers": 2}, [(1, 1), (2, 2), (8, 1)]),
    ("deepseek-v3", "hgx-h200", {"model.num_hidden_layers": 4}, [(8, 1), (4, 2)]),
    ("gpt2", "t4", {"model.n_layer": 2}, [(1, 1)]),
    ("gpt2", "tpu-v5e", {"model.n_layer": 2, "device.prefetch": False}, [(1, 1)]),
]


@cache
def resolved_of(setting: int, split: int, lowering: Lowering) -> Resolved:
    model, machine, changes, splits = SETTINGS[setting]
    tp, pp = splits[split]
    return resolve(
        Scenario(
            model=model,
            on=machine,
            dtype="fp16" if machine == "t4" else None,
            parallelism=Parallelism(tp=tp, pp=pp),
            lowering=lowering,
            allow_oom=True,
            set=changes,
        )
    )


@cache
def pricer_of(setting: int, split: int, lowering: Lowering) -> Pricer:
    return Pricer(resolved_of(setting, split, lowering))


@settings(max_examples=60)
@given(data=st.data())
def test_a_step_of_serve_equals_run_of_the_same_batch(data: st.DataObject) -> None:
    setting = data.draw(st.integers(0, len(SETTINGS) - 1))
    split = data.draw(st.integers(0, len(SETTINGS[setting][3]) - 1))
    lowering = Lowering(attention=data.draw(st.sampled_from(["flash", "flash", "materialised"])))
    contexts = data.draw(st.lists(st.integers(2, 5000), max_size=5))
    chunks = data.draw(
        st.lists(
            st.builds(Prefill, st.integers(1, 900), st.sampled_from([0, 64, 999]), st.booleans()),
            min_size=not contexts,
            max_size=3,
        )
    )
    step = pricer_of(setting, split, lowering).step(contexts, chunks)

    sequences = [Sequence(new=1, cached=c - 1) for c in contexts]
    sequences += [Sequence(new=p.new, cached=p.cached, logits=int(p.last)) for p in chunks]
    one = msgspec.structs.replace(
        resolved_of(setting, split, lowering), passes=(Pass("mixed", Batch.of(*sequences)),)
    )
    tp = one.scenario.parallelism.tp
    found = simulate(one).account.by("stage", "kind")
    for stage, cost in enumerate(step):
        own = [states for (at, kind), states in found.items() if at == stage and kind != WAIT]
        assert [sum(x) for x in zip(*own, strict=True)][:5] == [tp * x for x in cost[:5]]
    result = simulate(one)
    assert result.metrics.flops == tp * sum(cost.flops for cost in step)
    assert result.metrics.hbm_bytes == tp * sum(cost.hbm_bytes for cost in step)


# A new kind of operator, and new attentions -----------------------------------------------------


def gate_times(xp: Arith, rates: Rates, op: Op, moved: Moved) -> Times:
    """A kernel with terms of its own: a fixed time, and seven passes over the bytes."""
    seconds = 7 * (moved.reads + moved.writes) / rates.bandwidth
    nothing = 0.0 * seconds
    return Times(3e-6 + nothing, seconds, nothing, nothing, 1, seconds, nothing)


def gated_core(
    prefix: str,
    attention: Attention,
    batch: Batch,
    precision: Precision,
    *,
    cross: bool = False,
    cached_kv: bool = True,
) -> tuple[Op, ...]:
    """Flash attention, and a gate over its output, which varies with tokens alone."""
    name = f"{prefix}attention"
    inner = flash_attention(name, attention, batch, precision, cross=cross, cached_kv=cached_kv)
    size = packed(batch.tokens * attention.heads * attention.value_dim, precision.activation_bits)
    gate = Op(name=f"{prefix}gate", kind="gate", traffic=Traffic(read=2 * size, written=size))
    return (inner, gate)


def decayed_operator(
    name: str, attention: Attention, parts: list[Attended], precision: Precision
) -> Op:
    """Attention with a bounded state: work by token, and a cost for every key it has seen."""
    tokens: Any = sum(p.sequences * p.new for p in parts)
    keys: Any = sum(p.keys for p in parts)
    return Op(
        name=name,
        kind="decayed",
        matrix_flops=64 * tokens * attention.heads * attention.head_dim,
        traffic=Traffic(
            kv_read=packed(keys * attention.kv_heads, precision.kv_bits),
            written=packed(tokens * attention.heads, precision.activation_bits),
        ),
        varies="context",
    )


def decayed_core(
    prefix: str, attention: Attention, batch: Batch, precision: Precision, **_: bool
) -> tuple[Op, ...]:
    parts = [attended(attention, group) for group in batch.groups]
    return (decayed_operator(f"{prefix}attention", attention, parts, precision),)


def decayed_times(xp: Arith, rates: Rates, op: Op, moved: Moved) -> Times:
    """A kernel with terms of its own: keys cost as much as 300 bytes each."""
    load = 300 * moved.reads / rates.bandwidth
    compute = op.matrix_flops / (0.25 * rates.peak)
    return Times(5e-6 + 0.0 * load, load, compute, 0.0 * load, 4, load, 0.0 * load)


@pytest.fixture(params=["gated", "decayed"])
def resolved(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Resolved:
    """Two layers of Llama with a new attention."""
    monkeypatch.setitem(CORES, "gated", Core(gated_core))
    monkeypatch.setitem(KERNELS, "gate", gate_times)
    monkeypatch.setitem(CORES, "decayed", Core(decayed_core, decayed_operator))
    monkeypatch.setitem(KERNELS, "decayed", decayed_times)
    scenario = Scenario(
        model="llama-3.1-8b",
        on="h100-sxm",
        workload=Workload(batch=1, prompt=300, output=20),
        set={"model.num_hidden_layers": 2},
    )
    plain = resolve(scenario)
    return msgspec.structs.replace(plain, model=with_core(plain.model, request.param))


def with_core(model: Model, core: str) -> Model:
    assert model.decoder is not None
    layers = tuple(
        msgspec.structs.replace(x, attention=msgspec.structs.replace(x.attention, core=core))
        for x in model.decoder.layers
    )
    return msgspec.structs.replace(
        model, decoder=msgspec.structs.replace(model.decoder, layers=layers)
    )


def test_run_takes_its_price(resolved: Resolved) -> None:
    """The kernel's own terms, by hand: two layers, a prompt and nineteen decode steps."""
    result = simulate(resolved)
    kinds = {str(kind) for (kind,) in result.account.by("kind")}
    assert kinds & {"gate", "decayed"}
    if "gate" in kinds:
        rates = Pricer(resolved).costs.rates
        launch = result.account.by("kind")[("gate",)][STATES.index("launch")]
        assert launch == 20 * 2 * 3_000_000
        size = np.array([300, *[1] * 19]) * 32 * 128 * 2
        waits = sum(round(7 * 3 * int(s) / rates.bandwidth * 1e12) for s in size)
        assert result.account.by("kind")[("gate",)][STATES.index("hbm")] == 2 * waits


def test_sweep_takes_its_price(resolved: Resolved) -> None:
    point = prepare(
        {
            "model": "llama-3.1-8b",
            "on": "h100-sxm",
            "workload": {"batch": 1, "prompt": 300, "output": 20},
            "set": {"model.num_hidden_layers": 2},
        }
    )
    points: list[StaticPoint] = [
        msgspec.structs.replace(
            point,
            model=resolved.model,
            lengths=msgspec.structs.replace(point.lengths, batch=batch, prompt=prompt),
            scenario=msgspec.structs.replace(
                point.scenario, workload=Workload(batch=batch, prompt=prompt, output=20)
            ),
        )
        for batch, prompt in ((1, 300), (3, 77), (5, 1))
    ]
    found = dict(closed_rows(points))
    assert sorted(found) == [0, 1, 2]
    for i, one in enumerate(points):
        assert found[i] == row(one)
    assert found[0]["makespan_ps"] == simulate(resolved).makespan


def test_serve_takes_its_price(resolved: Resolved) -> None:
    """Tables, leaps and the long way agree with one another, and with `run`."""
    quick, long = Pricer(resolved), Pricer(resolved, exact_graph=True)
    core = resolved.model.stacks[0][1].layers[0].attention.core
    assert quick.tabled == (core == "decayed")
    alone = Case(requests=(Request(0, 0, 300, 20),))
    assert run(alone, quick).rows[0].last_token == simulate(resolved).makespan
    rng = random.Random(7)
    requests = tuple(
        Request(i, rng.randrange(10**9), rng.randint(1, 400), rng.randint(1, 30)) for i in range(8)
    )
    ordered = tuple(sorted(requests, key=lambda q: q.arrival))
    case = Case(requests=ordered)
    assert run(case, quick) == run(case, long, leap=False) == run(case, quick, leap=False)
