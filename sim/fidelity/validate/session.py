"""What `memorywall validate` does: read, predict, print, write, and hold against a bound."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
import polars as pl
from msgspec import Meta

from sim.errors import InputError
from sim.fidelity.validate.formats import FORMATS, sources
from sim.fidelity.validate.points import MeasuredFile, PredictionBench
from sim.fidelity.validate.report import print_scores
from sim.fidelity.validate.runs import run_tables
from sim.fidelity.validate.score import scores, table
from sim.inputs.tables import USUAL, TableLimits
from sim.inputs.traces.files import Limits
from sim.output.cells import safe_frame
from sim.output.files import atomic_write
from sim.output.folder import ResultKind, check_replaceable, replacing
from sim.output.options import Output
from sim.output.terminal import print_document, terminal

VALIDATE_RESULT = ResultKind(
    "validate", ("scores.csv", "scores.parquet", "predicted.png", "predicted.svg")
)
BY = ["set", "quantity", "device", "dtype", "shapes", "regime"]


class ValidateOptions(Output, frozen=True, kw_only=True):
    """Options of `validate`."""

    device: Annotated[
        str | None, Meta(description="Predict for this device: a name of the catalogue or a TOML")
    ] = None
    max_median: Annotated[
        Annotated[float, Meta(ge=0, le=1e9)] | None,
        Meta(description="Exit with 1 if the median error of a set exceeds this, in %"),
    ] = None
    limit: Annotated[
        Annotated[int, Meta(ge=1, le=2**31)] | None,
        Meta(description="Rows per table, drawn with a fixed seed; all if not given"),
    ] = None
    detail: Annotated[bool, Meta(description="Show the errors by regime, too")] = True
    reading: TableLimits = msgspec.field(default_factory=TableLimits)


def validate_paths(paths: list[Path], options: ValidateOptions) -> bool:
    """Score measurements against the model. False if `options.max_median` is exceeded.

    After Ctrl-C the same, with the rows that were predicted.
    """
    console = terminal()
    device, out, limits = options.device, options.out, options.reading.limits
    check_replaceable(out, VALIDATE_RESULT, paths)
    bench = PredictionBench(device)
    predicted: list[tuple[MeasuredFile, pl.DataFrame]] = []
    unknown: list[Path] = []
    interrupted = False
    with progress_bar() as advance:
        try:
            for source in read(paths, device, options.limit, unknown, limits):
                predicted.append((source, points_of(source, bench, advance)))
                bench.forget()
        except KeyboardInterrupt:
            interrupted = True
    for path in unknown:
        console.print(f"  {path}: left out, its columns are of no known format")
    if not predicted and interrupted:
        raise KeyboardInterrupt
    if not predicted:
        raise InputError(
            f"{', '.join(map(str, paths))}: no table of a known format was read; known formats "
            f"are {', '.join(one.name for one in FORMATS)}, each recognised by its columns"
        )
    points = pl.concat([scored for _, scored in predicted])
    if out:  # files first: printing may fail
        write(out, predicted, points, options.table_format, options.pictures)
    print_scores(points, console, options.detail)
    if interrupted:
        console.print("  interrupted: the scores are those of the tables that were read")
    if out:
        console.print(f"  written to {out}/")
    print_document("validate", lambda: {"scores": scores(points, BY).to_dicts()})
    if interrupted:
        raise KeyboardInterrupt
    return within(points, options.max_median, console)


def read(
    paths: list[Path],
    device: str | None,
    limit: int | None,
    unknown: list[Path],
    limits: Limits = USUAL,
) -> Iterator[MeasuredFile]:
    """Every table with its format; the others are put into `unknown`. `limit` rows per table are
    drawn evenly over it."""
    for path, frame, form in sources(paths, limits):
        if frame is None:
            for source in run_tables(path, device, limits):
                whole_run = source.path.name == "requests.csv"  # its means are of all of them
                yield source if whole_run else drawn(source, limit)
        elif form is None:
            unknown.append(path)
        else:
            yield drawn(MeasuredFile(path, form, frame), limit)


def drawn(source: MeasuredFile, limit: int | None) -> MeasuredFile:
    """A source with `limit` of its rows at most, in their order."""
    frame = source.frame
    if not limit or len(frame) <= limit:
        return source
    frame = frame.with_row_index("drawn").sample(limit, seed=42).sort("drawn").drop("drawn")
    return msgspec.structs.replace(source, frame=frame)


def points_of(source: MeasuredFile, bench: PredictionBench, advance: Any) -> pl.DataFrame:
    """Predict every row of a table."""

    def counted() -> Iterator[Any]:
        for number, point in enumerate(source.form.read(source, bench)):
            if not number % 256:
                advance(str(source.path), number, len(source.frame))
            yield point

    return table(counted())


def within(points: pl.DataFrame, most: float | None, console: Any) -> bool:
    """Whether every set's median error is at most `most` per cent."""
    if most is None:
        return True
    by_set = scores(points, ["set", "device", "dtype"])
    worst = by_set.filter(pl.col("median_pct").is_null() | (pl.col("median_pct") > most))
    for row in worst.iter_rows(named=True):
        value = row["median_pct"]
        said = "no row was predicted" if value is None else f"the median error is {value:.1f} %"
        console.print(
            f"memorywall validate: {row['set']} on {row['device']} in {row['dtype']}: {said}, "
            f"more than --max-median {most:g}"
        )
    return not len(worst)


def write(
    out: Path,
    predicted: list[tuple[MeasuredFile, pl.DataFrame]],
    points: pl.DataFrame,
    table_format: str,
    pictures: bool,
) -> None:
    """Rows with their predictions (one table per source), the scores and the picture."""
    with replacing(out, VALIDATE_RESULT) as new:
        known: dict[str, int] = {}
        for source, scored in predicted:
            stem = "-".join(source.path.with_suffix("").parts[-2:])
            known[stem] = known.get(stem, 0) + 1
            name = stem if known[stem] == 1 else f"{stem}-{known[stem]}"
            rows = renamed(source.frame, scored.columns).with_row_index("row")
            rows = rows.with_columns(pl.col("row").cast(pl.Int64))
            save_table(rows.join(scored, on="row", how="right"), new / name, table_format)
        save_table(scores(points, BY), new / "scores", table_format)
        if pictures and points["error"].is_not_null().any():
            from sim.fidelity.validate.plots import plot_sets

            plot_sets(points, new / "predicted")


def renamed(frame: pl.DataFrame, taken: Iterable[str]) -> pl.DataFrame:
    """A frame whose columns have none of the names that are taken: `source_` goes before those."""
    names = {*taken, *frame.columns}
    new: dict[str, str] = {}
    for column in taken:
        if column in frame.columns:
            name = f"source_{column}"
            while name in names:
                name = f"source_{name}"
            names.add(name)
            new[column] = name
    return frame.rename(new)


def save_table(frame: pl.DataFrame, stem: Path, table_format: str) -> None:
    """Whole or not at all."""
    path = stem.with_name(f"{stem.name}.{table_format}")
    with atomic_write(path) as temporary:
        if table_format == "parquet":
            frame.write_parquet(temporary)
        else:
            safe_frame(frame).write_csv(temporary)


@contextmanager
def progress_bar() -> Iterator[Any]:
    """A bar a table on the error stream, if that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    bar = Bar(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    jobs: dict[str, Any] = {}

    def advance(what: str, done: int, total: int) -> None:
        if what not in jobs:
            for job in jobs.values():
                bar.update(job, visible=False)
            jobs[what] = bar.add_task(Path(what).name, total=total)
        bar.update(jobs[what], completed=done)

    with bar:
        yield advance
