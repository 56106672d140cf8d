"""The READMEs of the repository as pages of blocks, and the commands in them run.

The word behind the fence says what a block is:

    sh        commands, one per line; a comment begins with #
    console   `$ command`, and below it what the command prints; `...` stands for lines left out
    python    a program
    toml, json, csv   a file, which the commands of the page may name
    text      a diagram, or what a long benchmark printed; not checked

A comment in front of a block, `<!-- check: ... -->`, says how it is checked:

    slow              it runs only with the slow tests
    flags: REASON     it cannot run on every machine: only its flags are parsed
    file NAME         it is written to NAME before the commands of the page run

`.venv/bin/python -m tests.readmes` writes what the commands print now into the console blocks.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from tests.commands import in_process

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("sh", "console", "python", "toml", "json", "csv", "text")
GAP = "..."
_MARK = re.compile(r"<!-- check: (slow|flags: .+|file [\w./-]+) -->")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block of a page; `line` is that of its opening fence, from 1."""

    page: str
    line: int
    kind: str
    mark: str
    text: str

    @property
    def slow(self) -> bool:
        return self.mark == "slow"

    @property
    def flags_alone(self) -> bool:
        return self.mark.startswith("flags: ")

    @property
    def file(self) -> str:
        """The name of the file that the block holds, or ""."""
        return self.mark.removeprefix("file ") if self.mark.startswith("file ") else ""

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Every README that belongs to the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*README.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0:
        return sorted(ROOT / name for name in listed.stdout.split())
    hidden = (".venv", "build", "out")
    return sorted(
        p for p in ROOT.rglob("README.md") if not set(hidden) & set(p.relative_to(ROOT).parts)
    )


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    found = []
    lines = page.read_text(encoding="utf-8").splitlines()
    opened, before = 0, ""
    for number, line in enumerate(lines, 1):
        if not line.lstrip().startswith("```"):
            if not opened and line.strip():
                before = line.strip()
            continue
        if not opened:
            opened = number
            continue
        mark = _MARK.fullmatch(before)
        found.append(
            Block(
                page=str(page.relative_to(ROOT)),
                line=opened,
                kind=lines[opened - 1].strip().removeprefix("```"),
                mark=mark[1] if mark else "",
                text="\n".join(lines[opened : number - 1]),
            )
        )
        opened, before = 0, ""
    if opened:
        raise ValueError(f"{page}:{opened}: the block has no end")
    return found


def commands(block: Block) -> list[tuple[list[str], list[str]]]:
    """The words of each command of a block, and the lines that follow it."""
    text = block.text.replace("\\\n", " ")
    found: list[tuple[list[str], list[str]]] = []
    for line in text.splitlines():
        if block.kind == "console" and not line.startswith("$ "):
            if not found:
                raise ValueError(f"{block.place}: a console block begins with `$ command`")
            found[-1][1].append(line)
        elif words := shlex.split(line.removeprefix("$ "), comments=True):
            found.append((words, []))
    return found


def arguments(words: Sequence[str]) -> list[str] | None:
    """The arguments of memorywall in a command; None: another program."""
    if words[0] in ("memorywall", ".venv/bin/memorywall"):
        return list(words[1:])
    if words[0] == "scripts/run":
        return list(words[1:]) or ["tour", "--out", "out"]
    return None


def call(words: Sequence[str]) -> tuple[int, str, str]:
    """Exit code, output and errors of memorywall, in this process."""
    columns = os.environ.pop("COLUMNS", None)  # pages show what goes into a pipe
    try:
        done = in_process(*words)
    finally:
        if columns is not None:
            os.environ["COLUMNS"] = columns
    return done.returncode, done.stdout, done.stderr


def parse(words: Sequence[str]) -> None:
    """Parse the flags of a command without running it; raises a usage error."""
    from sim.cli.app import app

    command: Any = typer.main.get_command(app)
    context, rest = None, list(words)
    while hasattr(command, "commands"):
        context = command.make_context("memorywall", rest[:1], parent=context)
        _, command, rest = command.resolve_command(context, rest)
    command.make_context(command.name, rest, parent=context)


def write_files(page: Path) -> None:
    """Write the files of a page into the current folder."""
    for block in blocks(page):
        if block.file:
            path = Path(block.file)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text + "\n", encoding="utf-8")


def tidy(lines: Sequence[str]) -> list[str]:
    """Lines without the spaces at their ends, and without empty ones."""
    return [line.rstrip() for line in lines if line.strip()]


def chunks(lines: Sequence[str]) -> list[list[str]]:
    """What stands between the gaps."""
    found: list[list[str]] = [[]]
    for line in lines:
        if line == GAP:
            found.append([])
        else:
            found[-1].append(line)
    return found


def difference(expected: Sequence[str], printed: Sequence[str]) -> str:
    """ "" if the lines of a page are what was printed, gaps aside; else how they differ."""
    wanted, got = tidy(expected), tidy(printed)
    parts = chunks(wanted)
    at = 0
    for number, part in enumerate(parts):
        places = range(at, len(got) - len(part) + 1)
        if number == 0:
            places = places[:1]
        if number == len(parts) - 1 and part:
            places = range(len(got) - len(part), len(got) - len(part) + 1)
        found = next((p for p in places if got[p : p + len(part)] == part), None)
        if found is None or found < at:
            return "\n".join(difflib.unified_diff(wanted, got, "the page", "printed", lineterm=""))
        at = found + len(part)
    return ""


def renewed(expected: Sequence[str], printed: Sequence[str]) -> list[str]:
    """What a page shows now: chunks of as many lines, each found by its first line."""
    got, parts = tidy(printed), chunks(tidy(expected))
    if len(parts) == 1:
        return got
    lines: list[str] = []
    at = 0
    for number, part in enumerate(parts):
        lines += [GAP] if number else []
        if part and number:
            scores = [_alike(part[0], line) for line in got[at:]]
            at += scores.index(max(scores))
        lines += got[at : at + len(part)]
        at += len(part)
    return lines


def _alike(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, a, b, autojunk=False).ratio()


@contextlib.contextmanager
def folder_of(page: Path) -> Iterator[Path]:
    """A temporary current folder with the files of a page."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            write_files(page)
            yield Path(folder)
        finally:
            os.chdir(before)


def renew(page: Path) -> None:
    """Write what commands print now into the console blocks of a page."""
    lines = page.read_text(encoding="utf-8").splitlines()
    for block in reversed(blocks(page)):
        if block.kind != "console" or block.flags_alone:
            continue
        new: list[str] = []
        with folder_of(page):
            sources = iter(_sources(block.text))
            for words, expected in commands(block):
                given = arguments(words)
                if given is None:
                    raise ValueError(f"{block.place}: {words[0]} is not memorywall")
                code, out, err = call(given)
                if code:
                    raise ValueError(f"{block.place}: {err}")
                new += [*next(sources), *renewed(expected, out.splitlines())]
        end = block.line + len(block.text.splitlines())
        lines[block.line : end] = new
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _sources(text: str) -> list[list[str]]:
    """The lines of each command as they stand."""
    found: list[list[str]] = []
    goes_on = False
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append([line])
        elif goes_on:
            found[-1].append(line)
        goes_on = (line.startswith("$ ") or goes_on) and line.endswith("\\")
    return found


if __name__ == "__main__":
    for name in sys.argv[1:] or pages():
        renew(ROOT / name)
