"""80 % intervals of a serving run, from the residuals of its device's kernels and of its engine.

Of the kernels, those of one prompt of the mean length and of one decode step of the mean batch at
the mean context; the host's part of a step takes its share of the whole. Where the engine was
fitted, its residuals (measured over predicted time of runs, or of steps, that its fit did not see)
come on top: they are of the models and systems that it was fitted to, and kernels of others err for
themselves. A closed loop waits as long as its work takes; an open one is looked at in `in_summary`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from hw_models.efficiency import Spread
from sim.account.intervals import Class, Interval, interval
from sim.cost.collectives import Network
from sim.cost.model import CostModel
from sim.inputs.catalogue import Machine
from sim.mapping.parallelism import Parallelism, shard
from sim.mapping.priced import TensorGroup, price_blocks
from sim.serve.host import EngineTerms, host_of, load_engine
from sim.serve.latency import total
from sim.serve.serving import Served
from workloads.batch import Batch
from workloads.block import Lowering
from workloads.graph import build_graph
from workloads.model import Model
from workloads.precision import Precision

QUEUED = 0.25  # of the time to the first token, from which on requests queue


def intervals(served: Served) -> dict[str, Interval]:
    """Factors on mean TTFT and TPOT, where residuals are known."""
    model, serving = served.resolved.model, served.serving
    if model.decoder is None or not len(served.requests):
        return {}
    count, requests = len(served.requests), served.requests
    prompt, output = (
        max(1, round(total(requests, f"{what}_tokens") / count)) for what in ("prompt", "output")
    )
    busy = total(requests, "last_token_ps") - total(requests, "scheduled_ps")
    running = max(1, round(busy / max(1, served.makespan) / serving.replicas))
    resolved, engine = served.resolved, load_engine(serving.engine)
    split = Partition(model, serving.parallelism, serving.lowering)
    steps = Steps(split, resolved.machine, resolved.precision, engine, serving.host_time_us)
    by_metric = {
        "ttft": steps.interval(Batch.prefill(1, prompt)),
        "tpot": steps.interval(Batch.decode(running, prompt + max(1, output // 2))),
    }
    return {name: one for name, one in by_metric.items() if one is not None}


class Partition(NamedTuple):
    """A model, how it is split over devices, and how its blocks become operators."""

    model: Model
    split: Parallelism
    lowering: Lowering


class Steps:
    """The times of the parts of an engine's steps on a machine."""

    def __init__(
        self,
        partition: Partition,
        machine: Machine,
        precision: Precision,
        engine: EngineTerms,
        host_us: float = 0.0,
    ) -> None:
        model, split, lowering = partition
        self.local, self.precision, self.split = shard(model, split.tp), precision, split
        self.lowering, self.engine, self.host = lowering, engine, host_of(engine, host_us)
        self.efficiency = machine.device.efficiency
        self.costs = CostModel(machine.device, precision.activations)
        self.network = Network(machine.system, libraries=self.efficiency.collectives)

    def times(self, batch: Batch) -> dict[Class, int]:
        """Ticks of a step by phase and kind of operator; the host's under ("", "")."""
        tp = self.split.tp
        graph = build_graph(self.local, batch, self.precision, self.lowering, ways=tp)
        group = self.split.group(0, 0) if tp > 1 else ()
        prompts = batch.phase != "decode"
        times: dict[Class, int] = {}
        ranks = TensorGroup(self.network, group, self.split.collective)
        work = price_blocks(graph.placed, self.costs, ranks)
        for one in work:
            for kind, states in one.block.by_kind.items():
                times[batch.phase, kind] = times.get((batch.phase, kind), 0) + sum(states)
        kernels = sum(times.values())
        added = self.host.added(kernels, 0 if prompts else batch.size, prompts)
        return {**times, ("", ""): added} if added else times

    def interval(self, batch: Batch) -> Interval | None:
        """The 80 % interval of a step's time, as factors."""
        spread = residuals(self.engine)
        more = () if spread is None else (spread,)
        dtype = self.precision.activations
        return interval(self.times(batch), self.efficiency, dtype, *more)


def residuals(engine: EngineTerms) -> Spread | None:
    """Residuals of the time per token of runs, or of single steps, as the engine was fitted."""
    return engine.residuals.get("tpot") or engine.residuals.get("step")


def in_summary(served: Served, summary: dict[str, Any]) -> dict[str, list[float]]:
    """Low and high ends by the keys of a summary: means of TTFT and TPOT, tokens per second.

    Where arrivals do not wait for answers and requests queue, a queue grows by far more than the
    work that errs: then TTFT and TPOT have no interval. Where they do not queue, arrivals set the
    rate, and it has none.
    """
    factors, latency = intervals(served), summary["latency_s"]
    queued = latency["queuing_delay"]["mean"] or 0.0
    queues = queued > QUEUED * (latency["ttft"]["mean"] or 0.0)
    closed = str(served.serving.traffic.arrivals).startswith("closed")
    bounds = {}
    for name in ("ttft", "tpot"):
        value = latency[name]["mean"]
        if value and name in factors and (closed or not queues):
            bounds[f"{name}_s"] = list(factors[name].of(value))
    if "tpot" in factors and (closed or queues):
        bounds["generation_throughput"] = list(
            factors["tpot"].inverse.of(summary["generation_throughput"])
        )
    return bounds
