"""Files as people have them: each kind is read as meant, or refused with file, line, what was found and what is allowed."""

from __future__ import annotations

import gzip
import json
import sqlite3
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import workbench

from workbench import Experiment, cli, weights
from workbench.data import scripts, sources
from workbench.data.conversation import read_history
from workbench.data.readers import csv_tables, json_lines, text, trec, yaml_files
from workbench.errors import InputError
from workbench.evaluation import answers
from workbench.experiment.config import read_settings
from workbench.pipeline import Pipeline
from workbench.results import foreign
from workbench.results.run import Run
from workbench.retrieval.bm25 import BM25
from workbench.retrieval.expansion import searched
from workbench.store.items import Items
from workbench.store.progress import Progress

CORPUS = [{"_id": f"d{i}", "title": f"Note {i}", "text": f"The {word} stands in the hall."} for i, word in enumerate("abcdef")]
QUERIES = [{"_id": f"q{i}", "text": f"Where does the {word} stand?", "answers": ["hall"]} for i, word in enumerate("abcdef")]


def written(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def json_lined(rows: list[dict]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def beir(folder: Path, **replaced: str | bytes) -> Path:
    """A folder of six documents and queries, of which dev and test have three each."""
    files: dict[str, str | bytes] = {
        "corpus.jsonl": json_lined(CORPUS),
        "queries.jsonl": json_lined(QUERIES),
        "qrels/dev.tsv": "query-id\tcorpus-id\tscore\n" + "".join(f"q{i}\td{i}\t1\n" for i in range(3)),
        "qrels/test.tsv": "query-id\tcorpus-id\tscore\n" + "".join(f"q{i}\td{i}\t1\n" for i in range(3, 6)),
    }
    for name, content in (files | replaced).items():
        written(folder / name, content)
    return folder


def asked(folder: Path, texts: dict[str, str], rows: list[dict]) -> Path:
    """A folder of texts; the questions file beside it."""
    for name, content in texts.items():
        written(folder / "texts" / name, content)
    return written(folder / "questions.jsonl", json_lined(rows))


def question(**changed: object) -> dict[str, object]:
    row = {"id": "1", "split": "dev", "question": "What do cats do?", "answers": ["purr"], "evidence": "Cats purr."}
    return row | changed


def refused(read: Callable[[], object], *parts: str) -> None:
    with pytest.raises(InputError) as told:
        read()
    for part in parts:
        assert part in str(told.value), told.value


# --- Unicode ----------------------------------------------------------------------------------------------------------

CAFE, TAKEN_APART = "Das Café öffnet früh.", unicodedata.normalize("NFD", "Das Café öffnet früh.")
KOREAN = "한국어 문서는 이곳에 있다"


@pytest.mark.parametrize("stored,asked_in", [(CAFE, TAKEN_APART), (TAKEN_APART, CAFE), (TAKEN_APART, TAKEN_APART)])
def test_letters_and_accents_are_the_same_however_they_are_put_together(tmp_path: Path, stored: str, asked_in: str) -> None:
    texts = {"cafe.txt": stored, "b.txt": "Der Laden schließt.", "c.txt": "Die Tür klemmt."}
    rows = [
        question(id=split, split=split, question=asked_in, answers=[asked_in], evidence=asked_in) for split in ("dev", "test")
    ]
    file = asked(tmp_path, texts, rows)
    dataset = sources.text_folder(tmp_path / "texts", file)
    assert dataset.documents["text"].to_pylist()[-1] == CAFE
    (query,) = dataset.split("dev")
    assert (query.text, query.answers) == (CAFE, (CAFE,)) and len(dataset.judged("dev").spans["dev"]) == 1
    settings = {"experiment": "e", "dataset": {"folder": "texts", "questions": "questions.jsonl"}}
    settings |= {"components": {"retrievers": {"bm25": {"kind": "bm25", "stopwords": None, "stemmer": None}}}}
    written(tmp_path / "e.yaml", yaml.safe_dump(settings | {"metrics": {"rankings": ["ndcg@10"]}}))
    run = Experiment.load(tmp_path / "e.yaml", tmp_path / "runs", (), Progress()).compare()
    assert [row.mean for row in run.leaderboard] == [1.0, 1.0]
    found = Pipeline.open(run).ask(TAKEN_APART).sources
    assert [source.text for source in found] == [CAFE]


def test_terms_and_answers_are_compared_in_one_form() -> None:
    analyzer = BM25(stopwords=None, stemmer=None).analyzer
    assert analyzer.tokenize([TAKEN_APART]) == analyzer.tokenize([CAFE]) == [["das", "café", "öffnet", "früh"]]
    for metric in ("f1", "em", "contains"):
        assert answers.BUILTIN[metric].score(TAKEN_APART, [CAFE], ()) == 1
        assert answers.BUILTIN[metric].score(CAFE, [TAKEN_APART], ()) == 1
    assert answers.grounded(TAKEN_APART, [CAFE]) == answers.grounded(CAFE, [TAKEN_APART]) == 1
    assert searched("é", ["e\u0301", "a"]) == ["é", "a"]


def test_ids_are_not_composed(tmp_path: Path) -> None:
    one, other = "é", "e\u0301"  # two documents: the files that name them say which
    corpus = [row | {"_id": name} for row, name in zip(CORPUS, (one, other), strict=False)]
    qrels = f"q0\t{one}\t1\nq1\t{other}\t1\n"
    folder = beir(tmp_path, **{"corpus.jsonl": json_lined(corpus), "qrels/dev.tsv": qrels, "qrels/test.tsv": f"q2\t{one}\t1\n"})
    assert sources.beir(folder).judged("dev").documents == {"q0": {one: 1}, "q1": {other: 1}}


@pytest.mark.parametrize("place", ["question", "answers", "evidence", "history"])
def test_half_of_a_surrogate_pair_is_refused_with_its_place(tmp_path: Path, place: str) -> None:
    half = {"question": "a\ud83d", "answers": ["a\ud83d"], "evidence": "a\ud83d"}
    half["history"] = [{"role": "user", "content": "a\ud83d"}]
    texts = {"a.txt": "Cats purr."}
    file = asked(tmp_path, texts, [question()])
    file.write_text(json.dumps(question()) + "\n" + json.dumps(question(id="2", **{place: half[place]})) + "\n")
    refused(lambda: sources.text_folder(tmp_path / "texts", file), f"line 2: {place}", "character 2 is one half of a surrogate")


def test_half_of_a_surrogate_pair_is_refused_wherever_it_comes_from(tmp_path: Path) -> None:
    refused(
        lambda: yaml_files.read(written(tmp_path / "e.yaml", 'a: {b: ["x\\ud83d"]}')), "e.yaml: a: b: character 2 is one half"
    )
    refused(lambda: read_history([{"role": "user", "content": "\udc80"}], "history"), "history, turn 1: character 1")
    (tmp_path / "texts").mkdir()
    try:
        (tmp_path / "texts" / "caf\udce9.txt").write_text("A name in Latin-1.")
    except (OSError, UnicodeError):
        pytest.skip("this file system takes no name that is not UTF-8")
    file = written(tmp_path / "questions.jsonl", json_lined([question()]))
    refused(lambda: sources.text_folder(tmp_path / "texts", file), "unnameable, its name is not UTF-8")
    written(tmp_path / "texts" / "a.txt", "Cats purr.")
    dataset = sources.text_folder(tmp_path / "texts", file)
    assert dataset.unread["file"].to_pylist() == ["caf\\udce9.txt"] and dataset.unread["reason"].to_pylist() == ["unnameable"]


@pytest.mark.parametrize(
    "text,script",
    [
        ("熊猫吃什么？", "Chinese or Japanese"),
        ("パンダは何を食べますか。", "Chinese or Japanese"),
        ("แพนด้ากินอะไร", "Thai"),
        ("ໝີແພນດ້າກິນຫຍັງ", "Lao"),
        ("ပန်ဒါက ဘာစားလဲ", "Burmese"),
        ("ខ្លាឃ្មុំផេនដាស៊ីអ្វី", "Khmer"),
        (KOREAN, None),
        ("What does the panda (熊猫) eat?", None),
        ("Что ест панда?", None),
        ("12 + 30 = ?", None),
        ("", None),
    ],
)
def test_scripts_without_spaces_are_known(text: str, script: str | None) -> None:
    assert scripts.unspaced(text) == script


@pytest.mark.parametrize("language", ["chinese", "thai", "answers alone", "korean"])
def test_questions_that_words_cannot_measure_are_announced_before_the_run(tmp_path: Path, language: str) -> None:
    said = {
        "chinese": ("熊猫主要以竹子为食。", "熊猫吃什么？"),
        "thai": ("แพนด้ากินไผ่เป็นอาหาร", "แพนด้ากินอะไร"),
        "answers alone": ("竹子", "What do pandas eat?"),
        "korean": (KOREAN, KOREAN),
    }
    text, asking = said[language]
    rows = [question(id=split, split=split, question=asking, answers=[text], evidence=text) for split in ("dev", "test")]
    asked(tmp_path, {"a.txt": text, "b.txt": "Cats purr."}, rows)
    settings = {"experiment": "e", "dataset": {"folder": "texts", "questions": "questions.jsonl"}}
    settings |= {"components": {"retrievers": {"words": {"kind": "bm25"}, "both": {"kind": "fusion", "of": ["words", "words2"]}}}}
    settings["components"]["retrievers"]["words2"] = {"kind": "bm25", "b": 0}
    settings |= {"axes": {"retriever": ["both"], "chunking": ["whole"]}, "metrics": {"rankings": ["recall@10", "recall@20w"]}}
    path = written(tmp_path / "e.yaml", yaml.safe_dump(settings))
    done = workbench("run", path, "--runs", tmp_path / "runs", "--no-notebooks")
    assert done.returncode == 0, done.stderr
    noted = Run.latest(tmp_path / "runs").manifest["dataset"]["notes"]
    if language == "korean":
        assert not noted and "CAUTION" not in done.stderr
        return
    first = done.stderr.splitlines()[0]
    assert first.startswith("CAUTION: 2 of 2 questions, such as 'dev'") and "Concerned here: BM25, recall@20w." in first
    assert noted == [first]
    planned = workbench("plan", path, "--runs", tmp_path / "runs")
    assert planned.stderr.splitlines()[0] == first


# --- Text files -------------------------------------------------------------------------------------------------------


def test_a_byte_order_mark_is_no_part_of_any_file(tmp_path: Path) -> None:
    mark = b"\xef\xbb\xbf"
    plain, marked = beir(tmp_path / "plain"), beir(tmp_path / "marked")
    for file in sorted(marked.rglob("*.*")):
        file.write_bytes(mark + file.read_bytes())
    bare = "".join(f"q{i}\td{i}\t1\n" for i in range(3, 6)).encode()
    written(marked / "qrels" / "test.tsv", mark + bare)  # without a header, the mark stands before the first query
    one, two = sources.beir(plain), sources.beir(marked)
    assert one.documents_digest == two.documents_digest and one.splits == two.splits == {"dev": 3, "test": 3}
    assert one.judgements == two.judgements and two.notes == ()
    scores = "query_id,a,b\n1,0.5,0.25\n2,1,0\n"
    (first,) = foreign.read_table(written(tmp_path / "s.csv", scores))
    (second,) = foreign.read_table(written(tmp_path / "m.csv", mark + scores.encode()))
    assert first.systems == second.systems and (first.values == second.values).all()
    assert yaml_files.read(written(tmp_path / "a.yaml", mark + b"experiment: e\n")) == {"experiment": "e"}


def test_only_a_line_feed_ends_a_line(tmp_path: Path) -> None:
    separators = "one\u2028two\u2029three\x85four\x0bfive"
    path = written(tmp_path / "a.jsonl", json.dumps({"a": separators}, ensure_ascii=False) + "\r\n{}\n")
    assert [line.number for line in text.lines(path)] == [1, 2]
    assert [read.value for read in json_lines.objects(path)] == [{"a": separators}, {}]
    file = asked(
        tmp_path, {"a.txt": "Cats purr."}, [question(question=f"What do{separators}cats do?"), question(id="2", split="test")]
    )
    assert sources.text_folder(tmp_path / "texts", file).splits == {"dev": 1, "test": 1}


@pytest.mark.parametrize(
    "content,parts",
    [
        ("Größe".encode("latin-1"), ["line 1: the byte 0xf6 is no UTF-8 (in Windows-1252 it is 'ö'); save it as UTF-8"]),
        (b"a\nb\n\x80", ["line 3: the byte 0x80 is no UTF-8 (in Windows-1252 it is '€')"]),
        ("aé".encode("utf-16")[:-1], ["begins as UTF-16 does and is no whole UTF-16 (truncated data); save it as UTF-8"]),
        ("a\n\0".encode("utf-16"), ["line 2: a NUL stands in it"]),
        ("a\nb".encode("utf-16-be"), ["line 1: a NUL byte stands in it, so this is no UTF-8 text; save it as UTF-8"]),
    ],
)
def test_another_encoding_is_named_with_its_line(tmp_path: Path, content: bytes, parts: list[str]) -> None:
    path = written(tmp_path / "a.txt", content)
    refused(lambda: list(text.lines(path)), "a.txt", *parts)
    refused(lambda: text.whole(path), "a.txt", *parts)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-be", "utf-16-le", "utf-32-be", "utf-32-le"])
def test_text_that_begins_with_the_mark_of_an_encoding_is_read_by_it(tmp_path: Path, encoding: str) -> None:
    mark = "" if encoding in ("utf-8-sig", "utf-16", "utf-32") else "\ufeff"
    content = f"{mark}Größe\r\n\u2028好 🙂\n\nend\n".encode(encoding)
    path = written(tmp_path / "a.txt", content)
    assert [tuple(line) for line in text.lines(path)] == [(1, "Größe"), (2, "\u2028好 🙂"), (3, ""), (4, "end")]
    assert text.whole(path).splitlines()[0] == "Größe" and "\r" not in text.whole(path)
    assert list(text.lines(written(tmp_path / "a.txt.gz", gzip.compress(content)))) == list(text.lines(path))
    assert not "".join(line.text for line in text.lines(written(tmp_path / "e.txt", mark.encode(encoding))))


def test_a_gzip_file_that_is_cut_off_is_no_interruption(tmp_path: Path) -> None:
    packed = gzip.compress(json_lined(CORPUS * 50).encode())
    for name, content in (("cut", packed[: len(packed) // 2]), ("other", b"no gzip at all"), ("empty", b"\x1f\x8b")):
        folder = beir(tmp_path / name, **{"corpus.jsonl.gz": content})
        (folder / "corpus.jsonl").unlink()
        refused(lambda folder=folder: sources.beir(folder), "corpus.jsonl.gz is no whole gzip file", "fetch or pack it again")


# --- JSON lines -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "corpus,parts",
    [
        ('{"_id": "a", "text": null}', ["corpus.jsonl, line 1: text: received null; allowed: a text"]),
        ('{"_id": "a", "text": ["a"]}', ['line 1: text: received ["a"]; allowed: a text']),
        ('{"_id": null, "text": "a"}', ["line 1: _id: received null; allowed: a text or a whole number"]),
        ('{"_id": "a\\u0000", "text": "a"}', ["line 1: _id: received", "allowed: a text or a whole number (NUL stands in it"]),
        ('{"_id": "a", "text": "a", "title": 5}', ["line 1: title: received 5; allowed: a text, or null"]),
        (
            '[{"_id": "a", "text": "a"}]',
            ["line 1: received [{", "allowed: an object with the keys _id, title, text", "without a list around them"],
        ),
        ('\n"a"', ['line 2: received "a"; allowed: an object']),
        ('{"_id": "a", "_id": "b", "text": "a"}', ["line 1: the key '_id' is given twice"]),
        ('{"_id": "a", "text": "\\ud83d"}', ["line 1: text: character 1 is one half of a surrogate pair (U+D83D)"]),
        ("{" * 100_000, ["line 1"]),
    ],
)
def test_a_document_of_another_form_is_refused_with_its_line(tmp_path: Path, corpus: str, parts: list[str]) -> None:
    folder = beir(tmp_path, **{"corpus.jsonl": corpus})
    refused(lambda: sources.beir(folder), "corpus.jsonl", *parts)


def test_an_answer_that_is_a_text_is_not_read_letter_by_letter(tmp_path: Path) -> None:
    rows = [QUERIES[0] | {"answers": "hall"}, *QUERIES[1:]]
    refused(lambda: sources.beir(beir(tmp_path / "b", **{"queries.jsonl": json_lined(rows)})), 'line 1: answers: received "hall"')
    file = asked(tmp_path, {"a.txt": "Cats purr."}, [question(answers="purr")])
    refused(lambda: sources.text_folder(tmp_path / "texts", file), 'line 1: answers: received "purr"')


def test_ids_that_are_numbers_are_their_texts(tmp_path: Path) -> None:
    numbered = {"corpus.jsonl": json_lined([row | {"_id": int(row["_id"][1:])} for row in CORPUS])}
    numbered["qrels/dev.tsv"] = "".join(f"q{i}\t{i}\t1\n" for i in range(3))
    numbered["qrels/test.tsv"] = "".join(f"q{i}\t{i}\t1\n" for i in range(3, 6))
    assert sources.beir(beir(tmp_path / "b", **numbered)).documents["id"].to_pylist() == list("012345")
    file = asked(tmp_path, {"a.txt": "Cats purr."}, [question(id=7), question(id=8, split="test")])
    assert [query.id for query in sources.text_folder(tmp_path / "texts", file).split("dev")] == ["7"]


def test_group_zero_is_a_group(tmp_path: Path) -> None:
    rows = [row | {"group": i % 2} for i, row in enumerate(QUERIES)]
    dataset = sources.beir(beir(tmp_path, **{"queries.jsonl": json_lined(rows)}))
    assert [query.group for query in dataset.split("dev")] == ["0", "1", "0"]


@pytest.mark.parametrize(
    "content,part",
    [
        (
            '[\n{"_id": "a"}\n]',
            "line 1: not JSON: Expecting value at column 2; every line holds one JSON object, whole and by its",
        ),
        (
            '{"_id": "a"}\r{"_id": "b"}',
            "line 1: not JSON: Extra data at column 14; lines end in a carriage return alone, end them with line feeds",
        ),
        (f'{{"_id": {"9" * 5000}, "text": "a"}}', "line 1: a number in it has too many digits; write it in quotation marks"),
        (json_lined([*CORPUS, CORPUS[1]]), "line 7: the id 'd1' is given twice, first in line 2; ids are distinct"),
    ],
)
def test_what_is_no_line_of_a_file_is_told_as_that(tmp_path: Path, content: str, part: str) -> None:
    refused(lambda: sources.beir(beir(tmp_path, **{"corpus.jsonl": content})), "corpus.jsonl, " + part)


def test_an_id_that_is_given_twice_is_named_with_both_lines(tmp_path: Path) -> None:
    folder = beir(tmp_path / "b", **{"queries.jsonl": json_lined([*QUERIES, QUERIES[0]])})
    refused(lambda: sources.beir(folder), "queries.jsonl, line 7: the id 'q0' is given twice, first in line 1")
    file = asked(tmp_path, {"a.txt": "Cats purr."}, [question(), question(split="test")])
    refused(lambda: sources.text_folder(tmp_path / "texts", file), "questions.jsonl, line 2: the id '1' is given twice")


@pytest.mark.parametrize(
    "content,part",
    [
        (b"PK\x03\x04\x14\0", "is a zip archive, as Excel's .xlsx is"),
        (gzip.compress(b"a", mtime=0), "is packed with gzip; give it a name"),
    ],
)
def test_a_file_that_is_no_text_is_named_as_what_it_is(tmp_path: Path, content: bytes, part: str) -> None:
    refused(lambda: list(text.lines(written(tmp_path / "a.csv", content))), "a.csv", part)
    refused(lambda: text.whole(written(tmp_path / "a.txt", content)), "a.txt", part)


# --- Published sets ---------------------------------------------------------------------------------------------------


def test_judgements_on_what_is_not_there_are_counted(tmp_path: Path) -> None:
    more = beir(tmp_path)
    with (more / "qrels" / "test.tsv").open("a") as file:
        file.write("q3\tgone\t1\nq4\tgone\t1\nlost\td0\t1\n")
    dataset = sources.beir(more)
    assert dataset.splits == {"dev": 3, "test": 3}
    assert dataset.notes == (
        "2 judgements left out, on 1 document that corpus.jsonl does not hold: 'gone'",
        "1 judgement left out, on 1 query that queries.jsonl does not hold: 'lost'",
    )


@pytest.mark.parametrize("first", ["q3\td3\t1.0", "q3\td3\t9999999999", "q3\td3\tnan", "q3\td3\tx"])
def test_a_first_line_with_an_unreadable_grade_is_no_header(tmp_path: Path, first: str) -> None:
    folder = beir(tmp_path, **{"qrels/test.tsv": f"{first}\nq4\td4\t1\n"})
    refused(lambda: sources.beir(folder), "test.tsv, line 1: received ", "whole number")


@pytest.mark.parametrize("header", ["query-id\tcorpus-id\tscore", '"query-id"\t"corpus-id"\t"score"', "\nqid\tdocid\trelevance"])
def test_a_header_over_judgements_is_left_out(tmp_path: Path, header: str) -> None:
    folder = beir(tmp_path, **{"qrels/test.tsv": f"{header}\nq4\td4\t1\n"})
    assert sources.beir(folder).judged("test").documents == {"q4": {"d4": 1}}


def test_judgements_may_be_packed_and_others_are_named(tmp_path: Path) -> None:
    folder = beir(tmp_path)
    packed = gzip.compress((folder / "qrels" / "test.tsv").read_bytes())
    written(folder / "qrels" / "test.tsv.gz", packed)
    refused(lambda: sources.beir(folder), "qrels holds test.tsv and test.tsv.gz; keep one of them")
    (folder / "qrels" / "test.tsv").rename(folder / "qrels" / "TEST.TSV")
    dataset = sources.beir(folder)
    assert dataset.splits == {"dev": 3, "test": 3}
    assert dataset.notes == ("1 file of qrels left out, its name does not end in .tsv or .tsv.gz: 'TEST.TSV'",)
    written(folder / "corpus.jsonl.gz", gzip.compress(b""))
    refused(lambda: sources.beir(folder), "holds corpus.jsonl and corpus.jsonl.gz; keep one of them")


def test_what_cannot_be_found_or_measured_is_counted(tmp_path: Path) -> None:
    files = {"corpus.jsonl": json_lined([{"_id": "d0", "text": " "}, *CORPUS[1:]])}
    files["queries.jsonl"] = json_lined([QUERIES[0] | {"text": ""}, *QUERIES[1:]])
    files["qrels/test.tsv"] = "q3\td3\t-1\nq4\td4\t1\nq5\td5\t0\n"
    assert sources.beir(beir(tmp_path / "some", **files)).notes == (
        "1 query has no text: 'q0'",
        "2 queries of test have no relevant document, so rankings are not measured on them: 'q3', 'q5'",
        "1 document has no text: 'd0'",
    )
    for name, content, part in (
        (
            "corpus.jsonl",
            json_lined([row | {"title": None, "text": " "} for row in CORPUS]),
            "none of its 6 documents has a text",
        ),
        ("queries.jsonl", "\n", "queries.jsonl is empty; at least one query is needed"),
    ):
        refused(lambda name=name, content=content: sources.beir(beir(tmp_path / name, **{name: content})), part)


def test_a_stored_dataset_that_is_damaged_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "home"))
    folder = beir(tmp_path / "data")
    whole = sources.beir(folder)
    (stored,) = (tmp_path / "home" / "datasets").iterdir()
    for file in sorted(stored.iterdir()):
        content = file.read_bytes()
        for damaged in (b"", content[: len(content) // 2], content.replace(b"hall", b"barn").replace(b'"', b"'"), None):
            file.unlink()
            file.mkdir() if damaged is None else file.write_bytes(damaged)
            again = sources.beir(folder)
            assert again.documents.equals(whole.documents) and again.queries.equals(whole.queries), (file.name, damaged)
            assert again.judgements.equals(whole.judgements) and file.is_file()


def test_a_set_without_a_split_to_choose_on_names_hold_out(tmp_path: Path) -> None:
    folder = beir(tmp_path / "data")
    (folder / "qrels" / "dev.tsv").rename(folder / "qrels" / "train.tsv")
    settings = {"experiment": "e", "dataset": {"beir": "data"}, "components": {"retrievers": {"bm25": {"kind": "bm25"}}}}
    settings["metrics"] = {"rankings": ["ndcg@10"]}
    written(tmp_path / "e.yaml", yaml.safe_dump(settings))
    refused(
        lambda: Experiment.load(tmp_path / "e.yaml", tmp_path / "runs", (), Progress()), "has no split 'dev'", "hold_out: 0.25"
    )
    held = Experiment.load(tmp_path / "e.yaml", tmp_path / "runs", ["dataset.hold_out=0.34"], Progress())
    assert set(held.session.dataset.splits) == {"train", "dev", "test"}


# --- Folders of texts -------------------------------------------------------------------------------------------------


def test_a_folder_is_read_as_its_owner_sees_it(tmp_path: Path) -> None:
    front = '---\nlayout: page\ntitle: "About dogs"\n---\n\n# Dogs\n\nDogs bark.\n'
    texts = {
        "Cats.TXT": "Cats\n\nCats purr.",
        "dogs.markdown": front,
        "birds.md/song.md": "# Birds #\n\nBirds sing.",
        ".ipynb_checkpoints/cats.txt": "an old draft",
        ".hidden.md": "hidden",
        "manual.pdf": "%PDF",
        "--- rule.md": "---\nThe text begins here.\n",
    }
    file = asked(tmp_path, texts, [question(), question(id="2", split="test", evidence="Dogs bark.")])
    dataset = sources.text_folder(tmp_path / "texts", file)
    titles = dict(zip(dataset.documents["id"].to_pylist(), dataset.documents["title"].to_pylist(), strict=True))
    assert titles == {
        "--- rule.md": "---",
        "Cats.TXT": "Cats",
        "birds.md/song.md": "Birds",
        "dogs.markdown": "About dogs",
    }
    assert dataset.notes[:2] == (
        "2 hidden files left out",
        "1 of 5 files is not read: 1 not what its name says ('manual.pdf')",
    )


def test_a_place_of_another_kind_is_named(tmp_path: Path) -> None:
    file = asked(tmp_path, {"a.txt": "Cats purr."}, [question()])
    refused(lambda: sources.text_folder(tmp_path / "texts" / "a.txt", file), "a.txt is a file; name the folder that it is in")
    refused(lambda: sources.text_folder(tmp_path / "none", file), "none does not exist")
    refused(lambda: sources.text_folder(tmp_path / "texts", tmp_path), "is a folder")
    refused(lambda: sources.text_folder(tmp_path / "texts", written(tmp_path / "q", "\n")), "is empty; at least one question is")
    refused(lambda: sources.beir(file), "is a file; name the folder that it is in")
    refused(lambda: Run.open(file), "is a file; name the folder of a run")
    refused(lambda: read_settings(tmp_path), "is a folder; name the YAML file in it")


def test_links_that_are_not_followed_and_empty_texts_are_named(tmp_path: Path) -> None:
    file = asked(tmp_path, {"a.txt": "Cats purr.", "empty.md": " \n"}, [question(), question(id="2", split="test")])
    written(tmp_path / "elsewhere" / "b.txt", "Dogs bark.")
    for name, target in (("sub", "elsewhere"), ("gone.txt", "nowhere"), ("b.txt", "elsewhere/b.txt")):
        (tmp_path / "texts" / name).symlink_to(tmp_path / target)
    dataset = sources.text_folder(tmp_path / "texts", file)
    assert dataset.documents["id"].to_pylist() == ["a.txt", "b.txt"]
    said = "2 links left out, which lead to folders or to nothing; copy what they lead to into the folder: 'gone.txt', 'sub'"
    assert dataset.notes == (said, "1 of 3 files is not read: 1 empty ('empty.md')")


def test_an_empty_sentence_is_no_evidence(tmp_path: Path) -> None:
    for evidence in ("", " \n", ["Cats purr.", ""]):
        file = asked(tmp_path, {"a.txt": "Cats purr."}, [question(evidence=evidence)])
        refused(
            lambda file=file: sources.text_folder(tmp_path / "texts", file), "line 1: evidence: received ", "allowed: a sentence"
        )


def test_a_home_folder_is_found_by_its_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(weights.home()))  # else the machine is measured anew
    monkeypatch.setenv("HOME", str(tmp_path))
    beir(tmp_path / "data")
    settings = {"experiment": "e", "dataset": {"beir": "~/data"}, "components": {"retrievers": {"bm25": {"kind": "bm25"}}}}
    written(tmp_path / "elsewhere" / "e.yaml", yaml.safe_dump(settings | {"metrics": {"rankings": ["ndcg@10"]}}))
    experiment = Experiment.load(tmp_path / "elsewhere" / "e.yaml", tmp_path / "runs", (), Progress())
    assert experiment.settings.dataset.beir == tmp_path / "data"


# --- YAML -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content,part",
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "line 4: the key 'c' is given twice, first in line 3"),
        ("a:\n\tb: 1\n", "line 2 begins with a tab; indent with spaces"),
        ("1: a\n", "line 1: the key '1' is read as no text; write it in quotation marks"),
        ("a: [1, 2\n", "line 2: no readable YAML"),
        ('a: 1\nb: "c\nd: 2\n', "line 2: no readable YAML: a quotation mark opens there and none closes it"),
        ("a: 'b\n---\nc: 1\n", "line 1: no readable YAML: a quotation mark opens there and none closes it"),
        ("a: !!int x\n", "write a text that looks like a number in quotation marks, and no tags"),
        ("? [a]\n: 1\n", "line 1: a key is a list or has keys of its own; keys are texts"),
        ("a: 1\nb: &b {c: *b}\n", "line 2: what stands there is part of itself (by & and *); write it out"),
        ("a: 1\n# \x07\n", "line 2: the character U+0007 stands in it, which YAML does not allow; leave it out"),
        ("a: {b: 'x\ny'}\nc: {d: \"x\\0\"}\n", "e.yaml: c: d: NUL stands in 'x\\x00'"),
        (f"a:\n  b: {'9' * 5000}\n", "has too many digits; at most 100 are read"),
        ("a: !!python/object:os.system x\n", "line 1: no readable YAML"),
    ],
)
def test_a_yaml_file_is_refused_with_its_line(tmp_path: Path, content: str, part: str) -> None:
    refused(lambda: yaml_files.read(written(tmp_path / "e.yaml", content)), "e.yaml", part)


