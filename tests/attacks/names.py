"""Words where a model, a machine, a file or a result folder is due."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from attacks.commands import COMMANDS, DRAWN, QUICK, SERVE, TINY, Attempt


def names(folder: Path) -> Iterator[Attempt]:
    """Words where a model, a machine, a file or a result folder is due."""
    (folder / "dir").mkdir()
    (folder / "dangling").symlink_to(folder / "nowhere")
    (folder / "circle").symlink_to(folder / "circle")
    for suffix in ("", ".toml", ".json", ".csv"):
        os.mkfifo(folder / f"pipe{suffix}")
    files = ("dir", "dangling", "circle", "pipe", "pipe.toml", "pipe.json", "pipe.csv", "none.toml")
    paths = (
        *(str(folder / name) for name in files),
        *("/dev/zero", "/dev/stdin", "/proc/self/mem", "/etc/passwd", "/", ".", "..", "~", "-"),
        *("", " ", "x" * 300, "x/" * 2000, "gpt2\n", "../gpt2", "gpt2.toml", "C:\\gpt2", "\x1b[2J"),
    )
    run, what_if = COMMANDS["run"], ("what-if", "run")
    uses: tuple[Callable[[str], tuple[str, ...]], ...] = (
        lambda p: ("run", p, *run[2:]),
        lambda p: ("run", "gpt2", "--on", p, *QUICK),
        lambda p: ("serve", p, *SERVE[2:], *DRAWN),
        lambda p: ("serve", *TINY, "--trace", p, *QUICK),
        lambda p: (*SERVE[:-3], "--prompt", f"trace:{p}", *DRAWN, *QUICK),
        lambda p: (*COMMANDS["serve"], "--engine", p),
        lambda p: (*COMMANDS["serve"], "--scheduler", p),
        lambda p: (*COMMANDS["serve"], "--router", p),
        lambda p: ("sweep", p, *COMMANDS["sweep"][2:]),
        lambda p: ("compare", p, "gpt2", *QUICK),
        lambda p: ("validate", p, *QUICK),
        lambda p: ("calibrate", p, "--device", "h100-sxm"),
        lambda p: (*what_if, p, *QUICK),
        lambda p: ("devices", "show", p),
        lambda p: ("models", "show", p),
    )
    for number, use in enumerate(uses):
        for path in paths:
            words = use(path)
            yield Attempt(f"name {number} {path[-30:]!r}", words)
