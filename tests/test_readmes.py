"""Every README: its commands run and print what stands below them, and its links resolve."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.readmes import (
    KINDS,
    ROOT,
    Block,
    arguments,
    blocks,
    call,
    commands,
    difference,
    folder_of,
    pages,
    parse,
    renewed,
)

PAGES = pages()
ALL = [block for page in PAGES for block in blocks(page)]
ROOM = ("sim", "sim/serve", "sim/studies/sweep", "sim/studies/whatif", "sim/studies/paper")
ROOM += ("sim/fidelity", "sim/inputs", "sim/output", "workloads", "hw_models", "scripts")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def params(*kinds: str, flags_alone: bool = False) -> list[object]:
    """Blocks of some kinds as parameters, the slow ones marked."""
    return [
        pytest.param(b, id=b.place, marks=[pytest.mark.slow] if b.slow else [])
        for b in ALL
        if b.kind in kinds and b.flags_alone == flags_alone
    ]


def test_every_package_has_its_page() -> None:
    assert {name_of(p.parent) for p in PAGES} == {".", *ROOM}
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 200


@pytest.mark.parametrize("block", ALL, ids=lambda b: b.place)
def test_a_block_says_what_it_is(block: Block) -> None:
    assert block.kind in KINDS
    assert bool(block.file) == (block.kind in ("toml", "json", "csv"))


@pytest.mark.parametrize("block", params("sh", "console"))
def test_commands_run_and_print_what_the_page_shows(block: Block) -> None:
    with folder_of(ROOT / block.page):
        for words, expected in commands(block):
            given = arguments(words)
            assert given is not None, f"{words[0]} is not memorywall: mark the block `flags: ...`"
            code, out, err = call(given)
            assert code == 0, err
            if block.kind == "console":
                differs = difference(expected, out.splitlines())
                assert not differs, f"{differs}\n`.venv/bin/python -m tests.readmes` renews it"


@pytest.mark.parametrize("block", params("sh", "console", flags_alone=True))
def test_flags_of_commands_that_cannot_run_everywhere(block: Block) -> None:
    assert len(block.mark.partition(": ")[2]) >= 8, "the reason"
    for words, _ in commands(block):
        given = arguments(words)
        if given is not None:
            parse(given)
            continue
        files = [word for word in words if word.startswith("scripts/")]
        files += [word.replace(".", "/") + ".py" for word in words if word.startswith("tests.")]
        assert files, words
        assert all((ROOT / file).exists() for file in files)


@pytest.mark.parametrize("block", params("python"))
def test_a_program_runs(block: Block) -> None:
    with folder_of(ROOT / block.page):
        subprocess.run([sys.executable, "-c", block.text], check=True, timeout=120)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in LINK.findall(prose(page)):
        if target.startswith(("https://", "http://")):
            continue
        file, _, heading = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        assert path.exists(), target
        assert path.is_relative_to(ROOT), target
        if heading:
            assert heading in headings(path), target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_fits_on_a_screen_and_stays_inside(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for line in prose(page).splitlines():
        assert len(line) <= 120 or "](" in line, line
    for block in blocks(page):
        if block.kind not in ("console", "text"):  # these are as wide as the program prints
            assert all(len(line) <= 120 for line in block.text.splitlines()), block.place
    assert "../shared" not in text
    if page.parent != ROOT:
        assert text.count("\n## Glossary\n") == 1
        assert text.rpartition("\n## ")[2].startswith("Glossary\n")


def test_every_picture_is_shown() -> None:
    shown = {
        (page.parent / target).resolve()
        for page in PAGES
        for target in LINK.findall(prose(page))
        if target.endswith(".png")
    }
    assert shown == set((ROOT / ".pictures").glob("*.png"))


def prose(page: Path) -> str:
    """A page without its blocks."""
    return re.sub(r"(?ms)^ *```.*?^ *```", "", page.read_text(encoding="utf-8"))


def headings(page: Path) -> set[str]:
    """The names by which links reach the headings of a page."""
    titles = re.findall(r"(?m)^#+ (.+)$", prose(page))
    return {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}


def test_a_gap_stands_for_lines_left_out() -> None:
    printed = ["a 1", "", "b 2 ", "c 3", "d 4"]
    assert not difference(["a 1", "b 2", "c 3", "d 4"], printed)
    assert not difference(["a 1", "...", "c 3", "..."], printed)
    assert not difference(["...", "d 4"], printed)
    assert "-c 4" in difference(["a 1", "...", "c 4", "..."], printed)
    assert difference(["a 1", "b 2"], printed)
    assert difference(["b 2", "..."], printed)
    assert renewed(["a 0", "...", "c 0", "..."], printed) == ["a 1", "...", "c 3", "..."]
    assert renewed(["a 0"], printed) == ["a 1", "b 2", "c 3", "d 4"]
