"""Every option of every command, with values that it cannot take."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from msgspec import inspect as fields

from attacks.commands import COMMANDS, Attempt
from sim.cli.app import app

NO_NUMBERS = (
    "",
    " ",
    "nan",
    "inf",
    "-inf",
    "1_0",
    "１２",
    "٣",
    "0x10",
    "1e999",
    "9" * 5000,
    "x",
    "--",
)
OUT_OF_RANGE = ("-1", "1e30", "99999999999999999999", "0.5.5", "1,5", "-0x1")
NO_WORDS = ("", "nonsense", "x" * 5000, "\x1b[2J", "' OR 1=1", "$(reboot)", "é" * 300)
NO_FOLDERS = ("", "x" * 5000, "/dev/null", "/dev/null/below", "/proc/nothing")


def flags(folder: Path) -> Iterator[Attempt]:
    """Every option of every command, with values that it cannot take."""
    group = typer.main.get_command(app)
    for name, base in COMMANDS.items():
        command: Any = group.commands[name]  # type: ignore[attr-defined]
        command.get_params(command.context_class(command))
        for _, setting in command.settings.values():
            for value in _bad(setting.info):
                words = (*base, f"--{setting.flag}={value}")
                yield Attempt(f"{name} --{setting.flag} {value[:20]!r}", words)
        for odd in ("--nonsense", "--nonsense=1", "-z", "extra"):
            yield Attempt(f"{name} {odd}", (*base, odd))


def _bad(info: fields.Type) -> tuple[str, ...]:
    if isinstance(info, fields.BoolType):
        return ("1", "maybe")
    if isinstance(info, fields.IntType | fields.FloatType):
        return (*NO_NUMBERS, *OUT_OF_RANGE)
    if isinstance(info, fields.TupleType):
        return ("", "1", "1:", "5:1", "nan:inf", "0:inf", "１:２", "-1:2", "a:b", "1:2:3")
    if isinstance(info, fields.CustomType):
        return NO_FOLDERS
    return NO_WORDS