def test_words_that_old_yaml_takes_for_truth_are_words() -> None:
    assert yaml_files.parsed("[on, off, yes, no, y, n, true, False, ~]", "") == [
        *("on", "off", "yes", "no", "y", "n"),
        *(True, False, None),
    ]


TRAPS = [
    "010",
    "1:30",
    "2026-01-01",
    "1_000",
    "1e-4",
    "1E5",
    "0o17",
    "0x1F",
    "0b1",
    ".5",
    "1.",
    "+1",
    ".inf",
    "on",
    "y",
    "=",
    "~",
]


def test_numbers_and_dates_are_those_of_yaml_1_2() -> None:
    assert yaml_files.parsed("[010, 1e-4, 1e2, 0x10, 0o17, -3, .5, 1.5e3, -.inf]", "") == [
        *(10, 1e-4, 100.0, 16, 15, -3, 0.5, 1500.0),
        -float("inf"),
    ]
    texts = ["1:30", "2026-01-01", "2026-13-45", "1_000", "0b1", "="]
    assert yaml_files.parsed(f"[{', '.join(texts)}]", "") == texts


def test_what_is_written_as_yaml_reads_back_in_readers_of_both_versions() -> None:
    values = {"texts": [*TRAPS, "", " a", "é\u2028", "#", "- a"], "others": [1, 1e-5, 1e22, 1.0, True, None, 10**30]}
    text = yaml_files.dumped(values)
    assert yaml_files.parsed(text, "") == yaml.safe_load(text) == values


