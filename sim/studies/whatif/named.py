"""Named what-ifs: a scenario, the changes of its variants, and published claims about it.

One TOML each in `sim/studies/whatif/studies`; a file of your own works wherever a name does.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from sim.errors import Infeasible, InputError, hint, quoted
from sim.inputs.documents import checked, convert, read_document
from sim.output.plots.style import title
from sim.scenario import Resolved
from sim.studies.paper.convention import counted, grouped
from sim.studies.sweep.changes import changed, from_value
from sim.studies.sweep.study import Watch
from sim.studies.whatif.evaluate import evaluate
from sim.studies.whatif.parts import Breakdown
from sim.studies.whatif.question import Claim, Variant, WhatIf
from sim.studies.whatif.subjects import RunSubject, subject_of
from workloads.batch import Batch


class VariantResult(msgspec.Struct, frozen=True):
    """A variant that was run; without a breakdown, why it is not possible."""

    variant: Variant
    name: str
    breakdown: Breakdown | None
    resolved: Resolved | None
    reason: str = ""


class CheckedClaim(msgspec.Struct, frozen=True):
    """A claim with our number, None where its variant is not possible."""

    claim: Claim
    ours: float | None


class Answer(msgspec.Struct, frozen=True):
    """What came out. `customised` says that model, machine or keys are not the file's."""

    what: WhatIf
    outcomes: tuple[VariantResult, ...]
    claims: tuple[CheckedClaim, ...]
    customised: bool

    @property
    def base(self) -> Breakdown | None:
        return self.outcomes[0].breakdown

    def base_of(self, outcome: VariantResult) -> Breakdown | None:
        """What a variant is compared with."""
        by_name = {o.variant.name: o.breakdown for o in self.outcomes}
        return by_name.get(outcome.variant.against, self.base)

    def speed_up(self, outcome: VariantResult) -> float | None:
        """How many times as fast as that."""
        base = self.base_of(outcome)
        if base is None or outcome.breakdown is None or not outcome.breakdown.total:
            return None
        return float(base.total / outcome.breakdown.total)


def studies() -> dict[str, Path]:
    """Name -> file of all named what-ifs."""
    root = Path(str(resources.files("sim.studies.whatif"))) / "studies"
    return {path.stem: path for path in sorted(root.glob("*.toml"))}


def find(name: str) -> Path:
    """The file of a name or path. Raises InputError."""
    known = studies()
    if name in known:
        return known[name]
    path = Path(name)
    if path.suffix == ".toml" and path.is_file():
        return path
    raise InputError(f"no what-if is called {quoted(name)}{hint(name, known)}")


def load(name: str) -> WhatIf:
    """A what-if by name or by path. Raises InputError."""
    path = find(name)
    return convert(read_document(path), WhatIf, str(path))


def answer(
    what: WhatIf,
    *,
    model: str | None = None,
    on: str | None = None,
    changes: Sequence[str] = (),
    watch: Watch | None = None,
) -> Answer:
    """Run every variant; with another model, machine or other keys where they are given."""
    base = dict(what.scenario)
    base |= {key: value for key, value in (("model", model), ("on", on)) if value}
    base = changed("run", {"allow_oom": True, **base}, changes)
    outcomes = []
    for done, variant in enumerate(what.variants, 1):
        outcomes.append(_outcome(base, variant, what.metric))
        if watch:
            watch(done, len(what.variants))
    if outcomes[0].breakdown is None:
        raise InputError(f"{what.title}: {outcomes[0].reason}")
    by_name = {o.variant.name: o for o in outcomes}
    own_subject = bool(model or on or changes)
    checked = (
        []
        if own_subject
        else [CheckedClaim(c, _ours(c, by_name, outcomes[0])) for c in what.claims]
    )
    return Answer(what, tuple(outcomes), tuple(checked), own_subject)


def _outcome(base: dict[str, Any], variant: Variant, metric: str) -> VariantResult:
    try:
        texts = [f"{key}={from_value(value)}" for key, value in variant.changes.items()]
        document = changed("run", base, texts)
        if variant.area:
            one = subject_of("run", document)
            assert isinstance(one, RunSubject)
            area, device = variant.area, one.resolved.machine.device
            moved = checked(f"variant {variant.name}", lambda: area.changes(device))
            document = changed("run", document, moved)
        subject = subject_of("run", document)
        assert isinstance(subject, RunSubject)
        resolved = subject.resolved
        evaluated = evaluate(resolved, document, variant, metric)
    except (Infeasible, InputError) as error:
        return VariantResult(variant, variant.name, None, None, str(error))
    return VariantResult(variant, title(resolved), evaluated, resolved)


def _ours(claim: Claim, outcomes: dict[str, VariantResult], first: VariantResult) -> float | None:
    one, other = outcomes[claim.variant], outcomes.get(claim.against, first)
    if one.breakdown is None or one.resolved is None or other.breakdown is None:
        return None
    ratio = one.breakdown.total / other.breakdown.total
    if claim.of == "speed-up":
        return float(1 / ratio)
    if claim.of == "less time":
        return float(1 - ratio)
    if claim.of == "as long as":
        return float(ratio)
    r, size = one.resolved, one.resolved.passes[0].batch.size
    length = r.context
    if r.model.decoder is None:
        counts = grouped(counted(r.model, r.passes[0].batch, r.precision))["Total"]
    else:
        step = counted(r.model, Batch.decode(size, length // 2), r.precision)
        counts = grouped(step, length)["Total"]
    return counts.intensity if claim.of == "intensity" else counts.mops / 1e9
