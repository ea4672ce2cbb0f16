"""docs/tutorial.md: its files and commands are taken from the page and run; a toy stands in for the weights."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import toys
from conftest import ROOT, workbench

from workbench import Run

PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"\*\*`mine/([\w.]+)`\*\*\n\n```\w+\n(.*?)```", PAGE, re.DOTALL))
COMMANDS = re.findall(r"```sh\n(?:\.venv/bin/)?workbench (.*?)\n```", PAGE)
REFUSAL = re.search(r"```text\nworkbench: (.*?)\n```", PAGE)[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tutorial")
    (folder / "mine").mkdir()
    for name, text in FILES.items():
        (folder / "mine" / name).write_text(text, encoding="utf-8")
    return folder


def done(folder: Path, command: str, env: dict[str, str]) -> str:
    toy = ["--set", f"components.generators.base.model={toys.made(toys.language_model)}"]
    called = workbench(*command.split(), *toy, env=env, cwd=folder)
    assert called.returncode == 0, called.stderr[-3000:]
    return called.stdout


def to_compute(table: str) -> dict[str, int]:
    """Stage -> how many a printed plan would compute."""
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in table.splitlines() if line.startswith("│")]
    return {row[0]: int(row[4]) for row in rows}


def test_three_components_of_ones_own_are_compared(folder: Path, offline: dict[str, str]) -> None:
    assert sorted(FILES) == ["in_order.py", "keywords.py", "mine.yaml", "trigrams.py"] and len(COMMANDS) == 3
    first, run, again = COMMANDS
    planned = to_compute(done(folder, first, offline))
    assert planned["index"] == 2 and planned["reranked"] == 12  # six configurations on two splits
    last = done(folder, run, offline).strip().splitlines()[-1]
    found = Run.open(folder / last.removeprefix("run: "))
    assert {row.label for row in found.configurations} == {
        f"{expansion}/{retriever}/{reranker}"
        for expansion in ("none", "keywords")
        for retriever in ("bm25", "trigrams", "both")
        for reranker in ("none", "in-order")
    }
    computed = json.loads((found.folder / "plan.json").read_text())["totals"]
    assert computed["computed"] == computed["planned"]
    assert not any(to_compute(done(folder, first, offline)).values())
    with (folder / "mine" / "in_order.py").open("a") as file:
        file.write("# changed\n")
    changed = {stage: n for stage, n in to_compute(done(folder, again, offline)).items() if n}
    assert set(changed) == {"reranked", "scores"}


def test_a_wrong_name_is_refused_as_the_page_says(folder: Path, offline: dict[str, str]) -> None:
    (folder / "mine" / "wrong.yaml").write_text(FILES["mine.yaml"].replace("trigrams.py:Trigrams", "trigrams.py:Trigram"))
    refused = workbench("plan", "mine/wrong.yaml", env=offline, cwd=folder)
    assert refused.returncode == 2
    assert refused.stderr.strip().splitlines()[-1] == f"workbench: {REFUSAL}".replace("FOLDER", str(folder / "mine"))