@pytest.mark.parametrize(
    "key,value,part",
    [
        ("experiment", "e" * 300, "experiment: received 'eee"),
        ("depth", 10**12, "depth: received 1000000000000; allowed: a number less than or equal to 1000000"),
        ("seed", 2**40, "seed: received 1099511627776; allowed: a number less than 4294967296"),
        ("depth", True, "depth: true is no number"),
        ("dataset", {"beir": "data", "limit": True}, "dataset.limit: true is no number"),
        ("dataset", {"beir": "data", "limit": 0}, "dataset.limit: received 0; allowed: a number greater than 0"),
        ("metrics", {"rankings": [f"ndcg@{10**20}"]}, "looks further down than any ranking goes"),
    ],
)
def test_a_setting_that_would_fail_later_is_refused_first(tmp_path: Path, key: str, value: object, part: str) -> None:
    path = experiment_of(tmp_path, {"rankings": ["ndcg@10"]})
    written(path, yaml.safe_dump(yaml.safe_load(path.read_text()) | {key: value}))
    refused(lambda: read_settings(path), "e.yaml: ", part)


def test_a_metric_that_looks_below_the_end_of_rankings_is_announced(tmp_path: Path) -> None:
    path = experiment_of(tmp_path, {"rankings": ["ndcg@10", "recall@1000"]})
    notes = Experiment.load(path, tmp_path / "runs", ["depth=4"], Progress()).notes
    assert notes[0].startswith("CAUTION: rankings end after 4 passages (depth), and ndcg@10, recall@1000 would look further down")
    assert not Experiment.load(path, tmp_path / "runs", ["depth=10"], Progress()).notes  # of six documents all are ranked


