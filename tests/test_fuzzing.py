"""Files that nobody wrote: whatever their bytes, the command line reads them as an independent reader does, or refuses them.

Valid files are changed in a few places, or are bytes alone. The exit status is 0 or 2, no error is unexpected, and a score that
comes out is the one that the short readers of this file give.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import math
import re
import shutil
import sys
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench import cli
from workbench.results.run import Run
from workbench.results.tables import Scores

# what is put into files: signs that mean something to a reader, and values at the edge of what it takes
PIECES = [
    *(
        "\ufeff",
        "\0",
        "\r",
        "\r\n",
        "\n",
        "\n\n",
        "\u2028",
        "\x85",
        "\x0b",
        "\t",
        " ",
        "\u00a0",
        '"',
        "'",
        ",",
        ";",
        ":",
        "#",
        "\\",
    ),
    *("{", "}", "[", "]", "[]", "{}", "null", "true", "~", "-", "- ", "!!", "&a ", "*a", "<<: ", "|", "%", "? ", "---\n", "..."),
    *("0", "-1", "1", "2", "1e999", "-0.0", "1_0", "0x1", "010", "NaN", "inf", "1.5", "٣", "³", "9" * 30, "9" * 5000, "1e-320"),
    *(
        "\\ud83d",
        "\\u0000",
        "\\uFFFF",
        "e\u0301",
        "é",
        "熊猫",
        "🚢",
        "q0",
        "d0",
        "dev",
        "_id",
        "text",
        "score",
        "query_id",
        "nan,",
    ),
]
RAW = [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xff\xfe", b"\x1f\x8b", b"\xef\xbb\xbf"]
EDIT = st.tuples(
    st.sampled_from(["put", "cut", "repeat", "swap"]),
    st.floats(0, 1),
    st.floats(0, 1),
    st.one_of(st.sampled_from([piece.encode() for piece in PIECES] + RAW), st.binary(max_size=4)),
)


def edited(data: bytes, edits: list[tuple[str, float, float, bytes]]) -> bytes:
    """Bytes with pieces put in, parts cut out, lines repeated, lines exchanged."""
    for what, one, other, piece in edits:
        at, to = sorted((int(one * len(data)), int(other * len(data))))
        lines = data.split(b"\n")
        i, j = int(one * (len(lines) - 1)), int(other * (len(lines) - 1))
        if what == "put":
            data = data[:at] + piece + data[min(to, at + len(piece) // 2) :]
        elif what == "cut":
            data = data[:at] + data[min(to, at + 12) :]
        elif what == "repeat":
            data = b"\n".join([*lines[: j + 1], lines[i], *lines[j + 1 :]])
        else:
            lines[i], lines[j] = lines[j], lines[i]
            data = b"\n".join(lines)
    return data


def changed(*valid: str) -> st.SearchStrategy[bytes]:
    """A valid file with one change, mostly, or up to four; now and then bytes alone."""
    whole = st.sampled_from([text.encode() for text in valid])
    one, some = (st.builds(edited, whole, st.lists(EDIT, min_size=1, max_size=most)) for most in (1, 4))
    return st.one_of(one, one, one, one, some, some, some, st.binary(max_size=40))


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_HOME", str(tmp_path_factory.mktemp("home")))
        patch.delenv("WORKBENCH_DEBUG", raising=False)
        yield


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)
    shutil.rmtree(Path(cli.os.environ["WORKBENCH_HOME"]) / "datasets", ignore_errors=True)


def called(*args: object) -> tuple[int, str]:
    """Exit status and what was said of the command line, called in this process."""
    said = io.StringIO()
    asked = mock.patch.object(sys, "argv", ["workbench", *map(str, args)])
    with asked, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), pytest.raises(SystemExit) as left:
        cli.main()
    status = int(left.value.code or 0)
    assert status in (0, 2) and "unexpected" not in said.getvalue(), said.getvalue()
    return status, said.getvalue()


def compared(*args: object) -> list[Scores] | None:
    """The scores that `workbench compare` shows, or None where it refuses."""
    shown: list[Scores] = []
    show = cli._print_comparison
    with mock.patch.object(cli, "_print_comparison", lambda one, details: (shown.append(one.scores), show(one, details))):
        return None if called("compare", *args)[0] else shown


def text_of(path: Path) -> str:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return data.decode("utf-8").removeprefix("\ufeff")


def terms(text: str) -> set[str]:
    return set(re.findall(r"\b\w\w+\b", unicodedata.normalize("NFC", text).lower()))


def number(text: str) -> float:
    assert re.fullmatch(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", text, re.ASCII), f"{text!r} is no number"
    return float(text)


# --- Tables of scores -------------------------------------------------------------------------------------------------

WIDE = "query_id,a,b,group\nq0,0.5,0.25,x\nq1,1,0,x\nq2,,0.75,y\nq3,0.125,1e-1,z\n"
LONG = "configuration,query_id,metric,value\na,q0,f1,0.5\nb,q0,f1,0.25\na,q1,f1,1\nb,q1,f1,\na,q2,f1,0\nb,q2,f1,1\n"


def fields(text: str) -> list[list[str]]:
    """The fields of a CSV file, letter by letter."""
    rows, row, field, quoted = [], [], "", False
    for sign, after in zip(text, text[1:] + "\n", strict=True):
        if quoted and sign == '"' == after and not field.endswith('"\0'):
            field += '"\0'  # the first of two
        elif sign == '"':
            field, quoted = (field.removesuffix("\0"), quoted) if field.endswith('"\0') else (field, not quoted)
        elif sign in ",\n" and not quoted:
            row, field = [*row, field], ""
            if sign == "\n":
                rows, row = [*rows, row], []
        elif not (sign == "\r" and after == "\n" and not quoted):
            field += sign
    return [row for row in [*rows, [*row, field]] if row != [""]]


def read_scores(path: Path) -> dict[tuple[str, str, str, str], float | None]:
    """(split, metric, query, system) -> score."""
    head, *rows = fields(text_of(path))
    found: dict[tuple[str, str, str, str], float | None] = {}
    for row in (dict(zip(head, row, strict=True)) for row in rows):
        systems = [row["configuration"]] if "configuration" in row else [n for n in head if n not in ("query_id", "group")]
        for system in systems:
            value = row["value" if "configuration" in row else system]
            where = (row.get("split", ""), row.get("metric") or "score") if "configuration" in row else ("", "score")
            assert (*where, row["query_id"], system) not in found
            found[*where, row["query_id"], system] = number(value) if value.strip() else None
    return found


def check_table(data: bytes) -> None:
    with folder() as place:
        (place / "scores.csv").write_bytes(data)
        for scores in compared(place / "scores.csv") or ():
            expected = read_scores(place / "scores.csv")
            for i, query in enumerate(scores.queries):
                for k, system in enumerate(scores.systems):
                    value = expected[scores.split, scores.metric, query, system]
                    assert bool(scores.failed[i, k]) == (value is None) and (value is None or scores.values[i, k] == value)


# --- TREC -------------------------------------------------------------------------------------------------------------

QRELS = "q0 0 d0 1\nq0 0 d1 0\nq1 0 d1 2\nq1 0 d2 1\nq2 0 d0 1\nq3 0 d3 -1\n"
RANKING = "q0 Q0 d1 1 2.5 t\nq0 Q0 d0 2 1.5 t\nq1 Q0 d2 1 .5 t\nq1 Q0 d1 2 .25 t\nq2 Q0 d0 1 1 t\nq3 Q0 d3 1 1e0 t\n"


def read_ndcg(run: Path, qrels: Path) -> dict[str, float]:
    """nDCG@10 of each query with something relevant, as trec_eval has it: ties by document, from the end of the alphabet."""
    grades: dict[str, dict[str, int]] = {}
    for query, _, document, grade in (line.split() for line in text_of(qrels).split("\n") if line.strip()):
        grades.setdefault(query, {})[document] = int(number(grade))
    found: dict[str, list[tuple[float, bytes, str]]] = {}
    for query, _, document, _, score, _ in (line.split() for line in text_of(run).split("\n") if line.strip()):
        found.setdefault(query, []).append((float(np.float32(number(score))), document.encode(), document))

    def gain(those: list[int]) -> float:
        return sum(max(grade, 0) / math.log2(i + 2) for i, grade in enumerate(those[:10]))

    return {
        query: gain([judged.get(document, 0) for *_, document in sorted(found.get(query, ()), reverse=True)])
        / gain(sorted(judged.values(), reverse=True))
        for query, judged in grades.items()
        if max(judged.values()) > 0
    }


def check_trec(run: bytes, qrels: bytes) -> None:
    with folder() as place:
        for name, data in (("a.trec", run), ("b.trec", RANKING.encode()), ("qrels", qrels)):
            (place / name).write_bytes(data)
        for scores in compared(place / "a.trec", place / "b.trec", "--qrels", place / "qrels") or ():
            for k, name in enumerate(scores.systems):
                expected = read_ndcg(place / f"{name}.trec", place / "qrels")
                assert dict(zip(scores.queries, scores.values[:, k], strict=True)) == pytest.approx(expected, abs=1e-6)


# --- Datasets ---------------------------------------------------------------------------------------------------------

CORPUS = [
    {"_id": f"d{i}", "title": f"Note {i}", "text": f"The {word} keeps the café."}
    for i, word in enumerate(["gate", "mill", "oak"])
]
QUERIES = [{"_id": f"q{i}", "text": f"What does the {word} keep?"} for i, word in enumerate(["gate", "mill", "oak", "gate"])]
JUDGED = {"dev": "query-id\tcorpus-id\tscore\nq0\td0\t1\nq1\td1\t1\nq1\td2\t2\n", "test": "q2\td2\t1\nq3\td0\t1\nq3\td1\t0\n"}
BEIR = {"corpus.jsonl": CORPUS, "queries.jsonl": QUERIES}
TEXTS = {"a.txt": "The gate\n\nThe gate keeps a key.", "b.md": "---\ntitle: Mill\n---\n# The mill\r\n\r\nIt keeps an oar, é."}
QUESTIONS = [
    {
        "id": "1",
        "split": "dev",
        "question": "What does the gate keep?",
        "answers": ["a key"],
        "evidence": "The gate keeps a key.",
    },
    {"id": "2", "split": "test", "question": "What does the mill keep?", "answers": ["an oar"], "evidence": ["keeps an oar, é."]},
    {"id": "3", "split": "test", "question": "What does nobody keep?", "answers": [], "evidence": None},
]
EXPERIMENT: dict[str, Any] = {
    "experiment": "e",
    "components": {"retrievers": {"bm25": {"kind": "bm25", "stopwords": None, "stemmer": None}}},
    "axes": {"chunking": ["whole"], "retriever": ["bm25"]},
    "metrics": {"rankings": ["recall@100"]},
}


def lined(rows: list[dict]) -> str:
    return "".join(json.dumps(row, ensure_ascii=i % 2 == 0) + "\n" for i, row in enumerate(rows))


def objects(path: Path) -> list[dict]:
    return [json.loads(line) for line in text_of(path).split("\n") if line.strip()]


def read_beir(place: Path) -> dict[tuple[str, str], float]:
    """(split, query) -> recall where whatever shares a term is found."""
    corpus = place / "corpus.jsonl" if (place / "corpus.jsonl").exists() else place / "corpus.jsonl.gz"
    documents = {str(row["_id"]): terms(f"{row.get('title') or ''} {row['text']}") for row in objects(corpus)}
    queries = {str(row["_id"]): terms(row["text"]) for row in objects(place / "queries.jsonl")}
    relevant: dict[tuple[str, str], set[str]] = {}
    for split in ("dev", "test"):
        for line in text_of(place / "qrels" / f"{split}.tsv").split("\n"):
            query, document, grade = [*map(str.strip, line.split("\t")), "", ""][:3]
            if re.fullmatch(r"-?[0-9]+", grade) and int(grade) > 0 and query in queries and document in documents:
                relevant.setdefault((split, query), set()).add(document)
    return {
        (split, query): sum(bool(queries[query] & documents[one]) for one in those) / len(those)
        for (split, query), those in relevant.items()
    }


def letters(text: str) -> str:
    """Letters and digits alone, by which evidence is found that is spelt a little differently."""
    return "".join(sign for sign in unicodedata.normalize("NFKC", text).casefold() if sign.isalnum())


def read_folder(place: Path) -> dict[tuple[str, str], float]:
    """(split, question) -> share of its evidence in documents that share a term with it."""
    texts = [unicodedata.normalize("NFC", re.sub("\r\n?", "\n", text_of(path))) for path in (place / "texts").iterdir()]
    texts, found = [text for text in texts if text.strip()], {}
    for row in objects(place / "questions.jsonl"):
        evidence = [row["evidence"]] if isinstance(row["evidence"], str) else row["evidence"] or []
        stands = [
            [t for t in texts if " ".join(unicodedata.normalize("NFC", one).split()) in " ".join(t.split())]
            or [t for t in texts if letters(one) and letters(one) in letters(t)]
            for one in evidence
        ]
        if stands and all(stands):
            reached = [any(terms(row["question"]) & terms(text) for text in those) for those in stands]
            found[row["split"], str(row["id"])] = sum(reached) / len(reached)
    return found


def check_run(files: dict[str, bytes], dataset: dict[str, str], read: Any) -> None:
    with folder() as place:
        for name, data in files.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(data)
        (place / "e.yaml").write_text(yaml.safe_dump(EXPERIMENT | {"dataset": dataset}))
        if called("run", place / "e.yaml", "--runs", place / "runs", "--no-notebooks")[0] == 0:
            try:
                expected = read(place)
            except UnicodeDecodeError:
                return  # in which encoding it is was guessed
            rows = Run.latest(place / "runs").results
            assert {(row.split, row.query_id): row.value for row in rows} == pytest.approx(expected, abs=1e-6)


def check_beir(name: str, data: bytes) -> None:
    files = {name: lined(rows).encode() for name, rows in BEIR.items()}
    files |= {f"qrels/{split}.tsv": text.encode() for split, text in JUDGED.items()}
    if name.endswith(".gz"):
        del files["corpus.jsonl"]
    check_run(files | {name: data}, {"beir": "."}, read_beir)


def check_folder(name: str, data: bytes) -> None:
    files = {f"texts/{name}": text.encode() for name, text in TEXTS.items()} | {"questions.jsonl": lined(QUESTIONS).encode()}
    check_run(files | {name: data}, {"folder": "texts", "questions": "questions.jsonl"}, read_folder)


# --- YAML -------------------------------------------------------------------------------------------------------------

WHOLE = """\
experiment: e
dataset: {beir: ., limit: {dev: 2}, select: dev, report: test}
components:
  retrievers:
    bm25: {kind: bm25, k1: 1.2, b: .75, stopwords: null, stemmer: english}
    both: {kind: fusion, of: [bm25, other], method: weighted, weights: [1, 2]}
    other:
      kind: bm25
