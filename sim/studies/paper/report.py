"""The comparison with the papers, whole, and as text."""

from __future__ import annotations

from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sim.output.folder import ResultKind, replacing
from sim.studies.paper.cells import Cell, Section
from sim.studies.paper.cpu import cpu_latency
from sim.studies.paper.figures import (
    accelerator_latency,
    claims,
    end_to_end,
    headline,
    non_ideal_intensity,
    totals,
)
from sim.studies.paper.tables import tables
from sim.studies.paper.trends import trends

PAPER_RESULT = ResultKind("paper", ())  # its files are checked when they are drawn


class PaperReport(msgspec.Struct, frozen=True):
    """All sections, and the pictures that were written. `ok`: all that should match does."""

    sections: tuple[Section, ...]
    pictures: tuple[Path, ...] = ()

    @property
    def ok(self) -> bool:
        return all(section.ok for section in self.sections)

    @property
    def judged(self) -> int:
        return sum(section.judged for section in self.sections)

    @property
    def matching(self) -> int:
        return sum(section.matching for section in self.sections)

    def section(self, title: str) -> Section:
        """The section whose title begins so."""
        return next(s for s in self.sections if s.title.startswith(title))


def reproduce(out: Path | None, pictures: bool = True) -> PaperReport:
    """Recompute the tables and figures; draw them into `out` unless it is None."""
    counts = totals()
    chip, _ = accelerator_latency()
    cpu, _ = cpu_latency()
    report = PaperReport(
        (
            *tables(),
            *end_to_end(counts),
            non_ideal_intensity(),
            chip,
            cpu,
            headline(counts, chip, cpu),
            claims(counts, chip, cpu),
            *trends(),
        )
    )
    if out is None or not pictures:
        return report
    from sim.studies.paper.pictures import draw

    with replacing(out, PAPER_RESULT) as new:
        drawn = draw(report.sections, new)
    return PaperReport(report.sections, tuple(out / path.name for path in drawn))


def print_report(report: PaperReport, console: Console) -> None:
    """Every section as a table of ours against printed, then its misses with their reasons."""
    console.print("Each cell: ours = printed, ours ~ printed within the tolerance, ours ≠ printed.")
    for section in report.sections:
        console.print()
        _print_section(section, console)
    console.print()
    verdict = "as expected" if report.ok else "NOT as expected"
    misses = report.judged - report.matching
    console.print(
        f"{report.matching} of {report.judged} comparisons match, {misses} do not: {verdict}.",
        style="bold" if report.ok else "bold red",
        highlight=False,
    )
    for path in report.pictures:
        console.print(Text(f"wrote {path}"))


def _print_section(section: Section, console: Console) -> None:
    judged = f"  {section.matching}/{section.judged} match" if section.judged else ""
    console.print(Text(section.title + judged, style="bold"))
    console.print(Text(section.source, style="dim"))
    table = _side_by_side(section)
    if (
        console.measure(table, options=console.options.update(max_width=500)).maximum
        > console.width
    ):
        table = _stacked(section)
    console.print(table)
    if section.judged:
        console.print(Text(f"Match: {section.rule}.", style="dim"))
    for note in section.notes:
        console.print(Text(note))
    for why, cells in _by_reason(section).items():
        console.print(Text(f"≠ {'; '.join(cells)}: {why}", style="yellow" if why else "bold red"))


def _side_by_side(section: Section) -> Table:
    """One line per row, each cell with ours and the printed value."""
    table = _grid(section)
    for row in section.rows:
        cells = {c.column: c for c in section.cells if c.row == row}
        shown = [_pair(cells[c]) if c in cells else Text("") for c in section.columns]
        table.add_row(Text(row), *shown)
    return table


def _stacked(section: Section) -> Table:
    """Two lines per row, the printed values below ours: for narrow terminals."""
    table = _grid(section)
    for row in section.rows:
        cells = {c.column: c for c in section.cells if c.row == row}
        filled = [cells.get(column) for column in section.columns]
        table.add_row(Text(row), *(Text(c.text, style=_style(c)) if c else "" for c in filled))
        if any(c and c.judged for c in filled):
            below = (
                Text(f"{_sign(c)} {c.printed}", style=_style(c)) if c and c.judged else ""
                for c in filled
            )
            table.add_row(Text("  printed", style="dim"), *below)
    return table


def _grid(section: Section) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("", min_width=10)
    for column in section.columns:
        table.add_column(Text(column), justify="right", no_wrap=True)
    return table


def _pair(cell: Cell) -> Text:
    if not cell.judged:
        return Text(cell.text)
    return Text(f"{cell.text} {_sign(cell)} {cell.printed}", style=_style(cell))


def _sign(cell: Cell) -> str:
    if cell.to_the_digit:
        return "="
    return "~" if cell.matches else "≠"


def _style(cell: Cell) -> str:
    if not cell.judged:
        return ""
    if cell.matches:
        return "green"
    return "bold red" if cell.expected_to_match else "yellow"


def _by_reason(section: Section) -> dict[str, list[str]]:
    """Misses as text, those of one reason together."""
    by_reason: dict[str, list[str]] = {}
    for cell in section.misses:
        reason = cell.why or "should match and does not."
        by_reason.setdefault(reason, []).append(f"{cell.label} ({cell.deviation:+.1%})")
    return by_reason