@pytest.mark.parametrize(
    "family,settings,part",
    [
        ("retrievers", {"kind": "bm25", "k1": float("inf")}, "retrievers.mine.k1: received inf; allowed: finite numbers"),
        (
            "retrievers",
            {"kind": "bm25", "k1": -1},
            "components.retrievers.mine.k1: received -1; allowed: a number greater than or equal to 0",
        ),
        ("retrievers", {"kind": "bm25", "b": "much"}, "components.retrievers.mine.b: received 'much'; allowed: a number"),
        ("retrievers", {"kind": "bm25", "stemmer": 5}, "components.retrievers.mine.stemmer: received 5; allowed: a text"),
        ("retrievers", {"kind": "fusion", "of": ["bm25", "bm25"]}, "'bm25' is fused with itself; name each retriever once"),
        ("retrievers", {"kind": "fusion", "of": ["bm25"]}, "mine.of: received ['bm25']; allowed: at least 2 values"),
        (
            "retrievers",
            {"kind": "dense", "embedder": "e", "index": {"kind": "hnsw", "efsearch": 4}},
            "retrievers.mine.index.efsearch: unknown key 'efsearch'; allowed: ef_construction, ef_search, kind, m. Did you",
        ),
        (
            "retrievers",
            {"kind": "dense", "embedder": "e", "index": {"kind": "hnsv"}},
            "components.retrievers.mine.index: received {'kind': 'hnsv'}; allowed: as 'kind' one of 'flat', 'ivf'",
        ),
        (
            "generators",
            {"model": "a", "lora": {"chunking": {"word": 4}}},
            "mine.lora.chunking.word: unknown key 'word'; allowed: at, keep, language, overlap, recursive, sentences, words.",
        ),
        ("generators", {"model": "a", "lora": {"rank": [4, 4]}}, "components.generators.mine.lora.rank: 4 is given twice"),
        ("generators", {"model": "a", "lora": {"rank": 2.5}}, "mine.lora.rank: received 2.5; allowed: a whole number"),
        ("retrievers", {"kind": "~/no.py:A"}, f"(looked for {Path('~/no.py').expanduser()})"),
        ("rerankers", {"kind": "library", "name": "a", "model_type": "t5", "arguments": {"a": float("nan")}}, "finite numbers"),
    ],
)
def test_a_setting_that_no_file_can_hold_is_refused(tmp_path: Path, family: str, settings: dict, part: str) -> None:
    beir(tmp_path / "data")
    components = {"retrievers": {"bm25": {"kind": "bm25"}}}
    components[family] = components.get(family, {}) | {"mine": settings}
    file = {"experiment": "e", "dataset": {"beir": "data"}, "components": components, "metrics": {"rankings": ["ndcg@10"]}}
    written(tmp_path / "e.yaml", yaml.safe_dump(file))
    refused(lambda: Experiment.load(tmp_path / "e.yaml", tmp_path / "runs", (), Progress()), part)


