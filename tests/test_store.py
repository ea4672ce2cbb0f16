"""The store: artifacts are complete or absent, damage is found and named, killed processes leave nothing half-done."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from workbench.errors import InputError
from workbench.experiment.keeping import kept, verify
from workbench.store import store as store_module
from workbench.store.items import Items
from workbench.store.store import Store, damage, disk_full, file_system

ROOT = Path(__file__).parent.parent
SPACE = "ab" * 32


def write(text: str, calls: list[int] | None = None) -> Any:
    def compute(folder: Path) -> dict[str, Any]:
        if calls is not None:
            calls.append(1)
        (folder / "sub").mkdir()
        (folder / "a.txt").write_text(text)
        (folder / "sub" / "b.bin").write_bytes(bytes(range(256)))
        return {"tokens": 3}

    return compute


def test_an_artifact_is_computed_once_and_describes_itself(tmp_path: Path) -> None:
    store, calls = Store(tmp_path), []
    assert store.create("s", "k1", {"x": 1}, write("one", calls))
    assert not store.create("s", "k1", {"x": 1}, write("one", calls))
    manifest = store.manifest("s", "k1")
    assert calls == [1] and manifest["definition"] == {"x": 1} and manifest["facts"] == {"tokens": 3}
    assert set(manifest["files"]) == {"a.txt", "sub/b.bin"}


def test_a_failing_stage_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left") as error:
        store.create("s", "k", {}, fail)
    assert disk_full(error.value)
    assert not store.has("s", "k") and list((tmp_path / "tmp").iterdir()) == []


def flip_a_byte(folder: Path) -> None:
    content = bytearray((folder / "sub" / "b.bin").read_bytes())
    content[100] ^= 1
    (folder / "sub" / "b.bin").write_bytes(content)


def truncate(folder: Path) -> None:
    (folder / "a.txt").write_text("on")


def edit(folder: Path, **changed: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


DAMAGES = {
    "other content": flip_a_byte,
    "has 2 bytes instead of 3": truncate,
    "manifest.json cannot be read": lambda folder: (folder / "manifest.json").unlink(),
    "manifest.json has another form": lambda folder: (folder / "manifest.json").write_text("[]"),
    "bytes and sha256 of every file are needed": lambda folder: edit(folder, files={"a.txt": 3}),
    "stage, key, definition, seconds, facts, files are needed": lambda folder: edit(folder, seconds=None),
    "a.txt is missing": lambda folder: (folder / "a.txt").unlink(),
}


@pytest.mark.parametrize("reason", DAMAGES)
def test_damage_is_found_named_and_never_served(tmp_path: Path, reason: str) -> None:
    Store(tmp_path).create("s", "k", {}, write("one"))
    DAMAGES[reason](tmp_path / "artifacts" / "s" / "k")
    store = Store(tmp_path)  # another process: digests are checked at the first opening
    assert not store.has("s", "k")
    assert reason in store.damaged[0].reason
    assert store.create("s", "k", {}, write("one")) and damage(store.path("s", "k")) is None


def test_items_are_computed_once_each_and_survive(tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def compute(missing: list[str]) -> Any:
        asked.append(missing)
        yield [(i, text.upper()) for i, text in enumerate(missing)]

    def get(inputs: list[str]) -> list[str]:
        return Items(tmp_path / "i").computed(SPACE, inputs, compute, str.encode, bytes.decode)

    assert get(["a", "b", "a"]) == ["A", "B", "A"]
    assert get(["b", "c"]) == ["B", "C"]
    assert asked == [["a", "b"], ["c"]]


def test_what_was_computed_before_an_interrupt_is_kept(tmp_path: Path) -> None:
    def interrupted(missing: list[str]) -> Any:
        yield [(0, "A")]
        raise KeyboardInterrupt

    items = Items(tmp_path / "i")
    with pytest.raises(KeyboardInterrupt):
        items.computed(SPACE, ["a", "b"], interrupted, str.encode, bytes.decode)
    assert Items(tmp_path / "i").missing(SPACE, ["a", "b"]) == ["b"]


def test_a_damaged_item_counts_as_absent(tmp_path: Path) -> None:
    items = Items(tmp_path / "i")
    items.computed(SPACE, ["a"], lambda m: iter([[(0, "A")]]), str.encode, bytes.decode)
    with sqlite3.connect(tmp_path / "i") as connection:
        connection.execute("UPDATE items SET value = ?", (b"B",))
    assert Items(tmp_path / "i").missing(SPACE, ["a"]) == ["a"]


def no_database(path: Path) -> None:
    path.write_bytes(b"no database" * 500)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def another_table(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE items (a)")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("spoil", [no_database, cut_off, another_table, a_folder])
def test_a_damaged_table_of_items_is_said_with_the_way_out(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    Store(tmp_path).create("s", "aa", {}, write("one"))
    items = Items(tmp_path / "items.sqlite")
    items.put(SPACE, {bytes([i]) * 32: b"x" * 3000 for i in range(50)})
    items.connection.execute("PRAGMA journal_mode=DELETE")
    items.connection.close()
    spoil(tmp_path / "items.sqlite")
    for read_only in (False, True) if spoil is not a_folder else (False,):
        with pytest.raises(
            InputError, match=r"items\.sqlite, where .* cannot be read .* move it away .* what it held is computed"
        ):
            Items(tmp_path / "items.sqlite", read_only).missing(SPACE, ["a"])
    store = Store(tmp_path)  # artifacts are looked after all the same
    ((stage, _, reason),) = verify(store)
    assert stage == "items" and "cannot be read" in reason
    assert [one.key for one in kept(store, tmp_path)] == ["aa"]


def test_a_network_file_system_is_refused_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert file_system(tmp_path) not in store_module.NETWORK_FILE_SYSTEMS
    monkeypatch.setattr(store_module, "file_system", lambda folder: "nfs4")
    with pytest.raises(InputError, match=r"network file system \(nfs4\).*--runs"):
        Store(tmp_path)


WORKER = """
import hashlib, random, sys, time
from pathlib import Path
from workbench.store.store import Store

