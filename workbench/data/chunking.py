"""Documents -> passages: pieces of a document with their character offsets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from workbench.component import Component, library_version
from workbench.data.scripts import WORD
from workbench.data.sections import AT, KEEP, Cutting, by_document, titled
from workbench.data.sentences import LIBRARY, check_installed
from workbench.errors import InputError

PASSAGES = pa.schema(
    [
        ("doc_id", pa.string()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("title", pa.string()),
        ("text", pa.string()),  # characters start to end of the document's text
    ]
)


class Chunking(Component):
    """How documents are cut: windows of `words` words that share `overlap` words with the one before, or another size.

    Attributes:
        words: of a passage; None: a document, or a section of one, is one passage (``whole`` in a configuration), unless another
            size is given.
        overlap: words, or sentences, that a passage shares with the one before.
        at: where no passage crosses: the beginnings of ``headings``, ``pages``, ``chapters`` or ``cells``. The headings above a
            passage stand in its title.
        keep: what is not cut, so that a passage may be longer: ``tables``, ``code``, ``lists``; and ``sentences``, but for those
            that are longer than a passage.
        sentences: of a passage, in place of `words`.
        recursive: words that a passage has at most, in place of `words`: it ends at the strongest break that lets it be that
            short, a heading, a page, a blank line, a line or a sentence.
        language: of the sentences, where they are not cut: its code, such as ``de``.
    """

    added: ClassVar[tuple[str, ...]] = ("at", "keep", "sentences", "recursive", "language")
    words: int | None = Field(default=80, ge=1)
    overlap: int = Field(default=10, ge=0)
    at: tuple[Literal["headings", "pages", "chapters", "cells"], ...] = ()
    keep: tuple[Literal["tables", "code", "lists", "sentences"], ...] = ()
    sentences: int | None = Field(default=None, ge=1)
    recursive: int | None = Field(default=None, ge=1)
    language: str = Field(default="en", min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _read_sizes(cls, value: Any) -> Any:
        if value == "whole":
            return {"words": None, "overlap": 0}
        others = isinstance(value, dict) and (value.get("sentences"), value.get("recursive")) != (None, None)
        return {"words": None, "overlap": 0, **value} if others else value

    @field_validator("at", "keep", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        """A name alone is a list of one; the order of several says nothing."""
        given = (value,) if isinstance(value, str) else value
        return tuple(sorted(given, key=str)) if isinstance(given, list | tuple) else given

    @field_validator("at", "keep")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if twice := [name for number, name in enumerate(value) if name in value[:number]]:
            raise ValueError(f"{twice[0]} is named twice; name it once")
        return value

    @model_validator(mode="after")
    def _sizes_fit(self) -> Chunking:
        sizes = {name: size for name in ("words", "sentences", "recursive") if (size := getattr(self, name)) is not None}
        if len(sizes) > 1:
            raise ValueError(f"a passage has one size, and {' and '.join(sizes)} are given; name one of them")
        if self.words is not None and self.overlap >= self.words:
            raise ValueError(f"overlap of {self.overlap} words must be shorter than the passage of {self.words} words")
        if self.sentences is not None and self.overlap >= self.sentences:
            raise ValueError(f"overlap of {self.overlap} sentences must be shorter than the passage of {self.sentences}")
        if self.recursive is not None and self.overlap:
            raise ValueError("passages that are cut recursively share nothing; leave overlap away")
        if not sizes and self.keep:
            raise ValueError("keep says what passages of so many words leave in one piece; name words, or leave keep away")
        if self.sentences is not None and "sentences" in self.keep:
            raise ValueError("passages of so many sentences cut none; leave sentences out of keep")
        if not self.by_sentences and "language" in self.model_fields_set:
            raise ValueError("language is that of sentences, which are cut here; name sentences, or leave language away")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_not_used(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found = {name: value for name, value in write(self).items() if value or name not in self.added}
        if not self.by_sentences:
            found.pop("language", None)
        return found

    def definition(self) -> dict[str, Any]:
        libraries = {"libraries": {LIBRARY: library_version(LIBRARY)}} if self.by_sentences else {}
        return super().definition() | libraries

    @property
    def structured(self) -> bool:
        """Whether passages depend on the structure of the documents."""
        return bool(self.at or set(self.keep) & KEEP.keys())

    @property
    def by_sentences(self) -> bool:
        """Whether sentences are not cut."""
        return self.sentences is not None or "sentences" in self.keep

    @property
    def plain(self) -> bool:
        """Whether passages are windows of words or whole documents, and nothing else is looked at."""
        return not (self.structured or self.by_sentences or self.recursive)

    def check(self, structure: pa.Table) -> None:
        """Refuses to cut where no document has what this cuts at or keeps, or where the library for it is missing.

        Args:
            structure: `workbench.data.dataset.STRUCTURE`.

        Raises:
            InputError: one of `at` or `keep` stands in no document.
            MissingExtraError: a package that finds sentences is not installed.
        """
        if self.by_sentences:
            check_installed()
        if not self.structured:
            return
        there = set(pc.unique(structure["kind"]).to_pylist())
        for setting, names in (("at", AT), ("keep", KEEP)):
            for name in getattr(self, setting):
                if name in names and names[name] not in there:
                    known = ", ".join(one for one, kind in names.items() if kind in there) or f"none of {', '.join(names)}"
                    raise InputError(
                        f"chunking: {setting}: no document has {name}; there are {known}; docs/documents.md says which files "
                        f"have which structure"
                    )

    @property
    def label(self) -> str:
        """``80-10`` for windows of 80 words overlapping by 10, else ``whole``; ``5-1 sentences at headings, tables kept``."""
        size = "whole" if self.words is None else f"{self.words}-{self.overlap}"
        if self.sentences is not None:
            size = f"{self.sentences}-{self.overlap} sentences"
        if self.recursive is not None:
            size = f"{self.recursive} recursive"
        at = f" at {' and '.join(self.at)}" if self.at else ""
        keep = f", {' and '.join(self.keep)} kept" if self.keep else ""
        return f"{size}{at}{keep}"

    def cut(self, documents: pa.Table, structure: pa.Table | None = None) -> pa.Table:
        """Passages (`PASSAGES`) in the order of (document, start); passage number = row.

        A document without words gives no passage, unless documents are kept whole.

        Args:
            documents: `workbench.data.dataset.DOCUMENTS`.
            structure: `workbench.data.dataset.STRUCTURE`, for what is cut by it.
        """
        if not self.plain:
            return self._by_structure(documents, structure)
        cut = self._whole if self.words is None else self._windows
        return pa.Table.from_batches([cut(batch) for batch in documents.to_batches(max_chunksize=4096)], PASSAGES)

    def _by_structure(self, documents: pa.Table, structure: pa.Table | None) -> pa.Table:
        most = self.words or self.sentences or self.recursive
        kept = [name for name in self.keep if name in KEEP]
        language = self.language if self.by_sentences else ""
        counted: Literal["words", "sentences"] = "words" if self.sentences is None else "sentences"
        cutting = Cutting(most, self.overlap, self.at, kept, language, counted, self.recursive is not None)
        parts = {} if structure is None else by_document(structure)

        def rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
            for row in batch.to_pylist():
                for start, end, path in cutting.passages(row["text"], parts.get(row["id"], ())):
                    title = titled(row["title"], path)
                    yield {"doc_id": row["id"], "start": start, "end": end, "title": title, "text": row["text"][start:end]}

        batches = documents.to_batches(max_chunksize=4096)
        return pa.Table.from_batches([pa.RecordBatch.from_pylist(list(rows(one)), PASSAGES) for one in batches], PASSAGES)

    def _whole(self, documents: pa.RecordBatch) -> pa.RecordBatch:
        fresh = documents.take(pa.array(np.arange(documents.num_rows)))  # a slice's bytes on disk differ from those of a copy
        starts, ends = pa.array(np.zeros(fresh.num_rows, np.int64)), pc.utf8_length(fresh["text"]).cast(pa.int64())
        return pa.RecordBatch.from_arrays([fresh["id"], starts, ends, fresh["title"], fresh["text"]], schema=PASSAGES)

    def _windows(self, documents: pa.RecordBatch) -> pa.RecordBatch:
        rows = [
            {"doc_id": row["id"], "start": a, "end": b, "title": row["title"], "text": row["text"][a:b]}
            for row in documents.to_pylist()
            for a, b in self.windows(row["text"])
        ]
        return pa.RecordBatch.from_pylist(rows, PASSAGES)

    def windows(self, text: str) -> Iterator[tuple[int, int]]:
        """Character offsets (start, end) of the passages of a text."""
        if self.words is None:
            yield 0, len(text)
            return
        words = [match.span() for match in WORD.finditer(text)]
        start = 0
        while start < len(words):
            end = min(start + self.words, len(words))
            yield words[start][0], words[end - 1][1]
            if end == len(words):
                return
            start += self.words - self.overlap


def full_text(title: str, text: str) -> str:
    """What embedders and BM25 read of a document or passage: title, space, text."""
    return f"{title} {text}".strip()
