"""The attack: thousands of bad inputs, each answered by a sentence or by a right result.

The default run takes a part of them; the slow one takes all, and holds the README of `sim/inputs`
to their counts.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from attacks import KINDS, Counts, earlier, judge, total

README = Path(__file__).parents[1] / "sim" / "inputs" / "README.md"
PART = 29  # of so many attempts, the default run makes one


def attack(kind: str, folder: Path, every: int) -> tuple[Counts, list[str]]:
    """Counts of one attempt in `every`, and what went wrong."""
    scratch, out = folder / "scratch", folder / "out"
    scratch.mkdir()
    out.mkdir()
    earlier(out)
    counts, wrong = [Counts()], []
    for number, attempt in enumerate(KINDS[kind](scratch)):
        if number % every == 0:
            count, words = judge(attempt, out)
            counts.append(count)
            wrong += [words] if words else []
    return total(counts), wrong


@pytest.mark.parametrize("kind", KINDS)
def test_some_bad_inputs_of_each_kind_are_answered(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    counts, wrong = attack(kind, tmp_path, PART)
    assert not wrong
    assert counts.tried == counts.refused + counts.accepted > 10


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_bad_input_is_answered_and_the_readme_has_the_counts(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    counts, wrong = attack(kind, tmp_path, 1)
    assert not wrong
    row = re.search(rf"^\| {kind} \|(.*)\|$", README.read_text(encoding="utf-8"), re.MULTILINE)
    right = f"| {kind} | {' | '.join(f'{n:,}' for n in counts)} |"
    assert row, right
    stated = Counts(*(int(cell.replace(",", "")) for cell in row[1].split("|")))
    assert stated == counts, right