def experiment_of(folder: Path, metrics: dict, **components: dict) -> Path:
    beir(folder / "data")
    file = {"experiment": "e", "dataset": {"beir": "data"}, "components": {"retrievers": {"bm25": {"kind": "bm25"}}} | components}
    return written(folder / "e.yaml", yaml.safe_dump(file | {"metrics": metrics}))


@pytest.mark.parametrize("metrics", [{"rankings": ["ndcg@10", "mrr@10", "ndcg@10"]}, {"answers": ["f1", "f1"]}])
def test_a_metric_is_named_once(tmp_path: Path, metrics: dict) -> None:
    path = experiment_of(tmp_path, metrics)
    refused(
        lambda: Experiment.load(path, tmp_path / "runs", (), Progress()), "e.yaml: metrics.", "is named twice; name each once"
    )


OWN = """
from workbench.retrieval.rerankers.base import PairScorer, Reranker
class Mine(Reranker):
    kind: str
    def rerank(self, query, passages, scores, machine):
        return {scores}
class Pairs(PairScorer):
    kind: str
    def score(self, pairs, machine):
        yield [(i, {pair}) for i in range({n})]
{more}
"""


@pytest.mark.parametrize(
    "name,parts,said",
    [
        ("Mine", {"scores": "[float('nan')] * len(passages)"}, "the score of a passage is nan; finite numbers are needed"),
        ("Mine", {"scores": "scores[:-1]"}, "scores for 6 passages; one is needed for each"),
        ("Pairs", {"pair": "float('inf')"}, "the score of a passage is inf; finite numbers are needed"),
        ("Pairs", {"n": "len(pairs) - 1"}, "passages; one is needed for each"),
        ("Mine", {"more": "raise SystemExit(0)"}, "mine.py cannot be imported: SystemExit: 0"),
    ],
)
def test_a_component_that_gives_no_order_is_refused(tmp_path: Path, name: str, parts: dict, said: str) -> None:
    written(tmp_path / "mine.py", OWN.format(**{"scores": "scores", "pair": "1.0", "n": "len(pairs)", "more": ""} | parts))
    path = experiment_of(tmp_path, {"rankings": ["ndcg@10"]}, rerankers={"mine": {"kind": f"./mine.py:{name}"}})
    overrides = ["axes.reranker=[mine]", "axes.chunking=[whole]"]
    refused(lambda: Experiment.load(path, tmp_path / "runs", overrides, Progress()).compare(), said)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 704 vs 598"),
        RuntimeError("Error while serializing: I/O error: File too large (os error 27)"),
        OSError(122, "Disk quota exceeded"),
    ],
)
def test_a_full_disk_is_called_that(error: Exception) -> None:
    said, status = cli._explained(error)
    assert status == 2 and said.startswith("the disk is full, nothing more can be written") and "unexpected" not in said


