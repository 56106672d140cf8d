"""Result folders under attack: failures, kills, neighbours and links lose nothing."""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from commands import (
    COMMAND,
    NEW,
    RUN,
    SERVE,
    SWEEP,
    check_whole_result,
    command,
    content,
    refused,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.errors import InputError
from sim.output.files import atomic_write
from sim.output.folder import (
    COMPLETE,
    STAGING,
    ResultKind,
    check_replaceable,
    check_whole,
    claimed,
    replacing,
)
from sim.output.manifest import MANIFEST, Manifest
from sim.studies.sweep.grid import sweep_of
from sim.studies.sweep.log import Log
from sim.studies.sweep.study import run_sweep

NAMES = ("summary.json", "a.csv", "b.csv")
KIND = ResultKind("test", NAMES)
root = pytest.mark.skipif(os.geteuid() == 0, reason="root may write where it has no permission")


def fill(folder: Path, text: str, names: tuple[str, ...] = NAMES) -> None:
    with replacing(folder, KIND) as new:
        for name in names:
            (new / name).write_text(text)


def fail(folder: Path, error: BaseException) -> None:
    """A result that fails when a part of it is written."""
    with replacing(folder, KIND) as new:
        (new / "a.csv").write_text("half")
        raise error


# Replacing --------------------------------------------------------------------------------


def test_a_result_replaces_the_one_before_and_leaves_other_files(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    fill(tmp_path, "old")
    fill(tmp_path, "new", NAMES[:2])
    assert content(tmp_path) == {"mine.txt": b"mine", "summary.json": b"new", "a.csv": b"new"}
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == [MANIFEST]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt(), ValueError()])
def test_a_result_that_fails_leaves_the_old_one(tmp_path: Path, error: BaseException) -> None:
    fill(tmp_path, "old")
    with pytest.raises(type(error)):
        fail(tmp_path, error)
    assert content(tmp_path) == dict.fromkeys(NAMES, b"old")
    assert not list(tmp_path.glob(f"{STAGING}*"))


def plant(path: Path, what: str) -> None:
    """Put something under the name of a result file, after a command wrote that file."""
    path.unlink(missing_ok=True)
    if what == "folder":
        path.mkdir()
    elif what == "link":
        (path.parent.parent / "outside").write_text("precious")
        path.symlink_to(path.parent.parent / "outside")
    elif what == "dangling link":
        path.symlink_to(path.parent.parent / "nothing")
    elif what == "pipe":
        os.mkfifo(path)
    else:
        path.write_text(what)


