"""Batches between pipeline stages: planned in closed form, and as processes."""

from __future__ import annotations

import random
from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import Case, Prices, Run, random_case, run, uneven
from strategies import SOURCE, system, tier

from hw_models.system import Link, System, SystemSpec, build_system
from sim.cost.collectives import Network
from sim.engine.flows import Flows
from sim.serve.flight import Flight
from sim.serve.stages import PipelineStages


def two_switches(devices: int, bandwidth: float, latency: float) -> System:
    """Devices by turns at two switches that one cable joins: every hand-over crosses it."""
    ends = [(f"gpu{i}", f"s{i % 2}") for i in range(devices)] + [("s0", "s1")]
    links = tuple(
        Link(a=a, b=b, bandwidth_GBps=bandwidth, latency_us=latency, source=SOURCE) for a, b in ends
    )
    return build_system(
        SystemSpec(
            name="toys",
            device="toy",
            source=SOURCE,
            devices=devices,
            switches=("s0", "s1"),
            links=links,
        )
    )


def random_network(rng: random.Random, stages: int) -> Network:
    """From links that never matter to links that take far longer than the stages."""
    bandwidth, latency = rng.choice([0.1, 1.0, 10.0, 300.0]), rng.choice([0.0, 0.0, 2e-5, 1e-4])
    kind = rng.choice(["switch", "ring", "mesh", "two switches"])
    if kind == "two switches":
        return Network(two_switches(stages, bandwidth, latency))
    return Network(system(tier(kind, max(3, stages), bandwidth, latency)))


def random_pipeline(rng: random.Random) -> tuple[Case, Prices]:
    """A case of several stages, even or uneven, and their prices."""
    stages = rng.choice([2, 3, 4, 6])
    weights = [rng.choice([1, 1, 1, 2, 5]) for _ in range(stages)]
    launch = rng.choice([0, 9, 50])
    prices = Prices(uneven, stages, launch, weights, random_network(rng, stages))
    prices.model = SimpleNamespace(hidden=rng.choice([8, 64]))
    return random_case(rng, pp=stages), prices


def both_ways(rng: random.Random) -> tuple[Run, Run]:
    """The same pipeline with plans where they hold, and with processes alone."""
    case, prices = random_pipeline(rng)
    return run(case, prices), run(case, prices, leap=False)


@settings(max_examples=200)
@given(rng=st.randoms(use_true_random=False))
def test_plans_equal_processes(rng: random.Random) -> None:
    """Every row of every table, in its order."""
    planned, long = both_ways(rng)
    assert planned == long
    assert planned.stages == long.stages


@pytest.mark.slow
def test_plans_equal_processes_in_thousands_of_runs() -> None:
    for seed in range(4000):
        planned, long = both_ways(random.Random(seed))
        assert planned == long, seed
        assert planned.stages == long.stages, seed


def test_random_pipelines_plan_and_drop_plans_and_plan_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else the comparison would show nothing."""
    seen = Counter[str]()
    through, drop, share = PipelineStages._through, PipelineStages._drop_plans, Flows._share

    def count_through(self: PipelineStages, flight: Flight) -> bool:
        planned = through(self, flight)
        seen[f"planned{' again' * (flight.turn > 0)}" if planned else "would meet another"] += 1
        return planned

    def count_drop(self: PipelineStages, now: int) -> None:
        for one in self.flights:
            seen["dropped between two stages"] += one.planned and any(
                visit.left < now < visit.arrived for visit in one.visits
            )
        drop(self, now)

    def count_share(self: Flows, event: object) -> None:
        seen["shared links"] += 1
        share(self, event)

    monkeypatch.setattr(PipelineStages, "_through", count_through)
    monkeypatch.setattr(PipelineStages, "_drop_plans", count_drop)
    monkeypatch.setattr(Flows, "_share", count_share)
    for seed in range(60):
        case, prices = random_pipeline(random.Random(seed))
        run(case, prices)
    assert all(
        seen[name] > 20
        for name in (
            *("planned", "would meet another", "dropped between two stages"),
            *("planned again", "shared links"),
        )
    ), seen


def test_what_cannot_meet_is_one_timeout_per_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a switch, batches of equal stages never meet: none becomes a process."""
    monkeypatch.setattr(PipelineStages, "_fly", None)
    rng = random.Random(0)
    for _ in range(20):
        case = random_case(rng, pp=4)
        network = Network(system(tier("switch", 4, 1e6, 0.0)))
        assert run(case, Prices(uneven, 4, handover=9, network=network)).replica.outstanding == 0
