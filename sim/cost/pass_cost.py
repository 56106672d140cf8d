"""The cost of a pass, or of a part of one: where its time goes, and what it moves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

# The fields of a PassCost without their names, for the innermost loop of serving.
Amounts = tuple[int, int, int, int, int, int, int]


class PassCost(NamedTuple):
    """Ticks by state on one rank of one stage, its FLOPs and its HBM bytes.

    They are in the order of `sim.states.STATES`: the first five sum to the duration.
    """

    compute: int = 0
    hbm: int = 0
    sram: int = 0
    link: int = 0
    launch: int = 0
    flops: int = 0
    hbm_bytes: int = 0

    @property
    def duration(self) -> int:
        """Ticks from the first launch to the end."""
        return self.compute + self.hbm + self.sram + self.link + self.launch


FREE = PassCost()


def add(a: Amounts, b: Amounts, times: int = 1) -> PassCost:
    """a + times * b. Spelled out: serving calls it several times per step."""
    return PassCost(
        a[0] + times * b[0],
        a[1] + times * b[1],
        a[2] + times * b[2],
        a[3] + times * b[3],
        a[4] + times * b[4],
        a[5] + times * b[5],
        a[6] + times * b[6],
    )


def total(costs: Iterable[Amounts]) -> PassCost:
    """The sum of costs."""
    return PassCost(*map(sum, zip(*costs, strict=True)))