@pytest.mark.parametrize("what", ["folder", "link", "dangling link", "pipe", "mine"])
@pytest.mark.parametrize("before", ["nothing", "a result"])
def test_only_a_file_that_the_same_command_wrote_is_replaced(
    tmp_path: Path, before: str, what: str
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    if before == "a result":
        fill(folder, "old")
    plant(folder / "a.csv", what)
    for attempt in (check_replaceable, lambda *_: fill(folder, "new")):
        with pytest.raises(InputError, match=r"a\.csv: (it is a folder|the result would replace)"):
            attempt(folder, KIND)
    if before == "a result":
        assert (folder / "summary.json").read_text() == "old"
    assert not (tmp_path / "nothing").exists()
    if what == "link":
        assert (tmp_path / "outside").read_text() == "precious"


def test_a_link_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    """Also one that is planted between the check and the writing."""
    outside = tmp_path / "outside"
    outside.write_text("precious")
    (tmp_path / "single").symlink_to(outside)
    with atomic_write(tmp_path / "single") as path:
        path.write_text("new")
    assert outside.read_text() == "precious"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_no_file_takes_the_place_of_a_pipe_or_a_folder(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    """As /dev/null would be lost for all who may write to /dev."""
    path = tmp_path / "special.png"
    make(path)
    mode = path.stat().st_mode
    with pytest.raises(InputError, match="name a file"), atomic_write(path) as new:
        new.write_text("x")
    for words in (
        ("timeline", "gpt2", "--on", "h100-sxm", "--set", "output=2", "--out", str(path)),
        (*RUN, "--save-scenario", str(path)),
    ):
        assert "name a file" in refused(command(*words))
    assert path.stat().st_mode == mode
    assert [p.name for p in tmp_path.iterdir()] == ["special.png"]


@pytest.mark.parametrize("cut", range(5))
def test_a_result_whose_move_was_cut_short_is_finished_by_the_next_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    """As a kill would cut it: between any two steps of the move."""
    fill(tmp_path, "old", ("summary.json", "b.csv"))
    moves = 0
    replace = os.replace

    def killed(*args: Any) -> None:
        nonlocal moves
        moves += 1
        if moves > cut:
            raise OSError("killed")
        replace(*args)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", killed)
        if cut < 3:  # two files and the manifest move
            with pytest.raises(OSError, match="killed"):
                fill(tmp_path, "new", NAMES[:2])
            assert list(tmp_path.glob(f"{COMPLETE}*"))
        else:
            fill(tmp_path, "new", NAMES[:2])
    check_whole(tmp_path)
    assert content(tmp_path) == dict.fromkeys(NAMES[:2], b"new")
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == [MANIFEST]
    fill(tmp_path, "newer")


def test_an_interrupt_waits_until_the_files_are_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "old")
    replace = os.replace

    def interrupted(*args: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        replace(*args)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fill(tmp_path, "new")
    assert content(tmp_path) == dict.fromkeys(NAMES, b"new")


def test_results_of_two_commands_share_a_folder_only_where_no_name_is_shared(
    tmp_path: Path,
) -> None:
    fill(tmp_path, "old")
    other = ResultKind("other", ("d.csv", "a.csv"))
    with pytest.raises(InputError, match=r"holds a result of `test`, which has a a\.csv, too"):
        check_replaceable(tmp_path, other)
    with replacing(tmp_path, ResultKind("third", ("d.csv",))) as new:
        (new / "d.csv").write_text("third")
    assert content(tmp_path) == {**dict.fromkeys(NAMES, b"old"), "d.csv": b"third"}


def test_a_result_does_not_replace_its_input(tmp_path: Path) -> None:
    fill(tmp_path, "old")
    check_replaceable(tmp_path, KIND, [None, "gpt2", tmp_path / "none", tmp_path])
    with pytest.raises(InputError, match=r"a\.csv: it is an input"):
        check_replaceable(tmp_path, KIND, [tmp_path / ".." / tmp_path.name / "a.csv"])


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff",
        b"[" * 100_000,
        b'{"results": {"test": {"../mine": "0"}}}',
        b'{"results": {"test": {"": "0", "..": "0"}}}',
        b'{"results": {"test": {"a.csv": 1}}}',
    ],
)
def test_a_damaged_manifest_owns_nothing(tmp_path: Path, text: bytes) -> None:
    folder = tmp_path / "out"
    fill(folder, "old")
    (tmp_path / "mine").write_text("precious")
    (folder / MANIFEST).write_bytes(text)
    assert Manifest.read(folder) == Manifest()
    with pytest.raises(InputError, match="is no list of results"):
        fill(folder, "new")
    assert content(folder) == dict.fromkeys(NAMES, b"old")
    assert (tmp_path / "mine").read_text() == "precious"


def test_commands_do_not_replace_what_is_not_theirs(tmp_path: Path) -> None:
    """Each is refused before it works: an input, a file of the user, another command's result."""
    run, mine = tmp_path / "run", tmp_path / "mine"
    assert command(*RUN, "--out", str(run)).wait(timeout=120) == 0
    mine.mkdir()
    (mine / "config.json").write_text("{}")
    before = content(run)
    for words, sentence in (
        ((*SERVE, "--out", str(run)), "holds a result of `run`"),
        (("run", str(run / "scenario.toml"), "--out", str(run)), "it is an input"),
        ((*SWEEP, "--out", str(mine)), "did not write it"),
        ((*SERVE, "--out", str(mine)), "did not write it"),
    ):
        assert sentence in refused(command(*words))
    assert content(run) == before
    assert content(mine) == {"config.json": b"{}"}


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path: Path) -> None:
    stale = tmp_path / f"{STAGING}dead"
    stale.mkdir()
    (stale / "a.csv").write_text("half")
    (tmp_path / f"{STAGING}link").symlink_to(tmp_path.parent)
    fill(tmp_path, "new")
    assert not stale.exists()
    assert tmp_path.parent.is_dir()


