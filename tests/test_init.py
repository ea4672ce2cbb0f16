"""`workbench init`: what it says of documents and questions, and that the file it writes can be run as it is."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from pyarrow import parquet
from typer.testing import CliRunner

from workbench import cli
from workbench.data import survey
from workbench.data.chunking import Chunking
from workbench.data.documents.folder import read_folder
from workbench.data.documents.proposed import proposals
from workbench.errors import InputError
from workbench.experiment.config import read_settings

KINDS = ["colour", "weight", "price", "age", "place", "owner"]
TOPICS = ["amber", "basalt", "chalk", "dolomite"]
GERMAN = "Die Farbe der Lampe ist nicht bekannt, und wer sie gesehen hat, wird sich an sie auch nicht mehr erinnern."


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def documents(folder: Path, words: int = 6) -> list[dict[str, Any]]:
    """Documents with a question on each paragraph, whose paragraphs have about so many words."""
    (folder / "texts").mkdir()
    rows = []
    for number, topic in enumerate(TOPICS):
        facts = [f"The {kind} of {topic} is {kind[:3]}{number}{' and so on' * (words // 3)}." for kind in KINDS]
        (folder / "texts" / f"{topic}.md").write_text("\n\n".join([f"# {topic}", *facts]) + "\n")
        rows += [
            {"question": f"{topic}: which {kind}?", "answer": f"{kind[:3]}{number}", "evidence": fact, "level": "easy"}
            for kind, fact in zip(KINDS, facts, strict=True)
        ]
    return rows


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def init(*words: object) -> Any:
    return CliRunner().invoke(cli.app, ["init", *map(str, words)])


def test_documents_are_described() -> None:
    rows = [
        {"id": "a.md", "title": "", "text": "# Lamps\n\nThis is what they are and how it was.\n\nIt is all that there is."},
        {"id": "b.txt", "title": "", "text": GERMAN},
        {"id": "c.txt", "title": "", "text": f" {GERMAN}\n"},
        {"id": "d.txt", "title": "", "text": "  \n"},
        {"id": "e.txt", "title": "", "text": "灯是绿色的。"},
        {"id": "f.md", "title": "", "text": f"---\nlang: de\n---\n{GERMAN} "},  # front matter is no heading
    ]
    found = survey.survey(rows, ["1 hidden file left out"])
    assert found.endings == {".md": 2, ".txt": 4} and found.documents == 6
    assert found.languages == {"german": 3, "english": 1, "unknown": 1, "Chinese or Japanese": 1}
    assert (found.language, found.headed, found.empty, found.equal) == ("german", 1, ["d.txt"], [["b.txt", "c.txt"]])
    assert found.words == [17, 20, 20, 0, 1, 24] and found.typical == 17
    assert "  note: 1 hidden file left out" in found.lines and "  equal: 'b.txt', 'c.txt'" in found.lines


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The lamp is green, and it was lit by those who came here.", "english"),
        (GERMAN, "german"),
        ("La lampe est verte, et elle a été allumée par ceux qui sont venus dans la ville.", "french"),
        ("La lámpara es verde y fue encendida por los que vinieron a la ciudad con ella.", "spanish"),
        ("Лампа была зелёная, и её зажгли те, кто был там и не хотел уходить.", "russian"),
        ("qx7 zzp 12.5 rrk plm", "unknown"),
        ("", "unknown"),
    ],
)
def test_a_language_is_told_by_its_frequent_words(text: str, wanted: str) -> None:
    assert survey.language(text) == wanted


def test_the_file_can_be_read_and_says_what_it_costs(tmp_path: Path) -> None:
    rows = [row | {"level": "easy" if n % 2 else "hard"} for n, row in enumerate(documents(tmp_path, words=60))]
    table(tmp_path / "mine.csv", rows)
    done = init("texts", "mine.csv")
    assert done.exit_code == 0, (done.output, done.exception)
    text = (tmp_path / "texts.yaml").read_text()
    assert "6 configurations; to compute: " in text and "4 documents, most of them english; 24 questions." in text
    assert '# slices: ["level"]' in text
    settings = read_settings(tmp_path / "texts.yaml")
    assert settings.dataset.folder == tmp_path / "texts" and settings.metrics.select_by == "f1"
    assert settings.dataset.load().splits == {"dev": 12, "test": 12}
    assert "question from the column 'question'" in done.output and "documents: 4 (4 .md)" in done.output
    assert "next: " in done.output.splitlines()[-1] and done.output.splitlines()[-1].endswith("run texts.yaml")
    assert not list(tmp_path.glob(".*.yaml")), "the draft is removed"


def test_cutting_at_headings_is_offered_where_most_documents_have_some(tmp_path: Path) -> None:
    table(tmp_path / "mine.csv", documents(tmp_path, words=60))
    assert init("texts", "mine.csv", "--out", "a.yaml").exit_code == 0
    text = (tmp_path / "a.yaml").read_text()
    offered = text.split("add ")[1].splitlines()[0]
    assert text.count("\n  # most documents have headings") == 1
    assert Chunking(**yaml.safe_load(offered)).label == "200-20 at headings"


def test_short_documents_are_not_cut_and_measured_by_rank(tmp_path: Path) -> None:
    table(tmp_path / "mine.csv", documents(tmp_path))
    assert init("texts", "mine.csv", "--out", "short.yaml").exit_code == 0
    settings = read_settings(tmp_path / "short.yaml")
    assert settings.axes["chunking"] == ["whole"] and settings.metrics.rankings == ("recall@10", "ndcg@10", "mrr@10")


def test_questions_without_answers_compare_rankings_alone(tmp_path: Path) -> None:
    table(tmp_path / "mine.csv", [{key: row[key] for key in ("question", "evidence")} for row in documents(tmp_path)])
    assert init("texts", "mine.csv", "--out", "a.yaml").exit_code == 0
    settings = read_settings(tmp_path / "a.yaml")
    assert "generator" not in settings.axes and settings.metrics.select_by == "recall@10"


def test_a_question_without_an_answer_among_others_is_named(tmp_path: Path) -> None:
    rows = documents(tmp_path)
    table(tmp_path / "mine.csv", [*rows[:-1], rows[-1] | {"answer": ""}])
    done = init("texts", "mine.csv")
    assert done.exit_code == 0, (done.output, done.exception)
    assert re.search(r"problem: .* 1 of \d+ questions of the split '\w+' has no accepted answer .*`\[\]`", done.output)
    assert "generator: [base]" in (tmp_path / "texts.yaml").read_text()


def test_questions_with_neither_answer_nor_evidence_measure_nothing(tmp_path: Path) -> None:
    table(tmp_path / "mine.csv", [row | {"answer": "", "evidence": ""} for row in documents(tmp_path)])
    done = init("texts", "mine.csv")
    assert "problem: texts: no question has an accepted answer, or evidence, so nothing can be measured" in done.output


def test_questions_without_evidence_compare_answers_alone(tmp_path: Path) -> None:
    table(tmp_path / "mine.csv", [{key: row[key] for key in ("question", "answer")} for row in documents(tmp_path)])
    done = init("texts", "mine.csv", "--out", "a.yaml")
    assert done.exit_code == 0, (done.output, done.exception)
    settings = read_settings(tmp_path / "a.yaml")
    assert settings.metrics.rankings == () and settings.axes["generator"] == ["base"]


def test_another_language_is_searched_by_its_own_words(tmp_path: Path) -> None:
    (tmp_path / "texte").mkdir()
    for n in range(4):
        (tmp_path / "texte" / f"{n}.txt").write_text(f"{GERMAN} Lampe {n} ist grün.")
    table(
        tmp_path / "fragen.csv",
        [{"question": f"Lampe {n}?", "answer": "grün", "evidence": f"Lampe {n} ist grün."} for n in range(4)],
    )
    assert init("texte", "fragen.csv").exit_code == 0
    bm25 = yaml.safe_load((tmp_path / "texte.yaml").read_text())["components"]["retrievers"]["bm25"]
    assert bm25 == {"kind": "bm25", "stopwords": "german", "stemmer": "german"}


def test_questions_may_be_written_later(tmp_path: Path) -> None:
    rows = documents(tmp_path)
    done = init("texts")
    assert done.exit_code == 0 and 'questions: none yet; write them into questions.jsonl, one a line: {"id"' in done.output
    line = json.loads(done.output.split("one a line: ")[1].splitlines()[0])
    own = [
        line
        | {
            "id": str(n),
            "split": "dev" if n % 2 else "test",
            "question": row["question"],
            "answers": [row["answer"]],
            "evidence": row["evidence"],
        }
        for n, row in enumerate(rows)
    ]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    assert read_settings(tmp_path / "texts.yaml").dataset.load().splits == {"dev": 12, "test": 12}


def test_a_set_that_brings_its_documents_needs_no_folder(tmp_path: Path) -> None:
    paragraphs = [
        {
            "context": row["evidence"],
            "qas": [{"id": str(n), "question": row["question"], "answers": [{"text": "The", "answer_start": 0}]}],
        }
        for n, row in enumerate(documents(tmp_path))
    ]
    articles = [{"title": f"Article {n}", "paragraphs": paragraphs[n::4]} for n in range(4)]
    (tmp_path / "set.json").write_text(json.dumps({"data": articles}))
    done = init("set.json")
    assert done.exit_code == 0, (done.output, done.exception)
    assert "documents: 24" in done.output and "read as SQuAD, the published file" in done.output
    assert read_settings(tmp_path / "set.yaml").dataset.load().splits == {"dev": 12, "test": 12}


def test_columns_are_named_where_two_may_be_the_question(tmp_path: Path) -> None:
    table(tmp_path / "mine.csv", [row | {"query": "?"} for row in documents(tmp_path)])
    done = init("texts", "mine.csv")
    assert done.exit_code == 0 and "problem: " in done.output and "'query' and 'question' may both be the question" in done.output
    assert "# problem: " in (tmp_path / "texts.yaml").read_text()
    assert init("texts", "mine.csv", "--out", "b.yaml", "--column", "question=question").exit_code == 0
    assert read_settings(tmp_path / "b.yaml").dataset.columns == {"question": "question"}


def test_a_file_is_written_with_what_has_to_be_mended_first(tmp_path: Path) -> None:
    """A run of it is refused for just that reason, and accepted once the questions are mended."""
    rows = documents(tmp_path, words=60)
    table(tmp_path / "one.csv", [row | {"split": "dev"} for row in rows])
    done = init("texts", "one.csv", "--out", "one.yaml")
    assert done.exit_code == 0, (done.output, done.exception)
    (said,) = [line for line in done.output.splitlines() if line.startswith("problem: ")]
    assert "all questions are in the split 'dev'; needed are two" in said
    text = (tmp_path / "one.yaml").read_text()
    assert text.splitlines()[2] == f"# {said}" and text.startswith("# Written by `workbench init`")
    assert done.output.splitlines()[-1].endswith("datasets check one.yaml")
    table(tmp_path / "one.csv", rows)
    assert read_settings(tmp_path / "one.yaml").dataset.load().splits == {"dev": 12, "test": 12}


def test_missing_evidence_is_a_comment_in_the_file(tmp_path: Path) -> None:
    rows = documents(tmp_path, words=60)
    table(
        tmp_path / "mine.csv",
        [row | {"evidence": "Nothing like it stands anywhere."} if n < 6 else row for n, row in enumerate(rows)],
    )
    done = init("texts", "mine.csv", "--out", "a.yaml")
    assert done.exit_code == 0, (done.output, done.exception)
    assert "evidence" in next(line for line in (tmp_path / "a.yaml").read_text().splitlines() if line.startswith("# problem: "))


def test_documents_of_which_none_can_be_read_are_listed_in_the_file(tmp_path: Path) -> None:
    table(tmp_path / "mine.csv", documents(tmp_path))
    for path in (tmp_path / "texts").iterdir():
        path.write_bytes(b"")
    (tmp_path / "texts" / "scan.jpeg").write_bytes(b"\xff\xd8")
    for words in (["texts", "mine.csv"], ["texts", "--out", "later.yaml"]):
        done = init(*words)
        assert done.exit_code == 0, (done.output, done.exception)
        assert "documents: none that can be read" in done.output
        assert "  not read: scan.jpeg: no parser: it is a picture" in done.output and done.output.count("  not read: ") == 5
        assert "1 problem to mend first" in done.output
        file = tmp_path / (words[-1] if "--out" in words else "texts.yaml")
        assert "# problem: document folder texts: no file in it can be read" in file.read_text()
        with pytest.raises(InputError, match=r"no file in it can be read|does not exist"):
            read_settings(file).dataset.load()


def test_a_set_whose_documents_cannot_be_read_is_written_down_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "set.json").write_text(json.dumps({"data": [{"title": "A", "paragraphs": [{"context": " ", "qas": []}]}]}))
    done = init("set.json")
    assert done.exit_code == 0, (done.output, done.exception)
    assert "documents: none that can be read" in done.output and "problem: " in done.output
    assert "# problem: " in (tmp_path / "set.yaml").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["texts", "mine.csv", "--out", "mine.csv"], "mine.csv exists and is kept; name another file with --out"),
        (["texts", "mine.csv", "--out", "a.txt"], "allowed: a name that ends in .yaml"),
        (["nowhere", "mine.csv"], "document folder nowhere does not exist"),
        (["texts", "nowhere.csv"], "questions file nowhere.csv does not exist"),
        (["texts", "mine.csv", "--column", "question"], "--column received 'question'; allowed: question=NAME"),
    ],
)
def test_what_cannot_be_done_is_said(words: list[str], said: str, tmp_path: Path) -> None:
    table(tmp_path / "mine.csv", documents(tmp_path))
    done = init(*words)
    assert said in str(done.exception) and not list(tmp_path.glob("*.yaml"))


def rows_as(path: Path, rows: list[dict[str, Any]], separator: str = ",") -> None:
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)


def with_tables(folder: Path) -> list[dict[str, Any]]:
    """Documents and questions as `documents` makes them, of which some stand in tables that need a parser."""
    rows = documents(folder)
    rows_as(folder / "texts" / "tickets.csv", [{"id": n, "body": f"Ticket {n} is red{n}."} for n in range(3)], ";")
    (folder / "texts" / "prices.tsv").write_text("stone\tprice\namber\t12 ducats\n")
    (folder / "texts" / "log.jsonl").write_text("".join(json.dumps({"text": f"Entry {n}.", "id": 1}) + "\n" for n in range(2)))
    (folder / "texts" / "tool.py").write_text("def weigh():\n    return 17\n")
    added = [("Which colour has ticket 2?", "red2", "Ticket 2 is red2."), ("What is amber's price?", "12 ducats", "12 ducats")]
    return rows + [{"question": q, "answer": a, "evidence": e, "level": "easy"} for q, a, e in added]


def test_tables_and_code_are_given_parsers_that_read_them(tmp_path: Path) -> None:
    table(tmp_path / "mine.csv", with_tables(tmp_path))
    done = init("texts", "mine.csv")
    assert done.exit_code == 0, (done.output, done.exception)
    settings = read_settings(tmp_path / "texts.yaml")
    assert settings.dataset.parsers == {
        "csv": {"kind": "csv", "separator": ";", "text": "body", "id": "id"},
        "tsv": "text",
        "jsonl": {"kind": "jsonl", "text": "text"},  # its ids are not distinct
        "py": "code",
    }
    said = (tmp_path / "texts.yaml").read_text()
    assert "# Files in .csv (1): each row is a document, its text the column 'body'; there are id, body.\n" in said
    assert "# Files in .tsv (1): each file is one document; `{kind: tsv, text: COLUMN}` makes each row one" in said
    found = settings.dataset.load()
    assert {"texts/tickets.csv", "tickets.csv#2", "prices.tsv", "log.jsonl#2", "tool.py"} & set(
        found.documents["id"].to_pylist()
    ) == {"tickets.csv#2", "prices.tsv", "log.jsonl#2", "tool.py"}
    assert found.queries.num_rows == 26 and found.unread.num_rows == 0


def test_checking_proposes_parsers_for_what_is_not_read(tmp_path: Path) -> None:
    table(tmp_path / "mine.csv", with_tables(tmp_path)[:24])
    settings = {"experiment": "e", "dataset": {"folder": "texts", "questions": "mine.csv"}, "axes": {"retriever": ["bm25"]}}
    settings["components"] = {"retrievers": {"bm25": {"kind": "bm25"}}}
    settings["baseline"] = {"retriever": "bm25"}
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(settings))
    said = CliRunner().invoke(cli.app, ["datasets", "check", "e.yaml"]).output
    assert "remark: 1 file in .csv is not read, since no parser is named for that" in said
    proposed = '`parsers: {"csv": {"kind": "csv", "separator": ";", "text": "body", "id": "id"}}`'
    assert proposed in said and "1 file in .py is not read" in said
    parsers = yaml.safe_load(proposed.strip("`"))["parsers"]
    settings["dataset"]["parsers"] = parsers | {"tsv": "none", "jsonl": "none", "py": None}
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(settings))
    assert "no parser is named" not in CliRunner().invoke(cli.app, ["datasets", "check", "e.yaml"]).output


def proposed(folder: Path) -> dict[str, Any]:
    return {one.ending: one.parser for one in proposals(folder)}


def test_tables_alone_are_documents_too(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    rows_as(tmp_path / "texts" / "faq.csv", [{"title": f"T{n}", "content": f"Fact {n} is {n * n}."} for n in range(3)])
    parsers = proposed(tmp_path / "texts")
    assert parsers == {"csv": {"kind": "csv", "text": "content", "title": "title"}}
    assert [row["title"] for row in read_folder(tmp_path / "texts", (), parsers).documents] == ["T0", "T1", "T2"]


def test_tables_of_unlike_columns_are_read_as_they_are(tmp_path: Path) -> None:
    documents(tmp_path)
    (tmp_path / "texts" / "a.csv").write_text("text,x\nFirst.,1\n")
    (tmp_path / "texts" / "b.csv").write_text("note,y\nSecond.,2\n")
    (tmp_path / "texts" / "c.parquet").write_bytes(b"PAR1 broken")
    assert proposed(tmp_path / "texts") == {"csv": "text", "parquet": "none"}


def test_parquet_without_a_known_text_is_read_by_its_columns_of_texts(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    parquet.write_table(pa.table({"n": [1], "question": ["Why?"], "reply": ["So."]}), tmp_path / "texts" / "a.parquet")
    parsers = proposed(tmp_path / "texts")
    assert parsers == {"parquet": {"kind": "parquet", "text": ["question", "reply"]}}
    assert [row["text"] for row in read_folder(tmp_path / "texts", (), parsers).documents] == ["Why?\n\nSo."]


def test_questions_of_several_files_are_one_set(tmp_path: Path) -> None:
    rows = documents(tmp_path, words=60)
    table(tmp_path / "one.csv", rows[:10])
    (tmp_path / "two.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[10:]))
    done = init("texts", "one.csv", "two.jsonl", "--out", "mine.yaml")
    assert done.exit_code == 0, (done.output, done.exception)
    assert '  questions: ["one.csv", "two.jsonl"]\n' in (tmp_path / "mine.yaml").read_text()
    settings = read_settings(tmp_path / "mine.yaml")
    assert settings.dataset.questions == (tmp_path / "one.csv", tmp_path / "two.jsonl")
    ids = settings.dataset.load().queries["id"].to_pylist()
    assert sorted(map(int, ids)) == list(range(1, 25)), "questions without an id are numbered over all files"
    assert len(settings.dataset.further_columns(set(ids))) == 24
