"""JSON files of other programs, with the line of every value.

The standard parser reads them; a line is only looked for when something is wrong, by walking the text again. Several
documents in one file (JSON lines, or whole objects one after the other) and gzip are read alike, by content.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steelyard.errors import InputError
from steelyard.surrogates import ESCAPED, whole
from steelyard.yaml_lines import shown

Loc = tuple[str | int, ...]

LARGEST = 2 << 30
"""Bytes of text that are read, unpacked: a packed file may hold a thousand times its size."""
GZIP = b"\x1f\x8b"
CUT = "The file was cut: copy it again, or let the tool finish writing it."
_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


class _RepeatedKey(Exception):
    """An object names a key twice."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        # Parsers keep the last of two and say nothing.
        raise _RepeatedKey
    return found


_STRICT = json.JSONDecoder(object_pairs_hook=_object)


@dataclass(frozen=True, slots=True)
class Document:
    """One JSON document of a file: its value, and where its text stands."""

    file: str
    text: str
    start: int
    data: Any

    @property
    def first_line(self) -> int:
        """Line on which it begins, from 1."""
        return self.text.count("\n", 0, self.start) + 1

    def line(self, loc: Loc) -> int:
        """Line of the value at `loc`, or of the nearest value around it that exists."""
        wanted = {loc[:n] for n in range(len(loc) + 1)}
        best, place = -1, self.start
        for path, offset in _positions(self.text, self.start, ()):
            if path in wanted and len(path) > best:
                best, place = len(path), offset
                if best == len(loc):
                    break
        return self.text.count("\n", 0, place) + 1

    def problem(self, message: str, remedy: str, loc: Loc = ()) -> InputError:
        """An error at a value of this document."""
        return InputError(message, remedy=remedy, file=self.file, line=self.line(loc), field=field_of(loc) or None)


@dataclass(frozen=True, slots=True)
class Source:
    """A file as read: its documents, and the sha256 of its text, the same packed and unpacked."""

    path: Path
    file: str
    digest: str
    documents: tuple[Document, ...]


def field_of(loc: Loc) -> str:
    """`requests.successful[3].info`: a path as people write it."""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def read(path: Path) -> Source:
    """Every document of a file. InputError, with the line where there is one, if there is nothing to go on with."""
    file = shown(path)

    def refuse(message: str, remedy: str, line: int | None = None) -> InputError:
        return InputError(message, remedy=remedy, file=file, line=line)

    try:
        with path.open("rb") as stream:
            packed = stream.read(2) == GZIP
        if packed:
            with gzip.open(path) as unpacked:
                raw = unpacked.read(LARGEST + 1)
        else:
            with path.open("rb") as stream:
                raw = stream.read(LARGEST + 1)
    except FileNotFoundError:
        raise refuse("there is no such file.", "Check the path.") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise refuse(f"the gzip file is damaged ({error}).", "Copy it again, or pack it anew.") from None
    except OSError as error:
        raise refuse(f"the file cannot be read ({error.strerror}).", "Check the path and its permissions.") from None
    if len(raw) > LARGEST:
        raise refuse(f"the file holds more than {LARGEST >> 30} GiB.", "Split the run into several files.")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise refuse(
            "the file is no text: it holds bytes that are not UTF-8.", "Give the JSON file that the tool wrote.", line
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise refuse("the file holds NUL bytes: it is binary, or was cut while being written.", CUT, line)
    if not text.strip():
        raise refuse("the file is empty.", "The tool wrote nothing: look at its own log.", 1)
    documents = tuple(_documents(file, text))
    return Source(path, file, hashlib.sha256(text.encode()).hexdigest(), documents)


def _documents(file: str, text: str) -> Iterator[Document]:
    place = _after_space(text, 0)
    while place < len(text):
        try:
            data, end = _STRICT.raw_decode(text, place)
        except _RepeatedKey:
            raise _repeated(Document(file, text, place, None)) from None
        except json.JSONDecodeError as error:
            raise _broken(file, text, place, error) from None
        except RecursionError:
            line = text.count("\n", 0, place) + 1
            raise InputError(
                "the JSON is nested too deeply.", remedy="Is it the right file?", file=file, line=line
            ) from None
        except ValueError as error:
            # Python refuses integers of thousands of digits.
            raise Document(file, text, place, None).problem(f"a number cannot be read ({error}).", CUT) from None
        if ESCAPED.search(text, place, end):
            data = whole(data)
        yield Document(file, text, place, data)
        place = _after_space(text, end)


def _broken(file: str, text: str, start: int, error: json.JSONDecodeError) -> InputError:
    place = error.pos
    if not text[place:].strip() or error.msg.startswith("Unterminated string"):
        first = text.count("\n", 0, start) + 1
        line = text.count("\n", 0, len(text.rstrip())) + 1
        where = "" if line == first else f" of the object that begins in line {first}"
        return InputError(f"the file ends in the middle{where}.", remedy=CUT, file=file, line=line)
    before = text.rfind("\n", 0, place) + 1
    if place == before and text[place] in "{[" and place > start:
        # A new record where the one before has not ended: that one was cut, whatever the parser says.
        line = text.count("\n", 0, len(text[:place].rstrip())) + 1
        return InputError("the line ends in the middle of a value.", remedy=CUT, file=file, line=line)
    line = text.count("\n", 0, place) + 1
    return InputError(
        f"the file is no JSON from character {place - before + 1} of the line on ({error.msg}).",
        remedy="Give the file as the tool wrote it.",
        file=file,
        line=line,
    )


def _repeated(document: Document) -> InputError:
    seen: set[Loc] = set()
    for path, offset in _positions(document.text, document.start, ()):
        if path in seen:
            line = document.text.count("\n", 0, offset) + 1
            return InputError(
                "the key stands twice in its object.", remedy="Give the file as the tool wrote it.",
                file=document.file, line=line, field=field_of(path),
            )  # fmt: skip
        seen.add(path)
    return document.problem("a key stands twice in its object.", "Give the file as the tool wrote it.")


def _after_space(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    return found.end() if found else place


def _positions(text: str, place: int, loc: Loc) -> Iterator[tuple[Loc, int]]:
    """Every value from `place` on with the place where it begins (for a member that of its key), outside first.

    For text that the parser has accepted, or accepts but for repeated keys. An explicit stack: files nest deeply.
    """
    stack: list[tuple[str, Loc, int]] = []
    place = _after_space(text, place)
    yield loc, place
    while True:
        sign = text[place]
        closed = False
        if sign in "{[":
            place = _after_space(text, place + 1)
            stack.append((sign, loc, 0))
            closed = text[place] in "}]"
        else:
            _, place = _DECODER.raw_decode(text, place)
            place = _after_space(text, place)
            if not stack:
                return
            closed = text[place] in "}]"
            if not closed:
                place = _after_space(text, place + 1)
        while closed:
            stack.pop()
            place = _after_space(text, place + 1)
            if not stack:
                return
            closed = text[place] in "}]"
            if not closed:
                place = _after_space(text, place + 1)
        kind, around, count = stack[-1]
        if kind == "{":
            key, end = _DECODER.raw_decode(text, place)
            loc = (*around, key)
            yield loc, place
            place = _after_space(text, _after_space(text, end) + 1)
        else:
            loc = (*around, count)
            stack[-1] = (kind, around, count + 1)
            yield loc, place
