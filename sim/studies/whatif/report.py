"""Tables of differences for the terminal."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sim.output.report import duration, plain_table
from sim.studies.whatif.compare import Comparison, by_class, metric_name
from sim.studies.whatif.parts import ALL_STATES, HEADS, Cause
from sim.studies.whatif.sensitivity import NOT_STATED, Sensitivity

TICK = Fraction(1, 10**12)


def print_comparison(comparison: Comparison, names: tuple[str, str], console: Console) -> None:
    """The two, the sentence, and where the difference comes from."""
    console.print()
    for word, name in zip(("before", "after "), names, strict=True):
        console.print(Text(word, style="bold"), name)
    console.print(f"  {comparison.sentence()}")
    console.print(cause_table(comparison))
    if any(cause.kind for cause in comparison.change.parts):
        console.print(class_table(comparison))


def cause_table(comparison: Comparison) -> Table:
    """Every cause before, after and the change."""
    table = plain_table(
        f"{metric_name(comparison.metric)}, part by part",
        "state",
        ["before", "after", "change", ""],
    )
    before = comparison.before.total
    for cause, a, b, change in comparison.rows("state", "what"):
        table.add_row(cause.label, time(a), time(b), signed_time(change), share(change, before))
    table.add_section()
    total = comparison.change.total
    table.add_row(
        "all", time(before), time(comparison.after.total), signed_time(total), share(total, before)
    )
    return table


def class_table(comparison: Comparison) -> Table:
    """The change by operator class and state."""
    rows = by_class(comparison)
    states = [s for s in ALL_STATES if any(Cause(s) in parts for parts in rows.values())]
    table = plain_table("The change by operator class", "class", ["all", *map(HEADS.get, states)])  # type: ignore[list-item]
    for kind, parts in rows.items():
        cells = [signed_time(parts.get(Cause(s), Fraction())) for s in states]
        table.add_row(kind, signed_time(sum(parts.values(), Fraction())), *cells)
    return table


def time(t: Fraction) -> str:
    """Ticks as a person reads them."""
    return duration(float(t * TICK)) if t else "-"


def signed_time(t: Fraction) -> str:
    """A change; nothing is a dash."""
    if not t:
        return "-"
    return ("+" if t > 0 else "-") + duration(float(abs(t) * TICK))


def share(part: Fraction, total: Fraction) -> str:
    """Of the metric before."""
    return f"{float(part / total):+.1%}" if total and part else ""


def described(comparison: Comparison, names: tuple[str, str]) -> dict[str, Any]:
    """The comparison as plain data: ticks as exact quotients, and as numbers."""

    def amount(x: Fraction) -> dict[str, Any]:
        return {"ps": float(x), "exact": f"{x.numerator}/{x.denominator}"}

    return {
        "metric": comparison.metric,
        "before": {"name": names[0], **amount(comparison.before.total)},
        "after": {"name": names[1], **amount(comparison.after.total)},
        "change": amount(comparison.change.total),
        "sentence": comparison.sentence(),
        "parts": [
            {
                "state": c.state,
                "what": c.what,
                "class": c.kind,
                "before": amount(a),
                "after": amount(b),
                "change": amount(x),
            }
            for c, a, b, x in comparison.rows("state", "what", "kind")
        ],
    }


def print_sensitivity(result: Sensitivity, console: Console) -> None:
    """The table, and the sentence that names the wall."""
    console.print()
    console.print(result.name, style="bold")
    console.print(f"  {metric_name(result.metric)} {time(result.base)}")
    heads = ["now", "elasticity", "at half", "at double", "if free", "saved"]
    table = plain_table("What it depends on (runs with each resource changed)", "resource", heads)
    for row in result.rows:
        slope = (
            "-" if row.elasticity is None else f"{row.elasticity:+.3f}" if row.elasticity else "0"
        )
        cells = [("-" if x is None else time(x)) for x in (row.half, row.double, row.free)]
        saved = "-" if row.free is None else share(row.free - result.base, result.base) or "0"
        now = NOT_STATED if row.note == NOT_STATED else row.resource.now
        table.add_row(row.resource.name, now, slope, *cells, saved)
    console.print(table)
    for row in result.rows:
        if row.note and row.note != NOT_STATED and row.elasticity is None:
            console.print(f"  {row.resource.name}: {row.note}")
    console.print(f"  {result.sentence()}.")


def described_sensitivity(result: Sensitivity) -> dict[str, Any]:
    """The sensitivities as plain data; ticks are picoseconds."""

    def ps(x: Fraction | None) -> float | None:
        return None if x is None else float(x)

    return {
        "metric": result.metric,
        "scenario": result.name,
        "base_ps": float(result.base),
        "sentence": result.sentence(),
        "resources": [
            {
                "resource": row.resource.name,
                "values": row.resource.values,
                "elasticity": row.elasticity,
                "at_half_ps": ps(row.half),
                "at_double_ps": ps(row.double),
                "if_free_ps": ps(row.free),
                "note": row.note,
            }
            for row in result.rows
        ],
    }
