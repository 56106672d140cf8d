"""Serving against queueing theory: exact recursions first, then means within their intervals."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
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
    spread,
    uneven,
    uneven_prices,
)
from strategies import system, tier

from sim.cost.collectives import Network
from sim.engine.processes import Engine
from sim.errors import InputError
from sim.inputs.traces import Selection, read_trace
from sim.scenario import Scenario, resolve
from sim.serve.arrivals import Feedback
from sim.serve.knobs import Knobs
from sim.serve.policies import policy
from sim.serve.pricing import Prefill, Pricer
from sim.serve.replica import Replica
from sim.serve.routing import Router, router
from sim.states import STATES
from workloads.request import Request

CONVERSATION = Path(__file__).parents[2] / "shared/data/traces/AzureLLMInferenceTrace_conv.csv"
sampled = pytest.mark.skipif(
    not CONVERSATION.is_file(), reason="../shared/data/traces has no Azure sample here"
)
ONE = Knobs(max_num_seqs=1, max_num_batched_tokens=2**20)


def alone(requests: Sequence[Request]) -> Case:
    """One request at a time, its prompt whole."""
    return Case(requests=tuple(requests), knobs=ONE, scheduler="prefill-first")


def lindley(requests: Sequence[Request], service: Callable[[Request], int]) -> list[int]:
    """When each request starts on one server that takes them as they come."""
    starts, free = [], 0
    for request in requests:
        starts.append(max(request.arrival, free))
        free = starts[-1] + service(request)
    return starts


def rows_in_order(found: Run) -> list[tuple[int, int]]:
    """(scheduled, last token) by index."""
    return [(r.scheduled, r.last_token) for r in sorted(found.rows, key=lambda r: r.index)]


# One server ----------------------------------------------------------------------------------


def loaded(requests: Sequence[Request], service: Callable[[Request], int]) -> list[Request]:
    """The same stream, faster or slower, so that the server is busy nine tenths of the time."""
    work, span = sum(map(service, requests)), requests[-1].arrival
    return [
        msgspec.structs.replace(q, arrival=q.arrival * work * 10 // (span * 9)) for q in requests
    ]


def assert_lindley(
    requests: Sequence[Request], price: Callable[[int, int], int], used: object
) -> None:
    """`price(prompt, decoded)` is a request's step: its prompt, then a token behind `decoded`."""
    known: dict[tuple[int, int], int] = {}

    def service(q: Request) -> int:
        key = q.prompt, q.output
        if key not in known:
            steps = range(q.prompt + 1, q.prompt + q.output)
            known[key] = price(q.prompt, 0) + sum(price(1, context) for context in steps)
        return known[key]

    stream = loaded(requests, service)
    found = run(alone(stream), used)
    starts = lindley(stream, service)
    expected = [(at, at + service(q)) for at, q in zip(starts, stream, strict=True)]
    assert rows_in_order(found) == expected
    waited = sum(at > q.arrival for at, q in zip(starts, stream, strict=True))
    assert waited > len(stream) // 3


@pytest.mark.slow
@sampled
def test_lindley_on_a_real_trace() -> None:
    resolved = resolve(Scenario(model="gpt2", on="h100-sxm", set={"model.n_layer": 2}))
    pricer = Pricer(resolved)

    def price(new: int, context: int) -> int:
        chunks = [] if context else [Prefill(new, 0, True)]
        return sum(pricer.step([context] if context else [], chunks)[0][:5])

    assert_lindley(list(read_trace(CONVERSATION, Selection(limit=300))), price, pricer)


@sampled
@pytest.mark.slow
def test_lindley_on_the_whole_trace() -> None:
    def price(new: int, context: int) -> int:
        return uneven([context], []) if context else uneven([], [Prefill(new, 0, True)])

    assert_lindley(list(read_trace(CONVERSATION)), price, Prices(uneven))


@given(case=cases(pp=1))
def test_lindley_on_random_streams(case: Case) -> None:
    def service(q: Request) -> int:
        steps = range(q.prompt + 1, q.prompt + q.output)
        return uneven([], [Prefill(q.prompt, 0, True)]) + sum(uneven([c], []) for c in steps)

    starts = lindley(case.requests, service)
    assert rows_in_order(run(alone(case.requests))) == [
        (at, at + service(q)) for at, q in zip(starts, case.requests, strict=True)
    ]


