"""Help: every command and option is shown whole at 80 columns, and its examples run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from typing import Any

import pytest
import typer
from commands import COMMAND, command

from sim.cli.app import app
from sim.cli.help import COMMANDS, EXAMPLES, OPTIONS

TREE: Any = typer.main.get_command(app)
LOCAL = (
    "measured/",
    "gemm.csv",
    "benchmarks.csv",
    "measure --",
    "memorywall report",
)  # need files or another package


def commands(group: Any, path: str = "") -> dict[str, Any]:
    """Every command by its path."""
    found = {}
    for name, one in group.commands.items():
        here = f"{path} {name}".strip()
        found[here] = one
        found |= commands(one, here) if hasattr(one, "commands") else {}
    return found


ALL = commands(TREE)


def shown(path: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The help of a command at 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    context = TREE.make_context("memorywall", [], resilient_parsing=True)
    for name in path.split():
        context = context.command.commands[name].make_context(
            name, [], parent=context, resilient_parsing=True
        )
    text: str = context.get_help()
    return text


@pytest.mark.parametrize("path", ALL)
def test_help_shows_every_option_whole(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(path, monkeypatch)
    examples = text.partition("\nExamples:\n")[2]
    body = text.removesuffix(examples)
    assert max(map(len, body.splitlines())) <= 80
    assert "…" not in text
    for parameter in ALL[path].get_params(TREE.make_context("m", [], resilient_parsing=True)):
        for name in parameter.opts:
            assert re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text), name


def test_commands_stand_in_the_order_of_use() -> None:
    names = [name for group in COMMANDS.values() for name in group]
    assert sorted(names) == sorted(TREE.commands)
    help_text = TREE.get_help(TREE.make_context("memorywall", [], resilient_parsing=True))
    places = [help_text.index(f"\n  {name} ") for name in names]
    assert places == sorted(places)


def test_every_group_of_options_has_a_title() -> None:
    for one in ALL.values():
        context = TREE.make_context("m", [], resilient_parsing=True)
        panels = {getattr(p, "rich_help_panel", None) or "" for p in one.get_params(context)}
        assert panels <= set(OPTIONS)


def test_every_command_has_two_examples() -> None:
    leaves = {path for path in ALL if " " not in path}
    assert leaves <= set(EXAMPLES)
    assert all(len(lines) == 2 for lines in EXAMPLES.values())


@pytest.mark.slow
@pytest.mark.parametrize("line", sorted({line for lines in EXAMPLES.values() for line in lines}))
def test_an_example_runs(line: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if any(word in line for word in LOCAL):
        pytest.skip("the example needs files of the user, or PyTorch")
    monkeypatch.chdir(tmp_path)
    process = command(*shlex.split(line)[1:])
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("run llama-3.1-", {"llama-3.1-8b", "llama-3.1-70b", "llama-3.1-405b"}),
        ("serve gpt2-", {"gpt2-medium", "gpt2-large", "gpt2-xl"}),
        ("run gpt2 --on hgx-h1", {"hgx-h100"}),
        ("sweep gpt2 --on l4", {"l4", "l40s"}),
        ("traces show azure-conv", {"azure-conv-2023-sample"}),
        ("what-if run quantised-", {"quantised-kv", "quantised-weights"}),
    ],
)
def test_the_shell_completes_names(words: str, names: set[str]) -> None:
    count = len(words.split())
    process = subprocess.run(
        [COMMAND],
        env={
            **os.environ,
            "_MEMORYWALL_COMPLETE": "complete_bash",
            "COMP_WORDS": f"memorywall {words}",
            "COMP_CWORD": str(count),
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert set(process.stdout.split()) == names
