"""Files that are broken, disguised or made to do harm cost only themselves, and what was read once is not read again."""

from __future__ import annotations

import io
import json
import os
import re
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from pypdf import PdfReader, PdfWriter
from typer.testing import CliRunner

from benchmarks import made_files
from workbench import Experiment
from workbench.cli import app
from workbench.data import sources
from workbench.data.dataset import Dataset
from workbench.data.documents import duplicates, kept, pool, reading
from workbench.data.documents.limits import Limits
from workbench.data.documents.pool import MODULE, Task
from workbench.errors import InputError
from workbench.experiment.config import read_settings
from workbench.experiment.writer import resolved
from workbench.store.progress import Progress

MB = 1_000_000
OWN = """
import os, time
from pathlib import Path
from workbench.data.documents.parser import Document, Parser

class Odd(Parser):
    def parse(self, path, limits):
        wish = path.read_text().strip()
        if wish == "hang":
            time.sleep(9999)
        if wish == "spin":
            while True:
                pass
        if wish == "fill":
            filled = [bytearray(1 << 26) for _ in range(999)]
        if wish == "die":
            os.abort()
        if wish == "leave":
            os._exit(3)
        if wish == "raise":
            raise KeyError(f"no such thing in {path}")
        print("this is no answer")
        return [Document(wish, structure=[(0, 99, "page", 0, "")] if wish == "lie" else ())]
"""


@pytest.fixture(autouse=True)
def kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read in another test is not there."""
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "home"))


def bomb(name: str, size: int, declared: int | None = None) -> bytes:
    """A zip archive of parts that unpack to `size` bytes together, or say so."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    megabyte = packer.compress(bytes(MB)) + packer.flush(zlib.Z_FULL_FLUSH)
    parts, places, written = max(size // (3_500 * MB), 1), [], bytearray()
    for number in range(parts):
        stream = megabyte * (size // parts // MB) + zlib.compressobj(9, zlib.DEFLATED, -15).flush()
        part = (name if not number else f"{number}").encode()
        says = (0, len(stream), declared or size // parts, len(part), 0)
        places.append((part, says, len(written)))
        written += struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, 0, 8, 0, 0, *says) + part + stream
    start = len(written)
    for part, says, place in places:
        written += struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 8, 0, 0, *says, 0, 0, 0, 0, place) + part
    written += struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, parts, parts, len(written) - start, start, 0)
    return bytes(written)


def encrypted(user: str, owner: str) -> bytes:
    writer, file = PdfWriter(clone_from=PdfReader(io.BytesIO(made_files.pdf(["Cats purr."])))), io.BytesIO()
    writer.encrypt(user, owner, permissions_flag=0, algorithm="RC4-128")
    writer.write(file)
    return file.getvalue()