def test_files_have_the_rights_that_the_user_gives_new_files(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "a") as path:
            path.write_text("x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


@contextmanager
def held_by_another(folder: Path) -> Iterator[None]:
    """The lock that another process would hold."""
    handle = os.open(folder, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(handle)


steps = st.lists(
    st.sampled_from(["write", "fail", "kill", "corrupt", "foreign", "link", "neighbour"])
)


@given(steps, st.randoms(use_true_random=False))
def test_a_folder_holds_one_whole_result_whatever_came_before(
    tmp_path_factory: pytest.TempPathFactory, events: list[str], draw: random.Random
) -> None:
    """The state machine of a result folder: after every event that is not damage from outside, its
    files are those of the last result that was finished."""
    folder = tmp_path_factory.mktemp("results")
    outside = folder.parent / f"{folder.name}-outside"
    outside.write_text("precious")
    expected: dict[str, bytes] = {}
    for number, event in enumerate(events):
        names = tuple(draw.sample(NAMES, draw.randint(1, 3)))
        if event == "write":
            fill(folder, str(number), names)
            others = {k: v for k, v in expected.items() if k not in NAMES}
            expected = {**others, **dict.fromkeys(names, str(number).encode())}
        elif event == "fail":
            with pytest.raises(OSError, match="full"):
                fail(folder, OSError("full"))
        elif event == "neighbour":
            with held_by_another(folder), pytest.raises(InputError, match="another memorywall"):
                fill(folder, "mixed", names)
        elif event == "kill":
            (folder / f"{STAGING}{number}").mkdir()
        elif event == "foreign":
            (folder / "mine").write_text(str(number))
            expected["mine"] = str(number).encode()
        else:
            (folder / names[0]).unlink(missing_ok=True)
            if event == "link":
                (folder / names[0]).symlink_to(outside)
            else:
                (folder / names[0]).write_bytes(b"\xff")
            with pytest.raises(InputError, match="the result would replace it"):
                fill(folder, "new")
            (folder / names[0]).unlink()
            expected.pop(names[0], None)
        assert content(folder) == expected
    assert outside.read_text() == "precious"


# Claiming ---------------------------------------------------------------------------------


def test_a_folder_that_cannot_hold_results_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    for name, words in (
        ("file", "it is a file"),
        ("file/below", "cannot be written"),
        ("dangling", "a link to nothing"),
    ):
        for args in NEW.values() if name == "file" else [RUN]:
            assert words in refused(command(*args, "--out", str(tmp_path / name)))
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("args", [("paper",), ("tour",)])
def test_a_folder_is_tried_first_by_commands_without_a_scenario(
    tmp_path: Path, args: tuple[str, ...]
) -> None:
    (tmp_path / "file").write_text("x")
    assert "it is a file" in refused(command(*args, "--out", str(tmp_path / "file")))


@root
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(mode=0o500)
    with pytest.raises(InputError, match="cannot be written"), claimed(tmp_path / "out"):
        pass


@pytest.mark.parametrize("name", NEW)
def test_an_empty_value_is_no_folder(name: str) -> None:
    assert "--out: an empty value" in refused(command(*NEW[name], "--out", ""))


@pytest.mark.parametrize("name", NEW)
def test_a_second_writer_is_refused(tmp_path: Path, name: str) -> None:
    fill(tmp_path, "old")
    with claimed(tmp_path):
        words = refused(command(*NEW[name], "--out", str(tmp_path)))
    assert "another memorywall is writing there" in words
    assert content(tmp_path) == dict.fromkeys(NAMES, b"old")


# The log of a sweep --------------------------------------------------------------------------


HOSTILE: dict[str, Callable[[bytes], bytes]] = {
    "no UTF-8": lambda line: line.replace(b"status", b"st\xff\xfeus"),
    "deep nesting": lambda line: b'{"key":' + b"[" * 100_000 + b"\n",
    "deep nesting in the row": lambda line: line.replace(b'"row":{', b'"row":{"a":' + b"[" * 9999),
    "an overlong line": lambda line: b"x" * 3_000_000 + b"\n",
    "a blank line": lambda line: b"\n",
    "another type": lambda line: b"[1, 2]\n",
    "no checksum": lambda line: line.partition(b',"check"')[0] + b"}\n",
    "a changed number": lambda line: line.replace(b'"devices":1', b'"devices":2'),
    "a changed key": lambda line: line.replace(b'{"key":"', b'{"key":"0'),
    "half a line": lambda line: line[: len(line) // 2] + b"\n",
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_a_damaged_line_of_a_log_is_left_out_and_its_point_computed_again(
    tmp_path: Path, attack: str
) -> None:
    base = {"model": "gpt2", "on": "h100-sxm", "workload": {"output": 2}}
    sweep = sweep_of("run", base, ["batch=1,2,3,4"])
    first = run_sweep(sweep, folder=tmp_path, workers=1)
    log = tmp_path / "points.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    lines[1] = HOSTILE[attack](lines[1])
    log.write_bytes(b"".join(lines))
    again = run_sweep(sweep, folder=tmp_path, workers=1)
    assert (again.known, again.damaged) == (3, 1)
    assert again.rows == first.rows


@given(st.binary(max_size=200), st.integers(0, 3))
def test_any_bytes_in_a_log_cost_no_more_than_their_point(
    tmp_path_factory: pytest.TempPathFactory, garbage: bytes, at: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "points.jsonl"
    log = Log(path)
    rows = {f"key{i}": {"status": "ok", "devices": i, "tpot_s": i / 3} for i in range(3)}
    log.write(rows.items())
    log.close()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:at], garbage + b"\n", *lines[at:]]))
    again = Log(path)
    again.close()
    assert again.rows == rows
    assert again.damaged == (garbage + b"\n").count(b"\n")


GRID = {"model": "gpt2", "on": "h100-sxm", "workload": {"output": 2}}


@settings(max_examples=12)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["resume", "wider", "cut", "garbage", "double", "swap", "neighbour"]),
            st.integers(0, 10**6),
        ),
        max_size=8,
    )
)
def test_a_sweep_gives_the_same_rows_whatever_its_folder_went_through(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, int]]
) -> None:
    """The state machine of a folder that a sweep goes on in."""
    folder = tmp_path_factory.mktemp("sweep")
    log = folder / "points.jsonl"
    small, wide = (sweep_of("run", GRID, [f"batch={axis}"]) for axis in ("1:2", "1:4"))
    right = run_sweep(wide, folder=None, workers=1).rows
    for event, number in [*events, ("wider", 0)]:
        text = log.read_bytes() if log.exists() else b""
        lines = text.splitlines(keepends=True)
        at = number % (len(lines) + 1)
        if event in ("resume", "wider"):
            request = wide if event == "wider" else small
            rows = run_sweep(request, folder=folder, workers=1).rows
            assert rows == right[: len(rows)]
        elif event == "neighbour":
            with held_by_another(folder), pytest.raises(InputError, match="another memorywall"):
                run_sweep(small, folder=folder, workers=1)
        elif event == "cut":
            log.write_bytes(text[: number % (len(text) + 1)])
        elif event == "garbage":
            log.write_bytes(b"".join([*lines[:at], b"\xff{[\n", *lines[at:]]))
        elif event == "double":
            log.write_bytes(text + b"".join(lines[at : at + 1]))
        elif lines:
            log.write_bytes(b"".join([*lines[at:], *lines[:at]]))


