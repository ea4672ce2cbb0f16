"""Fine-tuning in depth, on a toy model: repeatable, resumable, watched on held-back examples, merged and unmerged."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import toys
import yaml

from workbench import Experiment
from workbench.errors import InputError
from workbench.experiment import adapters, notebook_tables
from workbench.experiment.config import read_settings
from workbench.machine import resolve
from workbench.models import lora, training
from workbench.models.chat import load_model
from workbench.models.decoding import MIN_ROWS
from workbench.models.generator import Generator
from workbench.models.lora import Example, Lora
from workbench.models.training import Evaluation, Watch
from workbench.store.progress import Progress, Task

EXACT = resolve(device="cpu", precision="float32")
EXAMPLES = [
    Example(({"role": "user", "content": f"{'Numbers: ' * (i % 4)}{i} {i + 1} {i + 2}. Which comes next?"},), f"it is {i + 3}")
    for i in range(12)
]
SETTINGS = {"rank": 4, "batch_size": 3, "epochs": 3, "checkpoint_every": 4, "learning_rate": 0.01}
WATCHED = SETTINGS | {"held_back": 0.25, "evaluate_every": 2}


class KilledError(Exception):
    """Stands for a kill: nothing can be saved."""


def train(model: str, folder: Path, work: Path | None = None, stop_after: int | None = None, **settings: Any) -> list[int]:
    """Trains on `EXAMPLES`; returns the numbers of the steps made; `stop_after` ends it between two steps."""
    folder.mkdir(parents=True)
    work = work or folder.with_name(f"{folder.name}-work")
    work.mkdir(parents=True, exist_ok=True)
    steps = []

    def on_step(step: training.Step, total: int) -> None:
        steps.append(step.step)
        if step.step == stop_after:
            raise KilledError

    lora.train(Lora(**SETTINGS | settings), model, EXAMPLES, EXACT, 0, folder, work, on_step)
    return steps


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def table(path: Path) -> list[dict[str, float]]:
    with path.open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, toy_model: str) -> Path:
    folder = tmp_path_factory.mktemp("lora") / "whole"
    train(toy_model, folder, **WATCHED)
    return folder


def test_two_trainings_with_one_seed_give_the_same_bytes(trained: Path, tmp_path: Path, toy_model: str) -> None:
    train(toy_model, tmp_path / "again", **WATCHED)
    assert contents(tmp_path / "again") == contents(trained)
    assert set(contents(trained)) == {"adapter_model.safetensors", "adapter_config.json", "training.csv", "held_back.csv"}


@pytest.mark.parametrize("killed_after,goes_on_after", [(3, 2), (5, 4), (8, 8)])
def test_a_watched_training_killed_anywhere_ends_in_the_same_bytes(
    trained: Path, tmp_path: Path, toy_model: str, killed_after: int, goes_on_after: int
) -> None:
    with pytest.raises(KilledError):
        train(toy_model, tmp_path / "killed", tmp_path / "work", stop_after=killed_after, **WATCHED)
    resumed = train(toy_model, tmp_path / "resumed", tmp_path / "work", **WATCHED)
    # a checkpoint at every fourth step and at every look; the step that killed had not been saved
    assert resumed[0] <= goes_on_after + 1
    assert contents(tmp_path / "resumed") == contents(trained)


def test_the_weights_kept_are_those_with_the_lowest_loss_on_what_was_held_back(
    trained: Path, tmp_path: Path, toy_model: str
) -> None:
    from safetensors.torch import load_file

    looks = table(trained / training.HELD_BACK)
    assert [row["step"] for row in looks] == [0, 2, 4, 6, 8, 9]
    best = min(looks, key=lambda row: row["loss"])
    loop = lora._GeneratorTraining(Lora(**WATCHED), toy_model, EXAMPLES, EXACT, 0)
    assert loop.held_back_loss() == pytest.approx(looks[0]["loss"], abs=1e-5)
    state = {
        name.replace(".weight", ".default.weight"): t for name, t in load_file(trained / "adapter_model.safetensors").items()
    }
    assert set(state) == set(loop.state())
    loop.restore(state)
    assert loop.held_back_loss() == pytest.approx(best["loss"], abs=1e-5) and best["loss"] < looks[0]["loss"]


def test_held_back_examples_are_chosen_by_the_seed_and_never_learned_from(toy_model: str) -> None:
    first, other = (lora.held_back(Lora(held_back=0.25), 12, seed) for seed in (0, 1))
    assert first == lora.held_back(Lora(held_back=0.25), 12, 0) != other and len(first) == len(other) == 3
    loop = lora._GeneratorTraining(Lora(**WATCHED), toy_model, EXAMPLES, EXACT, 0)
    assert len(loop.rows) == 9 and len(loop.held_rows) == 3
    assert not {str(row) for row in loop.rows} & {str(row) for row in loop.held_rows}
    assert {i for step in loop.order for i in step} == set(range(9))
    assert lora.held_back(Lora(), 12, 0) == set() and len(lora.held_back(Lora(held_back=0.01), 12, 0)) == 1
    with pytest.raises(InputError, match=r"lora.held_back: received 0.9, which leaves none of 2 examples"):
        lora.held_back(Lora(held_back=0.9), 2, 0)


def test_a_training_that_no_longer_gets_better_ends(tmp_path: Path, toy_model: str) -> None:
    """A learning rate too small to change any loss: the first look stays the best, and patience runs out."""
    steps = train(toy_model, tmp_path / "stopped", **WATCHED | {"learning_rate": 1e-30, "patience": 2})
    assert steps == [1, 2, 3, 4] and len(table(tmp_path / "stopped" / training.LOSSES)) == 4
    looks = [row["loss"] for row in table(tmp_path / "stopped" / training.HELD_BACK)]
    assert len(looks) == 3 and len(set(looks)) == 1


@pytest.mark.parametrize(
    "losses,over", [([3.0], False), ([3, 2, 2.5], False), ([3, 2, 2.5, 2.1], True), ([1, 2, 2], True), ([2, 2, 2], True)]
)
def test_patience_counts_from_the_first_of_the_lowest(losses: list[float], over: bool) -> None:
    assert Watch(every=1, patience=2).over([Evaluation(i, loss) for i, loss in enumerate(losses)]) is over


def test_the_rate_rises_over_the_share_of_steps_asked_for() -> None:
    rates = [training.learning_rate(1.0, step, 20, 0.25) for step in range(20)]
    assert rates[:6] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0]) and rates[-1] < 0.02
    assert [training.learning_rate(1.0, step, 20) for step in range(3)] == pytest.approx([0.5, 1.0, 1.0])
    assert training.learning_rate(1.0, 0, 20, 0.0) == 1.0


def test_micro_batches_add_up_to_the_gradients_of_one_batch(toy_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def gradients(tokens: int) -> tuple[float, list[torch.Tensor]]:
        monkeypatch.setattr(lora, "MICRO_TOKENS", tokens)
        loop = lora._GeneratorTraining(Lora(rank=4), toy_model, EXAMPLES, EXACT, 0)
        with torch.no_grad():  # B is zero at first, and so would be the gradients of A
            for name, parameter in loop.model.named_parameters():
                if "lora_B" in name:
                    parameter += 0.1
        loss, _ = loop.backward(range(12))
        return loss, [p.grad for p in loop.model.parameters() if p.requires_grad]

    (whole, one), (parts, many) = gradients(10**6), gradients(1)
    assert whole == pytest.approx(parts, rel=1e-5)
    for a, b in zip(one, many, strict=True):
        assert a.abs().max() > 0
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_the_loss_is_that_of_full_logits_with_the_prompt_masked(toy_model: str) -> None:
    """transformers' own loss over all positions, labels -100 on the prompts, one row at a time."""
    loop = lora._GeneratorTraining(Lora(rank=4), toy_model, EXAMPLES, EXACT, 0)
    plain = 0.0
    with torch.no_grad():
        for prompt, answer in loop.rows:
            labels = torch.tensor([[-100] * len(prompt) + answer])
            plain += loop.model(input_ids=torch.tensor([prompt + answer]), labels=labels).loss.item() * len(answer)
        mine = lora.answer_loss(loop.model, loop.rows, "cpu").item()
    assert mine == pytest.approx(plain, rel=1e-5)