def make(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Forty and more files: name -> why it is not read, and name -> its text where it is."""
    folder.mkdir()
    whole = made_files.pdf(["Cats purr."] * 30)
    word = made_files.docx(folder / "word.docx", made_files.paragraph("Dogs bark.") * 50).read_bytes()
    book = made_files.epub(folder / "book.epub", {"a.xhtml": "<p>Birds sing.</p>"}, ["a.xhtml"]).read_bytes()
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    lines = f'<!DOCTYPE a [<!ENTITY e0 "lol">{entities}]><a>&e9;</a>'
    algorithm = "<a><EncryptionMethod Algorithm='http://www.w3.org/2001/04/xmlenc#aes128-cbc'/></a>"
    ole = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
    unread: dict[str, tuple[str, str | bytes]] = {
        "password.pdf": ("encrypted", encrypted("secret", "owner")),
        "half.pdf": ("truncated", whole[: len(whole) // 2]),
        "no end.pdf": ("truncated", whole[:-30]),
        "page.pdf": ("not what its name says", "<!DOCTYPE html><p>Not found</p>"),
        "scan.pdf": ("scanned", made_files.pdf(["", ""], picture=True)),
        "blank.pdf": ("empty", made_files.pdf([""])),
        "nothing.pdf": ("empty", b""),
        "noise.pdf": ("damaged", b"%PDF-1.4\n" + bytes(range(256)) * 20 + b"\n%%EOF\n"),
        "bomb.docx": ("too large", bomb("word/document.xml", 10_500 * MB)),
        "bomb.epub": ("too large", bomb("META-INF/container.xml", 10_500 * MB)),
        "liar.epub": ("truncated", bomb("META-INF/container.xml", 100 * MB, declared=1000)),
        "lines.docx": ("damaged", made_files.archive(folder / "x", {"word/document.xml": lines}).read_bytes()),
        "half.docx": ("truncated", word[: len(word) // 2]),
        "password.docx": ("encrypted", ole + bytes(500) + "EncryptedPackage".encode("utf-16-le")),
        "old.docx": ("not what its name says", ole + bytes(500)),
        "text.docx": ("not what its name says", "Cats purr."),
        "book.docx": ("not what its name says", book),
        "half.epub": ("truncated", book[: len(book) // 2]),
        "bought.epub": (
            "encrypted",
            made_files.epub(
                folder / "x", {"a.xhtml": "x"}, ["a.xhtml"], more={"META-INF/encryption.xml": algorithm}
            ).read_bytes(),
        ),
        "word.epub": ("not what its name says", word),
        "half.pptx": ("truncated", word[: len(word) // 2]),
        "word.pptx": ("not what its name says", word),
        "cut.ipynb": ("damaged", '{"nbformat": 4, "cells": ['),
        "old.ipynb": ("empty", '{"nbformat": 3, "worksheets": []}'),
        "deep.ipynb": ("damaged", "[" * 100_000),
        "script.html": ("empty", "<html><body><script>render()</script></body></html>"),
        "zero.txt": ("empty", b""),
        "spaces.md": ("empty", "\n \n"),
        "mark.txt": ("empty", b"\xff\xfe"),
        "binary.txt": ("not what its name says", bytes(range(256)) * 9),
        "picture.md": ("not what its name says", b"\x89PNG\r\n\x1a\n" + bytes(99)),
        "report.txt": ("not what its name says", whole),
        "rich.txt": ("not what its name says", b"{\\rtf1 Cats purr.}"),
        "packed.txt": ("not what its name says", b"\x1f\x8b\x08" + bytes(50)),
        "table.csv": ("no parser", "a,b\n1,2\n"),
        "what.xyz": ("no parser", "Cats purr."),
        "README": ("no parser", "Cats purr."),
        "hang.odd": ("timed out", "hang"),
        "spin.odd": ("timed out", "spin"),
        "fill.odd": ("too large", "fill"),
        "die.odd": ("damaged", "die"),
        "leave.odd": ("damaged", "leave"),
        "raise.odd": ("damaged", "raise"),
        "lie.odd": ("refused", "lie"),
    }
    read = {
        "locked.pdf": ("Cats purr.", encrypted("", "owner")),
        "utf16.txt": ("Größe", "Größe".encode("utf-16")),
        "chinese.txt": ("猫在满意的时候会发出呼噜声。" * 9, ("猫在满意的时候会发出呼噜声。" * 9).encode("gb18030")),
        "twice a.txt": ("Two names for one text.", "Two names for one text."),
        "twice b.txt": ("Two names for one text.", "Two names for one text."),
        "word.docx": ("\n\n".join(["Dogs bark."] * 50), word),
        "itself.epub": ("Birds sing.", _itself(folder / "x", book)),
        "book.epub": ("Birds sing.", book),
        "well.odd": ("well", "well"),
    }
    (folder / "x").unlink()
    for name, (_, content) in {**unread, **read}.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    (folder / "loop").symlink_to(folder)
    (folder / "one.txt").symlink_to(folder / "other.txt")
    (folder / "other.txt").symlink_to(folder / "one.txt")
    os.mkfifo(folder / "pipe.txt")
    reasons = {name: reason for name, (reason, _) in unread.items()} | {"pipe.txt": "no file"}
    return reasons, {name: text for name, (text, _) in read.items()}


def _itself(path: Path, book: bytes) -> bytes:
    """A book that holds itself, and whose spine names its chapter, itself and its own list again and again."""
    return made_files.epub(
        path,
        {"a.xhtml": "<p>Birds sing.</p>", "itself.epub": ""},
        ["a.xhtml", "itself.epub", "a.opf"] * 99,
        more={"x.epub": book},
    ).read_bytes()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that a parser is given."""
    names: list[str] = []
    plain: Callable[..., Any] = reading.Reader._read

    def told(reader: reading.Reader, task: Task) -> Any:
        names.append(task.path.name)
        return plain(reader, task)

    monkeypatch.setattr(reading.Reader, "_read", told)
    return names


def load(folder: Path, **options: Any) -> Dataset:
    row = {"id": "1", "split": "dev", "question": "What do cats do?", "answers": ["purr"], "evidence": "Cats purr."}
    questions = folder.parent / "q.jsonl"
    questions.write_text(json.dumps(row))
    (folder.parent / "mine.py").write_text(OWN)
    limits = Limits(seconds=4, memory_mb=700)
    return sources.text_folder(folder, questions, (), {"odd": f"{folder.parent / 'mine.py'}:Odd"}, options.pop("limits", limits))


@contextmanager
def largest_worker() -> Iterator[list[int]]:
    """Within, the most memory that one of the processes that read files has taken so far is looked at, in bytes."""
    seen, ended = [0], threading.Event()

    def look() -> None:
        while not ended.wait(0.02):
            for child in psutil.Process().children():
                with suppress(psutil.Error, OSError, TypeError):
                    if MODULE in child.cmdline():  # before that it is a copy of this process
                        peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{child.pid}/status").read_text())
                        seen[0] = max(seen[0], int(peak[1]) * 1024)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def test_hostile_files_cost_only_themselves(tmp_path: Path, opened: list[str]) -> None:
    folder = tmp_path / "texts"
    reasons, texts = make(folder)
    assert len(reasons) + len(texts) > 40
    with largest_worker() as bytes_seen:
        dataset = load(folder)
    assert {row["file"]: row["reason"] for row in dataset.unread.to_pylist()} == reasons
    assert all(row["said"] and str(tmp_path) not in row["said"] for row in dataset.unread.to_pylist())
    assert dict(zip(dataset.documents["id"].to_pylist(), dataset.documents["text"].to_pylist(), strict=True)) == texts
    notes = "\n".join(dataset.notes)
    assert "3 links left out" in notes and "45 of 54 files are not read" in notes, notes
    for told in (
        "'twice a.txt', 'twice b.txt'",
        "not permit copying its text; it was read all the same: 'locked.pdf'",
        "gb18030",
    ):
        assert told in notes
    assert 10 * MB < bytes_seen[0] < 1000 * MB

    first = len(opened)
    assert first == len({*opened} - {"twice a.txt", "twice b.txt"}) + 1  # of two files with one content, one
    again = load(folder)
    for path in folder.iterdir():
        if path.is_file():
            os.utime(path)
    load(folder)
    assert len(opened) == first and again.documents.equals(dataset.documents) and again.unread.equals(dataset.unread)
    (folder / "utf16.txt").write_bytes("Grüße".encode("utf-16"))
    (folder / "moved.epub").write_bytes((folder / "book.epub").read_bytes())
    (folder / "book.epub").unlink()
    changed = load(folder)
    assert opened[first:] == ["utf16.txt"]
    assert {"utf16.txt", "moved.epub"} <= {*changed.documents["id"].to_pylist()} and "Grüße" in changed.documents[
        "text"
    ].to_pylist()


def test_what_took_too_long_is_tried_again_with_other_limits(tmp_path: Path, opened: list[str]) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("Cats purr.")
    (folder / "b.odd").write_text("hang")
    assert load(folder, limits=Limits(seconds=0.5)).unread["reason"].to_pylist() == ["timed out"]
    load(folder, limits=Limits(seconds=0.5))
    assert opened == ["a.txt", "b.odd"]
    load(folder, limits=Limits(seconds=0.6))
    assert opened == ["a.txt", "b.odd", "b.odd"]


def test_what_was_kept_and_is_damaged_is_read_again(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("Cats purr.")
    first = load(folder)
    (place,) = kept.folder().rglob("*.document")
    place.write_bytes(place.read_bytes().replace(b"purr", b"bark"))
    assert load(folder).documents.equals(first.documents)  # the dataset itself is kept as well
    (folder / "b.txt").write_text("Dogs bark.")
    with pytest.raises(InputError, match="is damaged and was removed; run the same again"):
        load(folder)
    assert load(folder).documents["text"].to_pylist() == ["Cats purr.", "Dogs bark."]


def test_another_version_of_a_parser_reads_again(tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("Cats purr.")
    load(folder)
    monkeypatch.setattr("workbench.data.documents.text.PlainText.version", 2)
    load(folder)
    monkeypatch.setattr("workbench.component.library_version", lambda name: "9.9")
    load(folder)
    assert opened == ["a.txt"] * 3


def test_a_few_files_are_read_by_one_process_and_many_by_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    plain: Callable[[Any], Any] = pool.Worker._started

    def told(worker: Any) -> Any:
        fresh = worker._process is None
        process = plain(worker)
        started.extend([process.pid] * fresh)
        return process

    monkeypatch.setattr(pool.Worker, "_started", told)
    monkeypatch.setattr(pool, "cpu_count", lambda: 2)
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "0.txt").write_text("Cats purr.")
    load(folder)
    assert not started
    for number in range(3):
        (folder / f"{number}.pdf").write_bytes(made_files.pdf([f"Dog {number} barks."]))
    assert load(folder).documents.num_rows == 4 and len(started) == 1
    for number in range(3, 24):
        (folder / f"{number}.pdf").write_bytes(made_files.pdf([f"Dog {number} barks."]))
    assert load(folder).documents.num_rows == 25 and len(started) == 3


def test_one_file_that_can_be_read_is_enough(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("Cats purr.")
    os.mkfifo(folder / "pipe.txt")
    dataset = load(folder)
    assert dataset.documents.num_rows == 1 and dataset.notes == ("1 of 2 files is not read: 1 no file ('pipe.txt')",)


def test_a_folder_in_which_nothing_can_be_read_is_refused_with_the_reasons(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    with pytest.raises(InputError, match="no file in it can be read: there is none"):
        load(folder)
    for number in range(7):
        (folder / f"{number}.txt").write_text("")
    with pytest.raises(InputError, match=r"'0.txt': empty, it has 0 bytes; .*; and 2 more"):
        load(folder)


def test_a_process_that_reads_says_why_it_cannot_start() -> None:
    done = subprocess.run([sys.executable, "-m", "workbench.data.documents.worker", "x"], capture_output=True, check=False)
    assert done.returncode == 1 and b"ValueError" in done.stderr


# --- near copies --------------------------------------------------------------------------------------------------------


def test_near_copies_are_found_and_others_are_not() -> None:
    words = [f"word{n * n * n % 997}" for n in range(900)]
    texts = {
        "a": " ".join(words),
        "b": "  ".join([*words[:450], "changed", *words[450:]]).upper(),
        "c": " ".join(words[:450]),
        "d": " ".join(reversed(words)),
        "e": "",
        "f": "猫在满意的时候会发出呼噜声" * 3,
        "g": "猫在满意的时候会发出呼噜声" * 3,
    }
    sketches = {name: duplicates.sketch(text) for name, text in texts.items()}
    assert duplicates.groups(sketches) == [["a", "b"], ["f", "g"]]
    assert duplicates.alike(sketches["a"], sketches["a"]) == 1 and duplicates.alike((), ()) == 0
    assert 0.3 < duplicates.alike(sketches["a"], sketches["c"]) < 0.7


# --- from the experiment's file -----------------------------------------------------------------------------------------


def test_an_experiment_names_parsers_beside_its_file_and_tells_what_was_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (tmp_path / "mine.py").write_text(OWN)
    for name, content in {"a.odd": "Cats purr.", "b.pdf": "no", "c.pdf": made_files.pdf(["Dogs bark."])}.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    row = {"question": "What do cats do?", "answers": ["purr"], "evidence": {"text": "cats purr", "document": "a"}}
    rows = [row | {"id": split, "split": split} for split in ("dev", "test")]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    settings = {"dataset": {"folder": "texts", "questions": "q.jsonl", "parsers": {"odd": "./mine.py:Odd"}}}
    settings |= {"experiment": "e", "components": {"retrievers": {"bm25": {"kind": "bm25"}}}, "metrics": {"rankings": ["mrr@10"]}}
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(settings))
    told = CliRunner().invoke(app, ["datasets", str(tmp_path / "e.yaml")])
    assert told.exit_code == 0 and "texts: 2 documents, judged by spans" in told.output
    assert "not read: b.pdf: not what its name says: by its first bytes it is text" in told.output
    experiment = Experiment.load(tmp_path / "e.yaml", tmp_path / "runs", (), Progress())
    assert "1 of 3 files is not read: 1 not what its name says ('b.pdf')" in experiment.notes
    kept_settings = tmp_path / "elsewhere" / "config.yaml"
    kept_settings.parent.mkdir()
    kept_settings.write_text(yaml.safe_dump(resolved(experiment.space, experiment.session.machine)))
    again = read_settings(kept_settings).dataset.load()
    assert again.documents_digest == experiment.session.dataset.documents_digest


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ({"name": "pydocs", "parsers": {"pdf": "none"}}, "parsers and limits are about a folder"),
        ({"name": "pydocs", "missing": "drop"}, "missing is about evidence that is looked for in documents"),
        (
            {"folder": "a", "questions": "b", "limits": {"seconds": 0}},
            "dataset.limits.seconds: received 0; allowed: a number",
        ),
        ({"folder": "a", "questions": "b", "limits": {"seconds": True}}, "true is no number"),
        ({"folder": "a", "questions": "b", "missing": "keep"}, "dataset.missing: received 'keep'; allowed: 'refuse' or 'drop'"),
    ],
)
def test_settings_of_a_folder_that_mean_nothing_are_refused(tmp_path: Path, dataset: dict[str, Any], message: str) -> None:
    (tmp_path / "e.yaml").write_text(yaml.safe_dump({"experiment": "e", "dataset": dataset}))
    with pytest.raises(InputError, match=message):
        read_settings(tmp_path / "e.yaml")
