"""Static points in closed form, many at once: what `sim.simulation` does, without an engine.

With one micro-batch nothing in a replica runs beside anything else, so that the makespan is the
sum of the parts, and the account of each device is what it does itself, what its handovers take,
and a bubble for the rest. `tests/test_sweep_closed.py` holds every cell of every row against `run`.
Points of another kind are not taken: micro-batches, replicas, several streams, tiles, prefetch,
encoder-decoders, experts, latents.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sim.errors import Infeasible, InputError
from sim.mapping.parallelism import check_devices
from sim.scenario import Lengths
from sim.studies.sweep.kinds import Row, refusal
from sim.studies.sweep.points import StaticPoint
from sim.studies.sweep.shapes import Shapes
from sim.studies.sweep.stages import StageLayout
from workloads.batch import Batch
from workloads.graph import build_graph
from workloads.model import Model
from workloads.precision import Precision

MOST_PASSES = 200_000  # at once; more are taken in parts, to bound memory


def covered(point: StaticPoint) -> bool:
    """Whether the closed form is all of it."""
    return plain(point.model) and _serial(point)


def _serial(point: StaticPoint) -> bool:
    s, split = point.scenario, point.scenario.parallelism
    return (
        s.detail == "op"
        and s.shortcuts
        and s.streams.count == 1
        and split.dp == 1
        and split.microbatches == 1
        and not point.machine.device.prefetch
    )


def plain(model: Model) -> bool:
    """One stack whose operators are the same for every batch, so that arrays can count them."""
    if model.encoder is not None and model.decoder is not None:
        return False
    graph = build_graph(model, Batch.prefill(1, 1), Precision())
    return not any(op.branches for _, op in graph.ops())


def closed_rows(points: list[StaticPoint]) -> Iterator[tuple[int, Row]]:
    """(index, row) of the points that are covered; others are left out.

    Points that share a rank's share of a model on a machine are priced together.
    """
    groups: dict[Any, list[int]] = {}
    models = {id(p.model): p.model for p in points}
    simple = {key for key, model in models.items() if plain(model)}
    for i, p in enumerate(points):
        if id(p.model) in simple and _serial(p):
            s = p.scenario
            key = (
                id(p.model),
                id(p.machine),
                p.precision,
                s.lowering,
                s.parallelism.tp,
                s.parallelism.collective,
            )
            groups.setdefault(key, []).append(i)
    for members in groups.values():
        for part in _parts(members, points):
            yield from _group([points[i] for i in part], part)


def _parts(members: list[int], points: list[StaticPoint]) -> Iterator[list[int]]:
    """Members by their lengths, so many lengths together that their passes are bounded."""
    by_lengths: dict[Lengths, list[int]] = {}
    for i in members:
        by_lengths.setdefault(points[i].lengths, []).append(i)
    part: list[int] = []
    passes = 0
    for lengths, same in by_lengths.items():
        part += same
        passes += lengths.output
        if passes > MOST_PASSES:
            yield part
            part, passes = [], 0
    if part:
        yield part


def _group(points: list[StaticPoint], numbers: list[int]) -> Iterator[tuple[int, Row]]:
    """Rows of points that differ in lengths and in the pipeline alone."""
    staged: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    for i, p in enumerate(points):
        split = p.scenario.parallelism
        staged.setdefault((split.pp, split.stages), []).append(i)
    shapes = list(dict.fromkeys(p.lengths for p in points))
    place = {lengths: i for i, lengths in enumerate(shapes)}
    sums: Shapes | None = None
    for mine in staged.values():
        split = points[mine[0]].scenario.parallelism
        machine = points[0].machine
        try:
            check_devices(split, len(machine.system.devices), machine.name)
            sums = sums or Shapes(points[0], shapes)
            pipeline = StageLayout(sums, split)
        except Infeasible as error:  # as `make_plan` refuses, in its order
            row = refusal(error)
            yield from ((numbers[i], row) for i in mine)
            continue
        except InputError:  # a duration beyond all use: `run` says of which point
            return
        at = [place[points[i].lengths] for i in mine]
        for i, shape, row in pipeline.rows([points[i] for i in mine], at):
            if sums.fits[shape]:
                yield numbers[mine[i]], row
