"""Closed forms of many points against `run`, cell by cell, and nothing left out silently."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import devices, lowerings, models, splits, systems

from sim.errors import InputError
from sim.inputs.catalogue import Machine
from sim.scenario import Scenario, Workload, lengths_of, precision_of
from sim.studies.sweep.closed import closed_rows, covered
from sim.studies.sweep.grid import document, points_of, sweep_of
from sim.studies.sweep.kinds import REFUSED
from sim.studies.sweep.points import StaticPoint, prepare
from sim.studies.sweep.pools import compute

# model, machine, and the axes that are drawn from beside lengths
SETTINGS: dict[str, tuple[str, str, dict[str, list[Any]]]] = {
    "grouped": ("llama-3.1-8b", "hgx-h100", {"tp": [1, 2, 3, 4, 8], "pp": [1, 2, 5]}),
    "large": ("llama-3.1-70b", "hgx-h100", {"tp": [1, 2, 4, 8], "pp": [1, 2, 4]}),
    "ampere": ("llama-3.1-8b", "dgx-a100", {"tp": [1, 4], "pp": [1, 3], "collective": ["ring"]}),
    "formats": ("llama-3.1-8b", "h100-sxm", {"dtype": ["w4a16", "fp8", "int8", "fp7", None]}),
    "windows": ("gemma-2-9b", "hgx-h100", {"tp": [1, 2], "kv_dtype": ["fp8", None]}),
    "learned-positions": ("gpt2", "h100-sxm", {"fusion": [True, False]}),
    "separate": ("gpt2-xl", "l4", {"projections": ["separate"], "dtype": ["fp16"]}),
    "scores-written": ("gpt2", "hgx-h100", {"attention": ["materialised"], "tp": [1, 2]}),
    "encoder": ("bert-large", "hgx-h100", {"tp": [1, 2, 16], "pp": [1, 3]}),
    "experts": ("mixtral-8x7b", "hgx-h100", {"tp": [2, 4, 8], "pp": [1, 2]}),
    "latent": ("deepseek-v3", "hgx-h100", {"tp": [8], "dtype": ["fp8"], "pp": [1, 2]}),
    "nodes": ("llama-3.1-70b", "2x-hgx-h100-ib", {"tp": [8, 16], "pp": [1, 2]}),
    "tpu": ("llama-3.1-8b", "tpu-v5e", {"set.device.prefetch": [False]}),
    "perfect": ("gpt2", "survey-accelerator", {"dtype": ["int8"]}),
    "series": ("gpt2", "a100-sxm-80gb", {"set.device.levels": ["series"]}),
    "staging": ("gpt2", "h100-sxm", {"set.on_chip.L2.bandwidth_GBps": [2000.0, 9000.0]}),
    "uneven": ("gpt2", "hgx-h100", {"pp": [3], "stages": [[2, 5, 5], [5, 5, 2]]}),
    "not-covered": ("gpt2", "hgx-h100", {"dp": [2], "microbatches": [2], "pp": [1, 2]}),
    "both-stacks": ("t5-large", "h100-sxm", {}),
}
PLACES = {
    "tp": "parallelism",
    "pp": "parallelism",
    "dp": "parallelism",
    "microbatches": "parallelism",
    "stages": "parallelism",
    "collective": "parallelism",
    "attention": "lowering",
    "projections": "lowering",
    "fusion": "lowering",
}


def drawn(name: str, rng: random.Random, count: int) -> list[StaticPoint]:
    """Random points of a setting; those that are refused outright are drawn again."""
    model, machine, choices = SETTINGS[name]
    points: list[StaticPoint] = []
    while len(points) < count:
        work: dict[str, Any] = {"batch": rng.choice([1, 2, 7, 64, 300, rng.randint(1, 2000)])}
        long = rng.choice([1, 16, 333, 4096, rng.randint(1, 9000)])
        if name == "encoder":
            work["seq"] = long
        else:
            work["prompt"] = long
            work["output"] = rng.choice([1, 2, 3, 6])
        made: dict[str, Any] = {"model": model, "on": machine, "workload": work}
        made["allow_oom"] = rng.random() < 0.5
        for key, values in choices.items():
            head, _, rest = key.partition(".")
            place, leaf = ("set", rest) if head == "set" else (PLACES.get(key, ""), key)
            value = rng.choice(values)
            if place:
                made.setdefault(place, {})[leaf] = value
            else:
                made[leaf] = value
        with suppress(InputError):  # a format that does not exist
            points.append(prepare(made))
    return points


@pytest.mark.parametrize("name", SETTINGS)
@settings(max_examples=4)
@given(rng=st.randoms(use_true_random=False))
def test_rows_are_those_of_run(name: str, rng: random.Random) -> None:
    points = drawn(name, rng, 6)
    found = dict(closed_rows(points))
    long = dict(compute("run", "", list(enumerate(points))))
    for i, point in enumerate(points):
        if i in found:
            assert found[i] == long[i], point.scenario
            assert list(found[i]) == list(long[i])
            assert [type(v) for v in found[i].values()] == [type(v) for v in long[i].values()]
        else:
            assert not covered(point), point.scenario
    if name not in ("not-covered", "both-stacks", "experts", "latent"):
        assert len(found) == len(points)


def test_a_grid_of_many_points() -> None:
    grids = ["tp=1,2,4,8", "pp=1,2,4", "batch=1:64:x8", "prompt=100,1000", "output=1,4"]
    sweep = sweep_of("run", {"model": "llama-3.1-8b", "on": "hgx-h100"}, grids)
    points = [prepare(document(sweep, values)) for values in points_of(sweep)]
    found = dict(closed_rows(points))
    assert len(found) == len(points) == 4 * 3 * 3 * 2 * 2
    for i in random.Random(1).sample(range(len(points)), 12):
        assert [(i, found[i])] == compute("run", "", [(i, points[i])])


def test_what_does_not_fit_into_64_bits_is_left_to_run() -> None:
    base = {"model": "llama-3.1-70b", "on": "hgx-h100", "allow_oom": True}
    grids = ["batch=1,100000000", "prompt=1000", "output=1"]
    sweep = sweep_of("run", base, grids)
    points = [prepare(document(sweep, values)) for values in points_of(sweep)]
    assert [i for i, _ in closed_rows(points)] == [0]


def test_a_row_that_is_refused_says_the_same() -> None:
    made = {"model": "gpt2", "on": "t4", "workload": {"batch": 1}}
    point = prepare(made)  # T4 has no bf16
    (found,) = closed_rows([point])
    assert found == (0, compute("run", "", [(0, point)])[0][1])
    assert found[1]["status"] not in ("ok", REFUSED)


@settings(max_examples=60)
@given(st.data())
def test_rows_of_toys_are_those_of_run(data: st.DataObject) -> None:
    """Random small models, devices with and without terms, systems and splits."""
    model = data.draw(models(kinds=("encoder", "decoder"), dense=True, plain=True))
    split = data.draw(splits(model, 1, contend=False))
    machine = Machine("toys", data.draw(systems(least=split.devices)), data.draw(devices()))
    lowering = data.draw(lowerings)
    points = []
    for _ in range(4):
        prompt, output = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 4))
        decoder = {"prompt": prompt, "output": output}
        lengths = {"seq": prompt} if model.decoder is None else decoder
        work = Workload(batch=data.draw(st.integers(1, 9)), **lengths)
        scenario = Scenario(
            model="toy", on="toys", workload=work, parallelism=split, lowering=lowering
        )
        found = lengths_of(model, work)
        points.append(StaticPoint(scenario, model, machine, precision_of(model, scenario), found))
    rows = dict(closed_rows(points))
    assert set(rows) == {i for i, point in enumerate(points) if covered(point)}
    for i, row in rows.items():
        assert compute("run", "", [(i, points[i])]) == [(i, row)]
