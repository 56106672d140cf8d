"""Plug-ins: Python code of the user, named by its import path `module:attribute`.

A plug-in runs with all rights of the user. `refuse_plugins` refuses every one, for a service that
takes its inputs from strangers. Whatever a plug-in raises, `exit` included, becomes one sentence
that names the line in its file.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sim.errors import InputError, MemorywallError, hint, quoted

REFUSED = "MEMORYWALL_NO_PLUGINS"  # in the environment, so that worker processes refuse, too
_PACKAGES = tuple(
    str(Path(p).resolve()) for p in (Path(__file__).parent.parent, Path(os.__file__).parent)
)


def refuse_plugins() -> None:
    """Refuse plug-ins in this process and in those that it starts."""
    os.environ[REFUSED] = "1"


def imported(kind: str, name: str, known: Iterable[str]) -> object:
    """The object that `module:attribute` names.

    kind: what it is to be, for the error; known: the names that need no import. Raises InputError
    where the name is neither, where plug-ins are refused, and where the import fails.
    """
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise InputError(f"{kind} {quoted(name)} is not known{hint(name, known)}")
    if os.environ.get(REFUSED):
        raise InputError(
            f"{kind} {quoted(name)} is a plug-in, and plug-ins are refused here (--no-plugins); "
            "use one "
            f"of {', '.join(sorted(known))}"
        )
    # A command that is installed does not look into the folder that it is called in.
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)
    with explained(kind, name, "cannot be imported: it raised"):
        return getattr(importlib.import_module(module), attribute)


@contextmanager
def explained(kind: str, name: str, what: str = "raised") -> Iterator[None]:
    """Turn whatever the plug-in raises in the block into an InputError with its place."""
    try:
        yield
    except (KeyboardInterrupt, MemorywallError):
        raise
    except BaseException as error:  # SystemExit included: a plug-in does not end the program
        text = _words(error)
        raise InputError(f"{kind} {quoted(name)} {what} {text}{_place(error)}") from None


def _words(error: BaseException) -> str:
    """The type and the text of an error, whose own `__str__` may fail."""
    name = type(error).__name__
    try:
        return f"{name}: {error}" if str(error) else name
    except Exception:
        return name


def place_of(function: object) -> str:
    """` (file, line)` where a function of a plug-in is defined; "" where it has no source."""
    code = getattr(function, "__code__", None)
    return f" ({_short(code.co_filename)}, line {code.co_firstlineno})" if code else ""


def _place(error: BaseException) -> str:
    """` (file, line)` in the file of the plug-in where an error arose; "" where it is unknown."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({_short(error.filename)}, line {error.lineno})"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("<", *_PACKAGES))
    ]
    if not frames:
        return ""
    # The first file that is not ours is the plug-in's; deeper ones are libraries that it calls.
    last = [frame for frame in frames if frame.filename == frames[0].filename][-1]
    return f" ({_short(last.filename)}, line {last.lineno})"


def _short(filename: str) -> str:
    """A file as it is seen from the current folder."""
    path, here = Path(filename), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else filename
