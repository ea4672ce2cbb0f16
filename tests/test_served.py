"""Generators behind a server: `transformers serve` with a toy on loopback, behind a proxy that fails requests as networks do."""

from __future__ import annotations

import _thread
import csv
import json
import multiprocessing
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import toys
import yaml
from answering_server import answering
from proxy import Proxy, Step, answers, broken, changed, cut, hangs, later, text, well

from workbench.component import build, canonical
from workbench.errors import BudgetError, InputError, StageFailedError
from workbench.experiment.components import Components
from workbench.experiment.config import ComponentSettings
from workbench.experiment.experiment import Experiment
from workbench.machine import resolve
from workbench.models import patience, probe
from workbench.models.answering import Generation
from workbench.models.endpoint import ATTEMPTS
from workbench.models.patience import Patience, Slots
from workbench.models.probe import CANARIES, Drift
from workbench.models.served import CALLED, EMPTY, OUTAGE, READY, REFUSED, SILENT, EndpointGenerator, most_tokens
from workbench.results.run import Run
from workbench.store.session import OPENED

MACHINE = resolve(device="cpu", precision="float32")
KEY = "sk-secret-0123456789"
PROBES, CANARY_DRAWS = 4, 2 * len(CANARIES)  # ready, one prompt whole and in halves; each canary twice at the first time


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `transformers serve` with the parrot."""
    with answering(tmp_path_factory.mktemp("served") / "log") as url:
        yield url


@pytest.fixture
def proxy(server: str) -> Iterator[Proxy]:
    found = Proxy(server)
    yield found
    found.close()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Instead of waiting, notes for how long."""
    found: list[float] = []
    monkeypatch.setattr(patience.Patience, "pause", lambda self, seconds: found.append(seconds))
    return found


def settings(proxy: Proxy, **values: Any) -> dict[str, Any]:
    given = {"endpoint": proxy.url, "model": toys.made(toys.parrot), "max_new_tokens": 6, "parameters": {"temperature": 0}}
    return {name: value for name, value in (given | values).items() if value is not None}


def dataset(limit: int) -> dict[str, Any]:
    facts = Path(toys.made(toys.facts))
    return {"folder": str(facts / "documents"), "questions": str(facts / "questions.jsonl"), "limit": limit}


def experiment(folder: Path, proxy: Proxy, set_: dict[str, Any] | None = None, **values: Any) -> Experiment:
    """Four configurations on six questions a split, answered by the server."""
    written: dict[str, Any] = {
        "experiment": "served",
        "dataset": dataset(6),
        "components": {"retrievers": {"bm25": {"kind": "bm25"}}, "generators": {"parrot": settings(proxy, **values)}},
        "axes": {
            "retriever": ["bm25"],
            "chunking": ["whole", {"words": 20}],
            "passages": [1, 2],
            "prompt": ["terse"],
            "generator": ["parrot"],
        },
        "metrics": {"rankings": ["recall@200w"], "select_by": "f1"},
    } | (set_ or {})
    folder.mkdir(exist_ok=True)
    (folder / "served.yaml").write_text(yaml.safe_dump(written))
    return Experiment.load(folder / "served.yaml", folder / "runs")


def generated(proxy: Proxy, prompts: list[str], **values: Any) -> list[Generation]:
    loaded = build(EndpointGenerator, settings(proxy, **values), "here").load(MACHINE)
    loaded.client.strict = False
    found = dict(one for batch in loaded.generate([[{"role": "user", "content": p}] for p in prompts]) for one in batch)
    return [found[i] for i in range(len(prompts))]


PROMPTS = [f"The {place} keeps a {kept}. What does the {place} keep?" for place, kept in zip(toys.PLACES, toys.KEPT, strict=True)]


def tables(run: Run) -> dict[str, bytes]:
    """The files of a run that hold what was measured."""
    names = ("results.csv", "leaderboard.csv", "comparisons.csv", "answers.jsonl", "configurations.csv", "retrieval.csv")
    return {name: (run.folder / name).read_bytes() for name in names}


# --- A run -----------------------------------------------------------------------------------------------------------


def test_what_is_sent_is_each_distinct_prompt_once_and_the_probe(proxy: Proxy, tmp_path: Path) -> None:
    one = experiment(tmp_path, proxy)
    run = one.compare()
    asked = [r for r in proxy.requests if text(r) not in CANARIES]
    prompts = {line["prompt"] for line in run.answers}
    repeated = run.manifest["repeated"]["parrot"]["answers"]
    assert len(proxy.requests) == len(prompts) + repeated + PROBES + CANARY_DRAWS
    assert len(asked) == len(prompts) + repeated + PROBES
    spent = {purpose: row.requests for (_, purpose), row in one.session.spending.spent.items()}
    assert spent == {"probe": PROBES, "canaries": CANARY_DRAWS, "answers": len(prompts), "draws": repeated}
    assert all(set(r) == {"path", "model", "messages", "max_tokens", "temperature"} for r in proxy.requests)


