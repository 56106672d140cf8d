"""Which split is the cheapest that meets a service level, and why the others lose.

The cost of a token is the device-seconds that it takes: devices over tokens per second. It is the
sum of the device time by state, so that the difference of two splits is known by state, too.
"""

from __future__ import annotations

from typing import Any

import msgspec

from sim.account.intervals import chance_below
from sim.errors import InputError
from sim.states import STATES
from sim.studies.sweep.axes import Axis
from sim.studies.sweep.fronts import Record
from sim.studies.sweep.grid import Sweep
from sim.studies.sweep.labels import cell
from sim.studies.sweep.levels import missed
from sim.studies.sweep.registry import kind_of
from sim.studies.sweep.study import Swept

INTERVALS = {"ttft_s": "ttft", "tpot_s": "tpot", "e2e_s": "makespan"}
SPLIT = {"run": ("tp", "pp", "dp", "microbatches"), "serve": ("tp", "pp", "replicas")}


class Verdict(msgspec.Struct, frozen=True):
    """One split (and the values of other axes), what it costs, and what to say of it.

    cost: device-seconds per token, None if it is not possible. meets: whether it meets every bound.
    """

    record: Record
    cost: float | None
    meets: bool
    reason: str


def splits(kind: str, base: dict[str, Any], more: tuple[Axis, ...], devices: int) -> Sweep:
    """Every split of `devices` devices or fewer, times the axes given. A pipeline runs with one
    micro-batch, or one a stage."""
    if devices < 1:
        raise InputError(f"--devices {devices}: at least one")
    given = {axis.path for axis in more}
    degrees = tuple(n for n in range(1, devices + 1) if devices % n == 0)
    keys = kind_of(kind).keys
    names = SPLIT[kind]
    axes = tuple(Axis(n, keys[n], degrees) for n in names if keys[n] not in given)
    product = "*".join(n for n in names if n != "microbatches")
    where = f"{product} <= {devices}"
    if kind == "run":
        where += " and (microbatches == 1 or microbatches == pp) and dp <= batch"
    return Sweep(kind, base, (*axes, *more), where)


def verdicts(swept: Swept, bounds: dict[str, float]) -> list[Verdict]:
    """All points: those that meet the bounds from the cheapest on, then those that miss them by
    how much, then those that are not possible."""
    judged = [_judge(r, bounds, swept.sweep.kind) for r in swept.records()]
    good = sorted((v for v in judged if v.meets), key=lambda v: (v.cost, v.record["devices"]))
    late = sorted(
        (v for v in judged if v.cost is not None and not v.meets),
        key=lambda v: worst(v.record, bounds, swept.sweep.kind),
    )
    never = [v for v in judged if v.cost is None]
    if good:
        best = good[0]
        good = [best, *(_behind(v, best) for v in good[1:])]
    return [*good, *late, *never]


def _judge(record: Record, bounds: dict[str, float], kind: str) -> Verdict:
    if record["status"] != "ok":
        return Verdict(record, None, False, record["reason"])
    rate = record["tokens_per_s_per_device"]
    cost = 1 / rate if rate else None
    if kind == "serve":
        return Verdict(record, cost, bool(record["slo_met"]), missed(record, bounds))
    late = [
        f"{name.removesuffix('_s').upper()} {cell(name, value)} > {cell(name, bounds[name])}"
        for name, value in measured(record).items()
        if name in bounds and value > bounds[name]
    ]
    return Verdict(record, cost, not late, ", ".join(late))


def measured(record: Record) -> dict[str, float]:
    """The latencies of a static run that a bound can be about, in seconds."""
    return {
        "ttft_s": record["ttft_s"] or 0.0,
        "tpot_s": record["tpot_s"] or 0.0,
        "e2e_s": record["makespan_ps"] * 1e-12,
    }


def chance(record: Record, bounds: dict[str, float]) -> float | None:
    """The chance that a static run meets the bound that it is the least sure to meet; None where no
    residuals are known."""
    shares = []
    for name, value in measured(record).items():
        stem = INTERVALS[name]
        low, high = (record.get(f"{stem}_{end}_s") for end in ("low", "high"))
        if name in bounds and low is not None and high is not None:
            shares.append(chance_below(bounds[name], value, low, high))
    return min(shares, default=None)


def worst(record: Record, bounds: dict[str, float], kind: str) -> float:
    """How many times the most exceeded bound is exceeded; of serving, the share that is missed."""
    if kind == "serve":
        return 1 - float(record["attainment"] or 0.0)
    return max((v / bounds[n] for n, v in measured(record).items() if n in bounds), default=0.0)


def _behind(verdict: Verdict, best: Verdict) -> Verdict:
    """The two states in which a dearer split spends the most more device time per token."""
    assert verdict.cost is not None
    assert best.cost is not None
    more = {state: _per_token(verdict, state) - _per_token(best, state) for state in STATES}
    worth = 0.05 * (verdict.cost - best.cost)
    dearer = sorted((s for s in STATES if more[s] > worth), key=lambda s: -more[s])[:2]
    parts = ", ".join(f"+{cell('_s', more[s])} {s}" for s in dearer)
    ratio = verdict.cost / best.cost
    said = f"costs {ratio - 1:.1%} more" if ratio > 1 else "costs the same on more devices"
    reason = f"{said}: {parts} per token" if parts else said
    return msgspec.structs.replace(verdict, reason=reason)


def _per_token(verdict: Verdict, state: str) -> float:
    """Device-seconds per token in one state; over all states they sum to the cost."""
    record = verdict.record
    total = sum(record[f"{s}_ps"] for s in STATES)
    share = record[f"{state}_ps"] / total if total else 0.0
    return float(share * (verdict.cost or 0.0))
