"""Counters of a device: FLOP/s, MFU and HBM bytes/s over time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sim.account.rates import Rates
from sim.output.perfetto.chrome import counter_event

OF_ONE = "of one device"


def rate_counters(
    pid: int, rates: Iterable[Rates], peak: float | None, part: str = ""
) -> Iterator[str]:
    """The counters of one device where they change.

    peak: FLOP/s of its matrix units, of which MFU is the share; without it MFU is left out. part:
    which device of the process it is, if there are several.
    """
    shown: dict[str, str] = {}
    for tick, flops, nbytes in rates:
        now = {"FLOP/s": str(round(flops))}
        if peak:
            now["MFU"] = f"{flops / peak:.6g}" if flops else "0"
        now["HBM bytes/s"] = str(round(nbytes))
        for name, value in now.items():
            if shown.get(name, "0") != value:
                yield counter_event(pid, name + part, tick, OF_ONE, value)
        shown = now
