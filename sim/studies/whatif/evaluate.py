"""A variant's metric taken apart, its mechanism applied."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import msgspec

from sim.errors import InputError, quoted
from sim.mapping.plan import Pass
from sim.mapping.priced import Rewrite
from sim.scenario import Resolved
from sim.simulation import simulate
from sim.studies.whatif.buffers import matmul_time
from sim.studies.whatif.mechanisms import Exits, Speculative, combined
from sim.studies.whatif.parts import Breakdown, Cause, Parts, kept, total
from sim.studies.whatif.question import Variant
from sim.studies.whatif.runs import break_down
from sim.studies.whatif.subjects import RunSubject, subject_of
from workloads.batch import Batch, Sequence
from workloads.model import Model

MATMUL = "matmul"  # the metric of two local memories: all products of a pass


def evaluate(
    resolved: Resolved, document: dict[str, Any], variant: Variant, metric: str
) -> Breakdown:
    """The metric of one variant. Raises InputError."""
    if variant.buffers:
        buffers = variant.buffers
        if metric != MATMUL:
            raise InputError(
                f"metric = {quoted(metric)}: of a scratchpad and accumulator say {MATMUL!r}"
            )
        return matmul_time(resolved, buffers)
    if variant.speculative:
        _only("speculative", metric)
        return speculated(resolved, document, variant.speculative)
    if variant.exits:
        _only("exits", metric)
        return exited(resolved, variant.exits)
    rewrites: list[Rewrite] = [variant.sparsity.rewrite] if variant.sparsity else []
    rewrites += [variant.tiers.rewriter(resolved.machine.device)] if variant.tiers else []
    rewrite = combined(*rewrites) if rewrites else None
    return break_down(simulate(resolved, rewrite=rewrite), metric)


def _only(mechanism: str, metric: str) -> None:
    if metric != "tpot":
        raise InputError(f"metric = {quoted(metric)}: `{mechanism}` is about decoding; say tpot")


def speculated(resolved: Resolved, document: dict[str, Any], how: Speculative) -> Breakdown:
    """TPOT of drafting and verifying: the mean cycle over the tokens that it yields."""
    first, steps = resolved.passes[0].batch, len(resolved.passes) - 1
    if resolved.model.decoder is None or resolved.model.encoder or not steps:
        raise InputError("speculative decoding needs a decoder that generates two tokens or more")
    size, start = first.size, first.groups[0].sequence.new
    cycles = math.ceil(steps / how.expected)
    contexts = [start + 1 + math.floor(i * how.expected) for i in range(cycles)]
    verify = [
        Pass(
            "decode",
            Batch.uniform(
                size,
                Sequence(new=how.tokens + 1, cached=context - 1, logits=how.tokens + 1),
            ),
        )
        for context in contexts
    ]
    drafts = [
        Pass("decode", Batch.decode(size, c + j)) for c in contexts for j in range(how.tokens)
    ]
    # A draft is a model of its own; keys of the big one do not go with it.
    keys = {k: v for k, v in document.get("set", {}).items() if not k.startswith("model.")}
    small = subject_of("run", {**document, "model": how.draft, "set": keys})
    assert isinstance(small, RunSubject)
    mine = _passes(resolved, verify)
    theirs = {
        Cause(c.state, c.what, f"draft {c.kind}"): x
        for c, x in _passes(small.resolved, drafts).items()
    }
    share = 1 / (cycles * Fraction(how.expected))
    return Breakdown("tpot", {c: x * share for c, x in total([mine, theirs]).items()})


def _passes(resolved: Resolved, passes: list[Pass]) -> Parts:
    """All time of these passes, as a sequence sees it."""
    changed = msgspec.structs.replace(resolved, passes=tuple(passes))
    return break_down(simulate(changed), "e2e").parts


def exited(resolved: Resolved, how: Exits) -> Breakdown:
    """TPOT with tokens that leave early: runs of the model cut short, by their probability."""
    model, batch = resolved.model, resolved.passes[0].batch.size
    if model.decoder is None or model.encoder or len(resolved.passes) < 2:
        raise InputError("early exit needs a decoder that generates two tokens or more")
    depths = how.layers(model.num_layers)
    exits: list[Parts] = []
    for checks, (layers, weight) in enumerate(zip(depths, how.weights(batch), strict=True), 1):
        if not weight:
            continue
        cut = msgspec.structs.replace(resolved, model=shortened(model, layers))
        parts = break_down(simulate(cut), "tpot").parts
        head = {c: x for c, x in parts.items() if c.kind == "head"}
        share = Fraction(weight)
        exits.append({c: x * share for c, x in parts.items()})
        exits.append({c: x * share * (checks - 1) for c, x in head.items()})
    return Breakdown("tpot", kept(total(exits)))


def shortened(model: Model, layers: int) -> Model:
    """A decoder with its first `layers` layers."""
    assert model.decoder is not None
    stack = msgspec.structs.replace(model.decoder, layers=model.decoder.layers[:layers])
    return msgspec.structs.replace(model, decoder=stack)
