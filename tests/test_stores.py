"""Vector stores: each against exact search, opened by several processes, and in an experiment.

The server's side of Qdrant is tested on loopback against `Server`, which hands the requests that the adapter makes to the
embedded Qdrant; a real server was not there to test with.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
import yaml
from pydantic import TypeAdapter, ValidationError
from qdrant_client import QdrantClient, models

from workbench import Experiment, Run
from workbench.component import file_digest
from workbench.errors import InputError
from workbench.experiment import parity
from workbench.pipeline import Pipeline
from workbench.retrieval.indexes.chroma import ChromaIndex
from workbench.retrieval.indexes.dense import Dense
from workbench.retrieval.indexes.kinds import AnyIndex
from workbench.retrieval.indexes.qdrant import QdrantIndex
from workbench.store.progress import Progress

N, D, DEPTH = 2_500, 64, 10
STORES = ("qdrant", "chroma")


class Server(ThreadingHTTPServer):
    """The six routes of Qdrant's HTTP interface that the adapter uses, on an embedded Qdrant."""

    daemon_threads = True

    def __init__(self) -> None:
        self.client = QdrantClient(":memory:")
        self.requests: list[tuple[str, str]] = []
        self.lock = threading.Lock()  # the embedded Qdrant writes for one at a time
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def collections(self) -> list[str]:
        return [one.name for one in self.client.get_collections().collections]

    def answer(self, method: str, path: str, body: Any) -> Any:
        name, _, verb = path.split("?")[0].removeprefix("/collections/").partition("/")
        with self.lock:
            self.requests.append((method, verb))
            if (method, verb) == ("GET", "exists"):
                return {"exists": self.client.collection_exists(name)}
            if (method, verb) == ("PUT", ""):
                assert body["hnsw_config"] == {"m": 0}
                return self.client.create_collection(name, models.VectorParams(**body["vectors"]))
            if not self.client.collection_exists(name):
                raise KeyError(name)
            if (method, verb) == ("POST", "points/count"):
                return {"count": self.client.count(name, exact=body["exact"]).count}
            if (method, verb) == ("PUT", "points"):
                self.client.upsert(name, models.Batch(**body["batch"]))
                return {"operation_id": 0, "status": "completed"}
            assert (method, verb) == ("POST", "points/query/batch")
            assert all(search["params"]["exact"] for search in body["searches"])
            asked = [models.QueryRequest(query=one["query"], limit=one["limit"]) for one in body["searches"]]
            return [answer.model_dump() for answer in self.client.query_batch_points(name, asked)]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def respond(self) -> None:
        length = int(self.headers.get("content-length", 0))
        body = json.loads(self.rfile.read(length)) if length else None
        try:
            status, answer = 200, {"result": self.server.answer(self.command, self.path, body), "status": "ok", "time": 0.0}
        except KeyError as error:
            status, answer = 404, {"status": {"error": f"Not found: Collection {error}"}, "time": 0.0}
        payload = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    do_GET = do_PUT = do_POST = respond  # noqa: N815

    def log_message(self, *args: object) -> None:
        """Keeps the terminal clean."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def index(values: object) -> QdrantIndex | ChromaIndex:
    return TypeAdapter(AnyIndex).validate_python(values)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """Unit vectors in clusters, as texts are, with three equal ones."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(60, D))[rng.integers(60, size=N)] + 0.7 * rng.normal(size=(N, D))
    rows[[1, 700]] = rows[0]
    return unit(rows)


@pytest.fixture(scope="module")
def queries(vectors: np.ndarray) -> np.ndarray:
    """One of them is a vector that stands three times."""
    rng = np.random.default_rng(1)
    return np.concatenate([vectors[:1], unit(vectors[rng.choice(N, 70)] + 0.05 * rng.normal(size=(70, D)))])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, vectors: np.ndarray) -> dict[str, Path]:
    """Every store, built once."""
    made = {kind: tmp_path_factory.mktemp(kind) for kind in STORES}
    for kind, folder in made.items():
        index(kind).build(vectors, folder)
    return made