def test_over_capacity_the_queue_grows_at_the_difference_of_the_rates() -> None:
    """A request every 60 ticks, one served in 100: 1/60 - 1/100 more of them a tick."""
    stream = [Request(i, 60 * i, 1, 1) for i in range(3000)]
    run = replica(alone(stream), Prices(lambda contexts, prefills: 100))
    made = run.replica
    for request in stream:
        run.until(request.arrival)
        assert made.outstanding == request.arrival // 60 - -(-request.arrival // 100)
        made.push(request)
    assert made.outstanding == pytest.approx(made.now * (1 / 60 - 1 / 100), abs=2)


# Little's law --------------------------------------------------------------------------------


def time_in_system(case: Case, found: Run) -> int:
    """The integral over time of the number in the system, from the rows of the steps alone."""
    gone = {q.index for q in found.refused}
    arrivals = [q.arrival for q in case.requests if q.index not in gone]
    area = 0
    for step in found.steps:
        end = step.start + step.duration
        area += (step.running + step.waiting) * step.duration
        area += sum(end - at for at in arrivals if step.start < at < end)
    return area


@given(case=cases(pp=1))
def test_littles_law(case: Case) -> None:
    """Exactly, whatever the policy; while the dynamic one gathers a batch there are no steps."""
    case = case.but(knobs=msgspec.structs.replace(case.knobs, max_wait_ms=0.0))
    found = run(case)
    assert time_in_system(case, found) == sum(row.e2e for row in found.rows)


# Stages and servers --------------------------------------------------------------------------


@given(
    gaps=st.lists(st.integers(0, 900), min_size=1, max_size=25),
    weights=st.lists(st.integers(1, 4), min_size=2, max_size=4),
    handover=st.integers(0, 50),
    rng=st.randoms(use_true_random=False),
)
def test_stages_are_a_tandem_queue(
    gaps: list[int], weights: list[int], handover: int, rng: random.Random
) -> None:
    """One request a batch: d(n, s) = max(d(n, s-1) + handover, d(n-1, s)) + service(n, s)."""
    stages = len(weights)
    stream, now = [], 0
    for index, gap in enumerate(gaps):
        now += gap
        stream.append(Request(index, now, rng.randint(8, 60), 1))
    knobs = Knobs(max_num_seqs=8, max_num_batched_tokens=8)  # a prompt fills a batch
    case = Case(requests=tuple(stream), knobs=knobs, scheduler="prefill-first", pp=stages)
    prices = Prices(uneven, stages, handover, weights)
    out: list[list[int]] = []
    expected = []
    for n, q in enumerate(stream):
        free = out[n - 1] if n else [0] * stages
        start = max(q.arrival, free[0], out[n - stages][-1] if n >= stages else 0)
        clock, ends = start, []
        for stage, weight in enumerate(weights):
            if stage:
                clock = max(clock + handover, free[stage])
            clock += weight * uneven([], [Prefill(q.prompt, 0, True)])
            ends.append(clock)
        out.append(ends)
        expected.append((start, ends[-1]))
    assert rows_in_order(run(case, prices)) == expected


@given(chunks=st.integers(1, 9), stages=st.integers(2, 4), tick=st.integers(1, 99))
def test_chunks_of_a_prompt_follow_one_another(chunks: int, stages: int, tick: int) -> None:
    """m chunks through p stages take (m + p - 1) t, as the micro-batches of a pipeline do."""
    knobs = Knobs(max_num_seqs=8, max_num_batched_tokens=8)
    case = Case(requests=(Request(0, 0, 8 * chunks, 1),), knobs=knobs, pp=stages)
    found = run(case, Prices(lambda contexts, prefills: tick, stages))
    assert [row.last_token for row in found.rows] == [(chunks + stages - 1) * tick]
    assert sum(found.rows[0].account) == (chunks + stages - 1) * tick
    assert len(found.stages) == chunks * stages


def test_a_stage_that_waits_for_hidden_states_waits_for_the_link() -> None:
    """Two stages of 40 ticks, 9 ticks between them, and nothing else to do."""
    case = Case(requests=(Request(0, 0, 8, 1),), knobs=Knobs(), pp=2)
    found = run(case, Prices(lambda contexts, prefills: 40, 2, handover=9))
    outcome = found.replica.outcome(0, 0)
    own = spread(40, 8)[:5]
    assert outcome.stages[0] == (*own, 49, 0)
    assert outcome.stages[1] == (*own[:3], own[3] + 9, own[4], 40, 0)


