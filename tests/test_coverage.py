"""80 % intervals of whole steps, layers and runs cover about as much of what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim.account.intervals import Interval
from sim.fidelity.calibrate.coverage import SETS, covered, fits

DATA = Path(__file__).parents[2] / "shared" / "data"
QUICK = ("mixed", "vLLM run")


def test_the_share_that_is_covered() -> None:
    sure = Interval(0.9, 1.2)
    half = [(0.95, sure), (1.2, sure), (1.21, sure), (0.5, sure)]
    assert covered(half) == 0.5
    assert not fits(half)
    assert fits(half[:2])
    assert not fits(half[:2] * 20)  # 80 % intervals that cover all are too wide


@pytest.mark.skipif(not DATA.exists(), reason="../shared/data is not here")
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name.startswith(QUICK) else pytest.mark.slow) for name in SETS],
)
def test_rows_that_no_fit_saw_lie_in_their_intervals(name: str) -> None:
    found = SETS[name](DATA)
    assert fits(found), covered(found)
