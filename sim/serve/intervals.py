"""80 % intervals of a serving run, from the residuals of its engine or of its kernels.

Where the engine was fitted, its own residuals are the measure: measured over predicted time a token
of whole runs. Else those of the kernels, over one prompt of the mean length and one decode step of
the mean batch at the mean context. Waiting in a queue is stretched as the work is.
"""

from __future__ import annotations

from typing import Any

from sim.collectives import Network
from sim.cost import CostModel
from sim.intervals import Class, Interval, interval, stretches
from sim.mapping import shard
from sim.priced import price_blocks
from sim.serve.host import load_engine
from sim.serve.serving import Served
from sim.serve.summary import column, exact_sum
from workloads.batch import Batch
from workloads.graph import build_graph


def intervals(served: Served) -> dict[str, Interval]:
    """Factors on mean TTFT and TPOT, where residuals are known."""
    found = {name: one for name, one in _of_kernels(served).items() if one is not None}
    spread = load_engine(served.serving.engine).residuals.get("tpot")
    if spread is not None:
        found["tpot"] = Interval(spread.p10, spread.p90)
    return found


def _of_kernels(served: Served) -> dict[str, Interval | None]:
    model, split = served.resolved.model, served.serving.parallelism
    if model.decoder is None or not len(served.requests):
        return {}
    count, requests = len(served.requests), served.requests
    sums = {n: exact_sum(column(requests, n)) for n in ("prompt_tokens", "output_tokens")}
    prompt = max(1, round(sums["prompt_tokens"] / count))
    output = max(1, round(sums["output_tokens"] / count))
    busy = exact_sum(column(requests, "last_token_ps") - column(requests, "scheduled_ps"))
    running = max(1, round(busy / max(1, served.makespan) / served.serving.replicas))
    batches = {
        "ttft": ("prefill", Batch.prefill(1, prompt)),
        "tpot": ("decode", Batch.decode(running, prompt + max(1, output // 2))),
    }
    machine, precision = served.resolved.machine, served.resolved.precision
    efficiency = machine.device.efficiency
    costs = CostModel(machine.device, precision.activations)
    network = Network(machine.system, libraries=efficiency.collectives)
    group = split.group(0, 0) if split.tp > 1 else ()
    local = shard(model, split.tp)
    made: dict[str, Any] = {}
    for name, (phase, batch) in batches.items():
        graph = build_graph(local, batch, precision, served.serving.lowering, ways=split.tp)
        times: dict[Class, float] = {}
        for work in price_blocks(graph.placed, costs, network, group, split.collective):
            for kind, states in work.block.by_kind.items():
                times[phase, kind] = times.get((phase, kind), 0.0) + sum(states)
        made[name] = interval(stretches(times, efficiency, precision.activations))
    return made


def in_summary(found: dict[str, Interval], summary: dict[str, Any]) -> dict[str, list[float]]:
    """Low and high ends by the keys of a summary: means of TTFT and TPOT, tokens a second.

    The rate is what the work allows; arrivals may bound it before.
    """
    made = {}
    for name in ("ttft", "tpot"):
        value = summary["latency_s"][name]["mean"]
        if value and name in found:
            made[f"{name}_s"] = list(found[name].of(value))
    if "tpot" in found:
        made["generation_throughput"] = list(
            found["tpot"].inverse.of(summary["generation_throughput"])
        )
    return made
