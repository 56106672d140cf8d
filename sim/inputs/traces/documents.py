"""The entries of one large JSON document, decoded one at a time.

The document is a list of objects, or an object one of whose values is such a list; what
stands beside that list is passed over.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from json import JSONDecodeError, JSONDecoder
from typing import Any

from sim.inputs.documents import without_doubles
from sim.inputs.traces.files import TraceFile
from sim.inputs.traces.values import BadRow, Row

_BLANKS = re.compile(r"[ \t\r\n]*")
_OBJECTS = re.compile(r"\[[ \t\r\n]*\{")


class _NoNumber(Exception):
    """NaN or an infinity where JSON allows none."""


def _refuse_constant(word: str) -> None:
    raise _NoNumber(word)


# Text of a fraction is kept, see `values`.
_DECODER = JSONDecoder(
    parse_float=str, parse_constant=_refuse_constant, object_pairs_hook=without_doubles
)


def entries(file: TraceFile) -> Iterator[tuple[int, Row | BadRow]]:
    """The entries of the list and their numbers from 1.

    After malformed text nothing says where the next entry begins, so it ends the reading.
    """
    number = 0
    try:
        text = _Text(file)
        if text.peek() == "{" and not _enter_list(text):
            raise BadRow("the object holds no list of entries")
        for number, value in enumerate(_items(text), 1):
            yield number, value if isinstance(value, dict) else BadRow("not a JSON object")
    except BadRow as broken:
        yield number + 1, broken


def _items(text: _Text) -> Iterator[Any]:
    text.expect("[")
    if text.peek() == "]":
        return
    while True:
        yield text.value()
        if text.expect(",]") == "]":
            return


def _enter_list(text: _Text) -> bool:
    """Move to the first value that begins like a list of objects; False if there is none."""
    text.expect("{")
    while text.peek() == '"':
        text.value()
        text.expect(":")
        if text.at_list_of_objects():
            return True
        text.value()
        if text.expect(",}") == "}":
            return False
    return False


class _Text:
    """The decoded file and a place in it; only the stretch around the place is held."""

    def __init__(self, file: TraceFile) -> None:
        self._blocks, self._longest = file.blocks(), file.limits.line_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._held, self._at, self._ended = "", 0, False

    def peek(self) -> str:
        """Move over blanks; the character that stands there, or "" at the end."""
        while True:
            match = _BLANKS.match(self._held, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._held):
                return self._held[self._at]
            if not self._more():
                return ""

    def at_list_of_objects(self) -> bool:
        """Whether such a list begins here."""
        if self.peek() == "[" and len(self._held) - self._at < self._longest:
            self._more()
        return _OBJECTS.match(self._held, self._at) is not None

    def expect(self, wanted: str) -> str:
        """Pass one of the characters `wanted`."""
        character = self.peek()
        if not character:
            raise BadRow("the file ends within its JSON document; it was cut short")
        if character not in wanted:
            raise BadRow(
                f"malformed JSON: {character!r} where one of {' '.join(wanted)} must stand"
            )
        self._at += 1
        return character

    def value(self) -> Any:
        """The value that begins here."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._held, self._at)
                # A number that reaches the edge of what is held may go on behind it.
                if end == len(self._held) and self._more():
                    continue
                self._at = end
                return value
            except JSONDecodeError as error:
                # Cut off by the edge of what is held, unless that is long or all there is.
                if len(self._held) - self._at > self._longest:
                    raise BadRow(
                        f"malformed JSON, or an entry beyond {self._longest:,} bytes"
                    ) from None
                if not self._more():
                    raise BadRow(f"malformed JSON, or cut short ({error.msg})") from None
            except RecursionError:
                raise BadRow("JSON is nested too deeply") from None
            except _NoNumber as error:
                raise BadRow(f"{error} is no number of JSON; numbers are finite") from None
            except ValueError as error:
                double = "twice" in str(error)  # of `without_doubles`; else Python's limit
                raise BadRow(str(error) if double else "a number of too many digits") from None

    def _more(self) -> bool:
        """Hold more text; False at the end."""
        if self._ended:
            return False
        pieces, size = [self._held[self._at :]], 0
        while size <= self._longest and not self._ended:
            block = next(self._blocks, b"")
            self._ended = not block
            try:
                pieces.append(self._decoder.decode(block, final=self._ended))
            except UnicodeDecodeError as error:
                raise BadRow(f"not UTF-8 text ({error.reason})") from None
            size += len(pieces[-1])
        self._held, self._at = "".join(pieces), 0
        return True
