"""BM25 (Robertson et al., Okapi at TREC-3, 1994), computed by bm25s in Lucene's variant.

The score of a passage is a sum over the terms t of the query; a term that stands there twice counts twice:

    sum_t idf(t) * tf / (tf + k1 * (1 - b + b * length / mean))         idf(t) = ln(1 + (N - n + 0.5) / (n + 0.5))

tf: how often t stands in the passage; length: terms of the passage, stop words not counted; mean: of the lengths of all
passages; N: all passages; n: those that hold t. k1 is 1.2 and b is 0.75 where nothing else is set. Scores are float32.

Two things differ from other variants (Robertson and Zaragoza 2009, doi:10.1561/1500000019, section 3; Kamphuis et al., ECIR
2020). The 1 in the logarithm keeps idf above 0 for terms that most passages hold. The factor k1 + 1, equal for all terms, is
left out: no order depends on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field, ValidationInfo, field_validator

from workbench.machine import Machine
from workbench.retrieval.analyzer import Analyzer, Terms, check_language
from workbench.retrieval.ranking import Ranked, best
from workbench.retrieval.retriever import OpenTextIndex, TextRetriever

if TYPE_CHECKING:
    import bm25s


class BM25(TextRetriever):
    """Settings of BM25; the defaults are Lucene's, with English stop words and the Porter2 stemmer.

    Attributes:
        k1: saturation of the term frequency.
        b: normalisation by passage length, 0 (none) to 1.
        stopwords: language of the stop words left out, or None.
        stemmer: language of the Snowball stemmer, or None.
    """

    libraries: ClassVar = ("bm25s", "PyStemmer")

    kind: Literal["bm25"] = "bm25"
    k1: float = Field(default=1.2, ge=0)
    b: float = Field(default=0.75, ge=0, le=1)
    stopwords: str | None = "english"
    stemmer: str | None = "english"

    @field_validator("stopwords", "stemmer")
    @classmethod
    def _languages_are_known(cls, value: str | None, info: ValidationInfo) -> str | None:
        return check_language(value, str(info.field_name))

    @property
    def analyzer(self) -> Analyzer:
        """How texts and queries become terms; settings that share it read the same stored terms."""
        return Analyzer(stopwords=self.stopwords, stemmer=self.stemmer)

    def build(self, texts: Sequence[str], folder: Path, machine: Machine) -> None:
        """Writes the index of `texts` into a folder; without any term in them, the folder stays empty."""
        self.build_from_terms(self.analyzer.terms(texts), folder)

    def build_from_terms(self, terms: Terms, folder: Path) -> None:
        """As `build`, for texts that have been analysed."""
        import bm25s

        if len(terms.ids):
            index = bm25s.BM25(k1=self.k1, b=self.b, method="lucene")
            vocabulary = {term: number for number, term in enumerate(terms.vocabulary)}
            index.index((terms.rows(), vocabulary), show_progress=False)
            index.save(folder, show_progress=False)

    def open(self, folder: Path, machine: Machine) -> OpenBM25:
        """The index that `build` wrote, memory-mapped."""
        import bm25s

        if not (folder / "params.index.json").is_file():
            return OpenBM25(self.analyzer, None)
        index = bm25s.BM25.load(folder, mmap=True, show_progress=False)
        # mapped as before, but as plain arrays: NumPy's class for mapped files takes its time for each slice
        index.scores |= {name: np.asarray(index.scores[name]) for name in ("data", "indices", "indptr")}
        return OpenBM25(self.analyzer, index)


class OpenBM25(OpenTextIndex):
    """A BM25 index in memory; None stands for one without terms."""

    def __init__(self, analyzer: Analyzer, index: bm25s.BM25 | None) -> None:
        self.analyzer = analyzer
        self.index = index

    def search(self, queries: Sequence[str], depth: int) -> list[Ranked]:
        """The best passages of each query. Passages that share no term with it (score 0) are never among them."""
        return [self._search_one(terms, depth) for terms in self.analyzer.tokenize(queries)]

    def _search_one(self, terms: list[str], depth: int) -> Ranked:
        index = self.index
        known = [] if index is None else [term for term in terms if term in index.vocab_dict]
        if index is None or not known:
            return np.empty(0, np.int32), np.empty(0, np.float32)
        scores = index.get_scores(known)
        matching = np.flatnonzero(scores > 0)
        return best(matching, scores[matching], depth)
