"""What a file is by its first bytes, whatever its name says."""

from __future__ import annotations

PDF, ZIP, OLE, HTML, TEXT = "a PDF", "a zip archive", "an older or encrypted Office file", "a page in HTML", "text"
NOT_ITS_NAME = "not what its name says"  # the reason why such a file is not read
PARQUET = "a Parquet file"
TEXTS = (TEXT, HTML)
HEAD = 1024  # bytes; a PDF may begin anywhere in them
BEGINS = {
    b"PK\x03\x04": ZIP,
    b"PK\x05\x06": ZIP,
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": OLE,
    b"PAR1": PARQUET,
    b"{\\rtf": "a file in RTF",
    b"\x1f\x8b": "packed with gzip",
    b"BZh": "packed with bzip2",
    b"\xfd7zXZ": "packed with xz",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"II*\0": "a TIFF image",
    b"MM\0*": "a TIFF image",
    b"\x7fELF": "a program",
    b"SQLite format 3\0": "a database of SQLite",
}
PAGES = (b"<!doctype html", b"<html")


def form(head: bytes) -> str:
    """What a file is.

    Args:
        head: its first `HEAD` bytes.

    Returns:
        A few words, such as `PDF`; `TEXT` where nothing else is recognised.
    """
    if found := next((said for sign, said in BEGINS.items() if head.startswith(sign)), ""):
        return found
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(PAGES):
        return HTML
    return PDF if b"%PDF-" in head else TEXT