def test_hidden_states_of_two_batches_share_the_link() -> None:
    """Stages take t and a hand-over alone 3 t. The second batch sets out when the first has t of it
    behind it; both go on at half the pace: the first arrives at 6 t, the second at 7 t."""
    t, nbytes = 10_000, 8 * 8 * 2
    bandwidth = nbytes / (3 * t * 1e-12) / 1e9
    network = Network(system(tier("switch", 2, bandwidth, 0.0)))
    knobs = Knobs(max_num_seqs=8, max_num_batched_tokens=8)
    case = Case(requests=(Request(0, 0, 16, 1),), knobs=knobs, pp=2)
    found = run(case, Prices(lambda contexts, prefills: t, 2, network=network))
    assert [(row.stage, row.start, row.start + sum(row.states)) for row in found.stages] == [
        (0, 0, t),
        (1, t, 7 * t),
        (0, t, 2 * t),
        (1, 7 * t, 8 * t),
    ]
    (row,) = found.rows
    assert row.last_token == 8 * t == sum(row.account)
    link = row.account[1 + STATES.index("link")]
    assert link >= 5 * t  # what the first batch waits for, and only then the second


class LeastWork:
    """Join the server that is free first: the same as one queue for all servers."""

    def __init__(self, servers: int, service: Callable[[Request], int]) -> None:
        self.free, self.service = [0] * servers, service

    def __call__(self, request: Request, replicas: Sequence[Replica]) -> int:
        chosen = min(range(len(self.free)), key=lambda i: self.free[i])
        self.free[chosen] = max(self.free[chosen], request.arrival) + self.service(request)
        return chosen


def by_prompt(contexts: list[int], prefills: list[Prefill]) -> int:
    """A tick a token."""
    return len(contexts) + sum(p.new for p in prefills)


def served_by(servers: int, stream: Sequence[Request], route: Router) -> list[Run]:
    made = [replica(alone(stream), Prices(by_prompt), number=n) for n in range(servers)]
    dispatch(stream, made, route, lambda _: None)
    return made


@given(
    servers=st.integers(1, 4),
    stream=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 99)), min_size=1, max_size=40),
)
def test_kiefer_and_wolfowitz(servers: int, stream: list[tuple[int, int]]) -> None:
    """c servers and one queue: the next request starts when the first of them is free."""
    requests, now = [], 0
    for index, (gap, size) in enumerate(stream):
        now += gap
        requests.append(Request(index, now, size, 1))
    made = served_by(servers, requests, LeastWork(servers, lambda q: q.prompt))
    free, starts = [0] * servers, []
    for q in requests:
        start = max(q.arrival, heapq.heappop(free))
        starts.append(start)
        heapq.heappush(free, start + q.prompt)
    rows = sorted((row for one in made for row in one.rows), key=lambda row: row.index)
    assert [row.scheduled for row in rows] == starts


# Means ---------------------------------------------------------------------------------------

MEAN = 1000  # ticks of service


def poisson(
    rng: np.random.Generator, count: int, load: float, sizes: Sequence[int]
) -> list[Request]:
    times = np.cumsum(rng.exponential(MEAN / load, count)).astype(int).tolist()
    return [Request(i, at, size, 1) for i, (at, size) in enumerate(zip(times, sizes, strict=True))]


def mean_wait(made: Sequence[Run], skip: int) -> float:
    """Over all but the first requests, which find an empty system."""
    rows = (row for one in made for row in one.rows)
    return float(np.mean([row.scheduled - row.arrival for row in rows if row.index >= skip]))


def assert_within(samples: Sequence[float], expected: float) -> None:
    """The mean of replications lies within four standard errors, and these are small."""
    error = float(np.std(samples, ddof=1)) / math.sqrt(len(samples))
    assert error < 0.03 * expected
    assert abs(float(np.mean(samples)) - expected) < 4 * error


@pytest.mark.slow
@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_wait_of_one_server_with_fixed_service(load: float) -> None:
    samples = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        stream = poisson(rng, 6000, load, [MEAN] * 6000)
        samples.append(mean_wait([run(alone(stream), Prices(by_prompt))], 1000))
    assert_within(samples, MEAN * load / (2 * (1 - load)))


@pytest.mark.slow
@pytest.mark.parametrize(("servers", "load"), [(1, 0.5), (1, 0.7), (2, 0.7), (4, 0.8)])
def test_wait_of_servers_with_exponential_service(servers: int, load: float) -> None:
    samples = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        sizes = np.ceil(rng.exponential(MEAN, 12_000)).astype(int).tolist()
        stream = poisson(rng, 12_000, load * servers, sizes)
        made = served_by(servers, stream, LeastWork(servers, lambda q: q.prompt))
        samples.append(mean_wait(made, 2000))
    offered = load * servers
    terms = [offered**k / math.factorial(k) for k in range(servers)]
    last = offered**servers / math.factorial(servers) / (1 - load)
    delayed = last / (sum(terms) + last)  # Erlang C
    assert_within(samples, delayed * MEAN / (servers * (1 - load)))


