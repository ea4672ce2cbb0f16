"""Taking over another store: what is whole and new, nothing else, whatever happens meanwhile."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from conftest import ROOT, workbench
from filelock import FileLock

from workbench.component import digest
from workbench.errors import InputError
from workbench.store.merging import located, merge
from workbench.store.store import Store, damage

SPACE = "ab" * 32


def key(name: str) -> str:
    return digest({"k": name})


def store(place: Path, *names: str, items: dict[bytes, bytes] | None = None) -> Store:
    made = Store(place / ".store")
    for name in names:
        made.create("s", key(name), {"k": name}, lambda folder, name=name: (folder / "a").write_text(name) and {"tokens": 3})
    if items:
        made.items.put(SPACE, items)
    return made


def contents(place: Store) -> tuple[dict[str, bytes], set[tuple[object, ...]]]:
    files = {str(f.relative_to(place.folder)): f.read_bytes() for f in (place.folder / "artifacts").rglob("*") if f.is_file()}
    return files, {tuple(row) for rows in place.items.rows() for row in rows}


def test_what_is_new_is_taken_over_as_it_was_written_and_what_is_here_stays(tmp_path: Path) -> None:
    here = store(tmp_path / "here", "a", items={b"k": b"here", b"l": b"same"})
    there = store(tmp_path / "there", "a", "b", items={b"k": b"there", b"l": b"same", b"m": b"new"})
    merged = merge(here, located(tmp_path / "there"))
    assert (merged.artifacts, merged.found, merged.items, merged.differing, merged.damaged) == (1, 1, 1, 1, [])
    assert here.items.get(SPACE, [b"k", b"l", b"m"]) == {b"k": b"here", b"l": b"same", b"m": b"new"}
    taken, original = (one.path("s", key("b")) for one in (here, there))
    assert [(taken / n).read_bytes() for n in ("a", "manifest.json")] == [
        (original / n).read_bytes() for n in ("a", "manifest.json")
    ]


def test_a_second_merge_takes_over_nothing_and_an_item_damaged_here_is_mended(tmp_path: Path) -> None:
    here = store(tmp_path / "here")
    store(tmp_path / "there", "a", items={b"k": b"v"})
    other = located(tmp_path / "there" / ".store")
    assert (merge(here, other).artifacts, merge(here, other).artifacts) == (1, 0)
    here.items.connection.execute("UPDATE items SET value = x'00'")
    assert merge(here, other).items == 1
    assert here.items.get(SPACE, [b"k"]) == {b"k": b"v"}


def test_what_is_damaged_there_is_named_and_left_out_with_exit_status_one(tmp_path: Path) -> None:
    here, there = store(tmp_path / "here"), store(tmp_path / "there", "a", "b", "c", "d", "e", items={b"k": b"v", b"l": b"w"})
    (there.path("s", key("a")) / "a").write_text("x")
    (there.path("s", key("c")) / "further").write_text("x")
    there.path("s", key("d")).rename(there.path("s", key("other")))
    manifest = there.path("s", key("e")) / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"definition": {"k": "other"}}))
    there.items.connection.execute("UPDATE items SET value = x'00' WHERE value = x'76'")
    found = workbench("store", "merge", tmp_path / "there", "--runs", tmp_path / "here")
    assert found.returncode == 1, found.stderr
    assert found.stdout.splitlines() == [
        *sorted(
            f"left out: s {name[:12]}: {why}"
            for name, why in {
                key("a"): "a has other content than when it was written",
                key("c"): "manifest.json does not name further",
                key("other"): f"manifest.json is that of s {key('d')[:12]}",
                key("e"): "manifest.json has another definition than the key is the digest of",
            }.items()
        ),
        "left out: items -: 1 items do not fit their checksum",
        "taken over: 1 artifacts, 1 items; 0 artifacts were here already",
    ]
    assert here.has("s", key("b"))
    assert here.items.get(SPACE, [b"k", b"l"]) == {b"l": b"w"}


def test_no_store_the_same_store_and_one_of_another_version_are_refused(tmp_path: Path) -> None:
    here = store(tmp_path / "here")
    with pytest.raises(InputError, match=r"there is no store in .*; name a folder of runs, or the folder \.store in it"):
        located(tmp_path)
    with pytest.raises(InputError, match="is the store that is to take it over; name another one"):
        merge(here, located(tmp_path / "here"))
    there = store(tmp_path / "there")
    with sqlite3.connect(there.folder / "items.sqlite") as table:
        table.execute("CREATE TABLE items (namespace BLOB, key BLOB, value BLOB)")
    with pytest.raises(InputError, match=r"has the columns namespace, key, value; .* Merge it with the version that wrote it"):
        located(tmp_path / "there")


def test_items_that_cannot_be_read_are_named_and_artifacts_are_taken_over(tmp_path: Path) -> None:
    here, there = store(tmp_path / "here"), store(tmp_path / "there", "a")
    (there.folder / "items.sqlite").write_bytes(b"no table" * 1000)
    merged = merge(here, located(tmp_path / "there"))
    assert (merged.artifacts, [one.stage for one in merged.damaged]) == (1, ["items"])


def test_links_pipes_and_what_cannot_be_read_are_named_and_the_rest_is_taken_over(tmp_path: Path) -> None:
    here, there = store(tmp_path / "here"), store(tmp_path / "there", "gone", "pipe", "folder", "moved", "whole")
    for name in ("gone", "pipe", "folder"):
        (there.path("s", key(name)) / "a").unlink()
    (there.path("s", key("gone")) / "a").symlink_to(tmp_path / "nowhere")
    os.mkfifo(there.path("s", key("pipe")) / "a")
    (there.path("s", key("folder")) / "a").mkdir()
    there.path("s", key("moved")).rename(tmp_path / "another disk")
    there.path("s", key("moved")).symlink_to(tmp_path / "another disk")
    merged = merge(here, located(tmp_path / "there"))
    assert {one.key: one.reason for one in merged.damaged} == {key(n): "a is missing" for n in ("gone", "pipe")} | {
        key("folder"): "a is missing"
    }
    assert here.has("s", key("whole")) and here.has("s", key("moved")) and not here.path("s", key("moved")).is_symlink()


def test_a_manifest_of_what_is_no_number_or_lies_elsewhere_is_named(tmp_path: Path) -> None:
    here, there = store(tmp_path / "here"), store(tmp_path / "there", "number", "elsewhere")
    for name, change in {"number": {"definition": {"k": float("nan")}}, "elsewhere": {}}.items():
        manifest = there.path("s", key(name)) / "manifest.json"
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | change))
    (there.path("s", key("elsewhere")) / "a").rename(tmp_path / "a")
    manifest.write_text(manifest.read_text().replace('"a"', json.dumps(str(tmp_path / "a"))))
    merged = merge(here, located(tmp_path / "there"))
    assert {one.key: one.reason for one in merged.damaged} == {
        key("number"): "manifest.json has another definition than the key is the digest of",
        key("elsewhere"): f"{tmp_path / 'a'} is missing",
    }
    assert merged.artifacts == 0


def test_copies_can_be_written_whatever_may_be_done_with_the_originals(tmp_path: Path) -> None:
    here, there = store(tmp_path / "here"), store(tmp_path / "there", "a", items={b"k": b"v"})
    for path in [*there.folder.rglob("*"), there.folder]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert (merge(here, located(tmp_path / "there")).artifacts, here.items.get(SPACE, [b"k"])) == (1, {b"k": b"v"})
    taken = here.path("s", key("a"))
    assert all(path.stat().st_mode & 0o200 for path in (taken, *taken.iterdir()))


@pytest.mark.parametrize("table", ["", "CREATE TABLE", "row"])
def test_a_table_that_was_only_begun_or_holds_what_no_store_does_ends_no_merge(tmp_path: Path, table: str) -> None:
    here, there = store(tmp_path / "here"), store(tmp_path / "there", "a", items={b"k": b"v"} if table == "row" else None)
    path = there.folder / "items.sqlite"
    if table == "row":
        there.items.connection.execute("INSERT INTO items VALUES (?, ?, 0, NULL)", (bytes.fromhex(SPACE), b"l"))
        there.items.connection.execute("INSERT INTO items VALUES ('text', 1, 0, x'')")
    elif table:  # a process was ended before it made its table
        with sqlite3.connect(path) as begun:
            begun.execute("PRAGMA journal_mode=WAL")
    else:
        path.touch()
    merged = merge(here, located(tmp_path / "there"))
    assert (merged.artifacts, merged.items) == (1, int(table == "row"))
    assert [one.reason for one in merged.damaged] == (["2 items do not fit their checksum"] if table == "row" else [])


def test_a_damaged_table_whose_path_ends_like_this_ones_is_named_and_ends_no_merge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here, there = store(Path("runs")), store(Path("old runs") / "runs", "a")
    (there.folder / "items.sqlite").write_bytes(b"no table" * 1000)
    merged = merge(here, located(Path("old runs") / "runs"))
    assert (merged.artifacts, [one.stage for one in merged.damaged]) == (1, ["items"])


def test_a_full_disk_here_ends_the_merge_and_is_no_damage_there(tmp_path: Path) -> None:
    there = store(tmp_path / "there")
    there.create("s", key("large"), {"k": "large"}, lambda folder: (folder / "a").write_bytes(bytes(2**20)) and {})
    (tmp_path / "here").mkdir()
    limited = f"ulimit -f 512; exec {sys.executable} -m workbench.cli store merge {tmp_path / 'there'} --runs {tmp_path / 'here'}"
    said = subprocess.run(
        ["bash", "-c", limited], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False
    )
    assert (said.returncode, said.stdout) == (2, "")
    assert "the disk is full, nothing more can be written" in said.stderr


def test_what_a_running_sweep_computes_is_left_to_it(tmp_path: Path) -> None:
    here = store(tmp_path / "here")
    store(tmp_path / "there", "a", "b")
    with FileLock(here.folder / "locks" / f"{key('a')}.lock"):
        merged = merge(here, located(tmp_path / "there"))
    assert (merged.artifacts, merged.busy, here.has("s", key("a")), here.has("s", key("b"))) == (1, 1, False, True)


def test_a_sweep_that_writes_meanwhile_keeps_its_items(tmp_path: Path) -> None:
    here = store(tmp_path / "here")
    there = store(tmp_path / "there", items={bytes([i]): b"there" for i in range(200)})
    writer = Store(here.folder)
    rows = there.items.rows(together=10)
    for i, part in enumerate(rows):
        writer.items.put(SPACE, {bytes([199 - i]): b"here"})
        here.items.take(part)
    values = here.items.get(SPACE, [bytes([i]) for i in range(200)])
    assert len(values) == 200
    assert [values[bytes([199 - i])] for i in range(10)] == [b"here"] * 10


KILLED = """
import sys, os, signal
from pathlib import Path
from workbench.store.items import Items
from workbench.store.merging import located, merge
from workbench.store.store import Store

