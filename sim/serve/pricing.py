"""What one step of a replica costs, without building the graph of every step.

Operators tell which numbers of the batch they vary with (`Op.varies`). Those of tokens and rows are
tabulated (`sim.serve.token_table`). Those of contexts are priced from sums over the batch where
their core can be (`workloads.attention.Core.from_sums`): in closed form (`sim.serve.decode_cost`,
`sim.serve.mixed_cost`) or as an operator. Else they are built sequence by sequence. `Pricer(
exact_graph=True)` is the long way, the whole graph of every step. All ways agree to the picosecond.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from sim.cost.collectives import Network
from sim.cost.model import CostModel
from sim.cost.pass_cost import FREE, Amounts, PassCost, add
from sim.mapping.parallelism import shard
from sim.mapping.plan import stage_table
from sim.mapping.priced import Step, TensorGroup, output_exchange, price_blocks
from sim.scenario import Resolved
from sim.serve.decode_cost import decode_cost
from sim.serve.mixed_cost import Chunks, MixedCost, mixed_cost
from sim.serve.token_table import ModelShare, TokenTable
from workloads.attention import Attended, core_of, decoding
from workloads.batch import Batch, Sequence
from workloads.block import Block, Context
from workloads.blocks import attend
from workloads.model import Attention
from workloads.ops import Op


class Prefill(msgspec.Struct, frozen=True):
    """A chunk of `new` prompt tokens behind `cached` ones; `last` if it ends the prompt."""

    new: int
    cached: int
    last: bool


class Pricer:
    """Costs of the steps of one replica, by pipeline stage."""

    def __init__(self, resolved: Resolved, *, exact_graph: bool = False) -> None:
        scenario = resolved.scenario
        self.split, self.lowering = scenario.parallelism, scenario.lowering
        self.model, self.precision = resolved.model, resolved.precision
        device = resolved.machine.device
        self.costs = CostModel(device, self.precision.activations)
        self.network = Network(resolved.machine.system, libraries=device.efficiency.collectives)
        self.share = ModelShare(
            local=shard(self.model, self.split.tp),
            stage_of=stage_table(self.model, self.split),
            stages=self.split.pp,
            ways=self.split.tp,
            costs=self.costs,
            precision=self.precision,
            lowering=self.lowering,
        )
        self.separable = not exact_graph
        self.attentions = self._attention_kinds()
        self.tabled = self.separable and all(self._sums_suffice(a) for a, _ in self.attentions)
        self.table = TokenTable(self.share, self._exchange)
        self._decodes: dict[int, list[Callable[[int], Amounts]]] = {}  # by sequences, see below
        self._mixed = self._mixed_attentions() if self.tabled else []

    def _sums_suffice(self, attention: Attention) -> bool:
        """Whether the sums of a batch say all that this attention depends on."""
        cached = self.model.decoder is not None  # only a cache tells decoding sequences apart
        if not cached or attention.latent or not core_of(attention, self.lowering).from_sums:
            return False
        # A decoding sequence whose query rows do not fit on chip would stream its keys again.
        op = self._attention(attention, [decoding(1, 1)])
        return bool(self.costs.moved(op).reads == op.traffic.loads)

    def _attention_kinds(self) -> list[tuple[Attention, list[int]]]:
        """Distinct attentions with the number of layers of each in each stage."""
        kinds: dict[Attention, list[int]] = {}
        for name, stack in self.share.local.stacks:
            for i, layer in enumerate(stack.layers):
                counts = kinds.setdefault(layer.attention, [0] * self.split.pp)
                counts[self.share.stage_of[name, i]] += 1
        return list(kinds.items())

    def group(self, stage: int) -> TensorGroup:
        """The ranks of a stage."""
        devices = self.split.group(0, stage) if self.split.tp > 1 else ()
        return TensorGroup(self.network, devices, self.split.collective)

    def _exchange(self, stage: int, kind: str, name: str, nbytes: int) -> Step:
        """What follows an operator whose output is spread over the ranks of a stage."""
        return output_exchange(kind, name, nbytes, self.costs, self.group(stage))

    # -- steps ------------------------------------------------------------------------------

    def step(self, contexts: list[int], prefills: list[Prefill]) -> list[PassCost]:
        """A step that decodes one token behind each of `contexts` - 1 and does `prefills`."""
        if not self.separable:
            return self._graph_step(contexts, prefills)
        if self.tabled:

            def keys(attention: Attention) -> int:
                window = attention.window
                return sum(min(c, window) for c in contexts) if window else sum(contexts)

            return self.summed_step(len(contexts), keys, prefills)
        batch = self._batch(contexts, prefills)
        costs: list[tuple[Amounts, list[int]]] = [
            (self._summed(self._context_ops(attention, batch)), counts)
            for attention, counts in self.attentions
        ]
        tokens = len(contexts) + sum(p.new for p in prefills)
        rows = len(contexts) + sum(p.last for p in prefills)
        return self._with_table(tokens, rows, costs)

    def summed_step(
        self, decodes: int, keys: Callable[[Attention], int], prefills: list[Prefill]
    ) -> list[PassCost]:
        """A step from sums; `keys` tells the keys that the decoding sequences see together."""
        if not prefills:
            lines = self._decode_attentions(decodes)
            alone = [
                (line(keys(attention)), layers)
                for line, (attention, layers) in zip(lines, self.attentions, strict=True)
            ]
            return self._with_table(decodes, decodes, alone)
        tokens = rows = decodes
        batch: Chunks = {}
        for p in prefills:
            tokens += p.new
            rows += p.last
            batch[p.new, p.cached] = batch.get((p.new, p.cached), 0) + 1
        costs: list[tuple[Amounts, list[int]]] = [
            (cost(decodes, keys(attention), batch), layers)
            for cost, attention, layers in self._mixed
        ]
        return self._with_table(tokens, rows, costs)

    def _mixed_attentions(self) -> list[tuple[MixedCost, Attention, list[int]]]:
        """The costs of the kinds of attention over prompts and decoding sequences."""
        return [
            (mixed_cost(self.costs, core_of(a, self.lowering), a, self.precision), a, layers)
            for a, layers in self.attentions
        ]

    def _decode_attentions(self, count: int) -> list[Callable[[int], Amounts]]:
        """`decode_attention` of each kind of attention, with `count` sequences."""
        known = self._decodes.get(count)
        if known is None:
            known = [self.decode_attention(attention, count) for attention, _ in self.attentions]
            self._decodes[count] = known
        return known

    def _with_table(
        self, tokens: int, rows: int, costs: list[tuple[Amounts, list[int]]]
    ) -> list[PassCost]:
        """The costs of attentions in so many layers of each stage, and all the rest."""
        result = self.linear(tokens, rows)
        for cost, counts in costs:
            for stage, count in enumerate(counts):
                if count:
                    result[stage] = add(result[stage], cost, count)
        return result

    def linear(self, tokens: int, rows: int) -> list[PassCost]:
        """What varies with `tokens` new tokens and `rows` rows alone."""
        if tokens == rows:
            return list(self.table.decode(tokens))
        body = self.table.tokens(tokens)
        return list(map(add, body, self.table.rows(rows))) if rows else list(body)

    def _batch(self, contexts: list[int], prefills: list[Prefill]) -> Batch:
        answers = self.model.decoder is not None  # an encoder's answer is pooled
        sequences = [Sequence(new=1, cached=c - 1) for c in contexts]
        sequences += [
            Sequence(new=p.new, cached=p.cached, logits=int(p.last and answers)) for p in prefills
        ]
        return Batch.of(*sequences)

    def _attention(self, attention: Attention, parts: list[Attended]) -> Op:
        build = core_of(attention, self.lowering).from_sums
        assert build is not None
        return build("attention", attention, parts, self.precision)

    def _context_ops(self, attention: Attention, batch: Batch) -> list[Op]:
        """The operators of one layer that vary with contexts."""
        block = Block("attention")
        ctx = Context(
            batch=batch,
            rows=batch.tokens,
            width=self.model.hidden,
            precision=self.precision,
            lowering=self.lowering,
            cached_kv=self.model.decoder is not None,
            ways=self.split.tp,
        )
        attend(block, "", attention, ctx, "", cross=False)
        return [op for op in block.ops if op.varies == "context"]

    def _summed(self, ops: list[Op]) -> PassCost:
        cost = FREE
        for op in ops:
            cost = add(cost, self.costs.price(op))
        return cost

    def _graph_step(self, contexts: list[int], prefills: list[Prefill]) -> list[PassCost]:
        """The long way: build and price the whole graph."""
        result = [FREE] * self.split.pp
        placed = self.share.graph(self._batch(contexts, prefills)).placed
        for stage in range(self.split.pp):
            here = [p for p in placed if self.share.stage_of[p.stack, p.layer] == stage]
            for work in price_blocks(here, self.costs, self.group(stage)):
                for step in work.block.steps:
                    result[stage] = add(result[stage], step.price)
        return result

    # -- decode steps on one stage ----------------------------------------------------------

    def decode(self, count: int) -> Callable[[int], Amounts]:
        """The cost of a step that decodes `count` sequences, by the keys that they see together.

        For one stage, without windows: then all attentions see the same keys.
        """
        costs = self.linear(count, count)[0]
        (first, times), *others = ((a, n[0]) for a, n in self.attentions)
        cost = self.decode_attention(first, count, costs, times)
        for attention, more in others:
            cost = _sum(cost, self.decode_attention(attention, count), more)
        return cost

    def decode_attention(
        self, attention: Attention, count: int, base: PassCost = FREE, times: int = 1
    ) -> Callable[[int], Amounts]:
        """`base` plus the cost of `times` attentions in which `count` sequences decode, by the
        keys that they see together. The innermost loop of serving calls it."""

        def build(keys: int) -> Op:
            return self._attention(attention, [decoding(count, keys)])

        bits = attention.kv_width * self.precision.kv_bits
        return decode_cost(self.costs, build, bits, base, times)


def _sum(
    a: Callable[[int], Amounts], b: Callable[[int], Amounts], times: int
) -> Callable[[int], Amounts]:
    return lambda keys: add(a(keys), b(keys), times)