# Feedback ------------------------------------------------------------------------------------


def feedback(
    case: Case, replicas: int, concurrency: int | None, think: int, route: str = "round-robin"
) -> list[Run]:
    made = [replica(case, uneven_prices(case), number=n) for n in range(replicas)]
    engine = Engine()
    Feedback(
        [one.replica for one in made], router(route), made[0].refused.append, concurrency, think
    ).start(engine, case.requests)
    engine.run()
    return made


def assert_replayed(case: Case, made: list[Run]) -> None:
    """The arrivals that came about, as an open stream, give the same rows and steps."""
    for number, one in enumerate(made):
        times = {row.index: row.arrival for row in one.rows}
        mine = [
            msgspec.structs.replace(q, arrival=times[q.index])
            for q in case.requests
            if q.index in times
        ]
        mine.sort(key=lambda q: (q.arrival, q.index))
        again = run(case.but(requests=tuple(mine)), number=number)
        assert sorted(again.rows, key=lambda r: r.index) == sorted(one.rows, key=lambda r: r.index)
        assert again.steps == one.steps


@given(
    case=cases(),
    replicas=st.integers(1, 3),
    concurrency=st.integers(1, 5),
    think=st.sampled_from([0, 50, 2000]),
)
def test_closed_loop(case: Case, replicas: int, concurrency: int, think: int) -> None:
    made = feedback(case, replicas, concurrency, think)
    rows = [row for one in made for row in one.rows]
    assert len(rows) + len(made[0].refused) == len(case.requests)
    ends = {0: concurrency}  # users who ask next, by the time at which they do
    for row in rows:
        ends[row.last_token + think] = ends.get(row.last_token + think, 0) + 1
    if not made[0].refused:
        events = sorted([(r.arrival, 1) for r in rows] + [(r.last_token, -1) for r in rows])
        inside = 0
        for _, change in events:
            inside += change
            assert inside <= concurrency
        for row in rows:
            assert ends.get(row.arrival, 0) > 0
            ends[row.arrival] -= 1
    assert_replayed(case, made)


def test_one_user_is_served_at_the_rate_of_the_steps() -> None:
    stream = tuple(Request(i, 0, 7, 3) for i in range(50))
    (made,) = feedback(alone(stream), 1, 1, 11)
    each = uneven([], [Prefill(7, 0, True)]) + uneven([8], []) + uneven([9], [])
    assert rows_in_order(made) == [((each + 11) * i, (each + 11) * i + each) for i in range(50)]


def sessions(case: Case, rng: random.Random) -> Case:
    """Some requests come after the one before them."""
    requests: list[Request] = []
    for q in case.requests:
        if requests and rng.random() < 0.5:
            q = msgspec.structs.replace(
                q, arrival=requests[-1].arrival, after=q.index - 1, delay=rng.choice([0, 9, 4000])
            )
        requests.append(q)
    return case.but(requests=tuple(requests))


@given(case=cases(), replicas=st.integers(1, 3), rng=st.randoms(use_true_random=False))
def test_sessions(case: Case, replicas: int, rng: random.Random) -> None:
    case = sessions(case, rng)
    made = feedback(case, replicas, None, 0)
    rows = {row.index: row for one in made for row in one.rows}
    assert len(rows) + len(made[0].refused) == len(case.requests)
    for q in case.requests:
        row = rows.get(q.index)
        if row is not None and q.after < 0:
            assert row.arrival == q.arrival
        elif row is not None and q.after in rows:
            assert row.arrival == rows[q.after].last_token + q.delay
    assert_replayed(case, made)


@pytest.mark.parametrize("pp", [1, 2])
@pytest.mark.parametrize("scheduler", ["dynamic", "chunked"])
def test_waiting_costs_no_turns(scheduler: str, pp: int) -> None:
    """Replicas that wait, for a batch to fill or to come back, do not creep on tick by tick."""
    knobs = Knobs(max_wait_ms=10.0)
    stream = tuple(Request(i, 0, 5, 2) for i in range(12))
    case = Case(requests=stream, knobs=knobs, scheduler=scheduler, pp=pp)
    made = [replica(case, Prices(lambda c, p: 10**10, pp), number=n) for n in range(2)]
    replicas = [one.replica for one in made]
    engine = Engine()
    Feedback(replicas, router("round-robin"), lambda _: None, 3, 0).start(engine, stream)
    engine.run()
    assert sum(one.replica.finished for one in made) == len(stream)