@pytest.mark.parametrize(
    "change",
    [{"status": None}, {"status": 1}, {"tpot_s": "x"}, {"devices": True}, {"unknown": 1}, {}],
)
def test_a_row_of_odd_cells_is_computed_again(tmp_path: Path, change: dict[str, Any]) -> None:
    """Whoever can compute the checksum can write any row."""
    sweep = sweep_of("run", GRID, ["batch=1,2"])
    right = run_sweep(sweep, folder=tmp_path, workers=1).rows
    log = Log(tmp_path / "points.jsonl")
    key = next(iter(log.rows))
    log.write([(key, {**log.rows[key], **change} if change else {})])
    log.close()
    again = run_sweep(sweep, folder=tmp_path, workers=1)
    assert (again.rows, again.known, again.damaged) == (right, 1, 1)


def test_what_is_no_log_is_left_as_it_is(tmp_path: Path) -> None:
    """A file of the user under the name of the log keeps every byte that it holds."""
    notes = tmp_path / "points.jsonl"
    notes.write_text("my notes\nthe last line has no end")
    log = Log(notes)
    log.write([("key", {"status": "ok", "devices": 1})])
    log.close()
    assert notes.read_text().startswith("my notes\nthe last line has no end\n{")
    again = Log(notes)
    again.close()
    assert list(again.rows) == ["key"]
    assert again.damaged == 2
    outside = tmp_path / "outside"
    outside.write_text("precious")
    (tmp_path / "other").mkdir()
    os.link(outside, tmp_path / "other" / "points.jsonl")
    with pytest.raises(InputError, match="it has another name, too"):
        Log(tmp_path / "other" / "points.jsonl")
    assert outside.read_text() == "precious"