def test_only_the_layers_named_get_an_update(tmp_path: Path, toy_model: str) -> None:
    train(toy_model, tmp_path / "some", epochs=1, target_modules="v_proj q_proj")
    assert json.loads((tmp_path / "some" / "adapter_config.json").read_text())["target_modules"] == ["q_proj", "v_proj"]
    with pytest.raises(InputError, match=r"unknown layer in lora.target_modules 'q_porj'.*Did you mean 'q_proj'"):
        train(toy_model, tmp_path / "none", target_modules="q_porj")


def test_layers_of_gpt_2_are_named_like_those_that_all_linear_trains(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = toys.chat_tokenizer(tmp_path / "gpt2")
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=2048, n_embd=32, n_layer=2, n_head=4)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    model = str(tmp_path / "gpt2")
    for target, adapted in {"c_attn": 2, "mlp.c_proj attn.c_proj": 4, "all-linear": 8}.items():
        train(model, tmp_path / target, epochs=1, target_modules=target)
        from safetensors import safe_open

        with safe_open(tmp_path / target / "adapter_model.safetensors", "pt") as file:
            assert sum("lora_A" in name for name in file.keys()) == adapted  # noqa: SIM118
    with pytest.raises(InputError, match=r"unknown layer in lora\.target_modules 'attn'"):
        train(model, tmp_path / "none", target_modules="attn")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_unmerged_answers_depend_on_the_prompt_alone(trained: Path, toy_model: str, precision: str) -> None:
    rng = random.Random(0)
    asked = [[{"role": "user", "content": "".join(rng.choices("ab cd", k=9 * i))}] for i in range(1, 15)]
    settings = Generator(model=toy_model, lora={}, merge=False, max_new_tokens=8)
    generator = settings.load(resolve(device="cpu", precision=precision), trained)
    assert any("lora_A" in name for name, _ in generator.model.named_parameters())
    reference = {i: answer for batch in generator.generate(asked, 14) for i, answer in batch}
    for size in (MIN_ROWS, 7):
        for batch in generator.generate(asked, size):
            assert all(answer == reference[i] for i, answer in batch)