def test_a_warm_run_sends_nothing_and_reads_the_same_bytes(proxy: Proxy, tmp_path: Path) -> None:
    first = experiment(tmp_path, proxy).compare()
    sent = len(proxy.requests)
    # neither the address, nor how fast it is asked, nor the price is part of a key
    again = experiment(tmp_path, proxy, parallel=1, timeout=9, price={"input": 1, "output": 1}).compare()
    assert len(proxy.requests) == sent
    assert tables(again) == tables(first)


def test_each_of_many_servers_is_examined_once_in_a_session(proxy: Proxy, tmp_path: Path) -> None:
    generators = {f"g{n}": settings(proxy, revision=n) for n in range(OPENED + 1)}
    components = {"retrievers": {"bm25": {"kind": "bm25"}}, "generators": generators}
    axes = {"retriever": ["bm25"], "chunking": ["whole", {"words": 20}], "passages": [1, 2], "generator": list(generators)}
    one = experiment(tmp_path, proxy, {"components": components, "axes": axes})
    one.compare()
    assert sum(text(r) in CANARIES for r in proxy.requests) == CANARY_DRAWS * len(generators)


def test_the_probe_and_what_answered_stand_in_the_manifest(proxy: Proxy, tmp_path: Path) -> None:
    found = experiment(tmp_path, proxy).compare().manifest["served"]["parrot"]
    assert found["probe"]["parameters"] == ["max_tokens", "temperature"]
    assert found["probe"]["system"] and found["probe"]["usage"] and found["probe"]["whole"] > 50
    assert list(found["models"]) == [f"{toys.made(toys.parrot)}@main"]


def test_answers_are_stored_by_what_is_sent_and_the_revision_alone() -> None:
    one = EndpointGenerator(endpoint="http://a/v1", model="toy")
    moved = EndpointGenerator(endpoint="http://b/v1", model="toy", api_key_env="K", parallel=1, timeout=1, draws=3)
    assert moved.definition() == one.definition() and one.asked() == one.model_copy(update={"context": 4096}).asked()
    others: list[dict[str, Any]] = [{"model": "other"}, {"revision": 2}, {"parameters": {"seed": 1}}, {"max_new_tokens": 9}]
    assert len({json.dumps(one.model_copy(update=other).asked()) for other in [*others, {}]}) == 5
    assert one.arithmetic(MACHINE) == "served"


# --- Faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "waited"),
    [
        (answers(429, Retry_After="7"), (7, 7)),
        (lambda asked, forward: answers(429, Retry_After=later(40))(asked, forward), (20, 40)),
        (answers(500, {"error": {"message": "cuda"}}), (0.5, 0.63)),
        (answers(200, b"<html>a gateway</html>"), (0.5, 0.63)),
        (answers(200, {"choices": []}), (0.5, 0.63)),
        (cut, (0.5, 0.63)),
        (broken, (0.5, 0.63)),
    ],
    ids=["429", "429 at a time", "500", "html", "no choice", "cut", "broken"],
)
def test_a_fault_that_passes_is_asked_again(proxy: Proxy, waits: list[float], fault: Step, waited: tuple[float, float]) -> None:
    expected = generated(proxy, PROMPTS)
    proxy.requests.clear()
    proxy.script = [well, fault]
    assert generated(proxy, PROMPTS) == expected
    assert len(proxy.requests) == len(PROMPTS) + 1
    assert len(waits) == 1 and waited[0] <= waits[0] <= waited[1]


def test_a_request_that_hangs_is_asked_again(proxy: Proxy, waits: list[float]) -> None:
    proxy.script = [hangs(3)]
    assert [one.status for one in generated(proxy, PROMPTS[:2], timeout=1)] == ["ok", "ok"]
    assert len(proxy.requests) == 3


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (answers(307, Location="http://127.0.0.1:9/v1"), r"307.*\(to http://127.0.0.1:9/v1\); write the address it redirects to"),
        (answers(401, {"error": {"message": "no key"}}), "401 no key; name the environment variable"),
        (answers(404, {"error": {"message": "model not found"}}), "404 model not found; check the address"),
    ],
    ids=["redirect", "key", "model"],
)
def test_what_no_prompt_can_mend_ends_the_run(proxy: Proxy, waits: list[float], fault: Step, message: str) -> None:
    proxy.always = fault
    with pytest.raises(InputError, match=message):
        generated(proxy, PROMPTS)
    assert waits == []


def test_a_page_instead_of_an_answer_is_refused_by_the_probe(proxy: Proxy, tmp_path: Path, waits: list[float]) -> None:
    proxy.always = answers(200, b"<html>welcome</html>")
    with pytest.raises(InputError, match="answers no JSON: '<html>welcome</html>'; check the address"):
        experiment(tmp_path, proxy).compare()
    assert len(proxy.requests) == 1


def said(message: Any, finish: str = "stop", **more: Any) -> Step:
    """An answer in OpenAI's protocol that holds this message."""
    counts = {"prompt_tokens": 5, "completion_tokens": 1}
    return answers(200, {"choices": [{"message": message, "finish_reason": finish}], "model": "m", "usage": counts} | more)


