"""The work of the commands: find the subjects, run them, print, write."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from rich.console import Console

from sim.errors import InputError, printable
from sim.inputs.documents import read_text
from sim.output.export import write_json, write_table
from sim.output.folder import REPORT, ResultKind, check_replaceable, replacing
from sim.output.html.page import add_report, check_report
from sim.output.options import OutputFolder, Pictures, Report
from sim.output.plots.style import Kind
from sim.output.report import plain_table
from sim.output.tables import Table
from sim.output.terminal import print_document, terminal
from sim.scenario import MachineName
from sim.studies.sweep.session import progress
from sim.studies.whatif.answers import described_answer, print_answer
from sim.studies.whatif.chance import chance, sentence
from sim.studies.whatif.compare import Comparison, compare
from sim.studies.whatif.named import Answer, answer, find, load, studies
from sim.studies.whatif.report import (
    described,
    described_sensitivity,
    print_comparison,
    print_sensitivity,
)
from sim.studies.whatif.sensitivity import Sensitivity, sensitivity
from sim.studies.whatif.subjects import Subject, document_of, subject
from sim.studies.whatif.trend import Horizon, Trend, TrendRates, trend
from sim.studies.whatif.trend_report import plot_trend, print_trend
from sim.studies.whatif.trend_report import table_of as trend_table
from workloads.model import Record

Number = Annotated[int, Meta(ge=0, le=2**31)]


class Pictured(Record, frozen=True, kw_only=True):
    """A subject with changes, as a picture. `set` holds texts KEY=VALUE."""

    on: MachineName | None = None
    set: Annotated[
        tuple[str, ...],
        Meta(
            description="KEY=VALUE of any key: hbm.bandwidth_GBps=*2, batch=16, "
            "matrix.TFLOPS.bf16=-50%, dtype=w4a16. A plain flag does the same: --batch 16"
        ),
    ] = ()
    size: Annotated[Kind, Meta(description="Size of the picture")] = "paper"


class TimelineOptions(Pictured, frozen=True, kw_only=True):
    """Options of `timeline`: which part of a run is drawn, and where the picture goes."""

    window: Annotated[
        str | None, Meta(description="Part of the run to draw, FROM:TO, e.g. 1ms:2.5ms")
    ] = None
    number: Annotated[
        Number | None,
        Meta(
            description="Number of the pass; if not given, the first that decodes, or the first",
            extra={"flag": "pass"},
        ),
    ] = None
    layer: Annotated[
        Number | None, Meta(description="A layer of the pass, with the names of its operators")
    ] = None
    device: Annotated[
        tuple[Number, ...], Meta(description="Devices to draw, with commas; all if not given")
    ] = ()
    critical: Annotated[bool, Meta(description="Draw the critical path")] = True
    picture: Annotated[
        Path,
        Meta(
            description="NAME.png or NAME.svg; both files are written",
            extra={"flag": "out", "short": "o"},
        ),
    ] = Path("timeline.png")


class Question(Pictured, frozen=True, kw_only=True):
    """Options of every question about a change."""

    out: OutputFolder = None
    pictures: Pictures = True


class Measured(Question, frozen=True, kw_only=True):
    """Options of a question about one metric."""

    metric: Annotated[
        str | None,
        Meta(
            description="tpot, ttft, e2e, makespan, pass:N; of serving e2e, ttft, tpot (mean, "
            ":p99, :request=N), makespan"
        ),
    ] = None


class CompareOptions(Measured, frozen=True, kw_only=True):
    """Options of `compare`."""

    both: Annotated[
        tuple[str, ...], Meta(description="KEY=VALUE of both", extra={"flag": "with"})
    ] = ()
    report: Report = False


class TrendOptions(Measured, frozen=True, kw_only=True):
    """Options of `trend`."""

    rates: TrendRates = msgspec.field(default_factory=TrendRates)
    years: Annotated[float, Meta(gt=0, le=100), Meta(description="How far to go, in years")] = 10.0
    step: Annotated[float, Meta(gt=0, le=100), Meta(description="Years between points")] = 1.0


class NamedOptions(Question, frozen=True, kw_only=True):
    """Options of `what-if run`."""

    model: Annotated[str | None, Meta(description="Another model")] = None


def compare_scenarios(first: str, second: str | None, options: CompareOptions) -> Comparison:
    """Explain the difference of two, or of one and itself with changes."""
    on, changes, both = options.on, options.set, options.both
    if second is None and not changes:
        raise InputError(
            "compare: give a second scenario or result, or what changes, e.g. --set "
            "hbm.bandwidth_GBps=*2 or --batch 16"
        )
    check_report(options.report, options.out)
    check_replaceable(options.out, COMPARE_RESULT, [first, second])
    before = subject(first, on, both)
    after = subject(second or first, on, [*both, *changes])
    if before.kind != after.kind:
        raise InputError(
            f"compare: {first} is a {before.kind}, {second} a {after.kind}; give two of one kind"
        )
    metric = options.metric or _shared(before, after)
    comparison = compare(before.break_down(metric), after.break_down(metric))
    names = names_of(before, after, changes if second is None else ())
    share = chance(before, after, comparison.before, comparison.after)
    document = {**described(comparison, names), "after_is_shorter_in": share}
    if options.out:
        with results(options.out, "compare") as stem:
            write_json(stem.with_suffix(".json"), document)
            write_table(table_of(comparison), stem.with_suffix(".csv"))
            if options.pictures:
                from sim.studies.whatif.plots import plot_waterfall

                plot_waterfall(comparison, names, stem, options.size)
        if options.report:
            from sim.studies.whatif.page import compare_page

            add_report(options.out, COMPARE_RESULT, compare_page)
    console = terminal()
    print_comparison(comparison, names, console)
    if share is not None and comparison.change.total:
        console.print(f"  {sentence(share)} of the errors of kernels")
    _written(options.out, console)
    print_document("compare", lambda: document)
    return comparison


def kind_of_answer(name: str) -> ResultKind:
    """What an answer may leave in its folder."""
    return ResultKind(name, tuple(f"{name}.{kind}" for kind in ("json", "csv", "png", "svg")))


COMPARE_RESULT = ResultKind("compare", (*kind_of_answer("compare").files, REPORT))


@contextmanager
def results(out: Path, name: str) -> Iterator[Path]:
    """`name` in a new folder whose files replace those of an earlier answer in `out`.

    They are written before anything is printed, since printing may fail.
    """
    with replacing(out, kind_of_answer(name)) as new:
        yield new / name


def _written(out: Path | None, console: Console) -> None:
    if out:
        console.print(f"  written to {out}/")


def sense_scenario(scenario: str, options: Measured) -> Sensitivity:
    """What a metric depends on."""
    check_replaceable(options.out, kind_of_answer("sensitivity"), [scenario])
    name, base = document_of(scenario, options.on, options.set)
    with progress("runs") as watch:
        result = sensitivity(name, base, options.metric, watch)
    if options.out:
        with results(options.out, "sensitivity") as stem:
            write_json(stem.with_suffix(".json"), described_sensitivity(result))
            if options.pictures:
                from sim.studies.whatif.tornado import plot_tornado

                plot_tornado(result, stem, options.size)
    console = terminal()
    print_sensitivity(result, console)
    _written(options.out, console)
    print_document("sensitivity", lambda: described_sensitivity(result))
    return result


def answer_what_if(name: str, options: NamedOptions) -> Answer:
    """Run a named what-if, or one's own file."""
    what = load(name)
    check_replaceable(options.out, kind_of_answer(Path(name).stem), [name])
    with progress("variants") as watch:
        answered = answer(
            what, model=options.model, on=options.on, changes=options.set, watch=watch
        )
    if options.out:
        with results(options.out, Path(name).stem) as stem:
            write_json(stem.with_name(f"{stem.name}.json"), described_answer(answered))
            if options.pictures:
                from sim.studies.whatif.answer_plot import plot_answer

                plot_answer(answered, stem, options.size)
    console = terminal()
    print_answer(answered, console)
    _written(options.out, console)
    print_document("what-if", lambda: described_answer(answered))
    return answered