def test_an_adapter_beside_the_weights_computes_what_the_merged_one_does(trained: Path, toy_model: str) -> None:
    ids = torch.tensor([[5, 9, 200, 31]])
    with torch.inference_mode():
        base, beside, merged = (
            load_model(toy_model, EXACT, *given)(input_ids=ids).logits for given in ((), (trained, False), (trained, True))
        )
    torch.testing.assert_close(beside, merged, rtol=1e-4, atol=1e-5)
    assert (beside - base).abs().max() > 1e-2


def test_merge_without_an_adapter_and_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="merge: false means nothing without lora"):
        Generator(model="x", merge=False)
    with pytest.raises(ValueError, match="patience means nothing while held_back is 0"):
        Lora(patience=5)


def test_settings_that_came_later_leave_older_definitions_as_they_were() -> None:
    older = {"epochs", "learning_rate", "batch_size", "examples", "rank", "alpha"}
    assert set(Lora().settings()) == set(Lora(warm_up=0.1, leaks="drop", held_back=0.0, without_gold=0.0).settings()) == older
    assert Lora(held_back=0.1).settings() == Lora().settings() | {"held_back": 0.1}


def experiment(folder: Path, model: str, *overrides: str) -> Experiment:
    """Questions of the Python reference, answered by the toy model and by adapters of it."""
    values = {
        "experiment": "toy",
        "dataset": {"name": "pydocs", "limit": {"train": 24, "dev": 5, "test": 4}},
        "components": {
            "retrievers": {"bm25": {"kind": "bm25"}},
            "generators": {
                "base": {"model": model, "max_new_tokens": 3},
                "tuned": {"model": model, "max_new_tokens": 3, "lora": {"rank": 2}},
            },
        },
        "baseline": {"generator": "base"},
        "axes": {"generator": ["base", "tuned"], "passages": [2], "retriever": ["bm25"]},
        "metrics": {"rankings": ["mrr@10"]},
        "machine": {"device": "cpu", "precision": "float32"},
    }
    (folder / "e.yaml").write_text(yaml.safe_dump(values))
    return Experiment.load(folder / "e.yaml", folder / "runs", overrides, Progress())


