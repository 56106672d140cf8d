"""The entry point. It imports next to nothing itself, so that signals are obeyed from the start."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

INTERRUPT, TERMINATE = 130, 143  # exit codes: 128 and the number of the signal
WORDS = {INTERRUPT: "interrupted", TERMINATE: "terminated"}
_code = INTERRUPT  # the exit code of the signal that arrived last


def main() -> None:
    """Run the command of `sys.argv`.

    Exit codes: 0, 1 (a bound is missed), 2 (a mistake), 130 (SIGINT), 143 (SIGTERM).
    """
    usual = signal.getsignal(signal.SIGINT)
    if usual is signal.default_int_handler:
        # Some libraries cannot be left half imported; nothing is written yet.
        signal.signal(signal.SIGINT, _leave)
    signal.signal(signal.SIGTERM, _terminate)
    from sim.cli.surroundings import open_standard_files, shortage

    open_standard_files()
    if short := shortage():
        sys.stderr.write(f"memorywall: {short}\n")
        sys.exit(2)
    os.environ["PYTHONSAFEPATH"] = "1"  # workers import nothing from the current folder by chance
    os.environ["MPLBACKEND"] = "agg"  # pictures are files and need no window
    os.environ.pop("SOURCE_DATE_EPOCH", None)  # pictures carry no date
    if "measure" not in sys.argv[1:2]:  # arithmetic here is small; threads would only cost
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        from sim.cli.app import answer

        signal.signal(signal.SIGINT, usual)
        code = answer()
    except KeyboardInterrupt:
        sys.stderr.write(_line())
        code = _code
    except SystemExit as error:  # a command that has reported its interrupt
        code = error.code if isinstance(error.code, int) else 1
    for number in (signal.SIGINT, signal.SIGTERM):  # the answer is given; nothing is left to stop
        signal.signal(number, signal.SIG_IGN)
    sys.exit(_code if code == INTERRUPT else code)


def _terminate(number: int, frame: FrameType | None) -> None:
    """SIGTERM does what SIGINT does, with an exit code of its own."""
    global _code
    _code = TERMINATE
    handler = signal.getsignal(signal.SIGINT)
    if callable(handler):
        handler(signal.SIGINT, frame)
    else:  # a worker, which leaves interrupts to its parent
        os._exit(TERMINATE)


def _leave(*_: object) -> None:
    sys.stderr.write(_line())
    sys.stderr.flush()
    os._exit(_code)


def _line() -> str:
    return f"memorywall: {WORDS[_code]}; files already written are whole\n"


if __name__ == "__main__":
    main()
