"""Tables of a named what-if for the terminal."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sim.output.report import duration, plain_table
from sim.studies.whatif.compare import compare, metric_name
from sim.studies.whatif.named import Answer, CheckedClaim, VariantResult
from sim.studies.whatif.parts import ALL_STATES, HEADS, Breakdown, Cause

LEAST = 0.0005  # smaller shares are not shown


def print_answer(answer: Answer, console: Console) -> None:
    """The question, how it is answered, the variants, what others claim."""
    what = answer.what
    console.print()
    console.print(Text(what.title, style="bold"), what.question, sep=": ")
    console.print(f"  {answer.outcomes[0].name}")
    console.print(f"  how: {' '.join(what.how.split())}")
    console.print(f"  source: {' '.join(what.source.split())}")
    console.print(variant_table(answer))
    for outcome in answer.outcomes[1:]:
        if outcome.breakdown is None:
            console.print(f"  {outcome.variant.name}: {outcome.reason}")
        elif against := answer.base_of(outcome):
            sentence = compare(against, outcome.breakdown).sentence()
            console.print(f"  {outcome.variant.name}: {sentence}")
    if answer.claims:
        console.print(claim_table(answer.claims))
        for told_ in answer.claims:
            if told_.claim.note:
                console.print(f"  {told_.claim.variant}: {' '.join(told_.claim.note.split())}")


def variant_table(answer: Answer) -> Table:
    """The metric of every variant, against another, and where its time goes."""
    shares = [_shares(o) for o in answer.outcomes]
    states = [s for s in ALL_STATES if any(x.get(s, 0) >= LEAST for x in shares)]
    heads = [metric_name(answer.what.metric), "speed-up", *(HEADS[s] for s in states)]
    table = plain_table("Variants (share of the metric by state)", "variant", heads)
    for outcome, share in zip(answer.outcomes, shares, strict=True):
        if outcome.breakdown is None:
            table.add_row(outcome.variant.name, "-")
            continue
        faster = answer.speed_up(outcome)
        cells = [f"{share[s]:.1%}" if share.get(s, 0) >= LEAST else "-" for s in states]
        time = duration(float(outcome.breakdown.total) * 1e-12)
        speed = "" if outcome is answer.outcomes[0] or not faster else f"{faster:.2f} x"
        table.add_row(outcome.variant.name, time, speed, *cells)
    return table


def _shares(outcome: VariantResult) -> dict[str, float]:
    if outcome.breakdown is None or not outcome.breakdown.total:
        return {}
    total = outcome.breakdown.total
    return {c.state: float(x / total) for c, x in outcome.breakdown.by("state").items()}


def claim_table(claims: tuple[CheckedClaim, ...]) -> Table:
    """Printed and ours."""
    table = plain_table("Compared with published values", "variant", ["what", "printed", "ours"])
    table.add_column("source")
    for checked in claims:
        claim = checked.claim
        what = f"{claim.of} {claim.against}".strip()
        table.add_row(claim.variant, what, claim.printed, shown(checked), claim.source)
    return table


def shown(claim: CheckedClaim) -> str:
    """Our number with the digits of the printed one."""
    if claim.ours is None:
        return "-"
    if claim.claim.of == "less time":
        return f"{claim.ours:.0%}"
    digits = len(claim.claim.printed.partition(".")[2])
    return f"{claim.ours:.{max(digits, 1 if claim.ours < 10 else 0)}f}"


def described_answer(answer: Answer) -> dict[str, Any]:
    """The answer as plain data; times are picoseconds."""

    def parts(breakdown: Breakdown) -> list[dict[str, Any]]:
        def amount(cause: Cause, x: Fraction) -> dict[str, Any]:
            return {"state": cause.state, "what": cause.what, "class": cause.kind, "ps": float(x)}

        return [amount(cause, x) for cause, x in breakdown.parts.items()]

    return {
        "title": answer.what.title,
        "metric": answer.what.metric,
        "scenario": answer.outcomes[0].name,
        "variants": [
            {
                "name": o.variant.name,
                "ps": float(o.breakdown.total) if o.breakdown else None,
                "parts": parts(o.breakdown) if o.breakdown else [],
                "reason": o.reason,
            }
            for o in answer.outcomes
        ],
        "claims": [
            {
                "variant": t.claim.variant,
                "of": t.claim.of,
                "printed": t.claim.printed,
                "ours": t.ours,
                "source": t.claim.source,
            }
            for t in answer.claims
        ],
    }