def test_a_full_disk_below_the_items_is_called_that(tmp_path: Path) -> None:
    items = Items(tmp_path / "items.sqlite")
    items.connection.execute("PRAGMA max_page_count = 4")
    with pytest.raises(sqlite3.OperationalError) as told:
        items.put("00" * 32, {b"k": b"x" * 100_000})
    assert "the disk is full" in cli._explained(told.value)[0]
    full = sqlite3.OperationalError("disk I/O error")
    full.sqlite_errorname = "SQLITE_IOERR_WRITE"
    assert "the disk is full" in cli._explained(full)[0]


def test_a_null_that_means_something_stays_in_the_run_s_file(tmp_path: Path) -> None:
    beir(tmp_path / "data")
    retrievers = {"bm25": {"kind": "bm25"}, "raw": {"kind": "bm25", "stopwords": None, "stemmer": None}}
    settings = {"experiment": "e", "dataset": {"beir": "data"}, "components": {"retrievers": retrievers}}
    settings |= {"axes": {"chunking": ["whole"], "retriever": ["bm25", "raw"]}, "metrics": {"rankings": ["ndcg@10"]}}
    written(tmp_path / "e.yaml", yaml.safe_dump(settings))
    run = Experiment.load(tmp_path / "e.yaml", tmp_path / "runs", (), Progress()).compare()
    again = Experiment.load(run.folder / "config.yaml", tmp_path / "runs", (), Progress())
    assert {c.id for c in again.configurations} == set(run.labels)
    assert yaml.safe_load((run.folder / "config.yaml").read_text())["components"]["retrievers"]["raw"]["stemmer"] is None


