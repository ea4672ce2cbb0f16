"""What a parser of documents is: one class with one verb, `parse`, from a file to texts with their structure."""

from __future__ import annotations

import re
import unicodedata
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, NamedTuple

from workbench.component import Component
from workbench.data.readers.text import composed
from workbench.errors import InputError, MissingExtraError

KINDS = ("page", "chapter", "heading", "table", "list", "code", "cell")
LONGEST_TITLE = 200  # characters
NO_TEXT = re.compile("[\0\ud800-\udfff\ufffe\uffff]")  # what no text in UTF-8, or none for people, holds


class Element(NamedTuple):
    """A part of a document: characters `start` to `end` of its text.

    Attributes:
        start: the first character.
        end: the one behind the last.
        kind: one of `KINDS`.
        level: of a heading from 1; otherwise 0.
        label: the heading's words, the page's number as counted from 1, the code's language; empty where there is none.
    """

    start: int
    end: int
    kind: str
    level: int = 0
    label: str = ""


class Document(NamedTuple):
    """What a parser makes of a file, or of one row of it.

    Attributes:
        text: of the document.
        title: empty where it names none: then the first line of the text, or the file's name, is taken.
        structure: its elements, as offsets into `text`.
        part: what tells the documents of one file apart, such as the id of a row; empty where the file is one document.
        notes: what is worth telling, such as an encoding that was guessed, without the file's name.
    """

    text: str
    title: str = ""
    structure: tuple[Element, ...] = ()
    part: str = ""
    notes: tuple[str, ...] = ()


class UnreadError(Exception):
    """A file cannot be read; it is listed with the reason, and the others are read.

    Attributes:
        reason: one word or a few, the same for all files of its kind, such as ``encrypted``.
        said: what was found, and the way out.
    """

    def __init__(self, reason: str, said: str) -> None:
        super().__init__(f"{reason}: {said}")
        self.reason, self.said = reason, said


class Unpacking(NamedTuple):
    """How much a file may hold.

    Attributes:
        unpacked: bytes that the parts of an archive may have together.
    """

    unpacked: int


class Parser(Component):
    """Base of all parsers. What they make of a file depends on its bytes and their settings alone, never on its name.

    Class attributes:
        extra: what has to be installed for it: ``pip install 'rag-workbench[EXTRA]'``.
        needs: the modules that are imported for it.
        forms: what a file may be by its first bytes, as `workbench.data.documents.forms` names it; empty: anything.
    """

    extra: ClassVar[str] = ""
    forms: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def parse(self, path: Path, limits: Unpacking) -> Iterable[Document]:
        """The documents in a file; most have one.

        Args:
            path: the file.
            limits: how much it may hold when it is unpacked.

        Raises:
            UnreadError: it is encrypted, cut off, empty, or no file of this format.
        """

    def check_installed(self) -> None:
        """Refuses, before anything is read, what needs a package that is not there.

        Raises:
            MissingExtraError: a package is missing.
        """
        for name in self.needs:
            self.library(name)

    def library(self, name: str) -> Any:
        """A module of the parser's extra.

        Args:
            name: of the module.

        Raises:
            MissingExtraError: it is not installed.
        """
        return imported(name, self.extra, f"the parser {type(self).__name__}")


PARSER: Any = Parser  # to check classes against; a type checker takes no abstract class for one that is made


def imported(name: str, extra: str, purpose: str) -> ModuleType:
    """A module of an extra.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtraError((error.name or name).split(".")[0], extra, purpose) from error


def checked(document: Document) -> Document:
    """The document with its text in normal form C and without what no text file can hold, its offsets following.

    Raises:
        InputError: an element is of an unknown kind, lies outside of the text, or begins or ends inside a letter.
    """
    document = document._replace(structure=tuple(Element(*element) for element in document.structure))
    for element in document.structure:
        if element.kind not in KINDS:
            raise InputError(f"the parser gave an element of kind {element.kind!r}; allowed: {', '.join(KINDS)}")
        if not 0 <= element.start <= element.end <= len(document.text):
            raise InputError(
                f"the parser gave an element at {element.start} to {element.end} of a text of {len(document.text)} characters"
            )
    text = NO_TEXT.sub("\ufffd", document.text)
    document = document._replace(title=composed(NO_TEXT.sub("\ufffd", document.title)))
    if unicodedata.is_normalized("NFC", text):
        return document._replace(text=text)
    moved = _moved(text, sorted({place for element in document.structure for place in element[:2]}))
    structure = tuple(e._replace(start=moved[e.start], end=moved[e.end], label=composed(e.label)) for e in document.structure)
    return document._replace(text=composed(text), structure=structure)


def _moved(text: str, offsets: Sequence[int]) -> dict[int, int]:
    """Offsets into a text -> those into its normal form C."""
    moved, before, length = {}, 0, 0
    for offset in offsets:
        length += len(composed(text[before:offset]))
        moved[offset], before = length, offset
    if length + len(composed(text[before:])) != len(composed(text)):
        raise InputError("the parser gave an element that begins or ends between a letter and its accent")
    return moved


def first_line(text: str) -> str:
    """The first line of a text that has anything in it, at most `LONGEST_TITLE` characters."""
    line = next((line.strip() for line in text.replace("\f", "\n").split("\n") if line.strip()), "")
    return " ".join(line.split())[:LONGEST_TITLE]
