"""What slices say of operators, layers and jobs, as JSON without its braces."""

from __future__ import annotations

from collections.abc import Sequence

from sim.account.timeline import RunRecord, Span
from sim.mapping.priced import Step
from sim.output.perfetto.chrome import micros
from sim.states import STATES


class StepArguments:
    """What is said of a step, encoded once: equal layers and passes share their steps."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[str, str]] = {}

    def operator(self, span: Span, step: Step) -> str:
        """Of the slice of an operator: what it is, what bounds it, its amounts and its states."""
        states = ",".join(
            f'"{s}_us":{micros(t)}' for s, t in zip(STATES, span.states, strict=True) if t > 0
        )
        if span.hidden:
            states += f'{"," if states else ""}"hidden_us":{micros(span.hidden)}'
        return f"{place(span)},{self._of(step)[0]},{states}"

    def state(self, span: Span) -> str:
        """Of the slice of a state: whose time it is. The amounts are of the whole operator, so
        they have names of their own and are not added up by mistake."""
        if span.step is None or span.placed is None:
            return place(span)
        return f'"layer":{span.placed.layer},{self._of(span.step)[1]}'

    def _of(self, step: Step) -> tuple[str, str]:
        if id(step) not in self.known:
            flops = step.cost.flops if step.cost else 0
            if step.cost:
                moved, intensity = step.cost.hbm_bytes, flops / max(1, step.cost.hbm_bytes)
                kind, sizes = "hbm", f'"hbm_bytes":{moved},"intensity":{intensity:.4g}'
                if step.op and step.op.parts:
                    sizes += f',"parts":"{" ".join(step.op.parts)}"'
            else:
                assert step.exchange is not None
                kind, moved = "link", step.exchange.nbytes
                sizes = f'"link_bytes":{moved},"algorithm":"{step.exchange.algorithm}"'
            self.known[id(step)] = (
                f'"class":"{step.kind}","bound":"{step.bound}","flops":{flops},{sizes}',
                f'"operator":"{step.name}","bound":"{step.bound}","operator_flops":{flops},'
                f'"operator_{kind}_bytes":{moved}',
            )
        return self.known[id(step)]


def place(span: Span) -> str:
    """Where in the run a span lies."""
    text = f'"phase":"{span.phase}","pass":{span.number},"micro_batch":{span.micro}'
    if span.placed:
        text += f',"stack":"{span.placed.stack}","layer":{span.placed.layer}'
    return text


def job(record: RunRecord, mine: Sequence[Span], devices: int) -> str:
    """Of a micro-batch in a stage: how much it is, and on how many devices."""
    first, plan = mine[0], record.compiled.plan
    share = plan.passes[first.number].batch.split(plan.split.dp)[first.replica]
    batch = share.split(plan.split.microbatches)[first.micro]
    layers = {(s.placed.stack, s.placed.layer) for s in mine if s.placed and s.placed.layer >= 0}
    return (
        f'"phase":"{first.phase}","pass":{first.number},"micro_batch":{first.micro},'
        f'"sequences":{batch.size},"tokens":{batch.tokens + batch.source_tokens},'
        f'"layers":{len(layers)},"operators":{len(mine)},"devices":{devices}'
    )
