"""What an inference engine's host adds to the kernels of a step: time that belongs to the engine,
not to the device.

    added = step + sequence * (sequences that decode) + share * (kernel time of the step)

The share is what a step takes longer than its kernels, one after the other: gaps between them,
clocks that fall under sustained load; it differs between steps that only decode and those that
also work on prompts. An engine is one TOML in `engines`, fitted by `memorywall calibrate`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Annotated

import msgspec

from hw_models.efficiency import Spread
from sim.clock import ticks
from sim.cost.pass_cost import Amounts, PassCost
from sim.errors import InputError, hint, quoted
from sim.inputs.documents import convert, read_document
from workloads.model import Record

Microseconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
Share = Annotated[float, msgspec.Meta(ge=0, le=10)]


class EngineTerms(Record, frozen=True, kw_only=True):
    """The terms of one engine. The defaults are neutral.

    step_us: a step of the host that kernels do not hide. sequence_us: more for each that decodes.
    decode_share, prefill_share: of the kernels' time, in steps without and with prompts.
    residuals: measured over predicted time, by quantity, of rows that were not fitted.
    """

    name: str
    step_us: Microseconds = 0.0
    sequence_us: Microseconds = 0.0
    decode_share: Share = 0.0
    prefill_share: Share = 0.0
    residuals: dict[str, Spread] = msgspec.field(default_factory=dict)
    source: Annotated[str, msgspec.Meta(min_length=8)]


NEUTRAL = EngineTerms(name="none", source="neutral: kernels one after the other")


class HostTime(msgspec.Struct, frozen=True):
    """The same in ticks."""

    step: int = 0
    sequence: int = 0
    decode_share: float = 0.0
    prefill_share: float = 0.0

    def added(self, kernels: int, sequences: int, prompts: bool) -> int:
        """Ticks on top of a step whose kernels take so many."""
        share = self.prefill_share if prompts else self.decode_share
        own = round(share * kernels) if share else 0
        return self.step + self.sequence * sequences + own

    def around(self, kernels: Callable[[int], Amounts], sequences: int) -> Callable[[int], Amounts]:
        """The cost of a step that only decodes, the host included, from that of its kernels."""
        fixed, share = self.step + self.sequence * sequences, self.decode_share
        if not (fixed or share):
            return kernels

        def cost(keys: int) -> Amounts:
            own = PassCost(*kernels(keys))
            return launched(own, fixed + (round(share * own.duration) if share else 0))

        return cost


def launched(cost: PassCost, ticks: int) -> PassCost:
    """A step whose host takes so many ticks on top of its kernels."""
    return cost._replace(launch=cost.launch + ticks)


def host_of(engine: EngineTerms, step_us: float = 0.0) -> HostTime:
    """An engine in ticks, with `step_us` more a step."""
    return HostTime(
        ticks((engine.step_us + step_us) * 1e-6),
        ticks(engine.sequence_us * 1e-6),
        engine.decode_share,
        engine.prefill_share,
    )


def engines() -> dict[str, Path]:
    """Name -> file of all engines that ship."""
    root = Path(str(resources.files("sim.serve"))) / "engines"
    return {path.stem: path for path in sorted(root.glob("*.toml"))}


def load_engine(ref: str | None) -> EngineTerms:
    """An engine by name or by path; the neutral one for None. Raises InputError."""
    if ref is None or ref == "none":
        return NEUTRAL
    known = engines()
    path = known.get(ref) or (Path(ref) if ref.endswith(".toml") else None)
    if path is None:
        raise InputError(f"no engine is called {quoted(ref)}{hint(ref, [*known, 'none'])}")
    return convert(read_document(path), EngineTerms, str(path))
