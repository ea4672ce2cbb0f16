"""What a cluster is made of, without one: addresses, parcels, batches, pieces of files, and what nodes must have in common."""

from __future__ import annotations

import errno
import os
import pickle
import socket
import subprocess
import sys
from collections import deque
from pathlib import Path

import pytest
from conftest import ROOT, workbench
from ray_work import Digests, OwnError

from workbench.cluster import facts, pieces, places
from workbench.cluster.connecting import cluster, head
from workbench.cluster.failures import ExhaustedError, last_line, told
from workbench.cluster.head import Head
from workbench.cluster.parcel import DifferentError, packed, unpacked
from workbench.cluster.tasks import FIRST, SENT, SMALLEST, Batch, Job, Probe, send_again
from workbench.component import load_class
from workbench.errors import InputError, MissingExtraError, StageFailedError
from workbench.retrieval.bm25 import BM25
from workbench.retrieval.retriever import TextRetriever
from workbench.stages.indexes import TextIndex
from workbench.stages.passages import Passages
from workbench.store.store import Store

OWN = """
from workbench.retrieval.bm25 import BM25


class Mine(BM25):
    kind: str = "mine"
"""


def passages() -> Passages:
    from workbench.data.chunking import Chunking

    return Passages(Chunking(words=60, overlap=15), "0" * 64)


@pytest.mark.parametrize(
    ("workers", "address"),
    [
        ("ray", None),
        ("ray:10.0.0.5:6379", "10.0.0.5:6379"),
        ("ray:head.local:6379", "head.local:6379"),
        ("ray:[::1]:1", "[::1]:1"),
    ],
)
def test_workers_name_a_cluster_here_or_the_address_of_its_head(workers: str, address: str | None) -> None:
    assert head(workers) == address


@pytest.mark.parametrize(
    "workers", ["dask", "ray:", "ray:host", "ray:host:port", "ray://host:1", "", "ray:host:1:2", "ray:host:0", "ray:host:70000"]
)
def test_other_workers_are_refused(workers: str) -> None:
    with pytest.raises(InputError, match=r"--workers: received .*; allowed: ray \(a cluster on this machine\), or ray:HEAD:PORT"):
        head(workers)


def test_ray_is_imported_only_where_it_was_asked_for() -> None:
    script = "import sys, workbench.cli, workbench.experiment.experiment; print('ray' in sys.modules)"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env, check=True)
    assert said.stdout.strip() == "False"


def test_a_part_and_workers_do_not_go_together(tmp_path: Path) -> None:
    found = workbench("run", ROOT / "configs" / "smoke.yaml", "--runs", tmp_path, "--only", "1/2", "--workers", "ray")
    assert (found.returncode, found.stderr.strip()) == (
        2,
        "workbench: --workers does not go with --only, which computes a part in this process and writes no run",
    )


def test_a_stage_is_unpacked_as_it_was_and_its_key_is_computed_again() -> None:
    stage = TextIndex(BM25(), passages(), None)
    opened = unpacked(packed(stage))
    assert opened is not stage and opened.key == stage.key and opened.inputs()[0].key == passages().key


def test_a_stage_that_other_libraries_would_compute_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    parcel = packed(TextIndex(BM25(), passages(), None))
    monkeypatch.setattr("workbench.component.library_version", lambda name: "0.0")
    with pytest.raises(DifferentError, match="TextIndex is something else there: other weights or versions of libraries"):
        unpacked(parcel)


