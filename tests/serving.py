"""Small random serving runs: streams of requests, knobs, cheap prices, and what a run left."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import msgspec
from hypothesis import strategies as st
from strategies import system, tier

from sim.cost.collectives import Network
from sim.cost.pass_cost import PassCost
from sim.engine.processes import Engine
from sim.mapping.parallelism import Parallelism
from sim.serve.arrivals import OpenStream
from sim.serve.host import HostTime
from sim.serve.knobs import Knobs
from sim.serve.live import Finished, StageRow, StepRow
from sim.serve.memory import Blocks
from sim.serve.pipeline import PipelineWorker
from sim.serve.policies import ORDERS, Work, policy
from sim.serve.pricing import Prefill
from sim.serve.queue import RequestQueue
from sim.serve.replica import Recorder, Replica, ReplicaParts
from sim.serve.routing import Router
from sim.serve.single_stage import SingleStageWorker
from workloads.request import Request

SCHEDULERS = ("chunked", "prefill-first", "static", "dynamic")
StepPrice = Callable[[list[int], list[Prefill]], int]
Order = Callable[[Request], float]


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A stream and everything that decides what becomes of it, but for the prices."""

    requests: tuple[Request, ...]
    knobs: Knobs = msgspec.field(default_factory=Knobs)
    scheduler: str = "chunked"
    order: str = "fcfs"
    blocks: int = 10**6
    pp: int = 1
    host: int = 0
    block_bytes: int = 0

    def but(self, **fields: Any) -> Case:
        return msgspec.structs.replace(self, **fields)


class Run(msgspec.Struct):
    """What a replica did with a case."""

    replica: Replica
    refused: list[Request]
    steps: list[StepRow]
    rows: list[Finished]
    stages: list[StageRow] = msgspec.field(default_factory=list)
    engine: Engine = msgspec.field(default_factory=Engine)

    def until(self, tick: int) -> None:
        """Run everything before a tick."""
        if tick > self.engine.now:
            self.engine.run(tick)

    def __eq__(self, other: object) -> bool:
        """Equal in everything that is written down."""
        if not isinstance(other, Run):
            return NotImplemented
        return self.seen() == other.seen()

    def seen(self) -> tuple[object, ...]:
        return self.refused, self.steps, self.rows, self.replica.outcome(0, 0)


class WatchedBlocks(Blocks):
    """Blocks that are counted again after each change."""

    def take(self, count: int) -> None:
        super().take(count)
        self._count()

    def give(self, count: int) -> None:
        super().give(count)
        self._count()

    def share(self, hashes: tuple[int, ...], each: int) -> None:
        super().share(hashes, each)
        self._count()

    def release(self, hashes: tuple[int, ...], each: int) -> None:
        super().release(hashes, each)
        self._count()

    def _count(self) -> None:
        assert 0 <= self.used <= self.total
        assert 0 <= self.kept_blocks == sum(self.kept.values())
        assert self.used + self.kept_blocks <= self.total
        assert not self.kept.keys() & self.shared.keys()


class Prices:
    """Stands in for a Pricer: a stage costs its weight times what a function of the batch says.

    A hand-over to the next stage takes `handover` ticks, and what the links of `network` take.
    """

    tabled = False
    attentions: Sequence[Any] = ()

    def __init__(
        self,
        price: StepPrice,
        pp: int = 1,
        handover: int = 0,
        weights: Sequence[int] = (),
        network: Network | None = None,
    ) -> None:
        self.price, self.split = price, Parallelism(pp=pp)
        self.weights = weights or (1,) * pp
        self.costs = SimpleNamespace(launch=handover)
        self.precision = SimpleNamespace(activation_bits=16)
        self.model = SimpleNamespace(hidden=8)
        self.network = network or Network(system(tier("switch", pp)), free=True)

    def step(self, contexts: list[int], prefills: list[Prefill]) -> list[PassCost]:
        whole = self.price(contexts, prefills)
        tokens = len(contexts) + sum(p.new for p in prefills)
        return [spread(weight * whole, tokens) for weight in self.weights]


def spread(whole: int, tokens: int) -> PassCost:
    """Ticks dealt out to the states of a step, with made-up FLOPs and bytes."""
    a, b, c, d = whole // 2, whole // 5, whole // 7, whole // 11
    return PassCost(a, b, c, d, whole - a - b - c - d, tokens, 3 * tokens)


def uneven(contexts: list[int], prefills: list[Prefill]) -> int:
    """A price that sees all there is to see of a batch."""
    chunks = sum(7 * p.new + p.new * p.cached % 31 + 5 * p.last for p in prefills)
    return 40 + 3 * len(contexts) + sum(contexts) // 4 + chunks


class OneByOne:
    """A batching policy of its own: one request at a time, whole."""

    def plan(self, queue: RequestQueue) -> Work:
        if queue.running:
            return Work([], queue.take_decode())
        admitted = queue.admit(2**62, entire=True)
        return Work([admitted] if admitted else [], False)


