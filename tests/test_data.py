"""Datasets: the built-in questions keep their promises, bad folders are refused with the file and the way out."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections import Counter, defaultdict
from itertools import pairwise, permutations
from pathlib import Path

import pyarrow as pa
import pytest

from workbench.component import canonical
from workbench.data import sources, tables
from workbench.data.chunking import Chunking, full_text
from workbench.data.dataset import DOCUMENTS, Dataset
from workbench.data.evidence import paragraph, places, read_questions
from workbench.errors import InputError
from workbench.evaluation.answers import content_words, normalize
from workbench.retrieval.bm25 import BM25


@pytest.fixture(scope="module")
def pydocs() -> Dataset:
    return sources.pydocs()


@pytest.fixture(scope="module")
def questions() -> list[dict]:
    return read_questions(sources.PYDOCS_QUESTIONS)


def test_pydocs_has_the_questions_it_promises(questions: list[dict]) -> None:
    splits = defaultdict(int)
    for row in questions:
        splits[row["split"]] += 1
    assert len(questions) >= 940
    assert splits["train"] >= 550 and splits["dev"] >= 140 and splits["test"] >= 230


def test_about_a_tenth_cannot_be_answered(questions: list[dict]) -> None:
    unanswerable = [row for row in questions if not row["answers"]]
    assert 0.08 <= len(unanswerable) / len(questions) <= 0.13
    assert all(not row["evidence"] for row in unanswerable)
    counts = Counter(row["split"] for row in unanswerable)
    assert counts["train"] >= 40 and counts["dev"] >= 12 and counts["test"] >= 30


def test_every_question_says_of_which_kind_it_is(questions: list[dict]) -> None:
    assert {row["kind"] for row in questions} == {"direct", "reworded", "unanswerable"}
    assert all((row["kind"] == "unanswerable") == (not row["answers"]) for row in questions)
    counts = Counter((row["split"], row["kind"]) for row in questions)
    assert counts["train", "direct"] >= 250 and counts["dev", "direct"] >= 65 and counts["test", "direct"] >= 105


def test_a_direct_question_shares_a_content_word_with_its_evidence(questions: list[dict]) -> None:
    for row in questions:
        if row["kind"] == "direct":
            assert content_words(row["question"]) & content_words(" ".join(row["evidence"])), row["id"]


def test_every_answer_stands_in_its_evidence(questions: list[dict]) -> None:
    for row in questions:
        if row["answers"]:
            evidence = normalize(" ".join(row["evidence"]))
            assert any(normalize(answer) and normalize(answer) in evidence for answer in row["answers"]), row["id"]


def test_pydocs_drops_contained_topics_and_lists_them(pydocs: Dataset) -> None:
    from pydoc_data.topics import topics

    assert pydocs.documents.num_rows < len(topics)
    dropped = set(topics) - set(pydocs.documents["id"].to_pylist())
    assert dropped >= {"if", "for", "class", "while", "with"}
    assert all(f"{name} (in " in pydocs.notes[0] for name in dropped)


def test_no_paragraph_is_asked_about_in_two_splits(pydocs: Dataset) -> None:
    texts = dict(zip(pydocs.documents["id"].to_pylist(), pydocs.documents["text"].to_pylist(), strict=True))
    owners: dict[str, set[str]] = defaultdict(set)
    for split in pydocs.splits:
        for spans in pydocs.judged(split).spans.values():
            for place in (place for span in spans for place in span):
                owners[paragraph(texts[place.doc_id], place.start)].add(split)
    assert len(owners) > 200
    assert [text for text, splits in owners.items() if len(splits) > 1] == []


def test_no_evidence_stands_in_two_splits(questions: list[dict]) -> None:
    """Nor does a part of it: a sentence of one split is in no evidence of another."""
    sentences = {(row["split"], " ".join(sentence.split())) for row in questions for sentence in row["evidence"]}
    for (one, a), (two, b) in permutations(sentences, 2):
        assert one == two or a not in b, (one, two, a)


def test_no_near_duplicate_question_crosses_a_split(questions: list[dict]) -> None:
    words = [set(re.findall(r"\w+", row["question"].lower())) for row in questions]
    for i, one in enumerate(questions):
        for j in range(i):
            if one["split"] != questions[j]["split"]:
                shared = len(words[i] & words[j]) / len(words[i] | words[j])
                assert shared < 0.6, (one["question"], questions[j]["question"])


def test_half_of_the_reworded_questions_share_no_rare_word_with_their_passages(pydocs: Dataset, questions: list[dict]) -> None:
    reworded = {row["id"] for row in questions if row["kind"] == "reworded"}
    passages = Chunking().cut(pydocs.documents).to_pylist()
    tokenize = BM25().analyzer.tokenize
    terms = [set(t) for t in tokenize([full_text(row["title"], row["text"]) for row in passages])]
    frequency: dict[str, int] = defaultdict(int)
    for bag in terms:
        for term in bag:
            frequency[term] += 1
    rare = {term for term, count in frequency.items() if count < 0.05 * len(passages)}
    hard = total = 0
    for split in pydocs.splits:
        spans = pydocs.judged(split).spans
        for query in pydocs.split(split):
            found = [p for span in spans.get(query.id, []) for p in span]
            if found and query.id in reworded:
                gold = [
                    i
                    for i, row in enumerate(passages)
                    if any(row["doc_id"] == p.doc_id and row["start"] < p.end and p.start < row["end"] for p in found)
                ]
                asked = set(tokenize([query.text])[0])
                total += 1
                hard += not any(asked & terms[i] & rare for i in gold)
    assert hard / total >= 0.5


def test_evidence_is_found_at_every_place_whatever_the_white_space() -> None:
    texts = {"a": "One two.\nThree   four. One\ntwo.", "b": "one two. One  two."}
    assert [place.doc_id for place in places("One two.", texts)] == ["a", "a", "b"]
    assert [texts[p.doc_id][p.start : p.end].split() for p in places("One two.", texts)] == [["One", "two."]] * 3


def test_missing_evidence_is_reported_and_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Cats purr when they are content.")
    rows = [
        {"id": "1", "split": "dev", "question": "What do cats do?", "answers": ["purr"], "evidence": "Cats purr"},
        {"id": "2", "split": "test", "question": "And dogs?", "answers": ["bark"], "evidence": "Dogs bark"},
    ]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    dataset = sources.text_folder(tmp_path, tmp_path / "q.jsonl", missing="drop")
    assert dataset.splits == {"dev": 1}
    assert dataset.notes == (
        "1 question left out, its evidence stands in no document: 2",
        "evidence of question '2', 'Dogs bark': nothing like it stands in the documents",
    )


@pytest.mark.parametrize(
    "key,value,message",
    [
        ("answers", "purr", 'line 1: answers: received "purr"; allowed: a list of texts such as ["break"], empty where nothing'),
        ("answers", [5], r"line 1: answers: received [5]; allowed: a list of texts"),
        ("answers", ["purr", " "], 'line 1: answers: received ["purr", " "]; allowed: a list of texts'),
        ("id", True, "line 1: id: received true; allowed: a text or a whole number"),
        ("id", 1.5, "line 1: id: received 1.5; allowed: a text or a whole number"),
        ("question", None, "line 1: question: received null; allowed: a text that is not empty"),
        ("evidence", "  ", 'line 1: evidence: received "  "; allowed: a sentence, a list of sentences, or null'),
        ("evidence", {"doc": "a"}, 'line 1: evidence: received {"doc": "a"}; allowed: a sentence, a list of sentences, or null'),
        ("kind", 3, "line 1: kind: received 3; allowed: a text, or null"),
        ("kind", " ", 'line 1: kind: received " "; allowed: a text, or null'),
    ],
)
def test_a_question_of_another_form_is_refused_with_its_line(tmp_path: Path, key: str, value: object, message: str) -> None:
    row = {"id": "1", "split": "dev", "question": "What do cats do?", "answers": ["purr"], "evidence": "Cats purr"}
    (tmp_path / "q.jsonl").write_text(json.dumps(row | {key: value}))
    with pytest.raises(InputError, match=".*".join(re.escape(part) for part in message.split(".*"))):
        read_questions(tmp_path / "q.jsonl")


def test_the_kind_of_a_question_is_kept_where_it_is_given(tmp_path: Path) -> None:
    row = {"id": "1", "split": "dev", "question": "What do cats do?", "answers": ["purr"], "evidence": "Cats purr"}
    rows = [row, row | {"id": "2", "kind": "direct"}, row | {"id": "3", "kind": None}]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert [found.get("kind") for found in read_questions(tmp_path / "q.jsonl")] == [None, "direct", None]


@pytest.mark.parametrize("words,overlap", [(80, 10), (7, 0), (3, 2), (10_000, 5)])
def test_passages_cover_every_word_and_overlap_as_told(words: int, overlap: int) -> None:
    text = "  ".join(f"w{i}" for i in range(500)) + "\n"
    windows = list(Chunking(words=words, overlap=overlap).windows(text))
    pieces = [text[a:b].split() for a, b in windows]
    assert all(len(piece) <= words for piece in pieces)
    assert all(a[len(a) - overlap :] == b[:overlap] for a, b in pairwise(pieces))
    assert pieces[0] + [w for piece in pieces[1:] for w in piece[overlap:]] == text.split()


def test_an_empty_document_gives_no_passage_and_a_whole_one_is_kept() -> None:
    assert list(Chunking(words=5, overlap=0).windows(" \n")) == []
    assert list(Chunking(words=None, overlap=0).windows("a b")) == [(0, 3)]


def test_whole_documents_are_passages_of_the_same_bytes_wherever_their_table_was_cut(tmp_path: Path) -> None:
    texts = ["", "a b", "Gr\u00fc\u00dfe \U0001f600", "e\u0301" * 9] * 1500
    rows = [{"id": str(i), "title": "t" * (i % 3), "text": text} for i, text in enumerate(texts)]
    table = pa.Table.from_pylist(rows, DOCUMENTS)
    for name, documents in {"slice": table.slice(7, 5000), "copy": pa.Table.from_pylist(rows[7:5007], DOCUMENTS)}.items():
        passages = Chunking(words=None, overlap=0).cut(documents)
        tables.write(tmp_path / name, passages)
        assert [(row["doc_id"], row["start"], row["end"], row["title"], row["text"]) for row in passages.to_pylist()] == [
            (row["id"], 0, len(row["text"]), row["title"], row["text"]) for row in rows[7:5007]
        ]
    assert (tmp_path / "slice").read_bytes() == (tmp_path / "copy").read_bytes()


def beir(folder: Path, **replace: str | None) -> Path:
    files = {
        "corpus.jsonl": '{"_id": "d1", "title": "T", "text": "alpha beta"}\n{"_id": "d2", "text": "gamma"}\n',
        "queries.jsonl": '{"_id": "q1", "text": "alpha?"}\n{"_id": "q2", "text": "gamma?"}\n',
        "qrels/test.tsv": "query-id\tcorpus-id\tscore\nq1\td1\t1\n",
    }
    for name, content in (files | replace).items():
        if content is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content)
    return folder


def test_a_beir_folder_is_read_plain_or_gzipped(tmp_path: Path) -> None:
    plain = sources.beir(beir(tmp_path / "plain"))
    packed = beir(tmp_path / "packed")
    for name in ("corpus.jsonl", "queries.jsonl"):
        (packed / f"{name}.gz").write_bytes(gzip.compress((packed / name).read_bytes()))
        (packed / name).unlink()
    assert sources.beir(packed).documents_digest == plain.documents_digest
    assert plain.judged("test").documents == {"q1": {"d1": 1}}
    assert plain.notes == ("1 query left out, it is in no qrels file",)


def test_the_order_of_lines_changes_nothing(tmp_path: Path) -> None:
    one = sources.beir(beir(tmp_path / "one"))
    lines = (tmp_path / "one" / "corpus.jsonl").read_text().splitlines()
    two = sources.beir(beir(tmp_path / "two", **{"corpus.jsonl": "\n".join(reversed(lines))}))
    assert one.documents_digest == two.documents_digest


@pytest.mark.parametrize(
    "replace,message",
    [
        ({"corpus.jsonl": None}, r"corpus\.jsonl \(or corpus\.jsonl\.gz\) is missing; found: qrels, queries\.jsonl"),
        ({"qrels/test.tsv": None}, r"qrels/SPLIT\.tsv \(or SPLIT\.tsv\.gz\) is missing"),
        ({"corpus.jsonl": ""}, "the corpus is empty"),
        ({"corpus.jsonl": '{"_id": "d1"}'}, r"corpus\.jsonl, line 1: the key 'text' is missing; needed: _id, text"),
        ({"corpus.jsonl": "{"}, "line 1: not JSON"),
        (
            {"corpus.jsonl": '{"_id": "d1", "text": "a"}\n{"_id": "d1", "text": "b"}'},
            "line 2: the id 'd1' is given twice, first in line 1",
        ),
        ({"qrels/test.tsv": "q1\td9\t1\n"}, "has no grade above 0 for a document .*: 1 judgement left out, .*'d9'"),
        ({"qrels/test.tsv": "q9\td1\t1\n"}, "has no grade above 0 for a document .*: 1 judgement left out, .*'q9'"),
        ({"qrels/test.tsv": "q1\td1\t0\n"}, r"test\.tsv has no grade above 0"),
        ({"qrels/test.tsv": "q1\td1\t1\nq1\td1\t2\n"}, "line 2: document 'd1' has the grade 2 .*, and in line 1 the grade 1"),
        ({"qrels/test.tsv": "q1 d1 1\n"}, "line 1: received 'q1 d1 1'; allowed: query-id TAB corpus-id TAB whole number"),
    ],
)
def test_a_bad_beir_folder_is_refused_by_name(tmp_path: Path, replace: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sources.beir(beir(tmp_path, **replace))


def test_a_refused_folder_leaves_nothing_that_looks_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "home"))
    with pytest.raises(InputError):
        sources.beir(beir(tmp_path / "bad", **{"corpus.jsonl": ""}))
    assert list((tmp_path / "home" / "datasets").iterdir()) == []


def test_limiting_takes_the_same_queries_whatever_else_is_there(pydocs: Dataset) -> None:
    small, large = pydocs.limited(5), pydocs.limited(20)
    for split in pydocs.splits:
        assert {q.id for q in small.split(split)} < {q.id for q in large.split(split)}
    assert small.documents_digest == pydocs.documents_digest


def test_held_out_queries_leave_train_in_whole_groups(pydocs: Dataset) -> None:
    found = pydocs.held_out(0.25, "train", "validation")
    train, moved = found.split("train"), found.split("validation")
    assert {q.id for q in train} | {q.id for q in moved} == {q.id for q in pydocs.split("train")}
    assert not {q.group for q in train} & {q.group for q in moved}
    groups = {q.group for q in pydocs.split("train")}
    assert len({q.group for q in moved}) == round(0.25 * len(groups))
    assert found.queries_digest("test") == pydocs.queries_digest("test")
    assert found.queries_digest("train") != pydocs.queries_digest("train")
    with pytest.raises(InputError, match="the split 'dev' exists"):
        pydocs.held_out(0.25, "train", "dev")
    with pytest.raises(InputError, match="leaves one side empty"):
        pydocs.held_out(0.0001, "train", "validation")


def test_the_digest_of_a_table_is_that_of_its_rows_as_json_whatever_stands_in_a_text() -> None:
    signs = "".join(map(chr, [*range(1, 0x30), 0x5C, *range(0x7E, 0xA1), 0x2028, 0x1F600]))
    texts = ["", "a", "é" * 2000, *(f"{'a' * 1200}{sign}b" for sign in signs), "\0" * 1500, '\\n"' * 600, "\r\n\t\f\b" * 400]
    rows = [{"id": str(number), "title": text[-9:], "text": text} for number, text in enumerate(texts)]
    for some in (rows, rows[:2], [*rows, *({"id": f"x{n}", "title": "", "text": None} for n in range(2000))]):
        lines = "".join(canonical(row) + "\n" for row in some)
        assert tables.content_digest(pa.Table.from_pylist(some, DOCUMENTS)) == hashlib.sha256(lines.encode()).hexdigest()
