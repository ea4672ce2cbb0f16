"""The layout of the package: no file imports itself by way of others, and what shows a run loads nothing that computes one."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from conftest import ROOT, Finished

from workbench import Experiment, Run
from workbench.results.compare import of_runs
from workbench.store.progress import Progress
from workbench.views.html import text

PACKAGE = ROOT / "workbench"
COMPUTING = "{'torch', 'transformers', 'faiss', 'sentence_transformers', 'peft', 'bm25s'}"


def module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(path: Path) -> Iterator[str]:
    """Modules of the package that a file imports: at its head, inside functions, and for annotations alone."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in FILES)
        elif isinstance(node, ast.ImportFrom) and node.module in FILES:
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in FILES else node.module for name in whole)


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that reach each other (Tarjan, 1972); a module that imports itself is one."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(one: str) -> None:
        number[one] = low[one] = len(number)
        stack.append(one)
        for other in graph[one]:
            if other not in number:
                visit(other)
            if other in stack:
                low[one] = min(low[one], low[other])
        if low[one] == number[one]:
            at = stack.index(one)
            group, stack[at:] = stack[at:], []
            if len(group) > 1 or one in graph[one]:
                found.append(sorted(group))

    for one in graph:
        if one not in number:
            visit(one)
    return found


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a", "d"}, "e": {"d"}}) == [["a", "b", "c"], ["d"]]


def test_no_file_imports_itself_by_way_of_others() -> None:
    assert circles({name: set(imported(path)) for name, path in FILES.items()}) == []


def test_no_folder_holds_most_of_the_package() -> None:
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in FILES.items()}
    experiment = sum(n for name, n in lines.items() if name.startswith("workbench.experiment"))
    assert experiment <= sum(lines.values()) / 5


def loaded(code: str) -> list[str]:
    """What of the libraries that compute is loaded after some code, which says nothing, in a process of its own."""
    script = f"import sys\n{code}\nprint(sorted({COMPUTING} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not done.stderr, done.stderr
    return ast.literal_eval(done.stdout.strip().splitlines()[-1])


def test_reading_a_run_loads_nothing_that_computes_one(toy: Finished) -> None:
    modules = ", ".join(sorted(name for name in FILES if name.startswith("workbench.results")))
    assert loaded(f"import {modules}") == []
    imports = "from workbench import Run; from workbench.results import compare, conclusions, rendering"
    read = f"run = Run.open({str(toy.run)!r}); conclusions.conclusions(run); rendering.table(compare.of_runs([run]))"
    assert loaded(f"{imports}\n{read}") == []
    assert loaded("import torch") == ["torch"]


def test_a_dashboard_loads_nothing_that_computes_a_run(toy: Finished) -> None:
    for notebook in sorted((ROOT / "dashboards").glob("*.ipynb")):
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        assert loaded(f"import os; os.environ['WORKBENCH_RUNS'] = {str(toy.runs)!r}\n{code}") == [], notebook.name


def test_a_run_and_an_experiment_show_themselves_in_a_notebook(toy: Finished) -> None:
    run, experiment = Run.open(toy.run), Experiment.load(toy.config, toy.runs, progress=Progress())
    compared = of_runs([run])
    shown = {type(one).__name__: one._repr_mimebundle_() for one in (run, experiment, run.comparisons, run.questions, compared)}
    for name, bundle in shown.items():
        assert set(bundle) == {"text/plain", "text/html"}, name
        assert "<script" not in bundle["text/html"] and "class=wb-box" not in bundle["text/html"], name
        assert len(bundle["text/plain"]) < 300
    assert run.labels[run.best] in shown["Run"]["text/html"] and "<table" in shown["Run"]["text/html"]
    about = shown["Experiment"]["text/html"]
    assert all(f">{row.stage}</th>" in about for row in experiment.planned_costs().stages) and "16 setups" in about
    assert all(f">{axis}</th>" in about for axis in experiment.space.axes)
    assert all(
        text(one.question[:40]) in shown["Questions"]["text/html"] for one in run.questions if one.split == run.report_split
    )
    reported = [row for row in run.comparisons if row.split == run.report_split]
    assert reported and all(text(run.labels[row.a]) in shown["Comparisons"]["text/html"] for row in reported)
    assert all(text(compared.names[system]) in shown["Compared"]["text/html"] for system in compared.order)


def test_the_tree_of_the_code_names_every_file() -> None:
    page = (ROOT / "docs" / "code.md").read_text(encoding="utf-8")
    tree = page[page.index("\nworkbench/\n") : page.index("Each layer imports only")]
    named = set(re.findall(r"[a-z_0-9]+", tree))
    assert {path.stem for path in FILES.values() if path.stem != "__init__"} <= named
