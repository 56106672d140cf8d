"""Errors that a user can cause and mend.

MemorywallError
├── InputError      a file, key or flag breaks a rule
├── Infeasible      a split or a batch that this model or system cannot do
│   └── OutOfMemory it does not fit into HBM
└── Deadlock        tasks that wait for one another

The command line prints the one sentence and exits with code 2. A sweep may skip what is
Infeasible; anything else that is raised is a bug.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

MOST_QUOTED = 80


class MemorywallError(Exception):
    """Base of all errors that come with one clear sentence for the user."""

    def __str__(self) -> str:
        return one_line(super().__str__())


class InputError(MemorywallError):
    """A file, key, value or flag breaks a rule."""


class Infeasible(MemorywallError):
    """The model or the system cannot do what is required; the message holds the arithmetic."""


class OutOfMemory(Infeasible):
    """Weights, KV and activations exceed a device's HBM."""


class Deadlock(MemorywallError):
    """Tasks wait for one another; the text names the cycle."""


def hint(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` if something like `word` is known, else the list of them."""
    names = sorted(map(shortened, known))
    word = shortened(word)
    lowered = word.lower()
    longer = [n for n in names if word and n.lower().startswith(lowered)]
    close = longer[:4] or get_close_matches(word, names, n=1, cutoff=0.6)
    close = close or get_close_matches(lowered, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {' or '.join(map(repr, close))}?"
    return f"; known: {', '.join(names)}" if names else ""


def one_line(text: str) -> str:
    """`text` as a terminal may show it, however long or odd a name or a value in it is."""
    text = printable(" ".join(text.split()) if {"\n", "\t"} & {*text} else text)
    return text if len(text) <= 1500 else f"{text[:1000]} ... {text[-400:]}"


def quoted(value: object) -> str:
    """A value of the user as a message may show it: escaped, and cut to 80 characters."""
    return shortened(repr(value))


def shortened(text: str) -> str:
    """A key or a name of the user as a message may show it: escaped, and cut to 80 characters."""
    text = printable(text[: 2 * MOST_QUOTED])
    return text if len(text) <= MOST_QUOTED else text[: MOST_QUOTED - 3] + "..."


def printable(text: str) -> str:
    """`text` with what a terminal would obey or cannot show as escapes; lines and tabs stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def is_text(text: str) -> bool:
    """Whether text can be written as UTF-8; a lone surrogate cannot."""
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)
