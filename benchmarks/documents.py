"""What it costs to read documents in files: against the bare libraries, after some of the files changed, and in memory.

`python -m benchmarks.documents FOLDER` reads the PDF files of a folder and prints the bytes that all its processes took at most.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import made_files
from benchmarks.harness import ROUNDS, Goal, Measurement, measure, seconds, summary
from benchmarks.sweep import temporary
from workbench.data.documents import pool
from workbench.data.documents.kinds import choices
from workbench.data.documents.limits import Limits
from workbench.data.documents.listing import listed
from workbench.data.documents.reading import documents, outcomes
from workbench.data.sources import text_folder
from workbench.hardware import cpu_count

WORDS = (Path(__file__).parent.parent / "docs" / "glossary.md").read_text(encoding="ascii", errors="ignore").split()
PAGES, FILES = 10_000, 500  # of PDF
CHANGED = FILES // 100
GIGABYTES = 1.5
MIXED = 120  # files of each format


def reading() -> Measurement:
    """PDF, HTML and Word files read by the workbench over a bare loop over their libraries, in as many processes."""
    with temporary() as folder:
        files = _mixed(folder)
        name = f"reading {MIXED} PDF, HTML and Word files each / a bare loop over their libraries in as many processes"

        def ours() -> set[str]:
            with _home(folder):
                found = outcomes(listed(folder / "files").files, choices({}), Limits())
                return {name for name, one in found.items() if documents(one)[0].document.text}

        def bare() -> set[str]:
            with multiprocessing.get_context("fork").Pool(min(cpu_count(), pool.MOST)) as processes:
                return {name for name, text in processes.imap_unordered(_bare, files) if text}

        return measure(name, Goal("<=", 1.3), ours, bare, lambda a, b: a == b)


def _bare(path: Path) -> tuple[str, str]:
    """A file's text as its library gives it."""
    if path.suffix == ".pdf":
        import pypdfium2

        pdf = pypdfium2.PdfDocument(path)
        return path.name, "\f".join(page.get_textpage().get_text_range() for page in pdf)
    import selectolax.lexbor

    if path.suffix == ".docx":
        import mammoth

        with path.open("rb") as file:
            page = mammoth.convert_to_html(file).value
    else:
        page = path.read_text(encoding="utf-8")
    return path.name, selectolax.lexbor.LexborHTMLParser(page).body.text(separator="\n")


def changed() -> Measurement:
    """A folder of PDF files of which 1 % changed over all of them read for the first time, each as a whole dataset."""
    with temporary() as folder, _home(folder):
        _pages(folder / "files")
        first = seconds(lambda: _dataset(folder))
        ratios = []
        for round_ in range(ROUNDS):
            for number in range(round_ * CHANGED, (round_ + 1) * CHANGED):
                (folder / "files" / f"{number}.pdf").write_bytes(_pdf(number, f"changed in round {round_}"))
            ratios.append(seconds(lambda: _dataset(folder)) / first)
    return summary(f"{FILES} PDF files with 1 % changed / read for the first time", Goal("<=", 0.03), ratios)


def memory() -> Measurement:
    """What all processes take at most that read 10,000 pages of PDF, over 1.5 GB."""
    ratios = []
    for _ in range(3):
        with temporary() as folder:
            _pages(folder / "files")
            _question(folder)
            command = [sys.executable, "-m", "benchmarks.documents", str(folder)]
            environment = os.environ | {"WORKBENCH_HOME": str(folder / "home")}
            told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
            ratios.append(int(told) / (GIGABYTES * 1e9))
    return summary(f"memory of reading {PAGES:,} pages of PDF / {GIGABYTES} GB", Goal("<=", 1.0), ratios)


@contextmanager
def _home(folder: Path) -> Iterator[None]:
    """An empty place for what is read, so that nothing is there from before."""
    before = os.environ.get("WORKBENCH_HOME")
    with temporary() as home:
        os.environ["WORKBENCH_HOME"] = str(home)
        try:
            yield
        finally:
            os.environ.pop("WORKBENCH_HOME")
            if before is not None:
                os.environ["WORKBENCH_HOME"] = before


def _dataset(folder: Path) -> None:
    text_folder(folder / "files", _question(folder))


def _question(folder: Path) -> Path:
    row = {"id": "1", "split": "dev", "question": "Which?", "answers": ["this"], "evidence": "file 7 page 3"}
    (folder / "questions.jsonl").write_text(json.dumps(row))
    return folder / "questions.jsonl"


def _lines(seed: str, lines: int) -> list[str]:
    drawn = random.Random(seed)
    return [" ".join(drawn.choices(WORDS, k=14)) for _ in range(lines)]


def _pdf(number: int, said: str) -> bytes:
    pages = range(PAGES // FILES)
    return made_files.pdf(["\n".join([f"file {number} page {page} {said}", *_lines(f"{number} {page}", 40)]) for page in pages])


def _pages(folder: Path) -> None:
    folder.mkdir()
    for number in range(FILES):
        (folder / f"{number}.pdf").write_bytes(_pdf(number, "as it was"))


def _mixed(folder: Path) -> list[Path]:
    place = folder / "files"
    place.mkdir()
    for number in range(MIXED):
        (place / f"{number}.pdf").write_bytes(_pdf(number, "as it was"))
        paragraphs = _lines(str(number), 300)
        rows = "".join(f"<tr><td>{line}<td>{number}" for line in paragraphs[:50])
        page = "".join(f"<h2>{line[:40]}</h2><p>{line} <b>{line}</b></p>" for line in paragraphs)
        (place / f"{number}.html").write_text(f"<!doctype html><title>{number}</title>{page}<table>{rows}</table>")
        made_files.docx(place / f"{number}.docx", "".join(map(made_files.paragraph, paragraphs)))
    return sorted(place.iterdir())


if __name__ == "__main__":
    _dataset(Path(sys.argv[1]))
    own, largest = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print((own + min(cpu_count(), pool.MOST) * largest) * 1024)
