"""`memorywall report`: a page for the browser from a result folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sim.errors import InputError

if TYPE_CHECKING:
    from sim.output.folder import ResultKind
    from sim.output.html.page import Page

KINDS = "run, serve, sweep or compare"


def report(
    folder: Annotated[Path, typer.Argument(help=f"A result folder of {KINDS}")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file; if not given: report.html in it")
    ] = None,
) -> None:
    """Make one HTML file of a result, to zoom, sort and filter in a browser without a network."""
    from sim.output.files import atomic_write, check_file
    from sim.output.folder import REPORT, check_whole
    from sim.output.html.page import add_report, check_installed, report_of
    from sim.output.manifest import Manifest
    from sim.output.terminal import print_document, terminal

    check_installed()
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name a result folder of {KINDS}")
    check_whole(folder)
    kind, make = _only(folder)
    if out is None or out.resolve() == (folder / REPORT).resolve():
        out = add_report(folder, kind, make)
    else:
        if owner := Manifest.read(out.parent).owner_of(out.name):
            raise InputError(f"--out {out}: it belongs to a result of `{owner}`; choose another")
        check_file(out)
        content = report_of(folder, make)
        with atomic_write(out) as path:
            path.write_bytes(content)
    terminal().print(f"  written to {out}")
    print_document("report", lambda: {"file": str(out)})


def _only(folder: Path) -> tuple[ResultKind, Callable[[Path], Page]]:
    """The kind of the one result in a folder, and what makes its page. Raises InputError."""
    found = list(_results(folder))
    if not found:
        raise InputError(f"{folder}: holds no result of {KINDS}")
    if len(found) > 1:
        names = " and ".join(kind.command for kind, _ in found)
        raise InputError(f"{folder}: holds results of {names}; a report shows one of a folder")
    return found[0]


def _results(folder: Path) -> Iterator[tuple[ResultKind, Callable[[Path], Page]]]:
    from sim.output.reading import table_path

    if (folder / "resolved.json").is_file():
        from sim.output.export import RUN_RESULT
        from sim.output.html.run_page import run_page

        yield RUN_RESULT, run_page
    if table_path(folder, "requests"):
        from sim.serve.output import SERVE_RESULT
        from sim.serve.page import serve_page

        yield SERVE_RESULT, serve_page
    if table_path(folder, "sweep"):
        from sim.studies.sweep.page import sweep_page
        from sim.studies.sweep.session import SWEEP_RESULT

        yield SWEEP_RESULT, sweep_page
    if (folder / "compare.json").is_file():
        from sim.studies.whatif.page import compare_page
        from sim.studies.whatif.session import COMPARE_RESULT

        yield COMPARE_RESULT, compare_page