@pytest.mark.parametrize(
    "fault",
    [said(None), said("text"), said({"content": "x"}, usage=[1]), answers(200, b"[" * 100_000)],
    ids=["null", "no object", "usage", "deep"],
)
def test_an_answer_of_another_shape_is_asked_again_and_never_ends_the_program(
    proxy: Proxy, waits: list[float], fault: Step
) -> None:
    expected = generated(proxy, PROMPTS)
    proxy.script = [well, fault]
    assert generated(proxy, PROMPTS) == expected and len(waits) == 1


@pytest.mark.parametrize("count", ["5", 5.5, -1, True, None])
def test_what_is_no_number_of_tokens_was_not_said(proxy: Proxy, count: Any) -> None:
    proxy.always = said({"content": "x"}, usage={"prompt_tokens": count, "completion_tokens": 1})
    (found,) = generated(proxy, ["a"])
    assert (found.text, found.prompt_tokens) == ("x", 0) and found.served and found.served["usage"] == "not said"


@pytest.mark.parametrize(
    ("message", "finish", "status"),
    [
        ({"content": None, "refusal": "I cannot"}, "stop", REFUSED),
        ({"content": None, "tool_calls": [{}]}, "tool_calls", CALLED),
        ({"content": ""}, "length", EMPTY),
        ({"content": ""}, "stop", "ok"),
    ],
)
def test_an_answer_without_text_is_no_abstention_where_its_end_says_why(
    proxy: Proxy, message: dict[str, Any], finish: str, status: str
) -> None:
    proxy.always = said(message, finish)
    assert generated(proxy, ["a"])[0].status == status


def test_half_a_character_is_stored_as_a_sign_for_it(proxy: Proxy, tmp_path: Path) -> None:
    proxy.always = only("mill", answers(200, b'{"choices": [{"message": {"content": "a \\ud800 b"}}], "model": "\\udfff"}'))
    run = experiment(tmp_path, proxy).compare()
    assert "a \ufffd b" in {line["reply"] for line in run.answers}
    proxy.always = only("mill", answers(400, b'{"error": {"message": "no \\ud800"}}'))
    run = experiment(tmp_path, proxy, revision=2).compare()
    assert set(run.manifest["failures"]) == {REFUSED}


def only(word: str, fault: Step) -> Step:
    """A fault for the prompts that hold a word."""
    return lambda asked, forward: fault(asked, forward) if word in text(asked) else forward()


def test_a_prompt_without_an_answer_is_a_failed_item_while_others_are_answered(proxy: Proxy, waits: list[float]) -> None:
    proxy.always = only("harbour", answers(500))
    found = generated(proxy, PROMPTS)
    assert [one.status for one in found].count(SILENT) == 1 and found[2].status == SILENT
    proxy.always = only("mill", answers(400, {"error": "not this"}))
    assert [one.status for one in generated(proxy, PROMPTS)][:3] == ["ok", REFUSED, "ok"]


@pytest.mark.parametrize("fails", [1, 3])
def test_prompts_of_a_server_that_was_down_for_a_while_are_asked_once_more(proxy: Proxy, waits: list[float], fails: int) -> None:
    expected = generated(proxy, PROMPTS)
    proxy.requests.clear()
    proxy.script = [answers(503)] * ATTEMPTS * fails
    assert generated(proxy, PROMPTS, parallel=1) == expected
    assert len(proxy.requests) == len(PROMPTS) + ATTEMPTS * fails + (fails >= OUTAGE)


def test_a_failed_item_stays_in_the_mean_and_is_counted(proxy: Proxy, tmp_path: Path, waits: list[float]) -> None:
    one = experiment(tmp_path, proxy)
    proxy.always = only(one.session.dataset.split("dev")[0].text, answers(400))
    run = one.compare()
    assert set(run.manifest["failures"]) == {REFUSED} and {row.n for row in run.leaderboard if row.metric == "f1"} == {6}


def test_a_server_that_dies_ends_the_run_and_nothing_stored_is_asked_again(
    proxy: Proxy, tmp_path: Path, waits: list[float]
) -> None:
    proxy.script = [well] * 40
    proxy.always = answers(503)
    with pytest.raises(StageFailedError, match="503"):
        experiment(tmp_path / "a", proxy).compare()
    assert "503" in ended(tmp_path / "a")[1]["reason"]
    before = {text(r) for r in proxy.requests[:40]}
    proxy.requests.clear()
    proxy.always = None
    run = experiment(tmp_path / "a", proxy).compare()
    again = [text(r) for r in proxy.requests if text(r) in before]
    known = {*CANARIES, *(" ".join(m["content"] for m in part) for part in (READY,))}
    # a stored prompt may come again for the noise floor, and as the longest in the probe
    assert len([t for t in again if t not in known]) <= run.manifest["repeated"]["parrot"]["answers"] + 3
    assert tables(run) == tables(experiment(tmp_path / "b", proxy).compare())


def test_no_wait_is_longer_than_a_minute(proxy: Proxy, waits: list[float]) -> None:
    proxy.always = answers(429, Retry_After="3600")
    with pytest.raises(StageFailedError, match="asks to wait 3600 s"):
        generated(proxy, PROMPTS)
    assert waits == []


def test_a_busy_server_is_asked_by_fewer_requests_at_a_time() -> None:
    slots = Slots(8)
    slots.busy()
    assert slots.now == 4
    for _ in range(4):
        slots.answered()
    assert slots.now == 5
    for _ in range(9):
        slots.busy()
    assert slots.now == 1


