"""A function of AWS Lambda: events of API Gateway in, the answers of the same application out, and no torch on the way."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import toys
import yaml
from answering_server import answering
from conftest import ROOT, Finished
from served_app import running, settings

from workbench.errors import InputError, StageFailedError
from workbench.experiment.experiment import Experiment
from workbench.machine import NO_MACHINE
from workbench.pipeline import Pipeline
from workbench.results.run import Run
from workbench.serving.bundle import bundle
from workbench.serving.gate import prompt_gate
from workbench.store.progress import Progress

EVENTS = ROOT / "tests" / "events"
QUESTION = "What does the harbour keep?"
# What Lambda does: it imports the handler and calls it with each event. Its files cannot be written, and torch is not installed.
FUNCTION = """
import importlib, json, os, sys
top, access = sys.argv[1], os.access
os.access = lambda path, mode, **more: not (mode & os.W_OK and str(path).startswith(top)) and access(path, mode, **more)

def readable(event, arguments):
    if event in ("os.mkdir", "os.rename", "os.remove", "sqlite3.connect") and str(arguments[0]).startswith(top):
        raise OSError(30, "Read-only file system", str(arguments[0]))
    if event == "open" and str(arguments[0]).startswith(top) and any(letter in str(arguments[1] or "") for letter in "wax+"):
        raise OSError(30, "Read-only file system", str(arguments[0]))

sys.addaudithook(readable)
sys.modules["torch"] = None
handler = importlib.import_module("deploy.lambda").handler
told = [handler(event, None) for event in json.load(sys.stdin)]
heavy = {"torch", "transformers", "sentence_transformers", "gradio", "faiss", "ray"} & {
    name for name, module in sys.modules.items() if module is not None
}
json.dump({"told": told, "heavy": sorted(heavy)}, sys.stdout)
"""


def event(name: str, **changed: Any) -> dict[str, Any]:
    return json.loads((EVENTS / f"{name}.json").read_text()) | changed


class Packed(NamedTuple):
    """A run with one configuration that a server answers and one that is answered here; the first one as an unpacked bundle."""

    run: Run
    served: str
    local: str
    bundle: Path


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Packed]:
    folder = tmp_path_factory.mktemp("function")
    with answering(folder / "log") as url:
        facts, parrot = Path(toys.made(toys.facts)), toys.made(toys.parrot)
        values = {
            "experiment": "function",
            "dataset": {"folder": str(facts / "documents"), "questions": str(facts / "questions.jsonl"), "limit": 4},
            "components": {
                "retrievers": {"bm25": {"kind": "bm25"}},
                "generators": {
                    "far": {"endpoint": f"{url}/v1", "model": parrot, "max_new_tokens": 6, "parameters": {"temperature": 0}},
                    "near": {"model": parrot, "max_new_tokens": 6},
                },
            },
            "axes": {"retriever": ["bm25"], "passages": [2], "prompt": ["terse"], "generator": ["far", "near"]},
        }
        (folder / "function.yaml").write_text(yaml.safe_dump(values))
        run = Experiment.load(folder / "function.yaml", folder / "runs", progress=Progress()).compare()
        served, local = (next(row.configuration for row in run.configurations if name in row.label) for name in ("far", "near"))
        archive = bundle(Pipeline.open(run, served, Progress()), folder)
        with tarfile.open(archive) as tar:
            tar.extractall(folder / "there", filter="data")
        (top,) = (folder / "there").iterdir()
        yield Packed(run, served, local, top)


def called(top: Path, events: list[dict[str, Any]], python: Path = Path(sys.executable)) -> dict[str, Any]:
    """What the handler of a bundle gives for events, in a process of its own."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(top / "package"), str(top)])}
    command = [python, "-c", FUNCTION, str(top)]
    done = subprocess.run(command, input=json.dumps(events), capture_output=True, text=True, env=env, cwd=top, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def answer_part(body: str) -> str:
    """The bytes of a response without its id and how it was served."""
    return body[body.index(',"question"') + 1 : body.rindex(',"served":')]


@pytest.mark.slow
def test_events_are_answered_with_the_bytes_of_the_same_application_over_http(packed: Packed) -> None:
    chat = {"model": "?", "messages": [{"role": "user", "content": QUESTION}], "stream": True}
    stream = event("rest_api")
    stream["multiValueHeaders"] = stream["multiValueHeaders"] | {"Accept": ["text/event-stream"]}
    stranger = event("rest_api")
    stranger["requestContext"]["identity"] |= {"apiKey": None, "apiKeyId": None}
    later = event("http_api")
    later["headers"]["prefer"] = "respond-async"
    with running(Pipeline.open(packed.run, packed.served, Progress()), settings()) as service:
        direct = service.ask(QUESTION)
        chat["model"] = service.call("GET", "/v1/models").json["data"][0]["id"]
    chatting = event("rest_api", path="/v1/chat/completions", body=json.dumps(chat))
    plain = event("rest_api", path="/v1/chat/completions", body=json.dumps(chat | {"stream": False}))
    asked = [event("rest_api"), event("http_api"), later, event("http_api_health"), stream, chatting, stranger, plain]
    again = event("rest_api", path="/v1/answers/1", httpMethod="GET")
    asked += [event("rest_api", path="/healthz", httpMethod="GET"), event("rest_api", body="{"), again]
    found = called(packed.bundle, asked)
    assert found["heavy"] == []
    first, second, third, ready, streamed, chunked, unknown, completed, healthy, broken, fetched = found["told"]
    assert [one["statusCode"] for one in (first, second, third)] == [200] * 3, first["body"]
    assert [one["isBase64Encoded"] for one in found["told"]] == [False] * 11
    assert [answer_part(one["body"]) for one in (first, second, third)] == [answer_part(direct.body.decode())] * 3
    assert [json.loads(one["body"])["served"]["by"] for one in (first, second)] == ["model", "cache"]
    assert (ready["statusCode"], json.loads(ready["body"])["status"]) == (200, "ready")
    assert (healthy["statusCode"], json.loads(healthy["body"])["status"]) == (200, "ok")
    assert streamed["statusCode"] == 406 and "not streamed here" in json.loads(streamed["body"])["detail"]
    assert chunked["statusCode"] == 406 and "not streamed here" in json.loads(chunked["body"])["error"]["message"]
    assert json.loads(completed["body"])["choices"][0]["message"]["content"] == direct.json["reply"]
    assert unknown["statusCode"] == 401 and "authorizer" in json.loads(unknown["body"])["detail"]
    assert fetched["statusCode"] == 404 and "keeps no answers" in json.loads(fetched["body"])["detail"]
    assert broken["statusCode"] == 400 and broken["headers"]["content-type"] == "application/problem+json"


@pytest.mark.slow
def test_an_answer_that_no_processor_decides_is_the_same_on_any(packed: Packed) -> None:
    here, anywhere = (Pipeline.open(packed.run, packed.served, Progress(), machine=one) for one in (None, NO_MACHINE))
    assert here.identity == anywhere.identity and here.provenance() == anywhere.provenance()
    assert here.provenance()["arithmetic"] is None
    local = Pipeline.open(packed.run, packed.local, Progress())
    assert local.provenance()["arithmetic"] == local.session.machine.arithmetic
    with pytest.raises(
        InputError,
        match=r"near.* cannot answer on a processor that nobody knows: models compute its answers, .*"
        r"of this run: .*far.*Serve others on a machine of your own",
    ):
        Pipeline.open(packed.run, packed.local, Progress(), machine=NO_MACHINE)


@pytest.mark.slow
def test_a_function_whose_prompts_are_others_than_measured_is_refused(packed: Packed, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = Pipeline.open(packed.run, packed.served, Progress(), machine=NO_MACHINE)
    assert "shows the generator what was recorded of 2 queries" in prompt_gate(pipeline)
    recorded = Pipeline._recorded

    def changed(self: Pipeline, query_id: str) -> Any:
        line, query = recorded(self, query_id)
        return line | {"prompt": "0" * 64}, query

    monkeypatch.setattr(Pipeline, "_recorded", changed)
    with pytest.raises(StageFailedError, match=r"no longer shows the generator what run .* \(other prompt\)"):
        prompt_gate(pipeline)


def test_a_configuration_that_computes_here_is_refused_before_anything_is_computed(toy: Finished) -> None:
    with pytest.raises(InputError, match=r"models compute its .*answers.*BM25 does.*of this run: none"):
        Pipeline.open(toy.run, progress=Progress(), machine=NO_MACHINE)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cache: {disk_mb: 0}", "keep has to be none"),
        ("keep: none", "cache.disk_mb has to be 0, and is 512"),
        ("{keep: none, cache: {disk_mb: 0}, fallback: [{run: elsewhere}]}", "fallback names a run"),
    ],
)
def test_settings_that_a_function_cannot_keep_are_refused(tmp_path: Path, text: str, said: str) -> None:
    from workbench.serving.gateway import function

    (tmp_path / "function.yaml").write_text(text)
    with pytest.raises(InputError, match=said):
        function(tmp_path, tmp_path / "function.yaml")


