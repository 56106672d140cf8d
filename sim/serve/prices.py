"""The price of a step: where its ticks go, and what it does."""

from __future__ import annotations

from sim.mapping.priced import Step

# compute, hbm, sram, link, launch; then FLOPs and HBM bytes of one rank
Price = tuple[int, int, int, int, int, int, int]
FREE: Price = (0, 0, 0, 0, 0, 0, 0)


def add(a: Price, b: Price, times: int = 1) -> Price:
    """a + times * b. Spelled out: it runs several times a step."""
    return (
        a[0] + times * b[0],
        a[1] + times * b[1],
        a[2] + times * b[2],
        a[3] + times * b[3],
        a[4] + times * b[4],
        a[5] + times * b[5],
        a[6] + times * b[6],
    )


def price_of(step: Step) -> Price:
    """A step of a priced block."""
    c, h, s, li, la = step.states[:5]
    cost = step.cost
    return (c, h, s, li, la, cost.flops if cost else 0, cost.hbm_bytes if cost else 0)