# --- Tables of scores and TREC files ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content,part",
    [
        ("query_id,a,b\n1,0,5,0,7\n", "line 2 has 5 fields, the header 3"),
        ("query_id,a,b\n1,0.5\n", "line 2 has 2 fields, the header 3"),
        (",query_id,a,b\n0,1,0.5,0.7\n", "line 1: column 1 has no name, as pandas writes its index"),
        ("query_id,a,b,\n1,0.5,1,\n", "line 1: column 4 has no name, as after a comma too many"),
        ("sep=,\nquery_id,a,a\n1,0.5,1\n", "line 2: the column 'a' is there twice"),
        ("query_id,a,b\r1,0.5,1\r", "line 1: no CSV: a carriage return stands alone in it; end lines with line feeds"),
        ("query_id,a,a\n1,0.5,0.7\n", "line 1: the column 'a' is there twice"),
        ("query_id;a|b\n1;0,5|0,7\n", "line 1: the columns are parted by ';' and '|'; part them by commas"),
        ("query_id;a;b\n1;0.5;0;7\n", "line 2 has 4 fields, the header 3; put a field that has a semicolon in quotation marks"),
        ('query_id,a,b\n1,"0.5,0.7\n', "line 2: no CSV: a quotation mark is opened and never closed"),
        ("", "is empty; a header"),
        ("query_id,a,b\0\n1,0.5,1\n", "line 1: a NUL byte stands in it"),
    ],
)
def test_a_table_that_is_not_what_it_seems_is_refused(tmp_path: Path, content: str, part: str) -> None:
    path = written(tmp_path / "s.csv", content)
    refused(lambda: csv_tables.table(path), "s.csv", part)
    refused(lambda: foreign.read_table(path), "s.csv", part)


@pytest.mark.parametrize(
    "content",
    [
        "id;a b;c\n1;0.5;x, y\n",
        "id\ta b\tc\n1\t0.5\tx, y\n",
        "\n\nid|a b|c\n1|0.5|x, y\n",
        'sep=;\n"id";"a b";"c"\n1;0.5;"x, y"\n',
        '"id","a b","c"\n1,0.5,"x, y"\n',
    ],
)
def test_the_header_of_a_table_says_what_parts_its_columns(tmp_path: Path, content: str) -> None:
    found = csv_tables.table(written(tmp_path / "s.csv", content))
    assert found.columns == ["id", "a b", "c"] and dict(found.rows[0][1]) == {"id": "1", "a b": "0.5", "c": "x, y"}
    (one,) = csv_tables.table(written(tmp_path / "one.csv", 'question\n"What; or who?"\n')).rows
    assert one[1] == {"question": "What; or who?"}


def test_scores_with_decimal_commas_are_no_scores(tmp_path: Path) -> None:
    refused(lambda: foreign.read_table(written(tmp_path / "s.csv", "query_id;a;b\n1;0,5;0,7\n")), "line 2:", "'0,5' is no score")


@pytest.mark.parametrize("value", ["1_0", "٣", "0x1", "1e999", "nan", "1,5", "infinity", "1e", "."])
def test_what_other_programs_read_as_no_number_is_none(tmp_path: Path, value: str) -> None:
    path = written(tmp_path / "s.csv", f'query_id,a,b\n1,0.5,1\n2,"{value}",1\n')
    refused(lambda: foreign.read_table(path), "line 3:", f"{value!r} is no score")