def test_the_events_are_of_both_versions_and_one_has_a_body_in_base64() -> None:
    rest, http = event("rest_api"), event("http_api")
    assert "version" not in rest and http["version"] == "2.0"
    assert json.loads(base64.b64decode(http["body"])) == json.loads(rest["body"]) == {"question": QUESTION}


@pytest.mark.soak
def test_a_function_needs_no_more_than_its_list_of_packages(
    packed: Packed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In an environment of its own, from a package index; `-s` is not needed to see its size and what importing takes."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    deploy = packed.bundle / "deploy"
    listed = ["--requirement", deploy / "lambda.txt", "--constraint", packed.bundle / "requirements.txt"]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *listed], check=True)
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    sizes = {folder.name: sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) for folder in site.iterdir()}
    own = sum(size for name, size in sizes.items() if not name.startswith(("pip", "setuptools", "pkg_resources", "_distutils")))
    seconds = []
    for _ in range(6):  # the first time compiles, as building the image does
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join([str(packed.bundle / "package"), str(packed.bundle)])}
        script = "import importlib, time; began = time.process_time(); importlib.import_module('deploy.lambda'); "
        done = subprocess.run(
            [python, "-c", script + "print(time.process_time() - began)"], capture_output=True, text=True, env=env, check=True
        )
        seconds.append(float(done.stdout))
    found = called(packed.bundle, [event("rest_api")], python)
    assert found["told"][0]["statusCode"] == 200 and json.loads(found["told"][0]["body"])["served"]["by"] == "model"
    with capsys.disabled():
        largest = ", ".join(f"{name} {sizes[name] / 1e6:.0f}" for name in sorted(sizes, key=sizes.__getitem__)[:-6:-1])
        ready = f"ready after {sorted(seconds[1:])[2]:.1f} s of processor time (median of 5 processes)"
        sys.stdout.write(f"\ninstalled: {own / 1e6:,.0f} MB ({largest}); {ready}\n")
