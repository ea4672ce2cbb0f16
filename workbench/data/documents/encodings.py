"""Bytes -> text, whatever the encoding: its mark, UTF-8, what the file declares, and then a guess that is told."""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple

from workbench.data.documents.forms import NOT_ITS_NAME
from workbench.data.documents.parser import UnreadError, imported
from workbench.data.readers.text import counted

MARKS = {  # the longer first: the mark of UTF-32 begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
# what pages mean by these names, as browsers read them
MEANT = {
    "ascii": "cp1252",
    "us-ascii": "cp1252",
    "iso-8859-1": "cp1252",
    "latin1": "cp1252",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc-kr": "cp949",
    "ks_c_5601-1987": "cp949",
}
BEYOND_ASCII, STRANGE = re.compile("[^\0-\x7f]"), re.compile("[\udc80-\udcff]")  # STRANGE: bytes that are no UTF-8
ESCAPE = b"\x1b"  # encodings that switch by it consist of bytes of ASCII, so they would pass for UTF-8
GUESSED_FROM = 1 << 18  # bytes
NEARLY = 0.1  # of charset-normalizer's coherence, from 0 to 1
# UTF-16 without a mark has a zero in most pairs of bytes, always on the same side; more than this is no accident
ZEROS = 0.3


class Decoded(NamedTuple):
    """A text, its lines ended by line feeds, and a sentence on the encoding where it was guessed."""

    text: str
    notes: tuple[str, ...] = ()


def decoded(raw: bytes, declared: str = "") -> Decoded:
    """The text of some bytes.

    Args:
        raw: the bytes.
        declared: the encoding that they say they are in; empty where they say none.

    Raises:
        UnreadError: they are empty, or no text.
    """
    if not raw.strip():
        raise UnreadError("empty", "nothing stands in it")
    mark = next((mark for mark in MARKS if raw.startswith(mark)), b"")
    if mark:
        return _marked(raw, mark)
    declared = MEANT.get(declared.lower(), declared)
    if b"\0" not in raw:
        if ESCAPE in raw and declared and (text := _read(raw, declared)) is not None:
            return Decoded(_lines(text))
        if (text := _read(raw, "utf-8")) is not None:
            return Decoded(_lines(text))
    elif found := _without_mark(raw):
        return found
    else:
        raise UnreadError(NOT_ITS_NAME, "zero bytes stand in it, so this is no text")
    if declared and (text := _read(raw, declared)) is not None:
        return Decoded(_lines(text))
    return _nearly_utf8(raw) or _guessed(raw)


def _nearly_utf8(raw: bytes) -> Decoded | None:
    """A text in UTF-8 with pieces of Windows-1252 in it; None where fewer than half of its letters beyond ASCII are UTF-8."""
    text = raw.decode("utf-8", "surrogateescape")
    strange = len(STRANGE.findall(text))
    if len(BEYOND_ASCII.findall(text)) < 2 * strange:
        return None
    mended = STRANGE.sub(lambda one: bytes([ord(one[0]) - 0xDC00]).decode("cp1252", "replace"), text)
    return Decoded(
        _lines(mended),
        (f"{counted(strange, 'byte')} in it {'is' if strange == 1 else 'are'} no UTF-8, and read as Windows-1252",),
    )


def _marked(raw: bytes, mark: bytes) -> Decoded:
    encoding = MARKS[mark]
    text = _read(raw[len(mark) :], encoding)
    if text is None:
        raise UnreadError("damaged", f"it begins with the mark of {encoding} and is not in this encoding")
    if not text.strip():
        raise UnreadError("empty", "nothing stands in it")
    return Decoded(_lines(text))


def _without_mark(raw: bytes) -> Decoded | None:
    """UTF-16 without its mark, as the zeros on one side of the pairs of bytes say."""
    head = raw[:GUESSED_FROM]
    for encoding, zeros in (("utf-16-le", head[1::2].count(0)), ("utf-16-be", head[::2].count(0))):
        other = head.count(0) - zeros
        if zeros > ZEROS * len(head) / 2 and other < zeros / 10 and (text := _read(raw, encoding)) is not None:
            return Decoded(_lines(text), (f"read as {encoding}, a guess: it has no mark of its encoding",))
    return None


def _guessed(raw: bytes) -> Decoded:
    library = imported("charset_normalizer", "documents", "text that is not UTF-8")
    for sample in (raw[:GUESSED_FROM], raw):
        likely = list(library.from_bytes(sample))
        # old Macintoshes wrote few of the files that there are, so of guesses that are as likely another one is taken
        near = [one for one in likely if one.chaos <= likely[0].chaos and one.coherence > likely[0].coherence - NEARLY]
        for one in sorted(near, key=lambda one: one.encoding.startswith("mac_"))[:1]:
            if (text := _read(raw, one.encoding)) is not None:
                return Decoded(_lines(text), (f"read as {one.encoding}, a guess: it is not UTF-8",))
    raise UnreadError(NOT_ITS_NAME, "it is text in no encoding that is known")


def _read(raw: bytes, encoding: str) -> str | None:
    try:
        return raw.decode(encoding)
    except (UnicodeDecodeError, LookupError, ValueError):
        return None


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