def test_a_list_in_lora_is_a_generator_for_each_value(tmp_path: Path, toy_model: str) -> None:
    listed = "components.generators.tuned.lora={rank: [2, 4], epochs: [1, 2], learning_rate: 0.01}"
    one = experiment(tmp_path, toy_model, listed)
    names = ["base", *(f"tuned rank={rank} epochs={epochs}" for rank in (2, 4) for epochs in (1, 2))]
    assert one.space.axes["generator"] == names and len(one.configurations) == 5
    lora_ = one.space.components.generators["tuned rank=4 epochs=2"].lora
    assert (lora_.rank, lora_.epochs, lora_.learning_rate) == (4, 2, 0.01)
    with pytest.raises(InputError, match=r"'tuned' stands for several generators; name one: tuned rank=2 epochs=1, "):
        experiment(tmp_path, toy_model, listed, "baseline.generator=tuned")
    with pytest.raises(InputError, match=r"components.generators.tuned.lora.rank: the list is empty"):
        experiment(tmp_path, toy_model, "components.generators.tuned.lora.rank=[]")


def test_a_list_of_one_value_trains_the_adapter_of_the_value(tmp_path: Path, toy_model: str) -> None:
    plain = experiment(tmp_path, toy_model)
    listed = experiment(tmp_path, toy_model, "components.generators.tuned.lora.rank=[2]")
    assert {c.id for c in plain.configurations} == {c.id for c in listed.configurations}


def test_a_share_of_the_examples_is_shown_without_its_gold_passage_and_abstains(tmp_path: Path, toy_model: str) -> None:
    def examples(share: float) -> list[Example]:
        one = experiment(tmp_path, toy_model, f"components.generators.tuned.lora.without_gold={share}")
        return one.planner.adapter(one.space.components.generators["tuned"], 0).examples(one.session)

    plain, half = examples(0.0), examples(0.5)
    abstained = [sum(e.answer == "not in the passages" for e in found) for found in (plain, half)]
    answered = len(plain) - abstained[0]
    assert len(plain) == len(half) and abstained[1] == abstained[0] + round(0.5 * answered)
    changed = [(a, b) for a, b in zip(plain, half, strict=True) if a != b]
    assert all(a.answer != b.answer == "not in the passages" and a.messages != b.messages for a, b in changed)
    assert len(changed) == abstained[1] - abstained[0]


def test_what_a_training_was_is_told(tmp_path: Path, toy_model: str) -> None:
    one = experiment(tmp_path, toy_model, "components.generators.tuned.lora={rank: 2, learning_rate: 0.02, held_back: 0.2}")
    (adapter,) = one.finetune()
    facts = notebook_tables.training_facts(one, adapter)
    assert facts.held_back > 0 and facts.tokens_per_second > 0 and facts.peak_gb > 0
    assert notebook_tables.held_back_curve(one, adapter)[0].step == 0
    origin = json.loads((one.session.ensure(adapter) / "origin.json").read_text())
    assert origin["base"] == one.space.components.generators["base"].definition()["weights"]
    assert origin["queries"] == one.session.dataset.queries_digest("train")


def test_a_damaged_checkpoint_is_said_by_the_run_that_trains_again(tmp_path: Path, toy_model: str) -> None:
    one = experiment(tmp_path, toy_model)
    (adapter,) = [stage for stage in one.sweep.need(one.selected_on) if stage.name == "adapter"]
    (one.session.store.work(adapter.key) / training.CHECKPOINT).write_bytes(b"no checkpoint")
    run = one.compare()
    assert any("is damaged" in note and "begins at its first step" in note for note in run.manifest["notes"])


