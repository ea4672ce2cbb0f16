"""Text files, line by line: UTF-8, a byte order mark dropped, lines ended by a line feed alone, gzipped or not."""

from __future__ import annotations

import gzip
import re
import unicodedata
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from workbench.errors import InputError

UTF8_MARK = b"\xef\xbb\xbf"
OTHER_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
SURROGATE = re.compile("[\ud800-\udfff]")


class Line(NamedTuple):
    """A line without its end, and its number from 1."""

    number: int
    text: str


def lines(path: Path) -> Iterator[Line]:
    """The lines of a text file; one whose name ends in ``.gz`` is unpacked.

    Only a line feed ends a line (with a carriage return before it or not): other separators, such as U+2028, may stand in a
    text.

    Raises:
        InputError: the file cannot be opened, is cut off, or is not UTF-8; the message names the line.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
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
    try:
        text = raw.removeprefix(UTF8_MARK).decode("utf-8")
    except UnicodeDecodeError:
        for _ in lines(path):  # names the line
            pass
        raise
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _decoded(path: Path, number: int, raw: bytes) -> str:
    if number == 1:
        for mark, name in OTHER_MARKS.items():
            if raw.startswith(mark):
                raise InputError(f"{path} is {name}; save it as UTF-8")
        raw = raw.removeprefix(UTF8_MARK)
    raw = raw.removesuffix(b"\n").removesuffix(b"\r")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        wrong = raw[error.start : error.start + 1]
        meant = wrong.decode("cp1252", errors="replace")
        raise InputError(
            f"{path}, line {number}: the byte {wrong[0]:#04x} is no UTF-8 (in Windows-1252 it is {meant!r}); save it as UTF-8"
        ) from error


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
