"""The way in and out: Ctrl-C at any moment, and names in files that a terminal would obey."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sim.errors import InputError, one_line, printable

COMMAND = Path(sys.executable).with_name("memorywall")
# Send SIGINT to itself when a module is first looked for, at any depth of importing.
INTERRUPT_AT = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path, target=None):
        if name == "{module}":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
sys.argv = ["memorywall", "run", "gpt2", "--on", "h100-sxm"]
from sim.cli.main import main
main()
"""


@pytest.mark.parametrize(
    "module", ["sim.cli.app", "typer", "numpy", "networkx", "sim.simulation", "rich.table"]
)
def test_ctrl_c_while_importing_is_one_line(module: str) -> None:
    code = INTERRUPT_AT.format(module=module)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 128 + signal.SIGINT
    assert done.stderr.startswith("memorywall: interrupted")
    assert done.stderr.count("\n") == 1


def test_the_entry_point_imports_next_to_nothing() -> None:
    """What it imports before it can answer Ctrl-C: no library but the standard one."""
    code = "import sys; import sim.cli.main; print(*{m.split('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "networkx", "msgspec", "typer", "rich"} & set(done.stdout.split())


def test_a_sentence_is_one_printable_line() -> None:
    assert str(InputError("a\n b\x1b[31m\x00\u202e")) == r"a b\x1b[31m\x00\u202e"
    assert printable("a\n\tb\x9b") == "a\n\tb\\x9b"
    assert one_line("Köln, µs, 中") == "Köln, µs, 中"
    assert len(one_line("k" * 10**7)) < 1500


def test_junk_for_a_table_is_told_without_its_bytes(tmp_path: Path) -> None:
    """The header of a binary file, megabytes of it, does not reach the terminal."""
    junk = tmp_path / "junk.csv"
    junk.write_bytes(b"\x1b]0;title\x07\x1b[2J" + b"\x01k" * 2**20 + b",b\n1,2\n")
    commands = (
        ["validate", str(junk)],
        ["calibrate", str(junk), "--device", "l4"],
        ["serve", "gpt2", "--on", "l4", "--dtype", "fp16", "--trace", str(junk)],
    )
    for args in commands:
        done = subprocess.run([COMMAND, *args], capture_output=True, check=False)
        assert done.returncode == 2, args
        assert b"junk.csv" in done.stderr
        assert b"Traceback" not in done.stderr
        for stream in (done.stdout, done.stderr):
            assert len(stream) < 3000, args
            assert not {*stream} & ({*range(32)} - {10}), (args, stream[:200])


def test_brackets_in_a_name_are_no_markup(tmp_path: Path) -> None:
    folder = tmp_path / "[bold]x[green]"
    args = ["run", "gpt2", "--on", "l4", "--dtype", "fp16", "--no-what-if", "--no-pictures"]
    done = subprocess.run(
        [COMMAND, *args, "--output", "2", "--out", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "[bold]x[green]" in done.stdout.replace("\n", "")