def test_the_progress_of_a_resumed_training_begins_at_its_checkpoint(tmp_path: Path, toy_model: str) -> None:
    one = experiment(tmp_path, toy_model, "components.generators.tuned.lora={rank: 2, batch_size: 2}")
    (adapter,) = [stage for stage in one.sweep.need(one.selected_on) if stage.name == "adapter"]
    progress, counts, said = one.session.progress, [], []
    progress.say = said.append

    def watch(task: Task) -> None:
        counts.append((task.done, task.total))
        progress.stopping = task.done == 3 and len(counts) == 4  # the first time

    progress.watch = watch
    with pytest.raises(KeyboardInterrupt):
        one.session.ensure(adapter)
    total = counts[0][1]
    assert [done for done, _ in counts] == [0, 1, 2, 3] and total > 5
    counts.clear()
    one.session.ensure(adapter)
    assert [done for done, _ in counts] == list(range(3, total + 1))
    assert said == [f"  fine-tuning goes on after step 3 of {total}, where it was ended before"]


def test_what_was_done_before_is_no_part_of_the_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    task = Task("learning", 100, Progress(), 80)
    assert task.left == 0
    now[0] = 30.0
    task(5)
    assert task.left == 0  # how much of the time was for loading, the next report tells
    now[0] = 40.0
    task(5)
    assert (task.done, task.left) == (90, pytest.approx(20))


@pytest.mark.parametrize("content", ["[1, 2]", "{", '{"generation": "fast"}'])
def test_damaged_rates_are_said_and_kept(tmp_path: Path, toy_model: str, content: str) -> None:
    one = experiment(tmp_path, toy_model)
    rates = tmp_path / "runs" / ".store" / "rates.json"
    rates.write_text(content)
    said: list[str] = []
    one.session.progress.say = said.append
    assert one.planned_costs().total.seconds > 0
    assert len(said) == 1 and "is damaged" in said[0] and "begin again with the built-in speeds" in said[0]
    assert (tmp_path / "runs" / ".store" / "rates.damaged").read_text() == content and not rates.exists()


def test_merged_and_unmerged_are_two_generators_with_one_adapter(tmp_path: Path, toy_model: str) -> None:
    beside = f"{{model: {toy_model}, max_new_tokens: 3, merge: false, lora: {{rank: 2}}}}"
    one = experiment(tmp_path, toy_model, f"components.generators.beside={beside}", "axes.generator=[base, tuned, beside]")
    generators = one.space.components.generators
    tuned, unmerged = (one.planner.adapter(generators[name], 0) for name in ("tuned", "beside"))
    assert tuned.key == unmerged.key and len({c.id for c in one.configurations}) == 3
    assert generators["beside"].untuned() == generators["base"]


def test_a_limit_may_differ_by_split(tmp_path: Path, toy_model: str) -> None:
    assert experiment(tmp_path, toy_model).session.dataset.splits == {"train": 24, "dev": 5, "test": 4}
    with pytest.raises(InputError, match=r"dataset.limit: unknown split of pydocs 'tset'.*Did you mean 'test'"):
        experiment(tmp_path, toy_model, "dataset.limit={tset: 3}")
    assert read_settings(tmp_path / "e.yaml", ["dataset.limit={test: 3}"]).dataset.load().splits["train"] > 200


# --- DoRA and all weights --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["dora", "full"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_other_methods_repeat_resume_and_come_back_as_they_were_trained(
    tmp_path: Path, toy_model: str, method: str, precision: str
) -> None:
    machine = resolve(device="cpu", precision=precision)
    given = {"method": method, "learning_rate": 0.003, "batch_size": 3, "epochs": 2, "checkpoint_every": 2}
    settings = Lora(**given | {"held_back": 0.25, "evaluate_every": 2} | ({"rank": 4} if method == "dora" else {}))

    def once(name: str, work: str, stop_after: int | None = None) -> Path:
        def on_step(step: training.Step, total: int) -> None:
            if step.step == stop_after:
                raise KilledError

        for folder in (name, work):
            (tmp_path / folder).mkdir(exist_ok=True)
        lora.train(settings, toy_model, EXAMPLES, machine, 0, tmp_path / name, tmp_path / work, on_step)
        return tmp_path / name

    whole = contents(once("a", "a-work"))
    with pytest.raises(KilledError):
        once("killed", "b-work", stop_after=3)
    assert contents(once("b", "b-work")) == whole
    rows = table(tmp_path / "a" / "held_back.csv")
    assert min(row["loss"] for row in rows) < rows[0]["loss"]
    loop = lora._GeneratorTraining(settings, toy_model, EXAMPLES, EXACT, 0)
    with torch.no_grad():
        lost = [
            sum(lora.answer_loss(model, micro, "cpu").item() for micro in lora.micro_batches(loop.held_rows))
            / sum(len(answer) for _, answer in loop.held_rows)
            for model in (load_model(toy_model, EXACT), load_model(toy_model, EXACT, tmp_path / "a"))
        ]
    within = 1e-5 if precision == "float32" else 0.02
    assert lost[0] == pytest.approx(rows[0]["loss"], rel=within)
    assert lost[1] == pytest.approx(min(row["loss"] for row in rows), rel=within)


