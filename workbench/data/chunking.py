"""Documents -> passages: pieces of a document with their character offsets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from workbench.component import Component
from workbench.data.scripts import WORD
from workbench.data.sections import AT, KEEP, Cutting, by_document, titled
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
    """How documents are cut: windows of `words` words that share `overlap` words with the one before.

    Attributes:
        words: of a passage; None: a document, or a section of one, is one passage (``whole`` in a configuration).
        overlap: words that a passage shares with the one before.
        at: where no passage crosses: the beginnings of ``headings``, ``pages``, ``chapters`` or ``cells``. The headings above a
            passage stand in its title.
        keep: what is not cut, so that a passage may be longer: ``tables``, ``code``, ``lists``.
    """

    added: ClassVar[tuple[str, ...]] = ("at", "keep")
    words: int | None = Field(default=80, ge=1)
    overlap: int = Field(default=10, ge=0)
    at: tuple[Literal["headings", "pages", "chapters", "cells"], ...] = ()
    keep: tuple[Literal["tables", "code", "lists"], ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _read_whole(cls, value: Any) -> Any:
        return {"words": None, "overlap": 0} if value == "whole" else value

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
    def _overlap_is_shorter(self) -> Chunking:
        if self.words is not None and self.overlap >= self.words:
            raise ValueError(f"overlap of {self.overlap} words must be shorter than the passage of {self.words} words")
        if self.words is None and self.keep:
            raise ValueError("keep says what passages of so many words leave in one piece; name words, or leave keep away")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_not_used(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in write(self).items() if value or name not in self.added}

    @property
    def structured(self) -> bool:
        """Whether passages depend on the structure of the documents."""
        return bool(self.at or self.keep)

    def check(self, structure: pa.Table) -> None:
        """Refuses to cut where no document has what this cuts at or keeps.

        Args:
            structure: `workbench.data.dataset.STRUCTURE`.

        Raises:
            InputError: one of `at` or `keep` stands in no document.
        """
        there = set(pc.unique(structure["kind"]).to_pylist())
        for setting, names in (("at", AT), ("keep", KEEP)):
            for name in getattr(self, setting):
                if names[name] not in there:
                    known = ", ".join(one for one, kind in names.items() if kind in there) or f"none of {', '.join(names)}"
                    raise InputError(
                        f"chunking: {setting}: no document has {name}; there are {known}; docs/documents.md says which files "
                        f"have which structure"
                    )

    @property
    def label(self) -> str:
        """``80-10`` for windows of 80 words overlapping by 10, else ``whole``; ``80-10 at headings, tables kept``."""
        size = "whole" if self.words is None else f"{self.words}-{self.overlap}"
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
        if self.structured:
            return self._by_structure(documents, structure)
        cut = self._whole if self.words is None else self._windows
        return pa.Table.from_batches([cut(batch) for batch in documents.to_batches(max_chunksize=4096)], PASSAGES)

    def _by_structure(self, documents: pa.Table, structure: pa.Table | None) -> pa.Table:
        cutting = Cutting(self.words, self.overlap, self.at, self.keep)
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
