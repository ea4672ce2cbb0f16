"""Tables of a run: what is written is read back, as rows and as pandas; what is damaged is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Finished

from workbench import Run
from workbench.errors import InputError
from workbench.results import table_files
from workbench.results.rows import LeaderboardRow
from workbench.results.run import LATER, TABLES


@pytest.fixture
def copied(toy: Finished, tmp_path: Path) -> Path:
    """The files of the toy run in another folder."""
    folder = tmp_path / toy.run.name
    folder.mkdir()
    for file in (*toy.run.glob("*.csv"), toy.run / "manifest.json"):
        shutil.copy(file, folder)
    return folder


def test_every_table_read_and_written_again_is_the_same_file(toy: Finished, tmp_path: Path) -> None:
    run = Run.open(toy.run)
    for name, kind in TABLES.items():
        if name not in LATER:
            table_files.write(tmp_path / f"{name}.csv", kind, table_files.read(toy.run / f"{name}.csv", kind))
    table_files.write_configurations(tmp_path / "configurations.csv", run.axes, run.configurations)
    written = sorted(tmp_path.glob("*.csv"))
    assert {path.name for path in written} == {path.name for path in toy.run.glob("*.csv")}
    for path in written:
        assert path.read_bytes() == (toy.run / path.name).read_bytes(), path.name


def test_a_frame_has_the_columns_of_the_file(toy: Finished) -> None:
    run = Run.open(toy.run)
    for name in ("configurations", *(name for name in TABLES if name not in LATER)):
        header = (toy.run / f"{name}.csv").read_text().splitlines()[0]
        assert list(run.frame(name)) == header.split(","), name
    board = run.frame("leaderboard")
    assert board["mean"].dtype == float and board["n"].dtype == int and len(board) == len(run.leaderboard)
    with pytest.raises(InputError, match=r"unknown table 'leaderbord'.*Did you mean 'leaderboard'"):
        run.frame("leaderbord")
    with pytest.raises(InputError, match=r"holds no latency\.csv; `workbench latency "):
        run.frame("latency")


def edited(change: Callable[[str], str]) -> Callable[[Path], object]:
    return lambda path: path.write_text(change(path.read_text()))


@pytest.mark.parametrize(
    "damage,message",
    [
        (Path.unlink, r"leaderboard\.csv is missing, so the folder of this run is incomplete"),
        (edited(lambda text: text.replace("ci_low", "low", 1)), r"has the columns .*, low, .*; this version .* reads conf"),
        (edited(lambda text: text + "a,dev,f1,x,2,0,,,0.5\n"), r"line \d+, column mean: 'x' is not a number"),
        (edited(lambda text: text + "a,dev,f1,0.5,2.5,0,,,0.5\n"), r"line \d+, column n: '2\.5' is not a whole number"),
        (edited(lambda text: text + "a,dev\n"), r"line \d+ has 2 cells instead of 9"),
        (lambda path: path.write_bytes(b"\xff\xfe"), r"leaderboard\.csv cannot be read: .*utf-8"),
    ],
)
def test_a_damaged_table_is_named(copied: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(copied / "leaderboard.csv")
    with pytest.raises(InputError, match=message):
        table_files.read(copied / "leaderboard.csv", LeaderboardRow)
    run = Run.open(copied)
    shown = run._repr_mimebundle_()["text/html"]  # a notebook shows the run's folder and what is wrong with it
    assert str(copied) in shown and "leaderboard.csv" in shown