def exact(vectors: np.ndarray, query: np.ndarray, depth: int) -> list[int]:
    scores = (vectors.astype(np.float64) @ query.astype(np.float64)).astype(np.float32)
    return sorted(range(len(vectors)), key=lambda i: (-scores[i], i))[:depth]


def digests(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", STORES)
def test_a_store_ranks_as_comparing_every_vector_does(
    folders: dict[str, Path], kind: str, vectors: np.ndarray, queries: np.ndarray
) -> None:
    rows = Dense(embedder="e", index=kind).rank(index(kind).open(folders[kind]), vectors, queries, DEPTH)
    same = [ids.tolist() == exact(vectors, query, DEPTH) for query, (ids, _) in zip(queries, rows, strict=True)]
    assert all(same) if kind == "qdrant" else np.mean(same) >= 0.95
    assert rows[0][0][:3].tolist() == [0, 1, 700]


@pytest.mark.parametrize("kind", STORES)
def test_candidates_are_as_many_as_wanted_and_there_are(
    folders: dict[str, Path], kind: str, vectors: np.ndarray, queries: np.ndarray
) -> None:
    opened = index(kind).open(folders[kind])
    assert len(opened) == N and opened.exact is (kind == "qdrant") and opened.lookups == 1
    for k in (1, 130, N, N + 100):
        found = opened.candidates(queries[:3], k)
        assert found.shape == (3, min(k, N)) and found.dtype == np.int64
        assert all(len(set(row)) == len(row) for row in (row[row >= 0].tolist() for row in found))
    assert sorted(opened.candidates(queries[:1], N)[0].tolist()) == list(range(N))
    assert opened.candidates(queries[:0], 5).shape == (0, 5)


@pytest.mark.parametrize("kind", STORES)
def test_one_query_alone_finds_what_it_finds_among_others(folders: dict[str, Path], kind: str, queries: np.ndarray) -> None:
    opened = index(kind).open(folders[kind])
    together = opened.candidates(queries, 40)
    assert [opened.candidates(query[None], 40)[0].tolist() for query in queries] == together.tolist()


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("n", [1, 2, 40, 1_001])
def test_a_few_vectors_are_enough(tmp_path: Path, kind: str, n: int, vectors: np.ndarray, queries: np.ndarray) -> None:
    """One; fewer than the depth; one more than Chroma is given at once."""
    index(kind).build(vectors[:n], tmp_path)
    rows = Dense(embedder="e", index=kind).rank(index(kind).open(tmp_path), vectors[:n], queries, 50)
    assert all(ids.tolist() == exact(vectors[:n], query, min(n, 50)) for query, (ids, _) in zip(queries, rows, strict=True))


def test_hundreds_of_equal_passages_come_in_the_order_of_their_numbers(tmp_path: Path, queries: np.ndarray) -> None:
    """More of them than are proposed at first: an exact store is asked for more."""
    equal = np.repeat(queries[:1], 500, axis=0)
    index("qdrant").build(equal, tmp_path)
    ((ids, _),) = Dense(embedder="e", index="qdrant").rank(index("qdrant").open(tmp_path), equal, queries[:1], DEPTH)
    assert ids.tolist() == list(range(DEPTH))


OPENS = """
import sys
from pathlib import Path
import numpy as np
from workbench.retrieval.indexes.kinds import AnyIndex
from pydantic import TypeAdapter
kind, folder, queries = sys.argv[1:]
opened = TypeAdapter(AnyIndex).validate_python(kind).open(Path(folder))
found = opened.candidates(np.load(queries), 20)
print("ready", flush=True)
sys.stdin.readline()
again = opened.candidates(np.load(queries), 20)
print(found.tolist() == again.tolist(), hash(found.tobytes()))
"""


@pytest.mark.parametrize("kind", STORES)
def test_two_processes_search_one_artifact_without_network_and_leave_it_as_it_was(
    folders: dict[str, Path], kind: str, queries: np.ndarray, tmp_path: Path, offline: dict[str, str]
) -> None:
    before = digests(folders[kind])
    np.save(tmp_path / "queries.npy", queries)
    command = [sys.executable, "-c", OPENS, kind, str(folders[kind]), str(tmp_path / "queries.npy")]
    environment = offline | {"PYTHONHASHSEED": "0", "TMPDIR": str(tmp_path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, env=environment, **pipes) for _ in range(2)]
    assert [process.stdout.readline() for process in both] == ["ready\n"] * 2  # both have it open now
    said = [process.communicate("go on\n")[0] for process in both]
    assert said[0] == said[1] and said[0].startswith("True")
    assert [process.returncode for process in both] == [0, 0]
    assert digests(folders[kind]) == before
    assert [path.name for path in tmp_path.iterdir()] == ["queries.npy"]  # the copies are gone


def test_an_artifact_of_qdrant_is_the_same_to_the_byte_wherever_qdrant_runs(
    folders: dict[str, Path], tmp_path: Path, vectors: np.ndarray, server: Server
) -> None:
    index({"kind": "qdrant", "url": server.url, "prefix": "mine"}).build(vectors, tmp_path)
    assert digests(tmp_path) == digests(folders["qdrant"])


def test_a_server_finds_what_the_embedded_one_finds(
    folders: dict[str, Path], server: Server, vectors: np.ndarray, queries: np.ndarray
) -> None:
    """The server of another artifact, too: it is filled from the stored vectors."""
    remote = index({"kind": "qdrant", "url": server.url})
    found = Dense(embedder="e", index=remote).rank(remote.open(folders["qdrant"]), vectors, queries, DEPTH)
    wanted = Dense(embedder="e").rank(index("qdrant").open(folders["qdrant"]), vectors, queries, DEPTH)
    for (ids, scores), (others, values) in zip(found, wanted, strict=True):
        assert ids.tolist() == others.tolist() and scores.tolist() == values.tolist()


def test_a_collection_is_filled_once_and_named_by_its_vectors(tmp_path: Path, server: Server, vectors: np.ndarray) -> None:
    remote = index({"kind": "qdrant", "url": server.url, "prefix": "lab"})
    for name, rows in {"first": vectors[:300], "again": vectors[:300], "other": vectors[1:301]}.items():
        (tmp_path / name).mkdir()
        facts = remote.build(rows, tmp_path / name)
        assert f"Qdrant at {server.url}" in facts["reason"]
    assert len(server.collections()) == 2 and all(name.startswith("lab-") for name in server.collections())
    assert server.requests.count(("PUT", "points")) == 2 * 2  # 300 vectors are two requests
    assert [server.client.count(name).count for name in server.collections()] == [300, 300]


def test_a_collection_that_vanished_or_is_not_whole_is_filled_again(
    tmp_path: Path, server: Server, vectors: np.ndarray, queries: np.ndarray
) -> None:
    remote = index({"kind": "qdrant", "url": server.url})
    remote.build(vectors[:300], tmp_path)
    opened = remote.open(tmp_path)
    expected = opened.candidates(queries, 7).tolist()
    server.client.delete_collection(opened.name)
    with pytest.raises(InputError, match=f"collection {opened.name} is gone; run again, and it is filled"):
        opened.candidates(queries, 7)
    assert remote.open(tmp_path).candidates(queries, 7).tolist() == expected
    server.client.delete(opened.name, models.PointIdsList(points=[3, 4, 5]))
    assert remote.open(tmp_path).candidates(queries, 7).tolist() == expected
    server.client.upsert(opened.name, models.Batch(ids=[300], vectors=vectors[300:301].tolist()))
    with pytest.raises(InputError, match="holds 301 vectors instead of 300; delete it there"):
        remote.open(tmp_path)


def test_a_server_that_does_not_answer_is_named_with_the_way_out(tmp_path: Path, vectors: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"Qdrant at http://127.0.0.1:9 does not answer .*; start it, mend the url, or leave"):
        index({"kind": "qdrant", "url": "http://127.0.0.1:9"}).build(vectors[:3], tmp_path)


def test_where_a_server_is_decides_no_result() -> None:
    assert index({"kind": "qdrant", "url": "http://a:1", "prefix": "x"}).definition() == index("qdrant").definition()
    assert index({"kind": "chroma", "ef_search": 5}).definition() != index("chroma").definition()


@pytest.mark.parametrize("values", [{"url": "localhost:6333"}, {"prefix": "a/b"}, {"exact": True}])
def test_settings_that_mean_nothing_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        index({"kind": "qdrant"} | values)


def experiment(folder: Path, *overrides: str) -> Experiment:
    settings = {
        "experiment": "stores",
        "dataset": {"name": "pydocs", "limit": 4},
        "components": {
            "embedders": {"minilm": {"model": toys.made(toys.embedder)}},
            "retrievers": {kind: {"kind": "dense", "embedder": "minilm", "index": kind} for kind in ("flat", "qdrant", "chroma")},
        },
        "axes": {"chunking": [{"words": 160, "overlap": 0}], "retriever": ["flat", "qdrant", "chroma"]},
        "report": {"of": "all"},
    }
    (folder / "stores.yaml").write_text(yaml.safe_dump(settings))
    return Experiment.load(folder / "stores.yaml", folder / "runs", overrides, Progress())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return experiment(tmp_path_factory.mktemp("stores")).compare()


def home(run: Run) -> Path:
    return run.folder.parents[2]


def test_an_experiment_ranks_alike_with_every_store(run: Run) -> None:
    rankings = {}
    for label in ("flat", "qdrant", "chroma"):
        pipeline = Pipeline.open(run, label)
        rankings[label] = pipeline.session.read(pipeline.experiment.planner.stages(pipeline.configuration, "test").ranking)
        query = pipeline.session.dataset.split("test")[0]
        asked, _ = pipeline.ranking.rank([query.text], pipeline.session)[0]
        assert asked.tolist() == rankings[label].row(rankings[label].query_ids.index(query.id))[0].tolist()
    assert (rankings["flat"].passages == rankings["qdrant"].passages).all()
    assert (rankings["flat"].scores == rankings["qdrant"].scores).all()
    assert (rankings["flat"].passages == rankings["chroma"].passages).mean() > 0.95
    keys = {row.label: set(row.keys) for row in run.configurations}
    assert "index QdrantIndex" in keys["qdrant"] and "index ChromaIndex" in keys["chroma"]


def test_a_store_is_built_once_wherever_it_is(run: Run, server: Server) -> None:
    folder = home(run)
    again = experiment(folder).compare()
    assert json.loads((again.folder / "plan.json").read_text())["totals"]["computed"] == 0
    remote = experiment(folder, f"components.retrievers.qdrant.index={{kind: qdrant, url: '{server.url}'}}")
    assert {c.id for c in remote.configurations} == {row.configuration for row in run.configurations}
    compared = remote.compare()
    assert json.loads((compared.folder / "plan.json").read_text())["totals"]["computed"] == 0
    assert (compared.folder / "leaderboard.csv").read_bytes() == (run.folder / "leaderboard.csv").read_bytes()
    pipeline = Pipeline.open(compared, "qdrant")
    assert pipeline.ask("What does a generator do?").sources and len(server.collections()) == 1


def test_every_store_is_held_against_exact_search(run: Run) -> None:
    rows = {row.kind: row for row in parity.save(experiment(home(run)), run.folder)}
    assert set(rows) == {"flat", "qdrant", "chroma"}
    assert rows["qdrant"].recall_at_100 == 1.0 and rows["chroma"].recall_at_100 > 0.95
    assert "Qdrant in this process" in rows["qdrant"].reason and "no fixed order" in rows["chroma"].reason
    assert parity.sentence(rows["chroma"]).startswith("chroma (Chroma builds its graph")
