"""A named what-if as its TOML file states it: a scenario, its variants and published claims."""

from __future__ import annotations

from typing import Literal

import msgspec

from sim.errors import hint, quoted
from sim.inputs.catalogue import Value
from sim.studies.whatif.mechanisms import Area, Exits, LocalBuffers, Sparsity, Speculative, Tiers
from workloads.model import Record


class Variant(Record, frozen=True, kw_only=True):
    """A case: keys that change (with factors, as in --set), and a mechanism if it needs one.

    against: the variant that this one is compared with; the first one by default.
    """

    name: str
    against: str = ""
    changes: dict[str, Value] = msgspec.field(default_factory=dict)
    sparsity: Sparsity | None = None
    tiers: Tiers | None = None
    speculative: Speculative | None = None
    exits: Exits | None = None
    area: Area | None = None
    buffers: LocalBuffers | None = None


class Claim(Record, frozen=True, kw_only=True):
    """A published number, with which ours is compared.

    of: "speed-up" and "less time" against the first variant, "as long as" against the variant
    `against`; "intensity" (FLOPs per byte) and "gigabytes" of the transformer blocks as the survey
    counts them (`sim.studies.paper.convention`).
    """

    variant: str
    of: Literal["speed-up", "less time", "as long as", "intensity", "gigabytes"]
    printed: str
    source: str
    against: str = ""
    note: str = ""


class WhatIf(Record, frozen=True, kw_only=True):
    """A question. The other variants are compared with the first one."""

    title: str
    question: str
    how: str
    source: str
    metric: str
    scenario: dict[str, Value | list[Value] | dict[str, Value | list[Value] | None]]
    variants: tuple[Variant, ...]
    claims: tuple[Claim, ...] = ()

    def __post_init__(self) -> None:
        names = [v.name for v in self.variants]
        if len(names) < 2 or len(set(names)) < len(names):
            raise ValueError("`variants` needs two at least, each with a name of its own")
        for variant in self.variants:
            if variant.against and variant.against not in names:
                known = hint(variant.against, names)
                raise ValueError(f"against = {quoted(variant.against)}: no such variant{known}")
        for claim in self.claims:
            for name in (claim.variant, claim.against or names[0]):
                if name not in names:
                    raise ValueError(f"claim of {quoted(name)}: no such variant{hint(name, names)}")
