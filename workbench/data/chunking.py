"""Documents -> passages: pieces of a document with their character offsets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from workbench.component import Component

PASSAGES = pa.schema(
    [
        ("doc_id", pa.string()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("title", pa.string()),
        ("text", pa.string()),  # characters start to end of the document's text
    ]
)
WORD = re.compile(r"\S+")


class Chunking(Component):
    """How documents are cut: windows of `words` words that share `overlap` words with the one before.

    `words` None: a document is one passage (``whole`` in a configuration).
    """

    words: int | None = Field(default=80, ge=1)
    overlap: int = Field(default=10, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _read_whole(cls, value: Any) -> Any:
        return {"words": None, "overlap": 0} if value == "whole" else value

    @model_validator(mode="after")
    def _overlap_is_shorter(self) -> Chunking:
        if self.words is not None and self.overlap >= self.words:
            raise ValueError(f"overlap of {self.overlap} words must be shorter than the passage of {self.words} words")
        return self

    @property
    def label(self) -> str:
        """``80-10`` for windows of 80 words overlapping by 10, else ``whole``."""
        return "whole" if self.words is None else f"{self.words}-{self.overlap}"

    def cut(self, documents: pa.Table) -> pa.Table:
        """Passages (`PASSAGES`) in the order of (document, start); passage number = row.

        A document without words gives no passage, unless documents are kept whole.
        """
        cut = self._whole if self.words is None else self._windows
        return pa.Table.from_batches([cut(batch) for batch in documents.to_batches(max_chunksize=4096)], PASSAGES)

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