@pytest.mark.parametrize("content", ["x\n" * 200_000, "\0" * (70 * 2**20)], ids=["lines", "zeros"])
def test_a_log_without_end_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "points.jsonl").write_text(content)
    with pytest.raises(InputError, match="does not look like the log"):
        Log(tmp_path / "points.jsonl")


def test_a_pipe_is_no_log(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "points.jsonl")
    with pytest.raises(InputError, match="no regular file"):
        Log(tmp_path / "points.jsonl")


def test_a_log_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("precious\n")
    (tmp_path / "points.jsonl").symlink_to(tmp_path / "outside")
    with pytest.raises(InputError, match="cannot be opened"):
        Log(tmp_path / "points.jsonl")
    assert (tmp_path / "outside").read_text() == "precious\n"


# Pipes, closed files and signals -------------------------------------------------------------


@pytest.mark.parametrize("name", NEW)
def test_a_pipe_that_closes_early_loses_no_result(tmp_path: Path, name: str) -> None:
    process = command(*NEW[name], "--out", str(tmp_path))
    assert process.stdout
    process.stdout.close()
    assert process.wait(timeout=120) == 0
    assert process.stderr
    assert process.stderr.read() == ""
    assert {"run": "summary.json", "serve": "summary.json", "sweep": "sweep.csv"}[name] in content(
        tmp_path
    )


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
def test_closed_standard_files_do_no_harm(tmp_path: Path, closed: tuple[int, ...]) -> None:
    def close() -> None:
        for number in closed:
            os.close(number)

    done = subprocess.run(
        [COMMAND, *RUN, "--out", str(tmp_path)], preexec_fn=close, check=False, timeout=120
    )
    assert done.returncode == 0
    check_whole_result(tmp_path)
    assert (tmp_path / "summary.json").exists()


LONG = {
    "serve": (*SERVE[:6], "--num-requests", "1000000", *SERVE[8:]),
    "sweep": (*SWEEP[:4], "--grid", "batch=1:2000", "--grid", "detail=tile", "--workers", "1"),
    "recommend": (
        *("recommend", "llama-3.1-8b", "--on", "hgx-h100", "--devices", "8", "--slo-ttft", "1"),
        *("--grid", "batch=1:500", "--workers", "1"),
    ),
}


@pytest.mark.parametrize(
    ("name", "number", "trials"),
    [
        ("serve", signal.SIGTERM, 1),
        ("sweep", signal.SIGINT, 1),
        *(
            pytest.param(name, number, 10, marks=pytest.mark.slow)
            for name in LONG
            for number in (signal.SIGINT, signal.SIGTERM)
        ),
    ],
)
def test_a_signal_ends_in_one_line_and_its_exit_code(
    name: str, number: signal.Signals, trials: int
) -> None:
    draw = random.Random(number)
    for _ in range(trials):
        process = command(*LONG[name])
        time.sleep(draw.uniform(0.15, 2.0))  # the moment of the signal
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        if (process.returncode, out, err) == (-number, "", ""):
            continue  # on a slow machine: Python itself was starting, and no line of ours had run
        assert process.returncode == 128 + number, (out, err)
        assert err.count("\n") <= 1
        assert "Traceback" not in err


def test_an_interrupted_run_of_serving_says_so(tmp_path: Path) -> None:
    process = command(*LONG["serve"], "--out", str(tmp_path))
    time.sleep(3.0)  # the moment of the signal
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert err == "memorywall: terminated; files already written are whole\n"
    assert "interrupted" in out
    assert json.loads((tmp_path / "summary.json").read_bytes())["interrupted"] is True