@pytest.mark.parametrize(
    "content,part",
    [
        ("query_id,Group,a,b\n1,0,0.5,1\n", "the column 'Group' is not read; write 'group', or name it otherwise"),
        ("Configuration,query_id,value\na,1,1\n", "the column 'Configuration' is not read; write 'configuration'"),
        ("query_id,caf\u00e9,cafe\u0301\n1,0.5,1\n", "the systems 'caf\\xe9' and 'cafe\\u0301' look alike"),
        ("query_id,a,a\u200b\n1,0.5,1\n", "the systems 'a' and 'a\\u200b' look alike"),
        (
            "query_id,split,a,b\n1,dev,0.5,1\n",
            "or nothing where the system failed. Is 'split' no system? Name those that are with --sys",
        ),
        ("query_id,a,b\n1,1e308,1\n", "line 2: '1e308' is no score"),
    ],
)
def test_a_column_that_would_be_taken_for_a_system_is_refused(tmp_path: Path, content: str, part: str) -> None:
    refused(lambda: foreign.read_table(written(tmp_path / "s.csv", content)), part)


def test_options_that_say_nothing_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "s.csv", "query_id,a,b\n1,0.5,1\n2,1,0\n")
    refused(lambda: foreign.read_table(path, systems=["a", "a"]), "the system 'a' is named twice")
    for scale in ((1, 0), (float("nan"), 1), (-float("inf"), 1)):
        refused(lambda scale=scale: foreign.read_table(path, None, foreign.Scale(*scale)), "the worst value comes first")
    for option in (["--split", "dev"], ["--qrels", path, "--systems", "a"], ["--qrels", path, "--range", "0", "1"]):
        done = workbench("compare", path, *option)
        assert done.returncode == 2 and "leave the option away" in done.stderr, done.stderr


def test_systems_are_named_and_shown_as_they_are(tmp_path: Path) -> None:
    lines = ["query_id,row,dense [base],dense [large]", *(f"{i},{i},{0.1 + i / 99},{0.4 - i / 99}" for i in range(9))]
    path = written(tmp_path / "s.csv", "\n".join(lines) + "\n")
    done = workbench("compare", path, "--systems", "dense [base],dense [large]")
    assert done.returncode == 0, done.stderr
    assert "dense [base]" in done.stdout and "dense [large]" in done.stdout and " row " not in done.stdout
    wrong = workbench("compare", path, "--systems", "dense")
    assert wrong.returncode == 2 and "unknown system" in wrong.stderr
    spaced = written(tmp_path / "l.csv", "configuration,query_id,value\na,q0 ,1\nb,q0,1\n")
    refused(lambda: foreign.read_table(spaced), "'q0 ' (not by 'b')")


QRELS = "1 0 a 1\n1 0 b 0\n2 0 a 1\n"
RUN = "1 Q0 a 1 2.0 t\n1 Q0 b 2 1.0 t\n2 Q0 a 1 1.0 t\n"


@pytest.mark.parametrize(
    "run,qrels,part",
    [
        (RUN + "1 Q0 a 3 0.5 t\n", QRELS, "a.trec, line 4: query '1' ranks document 'a' a second time, first in line 1"),
        (RUN.replace(" t", ""), QRELS, "a.trec, line 1 has 5 fields instead of 6"),
        (RUN.replace("2.0", "nan"), QRELS, "a.trec, line 1: 'nan' is no score"),
        (RUN.replace("2.0", "x" * 5000), QRELS, f"a.trec, line 1: '{'x' * 80}'... is no score"),
        (RUN + f"1 Q0 {'d' * 5000} 3 0.5 t\n" * 2, QRELS, "...".join([f"ranks document '{'d' * 80}'", " a second time"])),
        (RUN.replace("2.0", "2_0"), QRELS, "a.trec, line 1: '2_0' is no score"),
        (RUN, QRELS.replace("a 1", "a " + "9" * 5000), "is no grade; a whole number is needed"),
        (RUN.replace("1 Q0 b", "1 Q0 b\0"), QRELS, "a.trec, line 2: a NUL byte stands in it"),
        (RUN.replace(" 1 2.0", " first 2.0"), QRELS, "a.trec, line 1: 'first' is no rank"),
        (RUN, QRELS + "1 0 a 0\n", "qrels, line 4: document 'a' has the grade 0 for query '1', and in line 1 the grade 1"),
        (RUN, QRELS.replace("a 1", "a x"), "qrels, line 1: 'x' is no grade"),
        (RUN, "1 0 a 0\n", "no line has a grade above 0"),
        ("", QRELS, "a.trec is empty"),
    ],
)
def test_a_trec_file_is_refused_with_its_line(tmp_path: Path, run: str, qrels: str, part: str) -> None:
    path, judged = written(tmp_path / "a.trec", run), written(tmp_path / "qrels", qrels)
    refused(lambda: foreign.read_rankings([path], judged, ["ndcg@10"]), part)


def test_oddities_of_a_ranking_are_said(tmp_path: Path) -> None:
    judged = written(tmp_path / "qrels", QRELS + "3 0 a 1\n" + "1 0 a 1\n")  # a repeated line says nothing new
    clean = written(tmp_path / "a.trec", RUN + "3 Q0 a 1 1 t\n")
    assert foreign.oddities(clean, judged) == [] and len(trec.qrels(judged)) == 4
    odd = written(tmp_path / "b.trec", "1 Q0 a 1 1.0 t\n1 Q0 b 2 2.0 t\n2 Q0 a 1 1.0 t\n2 Q0 b 2 1.0 t\n")
    missing, tied, turned = foreign.oddities(odd, judged)
    assert "ranks nothing for 1 judged query, such as '3'" in missing and "tie in 1 query, such as '2'" in tied
    assert "contradict each other in 1 query, such as '1'; the scores count" in turned
    strange = written(tmp_path / "d.trec", RUN.replace("1 Q0", "01 Q0") + "3 Q0 a 1 1 t\n")
    assert any(
        "ranks 1 query that" in note and "such as '01'; left out here" in note for note in foreign.oddities(strange, judged)
    )
    other = written(tmp_path / "c.trec", RUN)
    done = workbench("compare", odd, other, "--qrels", judged)
    assert done.returncode == 0 and done.stderr.count("note: ") == 4, done.stderr
    assert unicodedata.is_normalized("NFC", done.stderr)