here, there, moment = sys.argv[1:]
calls = [0]
target, name = (Store, "_place") if moment == "artifact" else (Items, "take")
before = getattr(target, name)

def dying(*args):
    calls[0] += 1
    if calls[0] == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return before(*args)

setattr(target, name, dying)
if moment == "items":
    rows = Items.rows
    Items.rows = lambda self: rows(self, 2)
merge(Store(Path(here) / ".store"), located(Path(there)))
"""


@pytest.mark.parametrize("moment", ["artifact", "items"])
def test_killed_midway_and_repeated_it_comes_to_the_same(tmp_path: Path, moment: str) -> None:
    there = store(tmp_path / "there", *"abcde", items={bytes([i]): bytes([i]) * 9 for i in range(9)})
    whole, killed = store(tmp_path / "whole"), tmp_path / "killed"
    merge(whole, located(tmp_path / "there"))
    args = [sys.executable, "-c", KILLED, str(killed), str(tmp_path / "there"), moment]
    ended = subprocess.run(args, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False)
    assert ended.returncode == -signal.SIGKILL
    again = Store(killed / ".store")
    assert contents(again) != contents(whole)
    merge(again, located(tmp_path / "there"))
    assert contents(again) == contents(whole) == contents(there)
    assert not [f for f in (killed / ".store" / "artifacts").glob("*/*") if damage(f)]
    assert all(zlib.crc32(row[3]) == row[2] for row in contents(again)[1])