axes:
  chunking: [whole, {words: 80, overlap: 10}]
  retriever: [bm25, both]
depth: 100
metrics: {rankings: ["recall@300w"], select_by: ~}
search: {strategy: grid}
seed: 0
machine: {device: auto, batch_size: auto}
"""
TEMPLATE = "system: a\nuser: '{passages} {question}'\nabstention: I do not know\nshots: ~\nclosed: {user: '{question}'}\n"


def check_yaml(data: bytes) -> None:
    with folder() as place:
        for name, rows in BEIR.items():
            (place / name).write_text(lined(rows))
        (place / "qrels").mkdir()
        for split, text in JUDGED.items():
            (place / "qrels" / f"{split}.tsv").write_text(text)
        (place / "e.yaml").write_bytes(data)
        called("plan", place / "e.yaml", "--runs", place / "runs")


# --- The tests --------------------------------------------------------------------------------------------------------

FORMS: dict[str, Any] = {
    "csv": (changed(WIDE, LONG), check_table),
    "trec ranking": (changed(RANKING), lambda data: check_trec(data, QRELS.encode())),
    "trec qrels": (changed(QRELS), lambda data: check_trec(RANKING.replace("q1 Q0 d2", "q1 Q0 d9").encode(), data)),
    "corpus": (changed(lined(CORPUS)), lambda data: check_beir("corpus.jsonl", data)),
    "gzipped corpus": (changed(lined(CORPUS)).map(gzip.compress), lambda data: check_beir("corpus.jsonl.gz", data)),
    "cut gzip": (
        st.builds(edited, st.just(gzip.compress(lined(CORPUS).encode(), mtime=0)), st.lists(EDIT, max_size=2)),
        lambda data: check_beir("corpus.jsonl.gz", data),
    ),
    "queries": (changed(lined(QUERIES)), lambda data: check_beir("queries.jsonl", data)),
    "beir qrels": (changed(JUDGED["dev"], JUDGED["test"]), lambda data: check_beir("qrels/dev.tsv", data)),
    "questions": (changed(lined(QUESTIONS)), lambda data: check_folder("questions.jsonl", data)),
    "text": (changed(*TEXTS.values()), lambda data: check_folder("texts/a.txt", data)),
    "yaml": (changed(WHOLE), check_yaml),
}
SLOW, SOAK = 92, 2000  # inputs of each form


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_any_file_is_read_rightly_or_refused(form: str) -> None:
    strategy, check = FORMS[form]
    settings(max_examples=SLOW)(given(strategy)(check))()


@pytest.mark.soak
@pytest.mark.parametrize("form", FORMS)
def test_many_files_are_read_rightly_or_refused(form: str) -> None:
    strategy, check = FORMS[form]
    settings(max_examples=SOAK, derandomize=False, print_blob=True)(given(strategy)(check))()
