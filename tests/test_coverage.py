"""80 % intervals of whole steps, layers and runs cover about as much of what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim.calibrate.coverage import LEAST, MOST, SETS, covered
from sim.intervals import Interval

DATA = Path(__file__).parents[2] / "shared" / "data"
QUICK = ("mixed", "vLLM run")


def test_the_share_that_is_covered() -> None:
    sure = Interval(0.9, 1.2)
    assert covered([(0.95, sure), (1.2, sure), (1.21, sure), (0.5, sure)]) == 0.5


@pytest.mark.skipif(not DATA.exists(), reason="../shared/data is not here")
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name.startswith(QUICK) else pytest.mark.slow) for name in SETS],
)
def test_rows_that_no_fit_saw_lie_in_their_intervals(name: str) -> None:
    found = SETS[name](DATA)
    share = covered(found)
    assert share >= LEAST, share
    assert share <= MOST or len(found) < 20, share