def last_first(request: Request, replicas: Sequence[Replica]) -> int:
    """A router of its own."""
    return len(replicas) - 1 - request.index % len(replicas)


def uneven_prices(case: Case) -> Prices:
    return Prices(uneven, case.pp, handover=9)


def replica(case: Case, pricer: Any, *, leap: bool = True, number: int = 0) -> Run:
    """A fresh replica that writes down what it does."""
    knobs = case.knobs
    blocks = WatchedBlocks(case.blocks, knobs.block_size, knobs.enable_prefix_caching)
    steps, rows = list[StepRow](), list[Finished]()
    stages = list[StageRow]()
    parts = ReplicaParts(
        pricer=pricer,
        policy=policy(case.scheduler),
        knobs=knobs,
        blocks=blocks,
        host=HostTime(case.host),
        order=ORDERS[case.order],
        leap=leap,
        kv_bytes=case.block_bytes,
    )
    worker = PipelineWorker(parts) if case.pp > 1 else SingleStageWorker(parts)
    recorder = Recorder(steps.append, rows.append, stages.append)
    made = Run(Replica(parts, worker, recorder, number), [], steps, rows, stages)
    made.replica.start(made.engine)
    return made


def dispatch(
    requests: Sequence[Request], made: Sequence[Run], route: Router, refused: Callable[..., None]
) -> None:
    """Send a stream to replicas by a router."""
    engine = Engine()
    OpenStream([one.replica for one in made], route, refused).start(engine, requests)
    engine.run()


def run(
    case: Case, pricer: Any = None, *, leap: bool = True, stops: Sequence[int] = (), number: int = 0
) -> Run:
    """Serve a case, pausing at `stops` too, which changes nothing."""
    made = replica(case, pricer or uneven_prices(case), leap=leap, number=number)
    for request in case.requests:
        for stop in sorted(s for s in stops if s < request.arrival):
            made.until(stop)
        made.until(request.arrival)
        if not made.replica.push(request):
            made.refused.append(request)
    for stop in sorted(stops):
        if made.replica.outstanding:
            made.until(stop)
    made.engine.run()
    return made


# Random cases ----------------------------------------------------------------------------


def random_requests(
    rng: random.Random, *, hash_tokens: int = 0, encode: bool = False
) -> tuple[Request, ...]:
    """Bursts, ties and gaps; prompts to 300 and outputs to 40 tokens, mostly short."""
    pace = rng.choice([0, 30, 300, 3000])
    longest, most = rng.choice([12, 60, 300]), rng.choice([1, 8, 40])
    now, found = 0, []
    for index in range(rng.randint(1, 12)):
        if rng.random() < 0.7:
            now += rng.randint(0, pace)
        prompt = rng.randint(1, longest)
        hashes: tuple[int, ...] = ()
        if hash_tokens:
            family, common = 100 * rng.randint(1, 2), rng.randint(0, 6)
            hashes = tuple(
                family + i if i < common else 10_000 + 1000 * index + i
                for i in range(-(-prompt // hash_tokens))
            )
        found.append(
            Request(
                index,
                now,
                prompt,
                0 if encode else rng.randint(1, most),
                hashes,
                hash_tokens,
                rng.randint(0, 2),
            )
        )
    return tuple(found)


def random_case(rng: random.Random, *, pp: int | None = None) -> Case:
    """Small knobs and little memory, so that everything that can happen does."""
    size = rng.randint(1, 16)
    caching = rng.random() < 0.4
    encode = rng.random() < 0.1
    requests = random_requests(
        rng, hash_tokens=size * rng.randint(1, 2) if caching else 0, encode=encode
    )
    seqs = rng.choice([1, 2, 3, 8])
    knobs = Knobs(
        max_num_seqs=seqs,
        max_num_batched_tokens=seqs + rng.choice([0, 1, 10, 100, 1000]),
        long_prefill_token_threshold=rng.choice([0, 0, 1, 7, 50]),
        block_size=size,
        enable_prefix_caching=caching,
        preemption=rng.choice(["recompute", "swap"]),
        swap_bandwidth_GBps=1.0,
        max_wait_ms=rng.choice([0.0, 1e-7, 1e-6]),
        padded=rng.random() < 0.3,
    )
    longest = max(-(-(q.prompt + q.output) // size) for q in requests)
    return Case(
        requests=requests,
        knobs=knobs,
        scheduler=rng.choice(SCHEDULERS),
        order=rng.choice(sorted(ORDERS)),
        blocks=max(1, rng.choice([longest // 2, longest, longest + 2, 2 * longest, 10**4])),
        pp=pp or rng.choice([1, 1, 2, 3]),
        host=rng.choice([0, 0, 13]),
        block_bytes=rng.choice([0, 10]),
    )


@st.composite
def cases(draw: Any, *, pp: int | None = None) -> Case:
    """Random cases for hypothesis, the same as `random_case` makes."""
    return random_case(draw(st.randoms()), pp=pp)