def test_a_class_of_ones_own_file_is_unpacked_where_the_file_is_not(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    stage = TextIndex(load_class("./mine.py:Mine", TextRetriever, tmp_path)(), passages(), None)
    parcel = packed(stage)
    (tmp_path / "mine.py").unlink()
    script = "import pickle, sys; from workbench.cluster.parcel import unpacked; "
    script += "print(unpacked(pickle.load(sys.stdin.buffer)).key)"
    said = subprocess.run([sys.executable, "-c", script], input=pickle.dumps(parcel), capture_output=True, check=True, cwd=ROOT)
    assert said.stdout.decode().strip() == stage.key


def test_a_parcel_holds_the_files_it_needs_as_they_were_imported(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    kinds = {}
    for version in ("mine", "mine, changed"):
        file.write_text(OWN.replace('"mine"', f'"{version}"'))
        kinds[version] = load_class("./mine.py:Mine", TextRetriever, tmp_path)
    file.unlink()
    for version, kind in kinds.items():
        (sent,) = packed(TextIndex(kind(), passages(), None)).sources
        assert sent.name == "mine.py" and f'"{version}"'.encode() in sent.content
    assert packed(TextIndex(BM25(), passages(), None)).sources == []


def job(n: int) -> Job:
    return Job(Digests("", 0), None, [f"text {i}" for i in range(n)], deque(range(n)))


def test_batches_take_about_two_seconds_and_share_what_is_left_fairly() -> None:
    one = job(1_000)
    assert len(one.batch("a", 2).positions) == FIRST
    one.rates["a"] = 50.0  # items a second
    assert len(one.batch("a", 2).positions) == 100
    one.rates["a"] = 1e6
    assert len(one.batch("a", 2).positions) == (1_000 - FIRST - 100) // 4
    one.rates["a"] = 0.001
    assert len(one.batch("a", 2).positions) == SMALLEST


def test_every_position_is_sent_once_and_what_was_lost_first_of_all() -> None:
    one = job(50)
    sent = []
    while one.left:
        sent.append(one.batch("a", 2))
    assert sorted(i for batch in sent for i in batch.positions) == list(range(50))
    one.again.append(sent[3])
    assert one.batch("a", 2) is sent[3]


def test_what_was_lost_three_times_ends_the_stage_and_names_the_node() -> None:
    batch = Batch(job(4), [0, 1, 2, 3], sent=SENT - 1)
    send_again(batch, "node a", "it died")
    batch.sent += 1
    with pytest.raises(StageFailedError, match=r"4 digests: sent to nodes 3 times and lost, the last time on node a \("):
        send_again(batch, "node a", "it died")


def test_a_probe_names_the_first_item_that_differs() -> None:
    probe = Probe(Digests("", 0), None, ["a", "b"], [b"1", b"2"])
    assert probe.difference([(1, "2"), (0, "1")]) is None
    assert probe.difference([(0, "1"), (1, "3")]) == "item 2 of 2 probed digests has other bytes there than here: 'b'"
    assert "item 1 of 2" in (probe.difference([(1, "2")]) or "")


def test_the_first_fact_that_differs_is_named() -> None:
    here = {"Python": "3.11", "torch": "2.13.0"}
    assert facts.difference(here, dict(here)) is None
    assert facts.difference(here, {"Python": "3.12", "torch": "1"}) == "Python is 3.12 there and 3.11 here"
    assert facts.difference(here, {"Python": "3.11"}) == "torch is not known there and 2.13.0 here"


def test_an_artifact_travels_in_pieces_and_is_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE", 7)
    stage = TextIndex(BM25(), passages(), None)
    there, here = Store(tmp_path / "there"), Store(tmp_path / "here")

    def compute(folder: Path) -> dict[str, int]:
        (folder / "deep").mkdir()
        (folder / "deep" / "a").write_bytes(bytes(range(100)))
        (folder / "empty").touch()
        return {"tokens": 1}

    there.create(stage.name, stage.key, stage.definition, compute)
    depot = pieces.Depot(str(there.folder))
    here.adopt(
        stage.name,
        stage.key,
        lambda folder: pieces.fetch_artifact(folder, lambda name, start: depot.piece(stage.name, stage.key, name, start)),
    )
    for name in ("deep/a", "empty", "manifest.json"):
        assert (here.path(stage.name, stage.key) / name).read_bytes() == (there.path(stage.name, stage.key) / name).read_bytes()


def test_no_file_outside_of_an_artifact_is_given_or_written(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "artifact").mkdir()
    for call in (
        lambda: pieces.piece(tmp_path / "artifact", "../secret", 0),
        lambda: pieces.fetch(tmp_path / "artifact", "../secret", 1, lambda name, start: b"y"),
    ):
        with pytest.raises(InputError, match=r"'../secret' is no file of"):
            call()
    with pytest.raises(InputError, match="a ended after 0 of 5 bytes"):
        pieces.fetch(tmp_path / "artifact", "a", 5, lambda name, start: b"")


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (OwnError("this", "that"), StageFailedError, "OwnError: this and that"),
        (KeyError("column"), StageFailedError, "KeyError: 'column'"),
        (
            MissingExtraError("paper", "folding", "computing on paper"),
            InputError,
            "computing on paper needs the package 'paper'",
        ),
        (DifferentError("other weights"), DifferentError, "other weights"),
        (OSError(errno.ENOSPC, "No space left on device"), ExhaustedError, "no room is left for its temporary files in /"),
        (MemoryError(), ExhaustedError, "its memory does not suffice: MemoryError"),
    ],
)
def test_whatever_a_node_raises_can_be_read_elsewhere(error: Exception, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind) as raised, told():
        raise error
    sent = pickle.loads(pickle.dumps(raised.value))
    assert type(sent) is kind and str(sent).startswith(said)


def test_files_of_a_process_that_was_killed_are_removed_by_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    mine = places.folder("files")
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    for name in (f"{places.PREFIX}{ended.pid}-files-a", f"{places.PREFIX}{os.getppid()}-files-b", "another"):
        (tmp_path / name).mkdir()
    places.remove_left_behind()
    left = {mine.name, f"{places.PREFIX}{os.getppid()}-files-b", "another"}
    assert {path.name for path in tmp_path.iterdir()} == left
    places.remove()
    assert {path.name for path in tmp_path.iterdir()} == left - {mine.name}


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "a cluster without a token computes for whoever reaches its ports"),
        ({"RAY_AUTH_TOKEN": " "}, "a cluster without a token computes for whoever reaches its ports"),
        ({"RAY_AUTH_TOKEN_PATH": "/nowhere"}, "RAY_AUTH_TOKEN_PATH: received '/nowhere', which is no file; allowed: "),
        ({"RAY_AUTH_TOKEN": "a"}, r"nothing can be reached at 127.0.0.1:1 \(.*\); name the address and port that `ray start"),
    ],
)
def test_a_token_that_is_missing_and_an_address_without_a_head_are_refused_at_once(
    variables: dict[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", {"HOME": str(tmp_path), **variables})
    with pytest.raises(InputError, match=said), cluster("ray:127.0.0.1:1"):
        pass


def test_a_head_that_goes_is_waited_for_and_then_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        place = Head(f"127.0.0.1:{listening.getsockname()[1]}")
        assert place.there()
    assert not place.there()  # it may come back
    monkeypatch.setattr("workbench.cluster.head.GONE", -1.0)
    with pytest.raises(StageFailedError, match=r"the head of the cluster at 127.0.0.1:\d+ cannot be reached any more \("):
        place.there()


def test_of_what_ray_says_the_cause_is_kept() -> None:
    said = "The actor died unexpectedly.\n\tpid: 1\nIts process has died. Some common causes include: (1) memory, (2) others\n"
    assert last_line(RuntimeError(said)) == "Its process has died."
    assert last_line(RuntimeError()) == "RuntimeError"
