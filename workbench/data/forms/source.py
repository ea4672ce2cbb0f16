"""Where the questions of a dataset and their documents are, as its settings say it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.data.documents.limits import Limits
from workbench.data.evidence import Missing, several
from workbench.data.forms.hub import Hub


@dataclass(frozen=True)
class Source:
    """Where questions and documents are.

    Attributes:
        questions: a file of questions, or several; None: they are on the hub.
        hub: a set of the hub; None: they are in a file.
        folder: of documents.
        corpus: a file of documents.
        qrels: judgements in TREC's format.
        form: of the questions; None: recognised.
        columns: what is read of a question -> the column that says it.
        shares: of the splits that are made where questions have none; None: the default.
        parsers: what reads the files of the folder, beside what is built in.
        limits: what each of them may take.
        missing: ``refuse`` where much of the evidence stands in no document, or ``drop`` these questions.
    """

    questions: Path | Sequence[Path] | None = None
    hub: Hub | None = None
    folder: Path | None = None
    corpus: Path | None = None
    qrels: Path | None = None
    form: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    shares: Mapping[str, float] | None = None
    parsers: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    missing: Missing = "refuse"

    @property
    def name(self) -> str:
        """What messages call it."""
        if self.folder is not None:
            return self.folder.name
        return "-".join(path.name.partition(".")[0] for path in self.files) or str(self.hub and self.hub.name)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of questions; none where they are on the hub."""
        return several(self.questions)