@pytest.mark.slow
def test_feedback_in_thousands_of_runs() -> None:
    for seed in range(4000):
        rng = random.Random(seed)
        case = random_case(rng)
        if rng.random() < 0.5:
            made = feedback(case, rng.randint(1, 3), rng.randint(1, 5), rng.choice([0, 50, 2000]))
        else:
            case = sessions(case, rng)
            made = feedback(case, rng.randint(1, 3), None, 0, "least-outstanding")
        assert_replayed(case, made)


# Routers and plug-ins ------------------------------------------------------------------------


def watched(name: str, seen: list[tuple[list[int], int]]) -> Router:
    """A router that writes down what it saw: how many each replica has, and its choice."""
    inner = router(name)

    def route(request: Request, replicas: Sequence[Replica]) -> int:
        chosen = inner(request, replicas)
        seen.append(([one.outstanding for one in replicas], chosen))
        return chosen

    return route


def routed(case: Case, count: int, route: Router) -> list[Run]:
    made = [replica(case, uneven_prices(case), number=n) for n in range(count)]
    dispatch(case.requests, made, route, made[0].refused.append)
    return made


@given(case=cases(), count=st.integers(2, 4))
def test_least_outstanding_leaves_nobody_idle(case: Case, count: int) -> None:
    seen: list[tuple[list[int], int]] = []
    routed(case, count, watched("least-outstanding", seen))
    for loads, chosen in seen:
        assert loads[chosen] == min(loads)


@pytest.mark.parametrize("name", ["round-robin", "least-outstanding", "least-kv", "prefix-aware"])
def test_no_router_loses_a_request(name: str) -> None:
    for seed in range(60):
        case = random_case(random.Random(seed))
        made = routed(case, 3, router(name))
        served = [row.index for one in made for row in one.rows]
        assert len(served) == len(set(served)) == len(case.requests) - len(made[0].refused)


def test_least_kv_looks_at_memory_not_at_counts() -> None:
    """One long request weighs more than two short ones."""
    stream = (
        Request(0, 0, 600, 9),
        Request(1, 0, 16, 9),
        Request(2, 0, 16, 9),
        Request(3, 0, 16, 9),
    )
    made = routed(Case(requests=stream), 2, router("least-kv"))
    assert [row.index for row in made[0].rows] == [0]
    assert sorted(row.index for row in made[1].rows) == [1, 2, 3]


def test_prefix_aware_goes_where_the_prefix_is() -> None:
    knobs = Knobs(enable_prefix_caching=True)
    far = 10**6
    stream = tuple(
        Request(i, far * i, 40, 2, hashes=(7 + i % 2, 9 + i % 2, 20 + i), hash_tokens=16)
        for i in range(6)
    )
    # The two families of prompts are dealt out in turn first.
    case = Case(requests=stream, knobs=knobs)
    made = [replica(case, uneven_prices(case), number=n) for n in range(2)]
    dispatch(stream[:2], made, router("round-robin"), lambda _: None)
    dispatch(stream[2:], made, router("prefix-aware"), lambda _: None)
    for number, one in enumerate(made):
        assert [row.index for row in one.rows] == [number, number + 2, number + 4]
        assert [row.prefix_hit_tokens for row in one.rows] == [0, 32, 32]


@given(case=cases(pp=1))
def test_a_policy_of_ones_own(case: Case) -> None:
    own = run(alone(case.requests).but(scheduler="serving:OneByOne"))
    assert own.rows == run(alone(case.requests)).rows


def test_a_router_of_ones_own() -> None:
    case = Case(requests=tuple(Request(i, 0, 5, 2) for i in range(6)))
    made = routed(case, 3, router("serving:last_first"))
    assert [[row.index for row in one.rows] for one in made] == [[2, 5], [1, 4], [0, 3]]


@pytest.mark.parametrize(
    ("made", "name", "text"),
    [
        (policy, "chunkd", "scheduler 'chunkd' is not known; did you mean 'chunked'"),
        (policy, "xyz", "known: chunked, dynamic, prefill-first, static"),
        (policy, "no_such_module:Thing", "cannot be imported"),
        (policy, "serving:Missing", "cannot be imported"),
        (router, "round-robbin", "router 'round-robbin' is not known; did you mean 'round-robin'"),
        (router, "xyz", "known: least-kv, least-outstanding, prefix-aware, round-robin"),
        (router, "no_such_module:thing", "cannot be imported"),
        (router, "serving:missing", "cannot be imported"),
    ],
)
def test_unknown_plug_ins_are_refused(made: Callable[[str], object], name: str, text: str) -> None:
    with pytest.raises(InputError, match=text):
        made(name)
