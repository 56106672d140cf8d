"""A robust, deterministic search for terms within bounds, that says what it could not tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

Array = npt.NDArray[np.float64]
# Errors beyond this (in logarithms, about per cent) count linearly: outliers do not rule the fit.
USUAL_ERROR = 0.08
# A term is told by the data if moving it by a tenth of its range moves some predictions by more
# than this (root mean square, in logarithms).
TELLING = 0.002


class Search(msgspec.Struct, frozen=True, kw_only=True):
    """Terms that the search determined, and why it left others open."""

    values: dict[str, float]
    undetermined: dict[str, str]


def search(
    predict: Callable[[dict[str, float]], Array],
    measured: Array,
    start: Mapping[str, float],
    bounds: Mapping[str, tuple[float, float]],
    weights: Array | None = None,
    pull: float = 0.0,
) -> Search:
    """Terms that make `predict(terms)` (seconds or any unit) near `measured`, both positive.

    Errors are taken in logarithms, so that too high by half and too low by half weigh alike, and
    through a soft absolute value, so that outliers do not rule. A term that the rows do not tell
    keeps its `start`. `pull` draws all a little towards it, which decides between terms that trade
    off against each other: a term that is off by its whole range counts like an error of `pull`
    (in logarithms) of every row.
    """
    names = list(start)
    low = np.array([bounds[n][0] for n in names], dtype=np.float64)
    high = np.array([bounds[n][1] for n in names], dtype=np.float64)
    first = np.clip(np.array([start[n] for n in names], dtype=np.float64), low, high)
    logs, span = np.log(measured), high - low
    scale = np.ones(len(measured)) if weights is None else np.sqrt(weights)
    drawn = pull * float(np.sqrt(np.sum(scale**2)))

    def errors(x: Array) -> Array:
        terms = dict(zip(names, (low + x * span).tolist(), strict=True))
        predicted = np.asarray(predict(terms), dtype=np.float64)
        return np.asarray(scale * (np.log(np.maximum(predicted, 1e-12)) - logs))

    def solve(x: Array, free: Array) -> Array:
        def some(y: Array) -> Array:
            full = x.copy()
            full[free] = y
            return np.append(errors(full), drawn * (full - home)) if drawn else errors(full)

        solution = least_squares(
            some,
            np.clip(x[free], 1e-4, 1 - 1e-4),
            bounds=(0.0, 1.0),
            loss="soft_l1",
            f_scale=USUAL_ERROR,
            diff_step=1e-4,
            max_nfev=200,
        )
        full = x.copy()
        full[free] = solution.x
        return full

    home = (first - low) / span
    x = solve(home, np.ones(len(names), dtype=bool))
    informative = np.array([_telling(errors, x, i) for i in range(len(names))])
    undetermined = {}
    if not informative.all():
        for i, name in enumerate(names):
            if not informative[i]:
                undetermined[name] = f"the {len(measured)} rows do not depend on it"
        x = np.where(informative, x, home)
        if informative.any():
            x = solve(x, informative)
    values = {n: float(v) for n, v in zip(names, low + x * span, strict=True)}
    return Search(values=values, undetermined=undetermined)


def _telling(errors: Callable[[Array], Array], x: Array, i: int) -> bool:
    """Whether moving term `i` by a tenth of its range would be seen."""
    moved = []
    for step in (-0.1, 0.1):
        y = x.copy()
        y[i] = min(1.0, max(0.0, x[i] + step))
        moved.append(float(np.sqrt(np.mean((errors(y) - errors(x)) ** 2))))
    return max(moved) > TELLING