def test_all_weights_differ_after_a_full_training_and_are_those_of_the_base_before_it(tmp_path: Path, toy_model: str) -> None:
    from safetensors.torch import load_file

    full = Lora(method="full", batch_size=3, learning_rate=0.01)
    folder, work = tmp_path / "full", tmp_path / "work"
    folder.mkdir()
    work.mkdir()
    loop = lora._GeneratorTraining(full, toy_model, EXAMPLES, EXACT, 0)
    base = dict(load_model(toy_model, EXACT).named_parameters())
    assert all(torch.equal(tensor, base[name]) for name, tensor in loop.state().items())
    lora.train(full, toy_model, EXAMPLES, EXACT, 0, folder, work, lambda step, total: None)
    found = load_file(folder / "adapter_model.safetensors")
    assert found.keys() == base.keys() and not any(torch.equal(tensor, base[name]) for name, tensor in found.items())


def test_dora_trains_the_lengths_of_columns_too(tmp_path: Path, toy_model: str) -> None:
    from safetensors.torch import load_file

    train(toy_model, tmp_path / "dora", epochs=1, method="dora")
    names = load_file(tmp_path / "dora" / "adapter_model.safetensors")
    assert any("lora_magnitude_vector" in name for name in names)


def test_what_a_method_would_ignore_is_refused(toy_model: str) -> None:
    with pytest.raises(ValueError, match="rank means nothing with method: full"):
        Lora(method="full", rank=4)
    with pytest.raises(ValueError, match="which method: dora cannot"):
        Generator(model=toy_model, merge=False, lora=Lora(method="dora"))
    assert "method" not in Lora().settings() and Lora(method="dora").definition() != Lora().definition()


@pytest.mark.slow
def test_methods_are_compared_in_one_run_and_exported(tmp_path: Path) -> None:
    facts = Path(toys.made(toys.facts))
    model = toys.made(toys.parrot)
    tuned = {"learning_rate": 0.002, "examples": 8, "batch_size": 4}
    settings: dict[str, Any] = {
        "experiment": "methods",
        "dataset": {"folder": str(facts / "documents"), "questions": str(facts / "questions.jsonl"), "limit": 6},
        "components": {
            "retrievers": {"bm25": {"kind": "bm25"}},
            "generators": {
                "base": {"model": model, "max_new_tokens": 4},
                "tuned": {"model": model, "max_new_tokens": 4, "lora": tuned | {"method": ["lora", "dora", "full"]}},
            },
        },
        "axes": {"passages": [1], "prompt": ["terse"], "generator": ["base", "tuned"]},
        "machine": {"precision": "float32"},
    }
    (tmp_path / "methods.yaml").write_text(yaml.safe_dump(settings))
    experiment = Experiment.load(tmp_path / "methods.yaml", tmp_path / "runs", progress=Progress())
    run = experiment.compare()
    assert len({row.values["generator"] for row in run.configurations}) == 4
    assert {"f1"} <= {row.metric for row in run.comparisons}
    name = next(name for name, one in experiment.space.components.generators.items() if one.lora and one.lora.method == "full")
    adapters.export(experiment, tmp_path / "out", name)
    assert (tmp_path / "out" / "README.md").read_text().startswith("# All weights for")
    loaded = Generator.from_adapter(tmp_path / "out", machine=EXACT)
    assert loaded.ask("What does the mill keep?", ["The mill keeps a generator."]).status == "ok"
    assert any("not kept beside the weights" in line for line in adapters.report(experiment))
