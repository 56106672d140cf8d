"""The entry point. It imports next to nothing itself, so that Ctrl-C is one line from the start."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

INTERRUPTED = "memorywall: interrupted; files already written are whole\n"


def main() -> None:
    """Run the command of `sys.argv`; exit 0, 1 (a bound is missed), 2 (a mistake) or 130."""
    try:
        signal_before = signal.getsignal(signal.SIGINT)
        if signal_before is signal.default_int_handler:
            # Some libraries cannot be left half imported; nothing is written yet.
            signal.signal(signal.SIGINT, _leave)
        from sim.cli.app import answer

        signal.signal(signal.SIGINT, signal_before)
        sys.exit(answer())
    except KeyboardInterrupt:
        sys.stderr.write(INTERRUPTED)
        sys.exit(130)


def _leave(*_: object) -> NoReturn:
    sys.stderr.write(INTERRUPTED)
    sys.stderr.flush()
    os._exit(130)


if __name__ == "__main__":
    main()
