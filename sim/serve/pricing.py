"""What one step of a replica costs, without rebuilding the graph in the loop.

Everything but attention depends on the number of new tokens alone (the logits on the number of
rows that need them): tabulated from the graph (`sim.serve.linear`). Attention of a decoder that
keeps its scores on chip depends on sums over the batch: priced from them, by the same formula.
Other attention, and latents with the products that rebuild or absorb them, are priced from their
own operators. `Pricer(exact_graph=True)` is the long way: the whole graph of every step; all agree
to the picosecond.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from sim.cost.arith import SCALAR
from sim.cost.collectives import Network
from sim.cost.kernels import priced
from sim.cost.kernels.asked import Asked
from sim.cost.kernels.attention import attention_times
from sim.cost.kernels.price import Moved
from sim.cost.model import CostModel
from sim.mapping.parallelism import shard
from sim.mapping.plan import stage_table
from sim.mapping.priced import Step, Work, output_exchange, price_blocks
from sim.scenario import Resolved
from sim.serve.linear import Linear
from sim.serve.prices import FREE, Price, add, price_of
from workloads.attention import flash_attention, materialised_attention, pairs, seen
from workloads.batch import Batch, Sequence
from workloads.block import Block, Context
from workloads.graph import Graph, Placed, build_graph
from workloads.latent import attend_latents
from workloads.model import Attention
from workloads.ops import SOFTMAX_FLOPS, Op
from workloads.precision import packed


class Prefill(msgspec.Struct, frozen=True):
    """A chunk of `new` prompt tokens behind `cached` ones; `last` if it ends the prompt."""

    new: int
    cached: int
    last: bool


class Pricer:
    """Prices steps of one replica, a Price a pipeline stage."""

    def __init__(self, resolved: Resolved, *, exact_graph: bool = False) -> None:
        scenario = resolved.scenario
        self.split, self.lowering = scenario.parallelism, scenario.lowering
        self.model, self.precision = resolved.model, resolved.precision
        self.costs = CostModel(resolved.machine.device, self.precision.activations)
        libraries = resolved.machine.device.efficiency.collectives
        self.network = Network(resolved.machine.system, libraries=libraries)
        rates = self.costs.rates
        self.half = min(rates.reuse, int(rates.staging)) // 2
        self.local = shard(self.model, self.split.tp)
        self.stage_of = stage_table(self.model, self.split)
        self.separable = not exact_graph and self._separates()
        self.tabled = self.separable and self._tabulates()
        self._linear = Linear(
            self.local,
            self.stage_of,
            self.split.pp,
            self.costs,
            self.precision,
            self.lowering,
            self.split.tp,
            self._exchange,
        )
        self.attentions = self._attention_kinds()

    def _separates(self) -> bool:
        """Whether attention alone depends on more than the number of tokens."""
        one = self.model.encoder is None or self.model.decoder is None
        layers = [layer for _, stack in self.local.stacks for layer in stack.layers]
        return one and all(x.cross is None for x in layers)

    def _tabulates(self) -> bool:
        """Whether the two sums that the tables need say all about this model's attention."""
        plain = self.lowering.attention == "flash" and self.model.encoder is None
        for _, stack in self.local.stacks:
            for layer in stack.layers:
                a = layer.attention
                plain = plain and a.latent is None
                rows = a.heads // a.kv_heads * (a.head_dim + a.value_dim) * 4
                plain = plain and rows <= self.half
        return plain

    def _attention_kinds(self) -> list[tuple[Attention, list[int]]]:
        """Distinct attentions with the number of layers of each in each stage."""
        kinds: dict[Attention, list[int]] = {}
        for name, stack in self.local.stacks:
            for i, layer in enumerate(stack.layers):
                counts = kinds.setdefault(layer.attention, [0] * self.split.pp)
                counts[self.stage_of[name, i]] += 1
        return list(kinds.items())

    def group(self, stage: int) -> tuple[int, ...]:
        return self.split.group(0, stage) if self.split.tp > 1 else ()

    def step(self, contexts: list[int], prefills: list[Prefill]) -> list[Price]:
        """A step that decodes one token behind each of `contexts` - 1 and does `prefills`."""
        if not self.separable:
            return self._graph_step(contexts, prefills)
        if not self.tabled:
            return self._separate_step(contexts, prefills)

        def seen_by(attention: Attention) -> int:
            window = attention.window
            return sum(min(c, window) for c in contexts) if window else sum(contexts)

        return self.summed_step(len(contexts), seen_by, prefills)

    def summed_step(
        self, decoding: int, seen_by: Callable[[Attention], int], prefills: list[Prefill]
    ) -> list[Price]:
        """A step from the tables; `seen_by` tells the keys that the decoding rows see."""
        tokens = decoding + sum(p.new for p in prefills)
        rows = decoding + sum(p.last for p in prefills)
        chunks: dict[tuple[int, int], int] = {}
        for p in prefills:
            chunks[p.new, p.cached] = chunks.get((p.new, p.cached), 0) + 1
        result = list(self.linear(tokens, rows))
        for attention, counts in self.attentions:
            price = self.attention_sums(attention, tokens, seen_by(attention), chunks)
            for stage, count in enumerate(counts):
                if count:
                    result[stage] = add(result[stage], price, count)
        return result

    def linear(self, tokens: int, rows: int) -> list[Price]:
        """All but attention, for `tokens` new tokens and `rows` rows of logits."""
        body, _ = self._linear.parts(tokens)
        if not rows:
            return body
        return [add(a, b) for a, b in zip(body, self._linear.parts(rows)[1], strict=True)]

    def _exchange(self, stage: int, kind: str, name: str, nbytes: int) -> Step:
        """What stands behind an operator whose output is spread over the ranks of a stage."""
        group, algorithm = self.group(stage), self.split.collective
        return output_exchange(kind, name, nbytes, self.costs, self.network, group, algorithm)

    def _batch(self, contexts: list[int], prefills: list[Prefill]) -> Batch:
        answers = self.model.decoder is not None  # an encoder's answer is pooled
        sequences = [Sequence(new=1, cached=c - 1) for c in contexts]
        sequences += [
            Sequence(new=p.new, cached=p.cached, logits=int(p.last and answers)) for p in prefills
        ]
        return Batch.of(*sequences)

    def _separate_step(self, contexts: list[int], prefills: list[Prefill]) -> list[Price]:
        """A step from the tables and its attention's own operators."""
        tokens = len(contexts) + sum(p.new for p in prefills)
        rows = len(contexts) + sum(p.last for p in prefills)
        result = list(self.linear(tokens, rows))
        batch = self._batch(contexts, prefills)
        for attention, counts in self.attentions:
            price = FREE
            for op in self._attention_ops(attention, batch):
                c = self.costs(op)
                own = (c.compute, c.hbm, c.sram, 0, c.launch, c.flops, c.hbm_bytes)
                price = add(price, own)
            for stage, count in enumerate(counts):
                if count:
                    result[stage] = add(result[stage], price, count)
        return result

    def _attention_ops(self, attention: Attention, batch: Batch) -> tuple[Op, ...]:
        """The operators of one layer that depend on more than the number of tokens."""
        flash, kept = self.lowering.attention == "flash", self.model.decoder is not None
        if attention.latent:
            block = Block("latents")
            ctx = Context(
                batch=batch,
                rows=batch.tokens,
                width=self.model.hidden,
                precision=self.precision,
                lowering=self.lowering,
                cached_kv=kept,
                ways=self.split.tp,
            )
            attend_latents(block, attention, ctx, "")
            return block.ops
        if flash:
            return (flash_attention("attention", attention, batch, self.precision, cached_kv=kept),)
        return materialised_attention("", attention, batch, self.precision, cached_kv=kept)

    def _graph(self, batch: Batch) -> Graph:
        return build_graph(self.local, batch, self.precision, self.lowering, ways=self.split.tp)

    def _work(self, graph: Graph) -> list[tuple[int, Work]]:
        by_stage: list[list[Placed]] = [[] for _ in range(self.split.pp)]
        for placed in graph.placed:
            by_stage[self.stage_of[placed.stack, placed.layer]].append(placed)
        return [
            (stage, work)
            for stage, blocks in enumerate(by_stage)
            for work in price_blocks(
                blocks, self.costs, self.network, self.group(stage), self.split.collective
            )
        ]

    def _graph_step(self, contexts: list[int], prefills: list[Prefill]) -> list[Price]:
        """The long way: build and price the whole graph."""
        result = [FREE] * self.split.pp
        for stage, work in self._work(self._graph(self._batch(contexts, prefills))):
            for step in work.block.steps:
                result[stage] = add(result[stage], price_of(step))
        return result

    def attention_sums(
        self,
        a: Attention,
        tokens: int,
        decoded: int,
        chunks: dict[tuple[int, int], int],
    ) -> Price:
        """As the operator of `workloads.attention`, from `decoded` keys that decoding rows see
        and the number of chunks by (new, cached)."""
        p, rates = self.precision, self.costs.rates
        width = a.head_dim + a.value_dim
        scores = visible = seen_by_one = decoded
        ones = tokens
        again = near = 0
        several = []
        for (new, cached), count in chunks.items():
            scores += count * pairs(new, cached, causal=a.causal, window=a.window)
            keys = seen(new, cached, window=a.window)
            visible += count * keys
            rows = new * (a.heads // a.kv_heads) * width * 4
            if rows > self.half:  # a prompt too long for the chip streams its keys again
                kv = packed(count * keys * a.kv_width, p.kv_bits)
                again += kv * (-(-rows // max(1, rates.reuse // 2)) - 1)
                near += kv * (-(-rows // max(1, self.half)) - 1)
            if new > 1:
                ones -= count * new
                several.append((count, new, cached + new))
            else:
                seen_by_one += count * keys
        query = packed(tokens * a.heads * a.head_dim, p.activation_bits)
        cache = packed(visible * a.kv_width, p.kv_bits)
        out = packed(tokens * a.heads * a.value_dim, p.activation_bits)
        append = packed(tokens * a.kv_width, p.kv_bits)
        reads, writes = query + cache, out + append
        matrix, vector = 2 * scores * a.heads * width, SOFTMAX_FLOPS * scores * a.heads
        moved = Moved(reads + again, writes, reads + writes + near if rates.inner_rate else 0)
        asked = Asked(
            heads=a.heads,
            kv_heads=a.kv_heads,
            width=width,
            window=a.window,
            causal=a.causal,
            kv_bits=p.kv_bits,
            decoding=ones,
            seen=seen_by_one,
            chunks=tuple(several),
            queries=query,
            written=out,
            kv=cache,
            appended=append,
        )
        rows = tokens * a.heads * width
        cost = priced(
            SCALAR, rates, attention_times(SCALAR, rates, moved, matrix, vector, rows, asked)
        )
        return (
            cost.compute,
            cost.hbm,
            cost.sram,
            0,
            cost.launch,
            matrix + vector,
            moved.reads + writes,
        )
