"""Jobs that each compute one part: together they come to what one process computes, in stores of their own or in one."""

from __future__ import annotations

import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import Finished, workbench
from test_run import same_bytes

from workbench import Experiment
from workbench.errors import InputError
from workbench.experiment.part import Left
from workbench.store.merging import located, merge
from workbench.store.part import Part
from workbench.store.progress import Progress
from workbench.store.store import Store

PARTS = 2


def computed(config: Path, runs: Path, part: Part) -> tuple[Left, Experiment]:
    experiment = Experiment.load(config, runs, progress=Progress())
    return experiment.compute_part(part), experiment


def done(left: Left) -> bool:
    return not left.waiting and not left.trainings and not any(left.items.values())


def finish(config: Path, runs: Path) -> Path:
    experiment = Experiment.load(config, runs, progress=Progress())
    experiment.index()
    experiment.finetune()
    return experiment.compare().folder


def test_parts_in_stores_of_their_own_come_to_the_run_of_one_process(toy: Finished, tmp_path: Path) -> None:
    stores = [tmp_path / str(number) for number in range(1, PARTS + 1)]
    items: dict[str, list[int]] = {}
    trained, rounds = 0, 0
    while rounds < 8:
        rounds += 1
        lefts = []
        for number, runs in enumerate(stores, 1):
            left, experiment = computed(toy.config, runs, Part(number, PARTS))
            lefts.append(left)
            trained += sum(timing.stage == "adapter" for timing in experiment.session.timings)
            for kind, counts in experiment.session.counts().items():
                items.setdefault(kind, [0] * PARTS)[number - 1] += counts.computed
        if all(map(done, lefts)):
            break
        for runs in stores:
            for other in stores:
                if other != runs:
                    assert merge(Store(runs / ".store"), located(other)).damaged == []
    assert all(map(done, lefts))
    whole = {kind: one["computed"] for kind, one in json.loads((toy.run / "plan.json").read_text())["items"].items()}
    assert {kind: sum(each) for kind, each in items.items()} == whole  # nothing twice, nothing too much
    assert all(min(each) > 0 for each in items.values()) and trained == 1
    folder = finish(toy.config, stores[0])
    plan = json.loads((folder / "plan.json").read_text())
    assert plan["totals"]["computed"] == 0
    assert [one["computed"] for one in plan["items"].values()] == [0, 0, 0]
    same_bytes(folder, toy.run)


@pytest.mark.slow
def test_jobs_that_share_a_store_do_not_wait_for_each_other_and_leave_nothing_undone(toy: Finished, tmp_path: Path) -> None:
    for _ in range(6):
        with ThreadPoolExecutor(PARTS) as jobs:
            lefts = [left for left, _ in jobs.map(lambda n: computed(toy.config, tmp_path, Part(n, PARTS)), range(1, PARTS + 1))]
        if all(map(done, lefts)):
            break
    assert all(map(done, lefts))
    folder = finish(toy.config, tmp_path)
    assert json.loads((folder / "plan.json").read_text())["totals"]["computed"] == 0
    same_bytes(folder, toy.run)


@pytest.mark.slow
def test_a_job_whose_store_is_missing_is_named_until_it_is_there(toy: Finished, tmp_path: Path) -> None:
    stores = [tmp_path / str(number) for number in (1, 2)]
    for _ in range(3):
        for number, runs in enumerate(stores, 1):
            computed(toy.config, runs, Part(number, 3))
        for runs, other in (stores, stores[::-1]):
            merge(Store(runs / ".store"), located(other))
    left, experiment = computed(toy.config, stores[0], Part(1, 3))
    assert left.parts == [3] and left.items["embeddings"] > 0
    computed_nothing, others, why = left.sentences(Part(1, 3), experiment.session)
    assert computed_nothing == "part 1/3 computed 0 embeddings, 0 pair scores, 0 answers and 0 stages"
    assert ", of part 3 of 3; " in others and why.startswith("nothing could be computed here: the jobs of part 3 have failed or ")


@pytest.mark.slow
def test_the_command_says_what_is_left_and_what_comes_next(toy: Finished, tmp_path: Path) -> None:
    def said(part: str) -> list[str]:
        found = workbench("run", toy.config, "--runs", tmp_path, "--only", part)
        assert found.returncode == 0, found.stderr
        return found.stdout.splitlines()

    first = said("1/2")
    assert first[0].startswith("part 1/2 computed ")
    assert re.fullmatch(r"left to the other jobs: .+, of part 2 of 2; \d+ of \d+ stages wait for them", first[1])
    assert first[2].startswith("next: ")
    shutil.copytree(toy.runs / ".store", tmp_path / ".store", dirs_exist_ok=True)
    assert said("1/2") == [
        "part 1/2 computed 0 embeddings, 0 pair scores, 0 answers and 0 stages",
        "nothing is left to the other jobs: the same command without --only finishes the run",
    ]


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "a/b", "-1/2", "1/0", "1/2/3", ""])
def test_a_part_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--only: received .*; allowed: PART/PARTS, such as 2/8, with parts numbered from 1"):
        Part.read(text)


def test_every_item_belongs_to_one_part() -> None:
    texts = [f"text {i}" for i in range(400)]
    owners = [[number for number in range(1, 8) if Part(number, 7).has(text)] for text in texts]
    assert all(len(those) == 1 for those in owners)
    assert {those[0] for those in owners} == set(range(1, 8))
