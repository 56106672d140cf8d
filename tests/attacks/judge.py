"""What a command does with an attempt: a sentence, a result, or something that is wrong."""

from __future__ import annotations

import contextlib
import io
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from attacks.commands import Attempt
from sim.cli.app import answer
from sim.output.folder import STAGING
from sim.studies.sweep.study import LOG

REFUSAL_S = 2.0  # seconds of work within which a bad input is refused
WAIT_S = 20.0  # seconds of the clock, on a machine that does other work, too
HANG_S = 60.0


class Outcome(NamedTuple):
    """What a command did: its exit code, or -1 if it raised something or did not end."""

    code: int
    out: str
    err: str
    seconds: float  # of this process's work
    waited: float  # of the clock


class Counts(NamedTuple):
    """What came of the attempts of a kind."""

    tried: int = 0
    refused: int = 0
    accepted: int = 0
    lost: int = 0
    tracebacks: int = 0
    hangs: int = 0


WITH_RESULTS = ("run", "serve", "sweep", "map", "recommend", "compare", "sensitivity", "trend")


class Hang(BaseException):
    """A command that did not end in time."""


def _hang(number: int, frame: FrameType | None) -> None:
    raise Hang


def outcome(words: tuple[str, ...]) -> Outcome:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    argv, sys.argv = sys.argv, ["memorywall", *words]
    before = signal.signal(signal.SIGALRM, _hang)
    signal.setitimer(signal.ITIMER_REAL, HANG_S)
    begin, spent = time.perf_counter(), time.process_time()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = answer()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException as error:
        code = -1
        err.write(f"{type(error).__name__}: {error}")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        sys.argv = argv
    seconds, waited = time.process_time() - spent, time.perf_counter() - begin
    return Outcome(code, out.getvalue(), err.getvalue(), seconds, waited)


def content(folder: Path) -> dict[str, bytes]:
    """The visible files of a folder, without the log, to which a sweep adds its points."""
    return {
        p.name: p.read_bytes()
        for p in folder.iterdir()
        if not p.name.startswith(".") and p.name != LOG
    }


def judge(attempt: Attempt, folder: Path) -> tuple[Counts, str]:
    """What came of an attempt, and what is wrong with that, or ""."""
    if attempt.prepare:
        attempt.prepare()
    before = content(folder)
    words = attempt.words
    if words[0] in WITH_RESULTS and not any(word.startswith("--out") for word in words):
        words = (*words, "--out", str(folder))
    done = outcome(words)
    after = content(folder)
    counts, wrong = Counts(tried=1), ""
    if done.code == -1:
        hang = done.err.startswith("Hang")
        counts = counts._replace(hangs=int(hang), tracebacks=int(not hang))
        wrong = done.err[:500]
    elif done.code == 2:
        counts = counts._replace(refused=1)
        sentence = done.err.removesuffix("\n")
        if after != before:
            counts, wrong = counts._replace(lost=1), "the folder changed"
        elif not sentence.startswith("memorywall: ") or not sentence.isprintable():
            wrong = f"no sentence: {done.err[:500]!r}"
        elif len(sentence) > 1600:
            wrong = f"a sentence of {len(sentence)} characters"
        elif done.seconds > REFUSAL_S or done.waited > WAIT_S:
            counts, wrong = counts._replace(hangs=1), f"refused after {done.seconds:.1f} s"
    else:
        counts = counts._replace(accepted=1)
        if done.code not in (0, 1):
            wrong = f"exit code {done.code}: {done.err[:200]}"
    if list(folder.glob(f"{STAGING}*")):
        wrong = wrong or "a staging folder is left"
    return counts, f"{attempt.what}: {wrong}" if wrong else ""


def total(parts: list[Counts]) -> Counts:
    """Counts put together."""
    return Counts(*(sum(values) for values in zip(*parts, strict=True)))
