"""Growth of hardware and of models: least squares through the points of the trend figures.

Gholami et al. 2024, "AI and Memory Wall" (arXiv 2403.14123). A rate is the factor over two
years of an ordinary least squares line of log2(value) against the year.
"""

from __future__ import annotations

import msgspec
import numpy as np

from sim.inputs.documents import convert, read_document
from sim.studies.paper.cells import Section, Source, compare, data_file
from workloads.model import Record


class TrendPoint(Record, frozen=True, kw_only=True):
    """One mark of a trend figure."""

    year: float
    value: float
    name: str = ""
    experts: bool = False  # a mixture of experts


class Series(Record, frozen=True, kw_only=True):
    """Marks of one quantity, all of them in the fit."""

    name: str
    unit: str
    source: Source
    points: tuple[TrendPoint, ...]


class TrendPoints(Record, frozen=True, kw_only=True):
    """The file of all marks."""

    series: tuple[Series, ...]


class TrendLine(msgspec.Struct, frozen=True):
    """log2(value) = intercept + slope * (year - 2000)."""

    slope: float
    intercept: float

    @property
    def two_years(self) -> float:
        """Growth factor over two years."""
        return float(2 ** (2 * self.slope))

    @property
    def twenty_years(self) -> float:
        """Growth factor over twenty years."""
        return float(2 ** (20 * self.slope))

    def at(self, year: float) -> float:
        """Value of the line in a year."""
        return float(2 ** (self.intercept + self.slope * (year - 2000)))


def load_points() -> dict[str, Series]:
    """The marks by quantity. Raises InputError."""
    path = data_file("trend-points")
    return {s.name: s for s in convert(read_document(path), TrendPoints, str(path)).series}


def fit(points: tuple[TrendPoint, ...]) -> TrendLine:
    """Ordinary least squares of log2(value) against the year."""
    years = np.array([p.year - 2000 for p in points])
    slope, intercept = np.polyfit(years, np.log2([p.value for p in points]), 1)
    return TrendLine(float(slope), float(intercept))


def without_experts(series: Series) -> tuple[TrendPoint, ...]:
    """The points that are no mixture of experts."""
    return tuple(p for p in series.points if not p.experts)


def trends() -> list[Section]:
    """The fitted rates beside the labels and the drawn lines, over 2 and over 20 years."""
    series = load_points()
    lines = {name: fit(one.points) for name, one in series.items()}
    dense = fit(without_experts(series["model size"])).two_years
    gap = TrendLine(lines["peak FLOPS"].slope - lines["DRAM bandwidth"].slope, 0.0)
    short = {name: dict.fromkeys(("label", "drawn line"), x.two_years) for name, x in lines.items()}
    long = {name: {"label": line.twenty_years} for name, line in lines.items()}
    note = (
        f"FLOPS over DRAM bandwidth grows {gap.two_years:.2f} x in 2 years, "
        f"{gap.twenty_years:.0f} x in 20."
    )
    return [
        compare(
            "trends",
            short,
            beside={"model size without mixtures of experts": {"label": dense}},
            notes=(note,),
        ),
        compare("trends-20", long),
    ]
