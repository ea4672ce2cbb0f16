"""Tags that people put on answers: which stage failed, in five words of the workbench or in their own.

They lie in tags.jsonl in the run's folder, one line for each change; the run wrote nothing of it, so no digest covers it.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from workbench.data.readers import json_lines
from workbench.errors import InputError
from workbench.results.lines import TagRecord

FILE = "tags.jsonl"
MISSED, PASSED_OVER, MISREAD = "retrieval missed", "wrong passage shown", "passage right, answer wrong"
MISJUDGED, BAD = "right, scored wrong", "question bad"
TAGS = (MISSED, PASSED_OVER, MISREAD, MISJUDGED, BAD)  # by their keys 1 to 5
LONGEST = 200  # characters of a tag
LONGEST_NOTE = 10_000


class Tagged(NamedTuple):
    """What stands on one answer: its tags in the order they were put, and the last note."""

    tags: tuple[str, ...]
    note: str


NOTHING = Tagged((), "")


class Tags:
    """The tags of a run."""

    def __init__(self, folder: Path) -> None:
        """Reads them.

        Args:
            folder: of the run.

        Raises:
            InputError: a line of tags.jsonl is damaged; the message names it.
        """
        self.path = folder / FILE
        self._found: dict[tuple[str, str], Tagged] = {}
        if self.path.is_file():
            for _, row in json_lines.records(self.path, TagRecord):
                self._take(row)

    def of(self, configuration: str, query_id: str) -> Tagged:
        """What stands on an answer."""
        return self._found.get((configuration, query_id), NOTHING)

    def counts(self, configuration: str) -> dict[str, int]:
        """Tag -> number of answers of a configuration that have it: those of `TAGS` first, then one's own."""
        counted = Counter(tag for (c, _), one in self._found.items() if c == configuration for tag in one.tags)
        own = sorted(counted.keys() - set(TAGS))
        return {tag: counted[tag] for tag in (*TAGS, *own) if tag in counted}

    def put(self, configuration: str, query_id: str, tag: str, note: str = "") -> None:
        """Puts a tag on an answer, or with an empty tag a note alone.

        Args:
            configuration: id.
            query_id: of the question.
            tag: one of `TAGS`, or one's own.
            note: beside it.

        Raises:
            InputError: neither tag nor note, one that is too long, or the file cannot be written.
        """
        tag, note = " ".join(tag.split()), note.strip()
        if not tag and not note:
            raise InputError("a tag is empty; give words such as 'question bad', or a note")
        if len(tag) > LONGEST or len(note) > LONGEST_NOTE:
            raise InputError(f"a tag has at most {LONGEST} characters and a note {LONGEST_NOTE:,}; received more")
        self._write(TagRecord(time=_now(), configuration=configuration, query_id=query_id, tag=tag, note=note, removed=False))

    def take_off(self, configuration: str, query_id: str, tag: str) -> None:
        """Takes a tag off an answer; nothing happens where it does not stand.

        Args:
            configuration: id.
            query_id: of the question.
            tag: that stands on it.

        Raises:
            InputError: the file cannot be written.
        """
        if tag in self.of(configuration, query_id).tags:
            self._write(TagRecord(time=_now(), configuration=configuration, query_id=query_id, tag=tag, note="", removed=True))

    def export(self, configuration: str) -> str:
        """The tags of a configuration as CSV: query_id, tag, note; the tag can be a column of the questions, and so a slice."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(("query_id", "tag", "note"))
        rows = ((query, one) for (c, query), one in sorted(self._found.items()) if c == configuration)
        writer.writerows((query, "; ".join(one.tags), one.note) for query, one in rows if one.tags or one.note)
        return out.getvalue()

    def _write(self, row: TagRecord) -> None:
        try:
            with FileLock(f"{self.path}.lock"), self.path.open("a", encoding="utf-8") as file:
                file.write(row.model_dump_json() + "\n")
        except OSError as error:
            raise InputError(f"{self.path} cannot be written ({error.strerror}), so the tag is not kept") from error
        self._take(row)

    def _take(self, row: TagRecord) -> None:
        key = row.configuration, row.query_id
        before = self._found.get(key, NOTHING)
        others: Iterable[str] = (tag for tag in before.tags if tag != row.tag)
        tags = (*others, *([row.tag] if row.tag and not row.removed else []))
        self._found[key] = Tagged(tags, row.note or before.note)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
