"""What goes wrong on the nodes of a real Ray cluster: who is refused, what is said, what is kept, and what stays behind."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, toy_settings, workbench
from ray_nodes import Nodes, free_port
from ray_work import Digests

from workbench import Experiment
from workbench.errors import StageFailedError
from workbench.store.progress import Progress

# Ray reads its settings when it is imported, so nothing imports it before `Nodes` has set them
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("ray") is None and os.environ.get("CI") != "true", reason="the extra `distributed` is not installed"
    ),
]
TEXTS = [f"text {i}" for i in range(60)]


class Told(Progress):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    before = dict(os.environ)
    made = Nodes()
    made.only(2)
    yield made
    made.end()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def one(tmp_path: Path) -> Experiment:
    (tmp_path / "smoke.yaml").write_text(yaml.safe_dump(toy_settings(), sort_keys=False))
    (tmp_path / "processes").mkdir()
    return Experiment.load(tmp_path / "smoke.yaml", tmp_path / "runs", progress=Told())


@contextmanager
def crew_of(experiment: Experiment, nodes: Nodes) -> Iterator[object]:
    from workbench.cluster.connecting import connected

    with connected(f"ray:{nodes.address}", experiment.session) as crew:
        yield crew


def folders() -> set[Path]:
    from workbench.cluster.places import PREFIX

    return set(Path(tempfile.gettempdir()).glob(f"{PREFIX}*"))


def work(tmp_path: Path, trouble: str = "", seconds: float = 0.0) -> Digests:
    return Digests(str(tmp_path / "processes"), os.getpid(), seconds=seconds, trouble=trouble)


def test_a_node_without_room_is_refused_and_the_others_leave_no_files(one: Experiment, nodes: Nodes, tmp_path: Path) -> None:
    before = folders()
    with crew_of(one, nodes) as crew:
        assert one.session.items(work(tmp_path, "full"), TEXTS) == [sha256(text.encode()).hexdigest() for text in TEXTS]
        refused = [node["refused"] for node in crew.record().values() if node["refused"]]
        assert crew.label == "on 1 node"
    assert refused == [f"no room is left for its temporary files in {tempfile.gettempdir()}"]
    # what the refused process had is removed by the next one there
    assert len(folders() - before) <= 1


def test_what_a_component_raises_on_a_node_is_said_with_the_node(one: Experiment, nodes: Nodes, tmp_path: Path) -> None:
    with crew_of(one, nodes), pytest.raises(StageFailedError, match=r"on node [\d.]+/\w+: OwnError: this and that"):
        one.session.items(work(tmp_path, "own"), TEXTS)


def test_who_asks_to_stop_keeps_what_is_under_way(one: Experiment, nodes: Nodes, tmp_path: Path) -> None:
    progress = one.session.progress
    slow = work(tmp_path, seconds=0.2)

    def stop() -> None:
        while progress.current is None or progress.current.done < 8:  # the driver's own
            time.sleep(0.05)
        time.sleep(2.0)  # the nodes have passed their probes and compute
        progress.stopping = True

    asking = threading.Thread(target=stop)
    asking.start()
    with crew_of(one, nodes) as crew, pytest.raises(KeyboardInterrupt):
        one.session.items(slow, TEXTS)
    asking.join()
    kept = len(TEXTS) - len(one.session.store.items.missing(slow.namespace, TEXTS))
    computed = sum(node["computed"].get("digests", 0) for node in crew.record().values())
    assert 8 < kept == computed < len(TEXTS)


def test_addresses_where_no_head_is_are_refused_at_once(one: Experiment, nodes: Nodes, tmp_path: Path) -> None:
    for place in (f"127.0.0.1:{free_port()}", f"nowhere.invalid:{free_port()}"):
        args = ["plan", tmp_path / "smoke.yaml", "--runs", tmp_path / "runs", "--workers", f"ray:{place}"]
        found = workbench(*args, env=os.environ | {"PYTHONPATH": str(ROOT)})
        assert found.returncode == 2
        assert f"--workers ray:{place}: nothing can be reached at {place} (" in found.stderr
