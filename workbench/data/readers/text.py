"""Text files, line by line: UTF-8, or UTF-16 that says so, lines ended by a line feed alone, gzipped or not."""

from __future__ import annotations

import gzip
import math
import re
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from workbench.errors import InputError

UTF8_MARK = b"\xef\xbb\xbf"
OTHER_MARKS = {b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
# how files begin that are no text, and the way out
OTHER_FORMS = {
    b"PK\x03\x04": "a zip archive, as Excel's .xlsx is; unpack it, or export what is in it as text in UTF-8",
    b"\x1f\x8b": "packed with gzip; give it a name that ends in .gz, or unpack it",
}
SHOWN = 80  # characters of a value in a message
SURROGATE = re.compile("[\ud800-\udfff]")
NUMBER = re.compile(r"\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?\s*", re.ASCII | re.IGNORECASE)
WHOLE = re.compile(r"[+-]?\d{1,9}", re.ASCII)


class Line(NamedTuple):
    """A line without its end, and its number from 1."""

    number: int
    text: str


def lines(path: Path) -> Iterator[Line]:
    """The lines of a text file; one whose name ends in ``.gz`` is unpacked.

    Only a line feed ends a line (with a carriage return before it or not): other separators, such as U+2028, may stand in a
    text. A file is UTF-8, or begins with the mark of UTF-16 or UTF-32, as programs on Windows write it.

    Raises:
        InputError: the file cannot be opened, is cut off, or is in another encoding; the message names the line.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            if encoding := _marked(file.peek(4)[:4]):
                yield from _wide(path, file.read(), encoding)
                return
            for number, raw in enumerate(file, 1):
                yield Line(number, _decoded(path, number, raw))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is no whole gzip file ({error}); fetch or pack it again") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def whole(path: Path) -> str:
    """The text of a file, its lines ended by line feeds.

    Raises:
        InputError: the file cannot be opened, or is not UTF-8; the message names the line.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    if encoding := _marked(raw[:4]):
        return "\n".join(line.text for line in _wide(path, raw, encoding)).replace("\r", "\n")
    try:
        text = raw.removeprefix(UTF8_MARK).decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        for _ in lines(path):  # names the line
            pass
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _marked(head: bytes) -> str | None:
    """The encoding whose mark a file begins with, other than UTF-8."""
    return next((name for mark, name in OTHER_MARKS.items() if head.startswith(mark)), None)


def _wide(path: Path, raw: bytes, encoding: str) -> Iterator[Line]:
    """The lines of a file that begins with the mark of an encoding."""
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} begins as {encoding} does and is no whole {encoding} ({error.reason}); save it as UTF-8"
        ) from error
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else (), 1):
        if "\0" in line:
            raise InputError(f"{path}, line {number}: a NUL stands in it, so this is no text; save it as UTF-8")
        yield Line(number, line.removesuffix("\r"))


def _decoded(path: Path, number: int, raw: bytes) -> str:
    if number == 1:
        for sign, form in OTHER_FORMS.items():
            if raw.startswith(sign):
                raise InputError(f"{path} is {form}")
        raw = raw.removeprefix(UTF8_MARK)
    raw = raw.removesuffix(b"\n").removesuffix(b"\r")
    if b"\0" in raw:
        raise InputError(f"{path}, line {number}: a NUL byte stands in it, so this is no UTF-8 text; save it as UTF-8")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        wrong = raw[error.start : error.start + 1]
        meant = wrong.decode("cp1252", errors="replace")
        raise InputError(
            f"{path}, line {number}: the byte {wrong[0]:#04x} is no UTF-8 (in Windows-1252 it is {meant!r}); save it as UTF-8"
        ) from error


def short(text: str) -> str:
    """A text in quotation marks, shortened, for messages; what cannot be seen is written as an escape."""
    return repr(text) if len(text) <= SHOWN else f"{text[:SHOWN]!r}..."


def counted(n: int, noun: str, one: str = "", several: str = "") -> str:
    """``1 question is``, ``12 questions are``: a number with its noun, and the verb or whatever else depends on it.

    Args:
        n: the number.
        noun: of one.
        one: what follows where there is one.
        several: what follows where there are none or several.
    """
    return " ".join(filter(None, [f"{n} {noun if n == 1 else plural(noun)}", one if n == 1 else several]))


def plural(noun: str) -> str:
    """``questions``, ``queries``, ``copies``."""
    return f"{noun[:-1]}ies" if noun.endswith("y") and noun[-2] not in "aeiou" else f"{noun}s"


def few(names: Sequence[str]) -> str:
    """The first five of some names, in quotation marks, for messages."""
    return f"{', '.join(map(repr, names[:5]))}{', ...' if len(names) > 5 else ''}"


def number(text: str) -> float | None:
    """A finite decimal number such as ``-1.5e-3``; None of anything else, what Python reads besides (``1_0``, ``٣``) included."""
    value = float(text) if NUMBER.fullmatch(text) else math.nan
    return value if math.isfinite(value) else None


def whole_number(text: str) -> int | None:
    """A whole number of at most nine digits; None of anything else."""
    return int(text) if WHOLE.fullmatch(text) else None


def composed(text: str) -> str:
    """A text in Unicode's normal form C, where equal letters are equal characters: ``e`` and an accent after it become ``é``."""
    return unicodedata.normalize("NFC", text)


def check_writable(value: object, where: str) -> None:
    r"""Refuses half of a surrogate pair, such as JSON's ``\ud83d`` alone, which no file can hold as UTF-8.

    Args:
        value: a text, or a list or an object with texts in it.
        where: its place, for messages.

    Raises:
        InputError: there is one.
    """
    if isinstance(value, str):
        if found := SURROGATE.search(value):
            raise InputError(
                f"{where}: character {found.start() + 1} is one half of a surrogate pair (U+{ord(found[0]):04X}), which is no "
                f"text; write the whole character"
            )
    elif isinstance(value, dict):
        for key, one in value.items():
            check_writable(key, where)
            check_writable(one, f"{where}: {key}")
    elif isinstance(value, list):
        for one in value:
            check_writable(one, where)