store = Store(Path(sys.argv[1]))
pause = float(sys.argv[2])

def stage(number):
    def compute(folder):
        for part in range(4):
            seed = f"{number} {part}".encode()
            (folder / f"{part}.bin").write_bytes(hashlib.sha256(seed).digest() * 500)
            print("part", flush=True)
            time.sleep(pause)
        texts = [f"{number} {i % 7}" for i in range(20)]
        def items(missing):
            for start in range(0, len(missing), 3):
                print("batch", flush=True)
                time.sleep(pause)
                yield [(i, missing[i][::-1]) for i in range(start, min(start + 3, len(missing)))]
        values = store.items.computed("cd" * 32, texts, items, str.encode, bytes.decode)
        (folder / "items.txt").write_text("\\n".join(values))
    return compute

print("ready", flush=True)
for number in range(12):
    store.create("cheap", f"{number:064x}", {"number": number}, stage(number))
print("done", flush=True)
"""


def start(folder: Path, pause: float) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", WORKER, str(folder), str(pause)], stdout=subprocess.PIPE, text=True, cwd=ROOT)


def read(process: subprocess.Popen[str], lines: int) -> None:
    """Waits for so many lines of what a worker says, or for its end."""
    assert process.stdout.readline() == "ready\n"
    for _ in range(lines - 1):
        process.stdout.readline()


def contents(folder: Path) -> dict[str, bytes]:
    """Bytes of all artifacts but their manifests, which hold seconds."""
    base = folder / "artifacts"
    files = [p for p in sorted(base.rglob("*")) if p.is_file() and p.name != "manifest.json"]
    return {p.relative_to(base).as_posix(): p.read_bytes() for p in files}


@pytest.mark.slow
def test_a_hundred_kills_leave_only_whole_artifacts_and_the_same_bytes(tmp_path: Path) -> None:
    """Seeded moments; a kill that comes before the work began or after it ended is not counted."""
    whole = tmp_path / "whole"
    assert "done" in start(whole, 0).communicate()[0]
    rng, kills = random.Random(0), 0
    for round_ in range(400):
        if kills >= 100:
            break
        folder = tmp_path / f"killed {round_ // 12}"  # a store is killed about a dozen times before a fresh one is
        process = start(folder, 0.002)
        read(process, rng.randrange(1, 120))
        process.send_signal(signal.SIGKILL)
        rest = process.communicate()[0]
        if "done" not in rest:
            kills += 1
        for artifact in (folder / "artifacts").glob("cheap/*"):
            assert damage(artifact) is None, artifact
    assert kills >= 100
    for folder in sorted(tmp_path.glob("killed *")):
        assert "done" in start(folder, 0).communicate()[0]
        assert contents(folder) == contents(whole)
        assert list((folder / "tmp").iterdir()) == [] and list((folder / "work").iterdir()) == []


def test_one_kill_leaves_only_whole_artifacts(tmp_path: Path) -> None:
    process = start(tmp_path / "killed", 0.005)
    read(process, 30)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert all(damage(artifact) is None for artifact in (tmp_path / "killed" / "artifacts").glob("cheap/*"))
    assert "done" in start(tmp_path / "killed", 0).communicate()[0]
    start(tmp_path / "whole", 0).communicate()
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_two_processes_on_one_store_do_no_work_twice(tmp_path: Path) -> None:
    processes = [start(tmp_path, 0.002) for _ in range(3)]
    assert all("done" in process.communicate()[0] for process in processes)
    computed = list((tmp_path / "artifacts" / "cheap").iterdir())
    assert len(computed) == 12 and all(damage(folder) is None for folder in computed)
    assert list((tmp_path / "tmp").iterdir()) == []