def list_what_ifs() -> None:
    """Names with their questions."""
    table = plain_table("What if", "name", [])
    table.add_column("question")
    for name in studies():
        table.add_row(name, load(name).question)
    terminal().print(table)
    named = [{"name": name, "question": load(name).question} for name in studies()]
    print_document("what-ifs", lambda: {"what_ifs": named})


def show_what_if(name: str) -> None:
    """The file as it is, which one can copy and change."""
    text = printable(read_text(find(name)))
    terminal().out(text, highlight=False, end="")
    print_document("what-if-file", lambda: {"name": name, "toml": text})


def trend_scenarios(scenarios: Sequence[str], options: TrendOptions) -> Trend:
    """Carry a device forward."""
    check_replaceable(options.out, kind_of_answer("trend"), scenarios)
    with progress("workloads") as watch:
        result = trend(
            scenarios,
            options.on,
            options.set,
            options.metric,
            Horizon(options.rates, options.years, options.step),
            watch,
        )
    if options.out:
        with results(options.out, "trend") as stem:
            write_table(trend_table(result), stem.with_suffix(".csv"))
            if options.pictures:
                plot_trend(result, stem, options.size)
    console = terminal()
    print_trend(result, console)
    _written(options.out, console)
    print_document("trend", lambda: rows_of(trend_table(result)))
    return result


def rows_of(table: Table) -> dict[str, Any]:
    """A table as plain data: one object per row."""
    return {"rows": [dict(zip(table.columns, row, strict=True)) for row in table.rows]}


def _shared(before: Subject, after: Subject) -> str:
    """The usual metric of both."""
    return before.default if before.default == after.default else "makespan"


def names_of(before: Subject, after: Subject, changes: Sequence[str]) -> tuple[str, str]:
    """Both in one line; the second with its changes."""
    return before.name, f"the same with {', '.join(changes)}" if changes else after.name


def table_of(comparison: Comparison) -> Table:
    """A row a cause, picoseconds."""
    columns: dict[str, type] = {
        **dict.fromkeys(("state", "what", "class"), str),
        **dict.fromkeys(("before_ps", "after_ps", "change_ps"), float),
    }
    rows = comparison.rows("state", "what", "kind")
    return Table(
        columns, [(c.state, c.what, c.kind, float(a), float(b), float(x)) for c, a, b, x in rows]
    )