def test_the_key_is_sent_and_stands_nowhere(proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    monkeypatch.setenv("TOY_KEY", f"{KEY}\n")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another")
    says = {"choices": [{"message": {"content": f"your key is {KEY}"}, "finish_reason": "stop"}], "model": KEY, "usage": None}
    proxy.always = only("mill", answers(200, says))
    one = experiment(tmp_path, proxy, api_key_env="TOY_KEY")
    run = one.compare()
    assert set(proxy.keys) == {f"Bearer {KEY}"}
    assert "your key is ***" in {line["reply"] for line in run.answers}
    proxy.always = answers(401, {"error": {"message": f"the key {KEY} is wrong"}})
    with pytest.raises(InputError, match=r"the key \*\*\* is wrong.*TOY_KEY"):
        experiment(tmp_path, proxy, api_key_env="TOY_KEY", revision=2).compare()
    said = "".join(capfd.readouterr())
    held = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(held) > 20 and not any(KEY.encode() in found for found in [*held, said.encode()])


def test_no_key_is_sent_where_none_is_named(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another")
    generated(proxy, PROMPTS[:1])
    assert proxy.keys == [None]


def test_nothing_that_the_environment_holds_for_another_server_is_sent(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_KEY", KEY)
    monkeypatch.setenv("OPENAI_ORG_ID", "org-mine")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-mine")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer sk-another")
    generated(proxy, PROMPTS[:1], api_key_env="TOY_KEY")
    generated(proxy, PROMPTS[:1])
    assert proxy.keys == [f"Bearer {KEY}", None]
    assert not any("mine" in value for headers in proxy.headers for value in headers.values())


def test_a_word_in_place_of_a_key_is_left_in_answers(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_KEY", "lamp")
    proxy.always = said({"content": "a lamp"})
    assert generated(proxy, ["x"], api_key_env="TOY_KEY")[0].text == "a lamp"


@pytest.mark.parametrize(
    ("name", "value"), [("ALL_PROXY", "foo://a:1"), ("HTTP_PROXY", "http://a:port"), ("SSL_CERT_FILE", "/nowhere.pem")]
)
def test_what_the_environment_says_of_the_network_is_named_where_it_cannot_be(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=f"no request can be sent to .*check the environment variables .*{name}"):
        build(EndpointGenerator, settings(proxy), "here").load(MACHINE)


# --- What the probe finds --------------------------------------------------------------------------------------------


def cuts_at(limit: int) -> Step:
    """A server that reads so many tokens and says nothing of the rest."""

    def step(asked: dict[str, Any], forward: Any) -> Any:
        status, headers, content = forward()
        found = json.loads(content)
        found["usage"]["prompt_tokens"] = min(limit, found["usage"]["prompt_tokens"])
        return status, headers, json.dumps(found).encode()

    return step


def test_a_server_that_cuts_prompts_is_found(proxy: Proxy, tmp_path: Path) -> None:
    loaded = build(EndpointGenerator, settings(proxy), "here").load(MACHINE)
    long = [{"role": "user", "content": " ".join(PROMPTS * 4)}]
    assert probe.examined(loaded, [long])["whole"] > 800
    proxy.always = cuts_at(512)
    with pytest.raises(InputError, match=r"drops a part of long prompts.*counts 512 tokens.*num_ctx"):
        probe.examined(loaded, [long])
    assert probe.examined(loaded, [[{"role": "user", "content": PROMPTS[0]}]])["whole"] < 512


def test_many_short_turns_are_not_taken_for_a_prompt_that_is_cut(proxy: Proxy) -> None:
    def counts(asked: dict[str, Any], forward: Any) -> Any:
        tokens = 3 + sum(5 + len(message["content"].split()) for message in asked["messages"])
        return said({"content": "x"}, usage={"prompt_tokens": min(limit, tokens), "completion_tokens": 1})(asked, forward)

    proxy.always = counts
    solved = [{"role": role, "content": "a few words"} for _ in range(8) for role in ("user", "assistant")]
    prompt = [{"role": "system", "content": "Be brief."}, *solved, {"role": "user", "content": " ".join(PROMPTS * 4)}]
    loaded, limit = build(EndpointGenerator, settings(proxy), "here").load(MACHINE), 10_000
    whole = probe.examined(loaded, [prompt])["whole"]
    assert whole and whole > 400
    assert all({m["role"] for m in r["messages"]} == {"system", "user"} for r in proxy.requests[-2:])
    limit = whole // 2
    with pytest.raises(InputError, match="drops a part of long prompts"):
        probe.examined(loaded, [prompt])


@pytest.mark.parametrize("name", ["temperature", "max_tokens"])
def test_a_parameter_that_a_server_refuses_is_named(proxy: Proxy, tmp_path: Path, name: str) -> None:
    proxy.always = lambda asked, forward: answers(400, {"error": "unsupported"})(asked, forward) if name in asked else forward()
    with pytest.raises(InputError, match=f"refuses the parameter {name}: it accepts the same request without it. Leave it out"):
        experiment(tmp_path, proxy).compare()


def test_a_server_that_refuses_system_turns_is_found(proxy: Proxy, tmp_path: Path) -> None:
    def step(asked: dict[str, Any], forward: Any) -> Any:
        return answers(400)(asked, forward) if asked["messages"][0]["role"] == "system" else forward()

    proxy.always = step
    loaded = build(EndpointGenerator, settings(proxy), "here").load(MACHINE)
    assert not probe.examined(loaded, [[{"role": "user", "content": "x"}]])["system"]
    with pytest.raises(InputError, match="refuses system turns"):
        probe.examined(loaded, [READY])


def test_a_server_that_counts_no_tokens_is_said(proxy: Proxy, tmp_path: Path) -> None:
    proxy.always = changed(usage=None)
    run = experiment(tmp_path, proxy).compare()
    assert not run.manifest["served"]["parrot"]["probe"]["usage"]
    assert any("counts no tokens" in note for note in run.manifest["notes"])


def test_another_model_half_way_is_said_and_not_compared(proxy: Proxy, tmp_path: Path) -> None:
    proxy.script = [well] * (PROBES + CANARY_DRAWS + 4)
    proxy.always = changed(model="another")
    run = experiment(tmp_path, proxy).compare()
    assert set(run.manifest["served"]["parrot"]["models"]) == {f"{toys.made(toys.parrot)}@main", "another"}
    assert any("two models" in note and "another" in note for note in run.manifest["notes"])
    assert {row.metric for row in run.comparisons if row.split == "dev"} == {"recall@200w"}
    assert {row.metric for row in run.effects} == {"recall@200w"}
    assert "f1" in {row.metric for row in run.comparisons if row.split == "test"}  # answered by one model alone


def test_canaries_find_another_model(proxy: Proxy, tmp_path: Path) -> None:
    first = experiment(tmp_path, proxy)
    first.compare()
    proxy.requests.clear()
    # another prompt has to be asked, so the server is examined, and it answers as before
    same = experiment(tmp_path, proxy, {"baseline": {"prompt": "cited"}, "axes": AXES | {"prompt": ["cited"]}})
    same.compare()
    assert sum(text(r) in CANARIES for r in proxy.requests) == len(CANARIES)
    assert not any("something else" in note for note in same.session.notes)
    says = {"message": {"content": "Something else.", "role": "assistant"}, "finish_reason": "stop", "index": 0}
    proxy.always = changed(choices=[says])
    other = experiment(tmp_path, proxy, {"axes": AXES | {"prompt": ["cited"], "passages": [3]}})
    other.compare()
    assert any("serves something else than before: it answers 8 of 8" in note for note in other.session.notes)


AXES = {"retriever": ["bm25"], "chunking": [{"words": 20}], "passages": [1], "generator": ["parrot"]}


def test_drift_is_shown_only_where_chance_does_not_explain_it() -> None:
    assert [Drift(8, 0, changed).shown for changed in range(9)] == [False] * 4 + [True] * 5
    assert not Drift(8, 8, 8).shown and not Drift(0, 0, 0).shown and not Drift(8, 4, 6).shown


# --- Settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lora": {"rank": 4}}, "lora: the weights are a server's"),
        ({"precision": "int8"}, "precision: the weights are a server's"),
        ({"parameters": {"max_tokens": 3}}, "max_tokens cannot be named here: write it as max_new_tokens"),
        ({"dialect": "anthropic"}, "max_new_tokens: servers of the dialect anthropic refuse prompts without it"),
        ({"dialect": "other"}, "allowed: 'openai' or 'anthropic'"),
        ({"context": 200}, "none are left for a prompt"),
        ({"max_new_tokens": 3, "parameters": {"max_completion_tokens": 3}}, "name one of them"),
        ({"endpoint": "http://a:key@b/v1"}, "a key belongs into the environment"),
        ({"endpoint": "http://a:port/v1"}, "no request can be sent to this one"),
        ({"endpoint": "http://a:99999/v1"}, "no request can be sent to this one"),
        ({"endpoint": "http://a..b/v1"}, "no request can be sent to this one"),
        ({"endpoint": "http://a /v1"}, "allowed: an address such as"),
    ],
)
def test_settings_that_cannot_be_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(EndpointGenerator, {"endpoint": "http://a/v1", "model": "toy"} | values, "here")


def test_no_probabilities_are_asked_of_a_server() -> None:
    given = {"generators": {"far": {"endpoint": "http://a/v1", "model": "m"}}}
    given |= {"rerankers": {"likely": {"kind": "likelihood", "generator": "far"}}}
    with pytest.raises(InputError, match=r"rerankers\.likely\.generator: a server gives no probabilities"):
        Components(ComponentSettings(**given), Path())


def test_one_model_at_two_addresses_needs_a_revision() -> None:
    two = {name: {"endpoint": f"http://{name}/v1", "model": "m"} for name in ("a", "b")}
    with pytest.raises(InputError, match="give each a revision, since nothing else tells their answers apart"):
        Components(ComponentSettings(generators=two), Path())


def test_passages_that_do_not_fit_into_the_stated_context_are_left_out() -> None:
    one = EndpointGenerator(endpoint="http://a/v1", model="m", context=400, max_new_tokens=100)
    short, long = ([{"role": "user", "content": "x" * n}] for n in (560, 600))
    assert most_tokens(short) == 296 and one.fits(short) and not one.fits(long)


# --- The other dialect -----------------------------------------------------------------------------------------------


def anthropic(asked: dict[str, Any], forward: Any) -> Any:
    """A server of the dialect, which answers with the last word it is told."""
    said = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": asked["messages"][-1]["content"].split()[-1]}]
    usage = {"input_tokens": 5, "output_tokens": 2, "cache_read_input_tokens": 4}
    return answers(200, {"content": said, "stop_reason": "end_turn", "model": "opus-1", "usage": usage})(asked, forward)


def test_anthropics_dialect_is_spoken(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("anthropic")
    monkeypatch.setenv("TOY_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "another")
    proxy.always = anthropic
    values = settings(proxy, dialect="anthropic", parameters={"top_k": 1}, api_key_env="TOY_KEY")
    loaded = build(EndpointGenerator, values, "here").load(MACHINE)
    ((_, found),) = next(iter(loaded.generate([[{"role": "system", "content": "be brief"}, {"role": "user", "content": "a b"}]])))
    assert (found.text, found.prompt_tokens, found.new_tokens, found.status) == ("b", 9, 2, "ok")
    assert found.served is not None and found.served["model"] == "opus-1"
    (sent,) = proxy.requests
    assert sent == {
        "path": "/v1/messages",
        "model": values["model"],
        "max_tokens": 6,
        "top_k": 1,
        "system": "be brief",
        "messages": [{"role": "user", "content": "a b"}],
    }
    assert [(key or "").removeprefix("Bearer ") for key in proxy.keys] == [KEY]
    proxy.script = [answers(529, {"error": {"message": "overloaded"}})]
    monkeypatch.setattr(Patience, "pause", lambda self, seconds: None)
    assert len(list(loaded.generate([[{"role": "user", "content": "c"}]]))) == 1 and len(proxy.requests) == 3


def test_a_refusal_by_a_server_of_anthropics_dialect_is_said(proxy: Proxy) -> None:
    pytest.importorskip("anthropic")
    proxy.always = answers(400, {"error": {"message": "Your credit balance is too low"}})
    loaded = build(EndpointGenerator, settings(proxy, dialect="anthropic"), "here").load(MACHINE)
    with pytest.raises(InputError, match="400 Your credit balance is too low"):
        probe.examined(loaded, [READY])


def test_no_other_key_is_sent_to_a_server_of_anthropics_dialect(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("anthropic")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "another")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "another")
    proxy.always = anthropic
    generated(proxy, ["a"], dialect="anthropic")
    assert proxy.keys == [None]


# --- Ended and resumed -----------------------------------------------------------------------------------------------


PRICE = {"input": 1.0, "output": 2.0, "currency": "EUR"}


def test_a_plan_says_what_it_costs_before_anything_is_sent(proxy: Proxy, tmp_path: Path, capsys: Any) -> None:
    from workbench.cli import app

    one = experiment(tmp_path, proxy, price=PRICE)
    total = one.planned_costs().total
    assert total.currency == "EUR" and total.money > 0 and "EUR" in total.sentence(searched=False)
    app(["plan", str(tmp_path / "served.yaml"), "--runs", str(tmp_path / "runs")], standalone_mode=False)
    assert "EUR" in capsys.readouterr().out
    assert proxy.requests == []


def test_money_cannot_be_limited_without_a_price(proxy: Proxy, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"budget\.money: what components\.generators\.parrot costs is not known"):
        experiment(tmp_path, proxy, {"budget": {"money": 1}})
    two = {name: settings(proxy, price=PRICE | {"currency": name}, revision=name) for name in ("EUR", "USD")}
    components = {"retrievers": {"bm25": {"kind": "bm25"}}, "generators": two}
    with pytest.raises(InputError, match="several currencies"):
        experiment(tmp_path, proxy, {"components": components, "axes": AXES | {"generator": ["EUR"]}}).planned_costs()


def test_what_answers_cost_is_a_table_and_an_axis_of_the_figure(proxy: Proxy, tmp_path: Path) -> None:
    from workbench.plots import save_figures

    run = experiment(tmp_path, proxy, price=PRICE).compare()
    spent = run.manifest["spent"][toys.made(toys.parrot)]["answers"]
    assert spent["money"] == pytest.approx((spent["prompt_tokens"] + 2 * spent["new_tokens"]) / 1e6)
    lines = [line for line in run.answers if line["split"] == "dev"]
    for row in (row for row in run.costs if row.split == "dev"):
        own = [line for line in lines if line["configuration"] == row.configuration]
        paid = sum(line["prompt_tokens"] + 2 * line["new_tokens"] for line in own) / len(own) / 1e6
        assert row.money == pytest.approx(paid, abs=1e-6) and row.currency == "EUR" and row.n == len(own)
    assert any(path.name == "pareto.png" for path in save_figures(run, tmp_path))


def ended(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The folder of the run that was ended, and what it says."""
    (said,) = folder.glob("runs/served/*/stopped.json")
    return said.parent, json.loads(said.read_text())


def test_a_budget_at_two_fifths_leaves_the_same_questions_for_all_and_is_resumed_to_the_same_bytes(
    proxy: Proxy, tmp_path: Path
) -> None:
    whole = experiment(tmp_path / "whole", proxy, set_={"report": {"of": "all"}}, parallel=1)
    expected = whole.compare()
    total = whole.session.spending.total()
    tokens = int(0.4 * (total.prompt_tokens + total.new_tokens))
    limited = {"report": {"of": "all"}, "budget": {"tokens": tokens}}
    one = experiment(tmp_path / "cut", proxy, limited, parallel=1)
    with pytest.raises(BudgetError, match=f"the budget of {tokens:,} tokens is reached"):
        one.compare()
    total = one.session.spending.total()
    assert 0.2 * tokens < total.prompt_tokens + total.new_tokens <= tokens
    folder, said = ended(tmp_path / "cut")
    assert sum(0 < n < 6 for n in said["answered"].values()) >= 1
    rows = list(csv.DictReader((folder / "results.csv").open()))
    questions: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        if row["metric"] == "f1":
            questions.setdefault((row["split"], row["configuration"]), set()).add(row["query_id"])
    for split, n in said["answered"].items():
        each = [found for (other, _), found in questions.items() if other == split]
        assert all(found == each[0] and len(found) == n for found in each)
        assert not each or len(each) == 4
    leaderboard = list(csv.DictReader((folder / "leaderboard.csv").open()))
    assert {int(row["n"]) for row in leaderboard if row["metric"] == "f1"} == {n for n in said["answered"].values() if n}
    resumed = experiment(tmp_path / "cut", proxy, {"report": {"of": "all"}}, parallel=1).compare()
    assert tables(resumed) == tables(expected)


def test_a_small_budget_goes_on_prompt_by_prompt(proxy: Proxy, tmp_path: Path) -> None:
    """Each session gets further, even where what is asked next goes through one queue and is many times the budget."""
    made = {"made-up": {"kind": "hyde", "generator": "parrot", "max_new_tokens": 6}}
    components = {"retrievers": {"bm25": {"kind": "bm25"}}, "generators": {"parrot": settings(proxy)}, "expanders": made}
    given = {"components": components, "axes": AXES | {"expansion": ["made-up"]}, "budget": {"tokens": 3000}}
    sessions = 0
    while sessions < 7:
        sessions += 1
        one = experiment(tmp_path, proxy, given)
        try:
            one.index()
            one.compare()
            break
        except BudgetError:
            total = one.session.spending.total()
            assert total.prompt_tokens + total.new_tokens <= 3000
            assert (
                one.session.counts()["answers"].distinct and one.session.spending.of(toys.made(toys.parrot), "answers").requests
            )
    assert 1 < sessions < 7


def test_where_no_tokens_are_counted_the_budget_counts_the_most_there_can_be(proxy: Proxy, tmp_path: Path) -> None:
    proxy.always = changed(usage=None)
    one = experiment(tmp_path, proxy, {"budget": {"tokens": 5000}})
    with pytest.raises(BudgetError):
        one.compare()
    assert 3000 < one.session.spending.total().prompt_tokens <= 5000


def test_the_probe_and_the_canaries_are_within_the_budget(proxy: Proxy, tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match="0 are spent"):
        experiment(tmp_path, proxy, {"budget": {"tokens": 600}}).compare()
    assert proxy.requests == []


def test_a_key_that_is_refused_half_way_leaves_tables(proxy: Proxy, tmp_path: Path) -> None:
    proxy.script = [well] * (PROBES + CANARY_DRAWS + 12)
    proxy.always = answers(401, {"error": "expired"})
    with pytest.raises(InputError, match="401 expired"):
        experiment(tmp_path, proxy, parallel=1).compare()
    assert "401 expired" in ended(tmp_path)[1]["reason"]


def test_canaries_that_were_not_asked_twice_are_begun_again(proxy: Proxy, tmp_path: Path) -> None:
    proxy.script = [well] * (PROBES + len(CANARIES))
    proxy.always = answers(401)
    with pytest.raises(InputError):
        experiment(tmp_path, proxy).compare()
    proxy.always = None
    proxy.requests.clear()
    experiment(tmp_path, proxy).compare()
    assert sum(text(r) in CANARIES for r in proxy.requests) == CANARY_DRAWS


def test_an_interruption_leaves_tables_and_is_resumed_to_the_same_bytes(proxy: Proxy, tmp_path: Path) -> None:
    expected = experiment(tmp_path / "whole", proxy).compare()

    def interrupts(asked: dict[str, Any], forward: Any) -> Any:
        _thread.interrupt_main()
        return forward()

    for attempt in range(3):  # Python loses an interruption that comes while it removes an object
        folder = tmp_path / f"ended-{attempt}"
        proxy.script = [*[well] * (PROBES + CANARY_DRAWS + 12), interrupts]
        try:
            experiment(folder, proxy, parallel=1).compare()
        except KeyboardInterrupt:
            break
    else:
        pytest.fail("none of three interruptions ended a run")
    said = ended(folder)[1]
    assert said["reason"] == "interrupted"
    assert any(0 < n < said["questions"][split] for split, n in said["answered"].items())
    assert tables(experiment(folder, proxy).compare()) == tables(expected)


def test_a_question_is_answered_by_its_status_where_a_served_generator_is_down(proxy: Proxy, waits: list[float]) -> None:
    loaded = build(EndpointGenerator, settings(proxy), "here").load(MACHINE)
    proxy.always = answers(401)
    (found,) = loaded.written([{"role": "user", "content": "x"}])
    assert found.status == SILENT and found.served is not None and "401" in found.served["reason"]


def cli(folder: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "workbench.cli", "run", folder / "served.yaml", "--runs", folder / "runs", "--no-notebooks"]
    return subprocess.Popen([*command, *more], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_second_interruption_does_not_wait_for_a_server_that_hangs(proxy: Proxy, tmp_path: Path) -> None:
    experiment(tmp_path, proxy, timeout=60)
    proxy.script = [well] * (PROBES + CANARY_DRAWS + 1)
    proxy.always = hangs(60)
    process = cli(tmp_path)
    while len(proxy.requests) < PROBES + CANARY_DRAWS + 5:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    told, _ = process.communicate(timeout=30)
    assert process.returncode == 130 and "interrupted" in told


@pytest.mark.slow
def test_a_budget_ends_the_command_with_status_3(proxy: Proxy, tmp_path: Path) -> None:
    experiment(tmp_path, proxy, {"budget": {"tokens": 5000}})
    process = cli(tmp_path)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 3 and "the budget of 5,000 tokens is reached" in said and "the same command goes on" in said
    process = cli(tmp_path, "--set", "budget.tokens=null")
    assert process.wait(timeout=120) == 0


@pytest.mark.slow
def test_ten_kills_repeat_no_more_than_what_was_under_way(proxy: Proxy, tmp_path: Path) -> None:
    parallel, more = 3, {"dataset": dataset(12)}
    whole = experiment(tmp_path / "whole", proxy, more, parallel=parallel)
    expected = whole.compare()
    writer = whole.selected_on[0].answers.writer
    stages = [whole.planner.stages(c, split).answers for c in whole.configurations for split in ("dev", "test")]
    prompts = {prompt.text for stage in stages for prompt in stage.prompts(whole.session)}
    proxy.always = hangs(0.05)
    one, kills = experiment(tmp_path / "killed", proxy, more, parallel=parallel), 0
    apart = multiprocessing.get_context("forkserver")
    apart.set_forkserver_preload(["workbench.experiment.experiment", "workbench.retrieval.bm25", "ir_measures", "openai"])
    while True:
        unstored = set(one.session.store.items.missing(writer.namespace, sorted(prompts)))
        proxy.requests.clear()
        process = apart.Process(target=compared, args=(tmp_path / "killed",))
        process.start()
        while process.is_alive():
            time.sleep(0.002)
            if kills < 10 and len(questions(proxy, prompts)) >= 6:
                process.kill()
                process.join()
                kills += 1
                break
        asked = questions(proxy, prompts)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        # the probe sends the longest prompt whole and in halves, each time a longer one comes
        halves = sum(canonical(r["messages"]) not in prompts and r["messages"] != READY for r in list(proxy.requests))
        probes = (halves - sum(text(r) in CANARIES for r in list(proxy.requests)) + 1) // 2
        assert sum(prompt not in unstored for prompt in asked) <= probes  # nothing stored is asked again
        lost = set(asked) & set(one.session.store.items.missing(writer.namespace, sorted(prompts)))
        assert len(lost) <= parallel + probes
    assert kills == 10
    run = Run.open(next(path.parent for path in (tmp_path / "killed").glob("runs/served/*/manifest.json")))
    assert tables(run) == tables(expected)


def compared(folder: Path) -> None:
    Experiment.load(folder / "served.yaml", folder / "runs").compare()


def questions(proxy: Proxy, prompts: set[str]) -> list[str]:
    """Requests that are the experiment's own prompts, in the form that they are stored by."""
    return [found for r in list(proxy.requests) if (found := canonical(r["messages"])) in prompts]


# --- Computed again --------------------------------------------------------------------------------------------------


def test_a_replay_and_the_gate_allow_for_the_noise_floor_and_nothing_else(proxy: Proxy, tmp_path: Path) -> None:
    from workbench.pipeline import Pipeline
    from workbench.serving.gate import gate

    run = experiment(tmp_path, proxy).compare()
    run.promote()
    query_id = run.answers[0]["query_id"]
    pipeline = Pipeline.open(run)
    outcome = pipeline.replay(query_id)
    assert outcome.same and outcome.chance == "0 of 6 answers of the server differed when it was asked again"
    assert gate(pipeline).endswith("as recorded")
    says = {"message": {"content": "Something else.", "role": "assistant"}, "finish_reason": "stop", "index": 0}
    proxy.always = changed(choices=[says])
    outcome = pipeline.replay(query_id)
    assert outcome.same and "reply" in outcome.differing  # one of one against none of six: chance explains it
    assert "its answer is another: 0 of 6" in gate(pipeline)
    assert probe.beyond_chance(0, 30, 1, 1) and not probe.beyond_chance(1, 30, 1, 1) and not probe.beyond_chance(0, 30, 0, 1)
