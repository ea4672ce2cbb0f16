"""The recorded run that ships with the package, and progress as a notebook shows it."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import nbformat
import pytest

from workbench.errors import StageFailedError
from workbench.executing import execute
from workbench.results.run import Run
from workbench.results.verdict import verdict
from workbench.views.report import report


def test_the_recorded_run_is_small_whole_and_repairs_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Path(str(files("workbench.results") / "example.zip")).stat().st_size <= 400_000
    run = Run.example()
    assert run.folder.is_relative_to(tmp_path) and run.manifest["experiment"] == "quickstart"
    page = report(run)
    assert verdict(run).word == "shown better" and "class=wb-box" not in page and len(page) < 1_500_000
    assert str(Path.home()) not in page and "/tmp/" not in page
    means = [row for row in (*run.leaderboard, *run.slices) if row.ci_low is not None]
    assert len(means) > 200 and all(0 <= row.ci_low < row.ci_high <= 1 for row in means)
    (run.folder / "leaderboard.csv").write_text("cut off")
    (run.folder / "answers.jsonl").unlink()
    assert report(Run.example()) == page


def cells(*sources: str) -> nbformat.NotebookNode:
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return book


def test_progress_in_a_notebook_is_one_line_that_stays_and_an_interrupt_says_what_is_kept(tmp_path: Path) -> None:
    start = "import os, signal\nfrom workbench.store.telling import for_people\nprogress = for_people()"
    whole = "with progress.task('answers', 3) as done:\n    progress.say('a <note>')\n    done(3)"
    second = "with progress.task('scores', 2) as done:\n    done(2)"
    loop = "for i in range(9):\n        done(1)\n        if i == 3:\n            os.kill(os.getpid(), signal.SIGINT)"
    stopped = f"with progress.patient(), progress.task('more', 9) as done:\n    {loop}"
    nbformat.write(cells(start, f"{whole}\n{second}", stopped), tmp_path / "book.ipynb")
    with pytest.raises(StageFailedError, match="KeyboardInterrupt"):
        execute(tmp_path / "book.ipynb", tmp_path / "out.ipynb", {})
    book = nbformat.read(tmp_path / "out.ipynb", 4)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    shown = [[out["data"]["text/html"] for out in cell.outputs if "data" in out] for cell in code]
    assert [len(one) for one in shown] == [0, 1, 1]
    assert "Done so far: 2 steps" in shown[1][0] and "scores, 2 of 2" in shown[1][0] and "a &lt;note&gt;" in shown[1][0]
    assert "more: stopped after 5 of 9. What is done is kept: run the cell again to go on." in shown[2][0]
    assert "<progress" not in json.dumps(shown)