def test_a_window_system_that_is_not_there_does_no_harm(tmp_path: Path) -> None:
    args = [*(word for word in RUN if word != "--no-pictures"), "--out", str(tmp_path)]
    done = subprocess.run(
        [COMMAND, *args],
        env={"PATH": os.environ["PATH"], "MPLBACKEND": "nonsense", "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "timeline.png" in content(tmp_path)


# Folders from strangers --------------------------------------------------------------------------


def planted(folder: Path, manifest: str, files: dict[str, str] | None = None) -> None:
    """A folder that says "complete", as no command of ours left it."""
    place = folder / f"{COMPLETE}x"
    place.mkdir()
    (place / MANIFEST).write_text(manifest)
    for name, text in (files or {}).items():
        (place / name).write_text(text)


def test_a_reader_deletes_and_replaces_nothing_that_it_cannot_prove_to_be_a_result(
    tmp_path: Path,
) -> None:
    (tmp_path / MANIFEST).write_text('{"results": {"run": {"thesis.txt": "0"}}}')
    (tmp_path / "thesis.txt").write_text("mine")
    planted(tmp_path, '{"results": {}}')
    check_whole(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    planted(tmp_path, '{"results": {"run": {"thesis.txt": "0"}}}', {"thesis.txt": "theirs"})
    check_whole(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    assert not list(tmp_path.glob(f"{COMPLETE}*"))


def test_a_planted_link_is_not_moved_into_place(tmp_path: Path) -> None:
    folder, outside = tmp_path / "out", tmp_path / "outside"
    outside.write_text("precious")
    fill(folder, "old")
    planted(folder, (folder / MANIFEST).read_text())
    (folder / f"{COMPLETE}x" / "summary.json").symlink_to(outside)
    check_whole(folder)
    assert content(folder) == dict.fromkeys(NAMES, b"old")
    fill(folder, "new")
    assert content(folder) == dict.fromkeys(NAMES, b"new")


@pytest.mark.parametrize("what", ["notes", "folder", "link"])
def test_a_file_of_the_user_under_the_name_of_the_manifest_stays(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    plant(folder / MANIFEST, "folder" if what == "folder" else what)
    with pytest.raises(InputError, match="is no list of results"):
        fill(folder, "new")
    assert [p.name for p in folder.iterdir()] == [MANIFEST]


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, MANIFEST, f"{COMPLETE}x", "a/b"])
def test_a_manifest_with_an_odd_name_owns_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / MANIFEST).write_text(json.dumps({"results": {"test": {name: "0"}}}))
    assert Manifest.read(tmp_path) == Manifest()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_after_the_answer_changes_nothing(number: signal.Signals) -> None:
    """The answer is printed, and the program is about to end."""
    for _ in range(3):
        process = command(*RUN)
        assert process.stdout
        text = process.stdout.read()  # to the end: the program has closed its output or is ending
        process.send_signal(number)
        assert process.wait(timeout=60) in (0, -number)  # Python itself may have taken it away
        assert process.stderr
        assert process.stderr.read() == ""
        assert "makespan" in text


@pytest.mark.slow
def test_a_signal_to_the_whole_group_ends_a_run_in_processes(tmp_path: Path) -> None:
    words = (*SERVE[:6], "--num-requests", "300000", *SERVE[8:], "--replicas", "2")
    process = subprocess.Popen(
        [COMMAND, *words, "--no-steps"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    time.sleep(4.0)  # the moment of the signal
    os.killpg(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "change",
    [
        {"status": "weird"},
        {"status": "refused", "reason": ""},
        {"reason": "x" * 10_000},
        {"reason": "\x1b[2J"},
        {"ttft_s": -1.0},
        {"devices": None},
        {"makespan_ps": -5},
    ],
)
def test_a_row_of_impossible_values_is_computed_again(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    sweep = sweep_of("run", GRID, ["batch=1,2"])
    right = run_sweep(sweep, folder=tmp_path, workers=1).rows
    log = Log(tmp_path / "points.jsonl")
    key = next(iter(log.rows))
    log.write([(key, {**log.rows[key], **change})])
    log.close()
    again = run_sweep(sweep, folder=tmp_path, workers=1)
    assert (again.rows, again.known, again.damaged) == (right, 1, 1)
