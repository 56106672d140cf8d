"""The pictures of the pages show what the program computes now: their data, not their pixels."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import pictures  # noqa: E402

WRITTEN = json.loads(pictures.DATA.read_text(encoding="utf-8"))


def assert_same(ours: Any, written: Any, where: str) -> None:
    """Equal, floats to eight digits; the version that computed them does not count."""
    if isinstance(written, dict):
        assert isinstance(ours, dict), where
        ours, written = (
            {key: value for key, value in one.items() if key != "memorywall"}
            for one in (ours, written)
        )
        assert list(ours) == list(written), where
        for key, value in written.items():
            assert_same(ours[key], value, f"{where}: {key}")
    elif isinstance(written, list):
        assert len(ours) == len(written), where
        for number, value in enumerate(written):
            assert_same(ours[number], value, f"{where}[{number}]")
    elif isinstance(written, float) or isinstance(ours, float):
        assert ours == pytest.approx(written, rel=1e-8), where
    else:
        assert ours == written, where


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if recipe.slow else [])
        for name, recipe in pictures.RECIPES.items()
    ],
)
def test_a_picture_shows_what_is_computed_now(name: str, tmp_path: Path) -> None:
    recipe, written = pictures.RECIPES[name], WRITTEN[name]
    assert written["how"] == recipe.how
    data = json.loads(json.dumps(recipe.make(tmp_path / "result", draw=False)))
    again = f"`.venv/bin/python scripts/pictures.py {name}` draws it again"
    assert_same(data, written["data"], f"{name} ({again})")


def test_every_picture_was_drawn_with_its_data() -> None:
    found = {name: digest for one in WRITTEN.values() for name, digest in one["pictures"].items()}
    assert found == {p.name: pictures.digest(p) for p in pictures.FOLDER.glob("*.png")}
    assert list(WRITTEN) == [*pictures.RECIPES, *pictures.MEASURED]


def test_small_data_are_kept_and_large_ones_digested() -> None:
    assert pictures.kept({"a": [1, 0.1 + 0.2]}) == {"a": [1, 0.3]}
    large = [[str(n), "x" * 9] for n in range(1000)]
    digested = pictures.kept(large)
    assert digested["entries"] == 1000
    assert digested != pictures.kept([*large[1:], large[0]])
