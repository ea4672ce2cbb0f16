"""A language model that answers prompts greedily, in batches, each answer depending on its prompt alone.

How: a prompt is padded to the next multiple of `BUCKET` of its *own* length and read with prompts of the same
bucket; never fewer than `MIN_ROWS` rows take a step (copies fill them up); the one-token steps use eager or grouped
attention (`models.attention`), and layers multiply in a way in which rows do not depend on each other (`workbench.products`).
With `precision: int8` none of this is needed, since products of integers are exact (`models.integers`). So
answers are equal to the bit for any batch size, which `machine.independence` checks. `BUCKET`, `MIN_ROWS` and these kinds of
attention belong to `Generator.version`.

Greedy means the likeliest token and nothing else: penalties that a model's generation settings name are not applied.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from pydantic import Field, model_validator

from workbench import weights
from workbench.component import Component, build, digest
from workbench.data.passages import Shown
from workbench.errors import InputError
from workbench.machine import Machine, independence, resolve, samples
from workbench.machine.independence import Mode
from workbench.models import adapters, attention, integers, reading
from workbench.models.answering import TOO_LONG, WRITING, Generation
from workbench.models.chat import Message, encode_chat, left_padded, load_model, load_tokenizer, right_padded
from workbench.models.decoding import MIN_ROWS, first_steps, greedy, mixes
from workbench.models.integer_decoder import IntegerModel
from workbench.models.lora import Lora
from workbench.models.memory import Batches
from workbench.models.prompts import Shot, Template
from workbench.models.ragged_decoder import filled_up
from workbench.models.reading import BUCKET, bucket

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

SCORED_TOGETHER = 1536  # tokens in one pass: more are no faster on a processor, and take memory
FULL = 16  # prompts of a batch that has to have one size, whatever the machine's batch size is
SAMPLE_STEPS = 3  # of the answers to sample texts: on a GPU the third is the first that is replayed
SAMPLE_TOKENS = 256  # of a sample text and what the chat template writes around it
HEAD_ROWS = 32  # positions that pass through the head together


class Generator(Component):
    """Settings of a generator.

    Attributes:
        model: weights source (see `workbench.weights`).
        lora: how to fine-tune it on the train split; None: the model as it is.
        merge: whether the adapter is added to the weights, or kept beside them.
        max_new_tokens: longest answer in tokens.
        precision: what answers are computed in, where that is not the machine's precision; ``int8`` see `models.integers`.
    """

    libraries: ClassVar = ("torch", "transformers")
    references: ClassVar = ("model", "lora")
    added: ClassVar = ("merge", "precision")

    model: str
    lora: Lora | None = None
    merge: bool = True
    max_new_tokens: int = Field(default=32, ge=1)
    precision: Literal["float32", "bfloat16", "int8"] | None = None

    @model_validator(mode="after")
    def _merging_needs_an_adapter(self) -> Generator:
        if not self.merge and self.lora is None:
            raise ValueError("merge: false means nothing without lora; give lora, or leave merge out")
        if not self.merge and self.lora and self.lora.method != "lora":
            raise ValueError(
                f"merge: false keeps an adapter beside the weights, which method: {self.lora.method} cannot; leave merge out"
            )
        if not self.merge and self.precision == "int8":
            raise ValueError("merge: false keeps the adapter beside the weights, which int8 cannot; leave one of the two out")
        return self

    @classmethod
    def from_adapter(cls, folder: str | Path, model: str | None = None, machine: Machine | None = None) -> LoadedGenerator:
        """A tuned generator in memory that asks in the prompt its adapter was trained in; see `LoadedGenerator.ask`.

        Args:
            folder: of the adapter, as `workbench adapter export` writes it.
            model: weights source of the base; default: the weights that lie beside the adapter.
            machine: where to compute; default: what this machine has.

        Raises:
            InputError: no adapter's folder, no base weights, or weights that the adapter was not trained on.
        """
        place = Path(folder)
        if not (place / adapters.CONFIG).is_file():
            raise InputError(f"adapter {place} holds no {adapters.CONFIG}; name a folder that `workbench adapter export` wrote")
        copied = adapters.exported(place)
        if model is None:
            if copied is None:
                raise InputError(f"adapter {place} has no base weights beside it; name them with model=")
            model = str(place / copied["base"])
        settings = cls(model=model)
        if copied:
            settings = settings.model_copy(update={"max_new_tokens": copied["max_new_tokens"]})
        return LoadedGenerator(settings, machine or resolve(), place, _trained_template(place))

    def untuned(self) -> Generator:
        """The same model without its adapter."""
        return self.model_copy(update={"lora": None, "merge": True})

    def definition(self) -> dict[str, Any]:
        """Adds the digest of the weights, which stands for their name and place, and how they become integers."""
        rounding = {"int8": integers.definition()} if self.precision == "int8" else {}
        return super().definition() | {"weights": weights.digest(self.model)} | rounding

    def on(self, machine: Machine) -> Machine:
        """The machine, computing in this generator's precision.

        Raises:
            InputError: int8 on a GPU.
        """
        if self.precision == "int8":
            return integers.on(machine)
        return replace(machine, precision=self.precision or machine.precision)

    def arithmetic(self, machine: Machine) -> str:
        """The kind of arithmetic that its answers come out of; part of the keys of all that reads them.

        Raises:
            InputError: it cannot compute on this machine.
        """
        return self.on(machine).arithmetic

    @property
    def work(self) -> str:
        """The kind of work that writing is, for estimates: what is computed in integers has a speed of its own."""
        return "generation in int8" if self.precision == "int8" else "generation"

    @property
    def longest(self) -> int:
        """Tokens of the longest answer, for estimates."""
        return self.max_new_tokens

    def writing(self, max_new_tokens: int) -> Generator:
        """The same model with answers of another length."""
        return self.model_copy(update={"max_new_tokens": max_new_tokens})

    def in_machine_precision(self) -> Generator:
        """The same model in the machine's precision."""
        return self.model_copy(update={"precision": None})

    def fits(self, messages: Sequence[Message]) -> bool:
        """Whether a conversation and its answer fit into the model's context."""
        return reading.fits(self.model, messages, self.max_new_tokens)

    def load(self, machine: Machine, adapter: Path | None = None) -> LoadedGenerator:
        """The model in memory, with its adapter (a folder written by `models.lora.train`)."""
        return LoadedGenerator(self, self.on(machine), adapter)


class LoadedGenerator:
    """A generator in memory. Make it with `Generator.load`.

    Attributes:
        template: the prompt template that its adapter was trained in, for `ask`; None where none was given.
        room: longest padded prompt, in tokens.
        ends: tokens that end an answer.
        batches: computes batches, and remembers how large memory lets them be.
        mode: how it computes here so that each prompt depends on itself alone.
    """

    copies = 2  # of sample texts that fill a batch

    def __init__(self, settings: Generator, machine: Machine, adapter: Path | None, template: Template | None = None) -> None:
        """Loads the weights, and checks how they compute here.

        Args:
            settings: which model, and how long its answers may be.
            machine: where to compute, in the settings' precision (`Generator.on`).
            adapter: folder of its LoRA adapter, or None.
            template: see the attribute.
        """
        self.settings = settings
        self.machine = machine
        self.template = template
        self.tokenizer = load_tokenizer(settings.model)
        self.model: Any = self._loaded(adapter)
        self.room = reading.room(settings.model, settings.max_new_tokens)
        self.ends = end_tokens(self.model, self.tokenizer)
        self.batches = Batches()
        self.mode = Mode()
        independence.check(
            self, self._definition(), f"generator {settings.model!r} in {settings.precision or machine.precision}", machine
        )

    def _loaded(self, adapter: Path | None) -> PreTrainedModel | IntegerModel:
        settings, machine = self.settings, self.machine
        if settings.precision != "int8":
            return load_model(settings.model, machine, adapter, settings.merge)
        machine.prepare()
        return IntegerModel(load_model(settings.model, replace(machine, precision="float32"), adapter), settings.model)

    @property
    def notes(self) -> list[str]:
        """What people should know of how answers were made, oldest first."""
        special = [self.mode.note] if self.mode.note else []
        if isinstance(self.model, IntegerModel) and not integers.exact():
            special.append(
                f"generator {self.settings.model!r}: this processor's products of 8-bit integers are not exact, so that they are "
                f"computed in float32, with the same results but more slowly"
            )
        if self.tokenizer.chat_template:
            return [*special, *self.batches.notes]
        told = f"weights {self.settings.model!r} have no chat template; prompts are plain text, turns with an empty line between"
        return [*special, told, *self.batches.notes]

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation in the model's own chat template (else as plain text), ready for the answer."""
        return encode_chat(self.tokenizer, messages)

    def generate(
        self, prompts: Sequence[Sequence[Message]], batch_size: int | None = None
    ) -> Iterator[list[tuple[int, Generation]]]:
        """Answers all prompts, shortest bucket first.

        Args:
            prompts: conversations that end with the user's turn.
            batch_size: rows per forward pass; default: the machine's. Smaller batches where memory does not suffice.

        Yields:
            After each batch its (position in `prompts`, answer) pairs. A prompt that does not fit into the model's
            context together with an answer has the status ``prompt too long`` and no answer.
        """
        encoded = [self.encode(prompt) for prompt in prompts]
        if too_long := [i for i, ids in enumerate(encoded) if bucket(len(ids)) > self.room]:
            yield [(i, Generation("", len(encoded[i]), 0, TOO_LONG)) for i in too_long]
        lengths = {i: len(ids) for i, ids in enumerate(encoded) if bucket(len(ids)) <= self.room}
        for batch in batches(lengths, self._together(batch_size), mixed=self._mixed):
            width = bucket(lengths[batch[-1]])
            with self.mode.computing():
                answers = self.batches.compute([encoded[i] for i in batch], width, self._answers)
            yield [(i, self._generation(len(encoded[i]), ids)) for i, ids in zip(batch, answers, strict=True)]

    def ask(self, question: str, passages: Sequence[Shown | str], shots: Sequence[Shot] = ()) -> Generation:
        """Answers a question on passages, asked in `template`, which reads the answer in the reply (`Template.read`).

        Args:
            question: the question.
            passages: best first; texts alone have no title. The last are left out where all do not fit.
            shots: solved questions shown before it, where the template shows some.

        Raises:
            InputError: there is no template, or it shows solved questions and none are given.
        """
        if self.template is None:
            raise InputError("this generator was opened without a prompt template; open it with Generator.from_adapter")
        if self.template.shots and not shots:
            raise InputError(
                f"the adapter was trained with {self.template.shots.count} solved questions before each; give some as shots"
            )
        shown = [Shown("", passage) if isinstance(passage, str) else passage for passage in passages]
        messages, _ = self.template.fill_within(question, shown, self.settings.fits, shots)
        ((_, reply),) = next(self.generate([messages]))
        return reply

    def stream(self, messages: Sequence[Message]) -> Iterator[str]:
        """The answer to one conversation while it is written, in pieces of whole words.

        Yields:
            Texts that together are the text `generate` gives.
        """
        shown = ""
        for generation in self.written(messages):
            if piece := generation.text[len(shown) :]:
                yield piece
            shown = generation.text

    def written(self, messages: Sequence[Message]) -> Iterator[Generation]:
        """Beginnings of the answer to one conversation, each longer by whole words, with the status ``writing``; then the answer.

        The same steps as in `generate`, so the same answer.
        """
        for _, generation in self.growing([messages]):
            yield generation

    def growing(
        self, prompts: Sequence[Sequence[Message]], wanted: Callable[[int], bool] = lambda prompt: True
    ) -> Iterator[tuple[int, Generation]]:
        """Beginnings of the answers to conversations that are answered together, then each answer as soon as it is whole.

        The same steps as in `generate`, so the same answers.

        Args:
            prompts: conversations that end with the user's turn.
            wanted: asked after each step whether the answer to a prompt is still waited for; one that is not is never whole.

        Yields:
            Pairs of position in `prompts` and beginning, longer by whole words each time, with the status ``writing``; last the
            answer.
        """
        encoded = [self.encode(prompt) for prompt in prompts]
        for i, ids in enumerate(encoded):
            if bucket(len(ids)) > self.room:
                yield i, Generation("", len(ids), 0, TOO_LONG)
        lengths = {i: len(ids) for i, ids in enumerate(encoded) if bucket(len(ids)) <= self.room}
        for batch in batches(lengths, self._together(None), mixed=self._mixed):
            yield from self._grown(batch, encoded, wanted)

    def _grown(
        self, batch: Sequence[int], encoded: Sequence[list[int]], wanted: Callable[[int], bool]
    ) -> Iterator[tuple[int, Generation]]:
        """What `growing` yields of one batch, the positions in `encoded` of its prompts."""
        shown = dict.fromkeys(batch, "")
        steps = self._steps([encoded[i] for i in batch], lambda row: wanted(batch[row]))
        while shown:
            with self.mode.computing():
                answers = next(steps, None)
            if answers is None:
                return
            for i, ids in zip(batch, answers, strict=True):
                if i not in shown:
                    continue
                if ids[-1] in self.ends or len(ids) == self.settings.max_new_tokens:
                    del shown[i]
                    yield i, self._generation(len(encoded[i]), ids)
                    continue
                text = self._text(ids)
                # the last word may still grow, and the space before it may go if punctuation follows
                whole = text[: max(text.rfind(" "), text.rfind("\n"), 0)].rstrip()
                if len(whole) > len(shown[i]) and whole.startswith(shown[i]):
                    shown[i] = whole
                    yield i, Generation(whole, len(encoded[i]), len(ids), WRITING)

    def log_likelihood(
        self, asked: Sequence[tuple[Sequence[Message], str]], batch_size: int | None = None
    ) -> Iterator[list[tuple[int, float]]]:
        """Mean log-probability of each text as the answer to its prompt, in nats per token, shortest bucket first.

        Only the positions that predict the text pass through the head: with 49,000 words its logits would take more memory
        than the rest of the model.

        Args:
            asked: (conversation, text) pairs.
            batch_size: rows per forward pass at most; default: the machine's.

        Yields:
            After each batch its (position in `asked`, value) pairs; 0 for a text without tokens, minus infinity for a pair
            that does not fit into the model's context.
        """
        if isinstance(self.model, IntegerModel):
            raise InputError(
                f"generator {self.settings.model!r}: precision int8 writes answers and reads no likelihoods; leave precision out"
            )
        if self.model.config.is_encoder_decoder:
            raise InputError(
                f"weights {self.settings.model!r}: the likelihood of a text is read from a decoder alone, and this model has an "
                f"encoder beside it; name a model of the families Llama, Qwen or Gemma"
            )
        texts = self.tokenizer([text for _, text in asked], add_special_tokens=False)["input_ids"] if asked else []
        rows = [self.encode(messages) + text for (messages, _), text in zip(asked, texts, strict=True)]
        tokens = SCORED_TOGETHER if self.machine.device == "cpu" else None
        for batch in batches(dict(enumerate(map(len, rows))), self._together(batch_size), tokens):
            wide = bucket(len(rows[batch[0]]))
            if wide > reading.context(self.settings.model):
                yield [(i, -math.inf) for i in batch]
            else:
                with self.mode.computing():
                    values = self.batches.compute([(rows[i], texts[i]) for i in batch], wide, self._log_likelihood)
                yield list(zip(batch, values, strict=True))

    def _log_likelihood(self, rows: Sequence[tuple[list[int], list[int]]]) -> list[float]:
        """Mean log-probabilities of the texts that end rows of one bucket; a row is its tokens and those of its text."""
        import torch

        width = bucket(len(rows[0][0]))
        # No token sees what stands behind it: with the padding there no mask is needed, and half of attention is left out.
        read = [tokens for tokens, _ in rows]
        read = [*read, *[read[0]] * (FULL - len(read))] if self.mode.batches == "full" else filled_up(read, width)
        ids, _ = right_padded(read, width, self.machine.device)
        with torch.inference_mode(), attention.reading(self.model):
            hidden = self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
            scored = [
                states[len(tokens) - len(text) - 1 : len(tokens) - 1]
                for states, (tokens, text) in zip(hidden, rows, strict=False)
            ]
            values = self._log_probabilities(torch.cat(scored), [token for _, text in rows for token in text])
        found = torch.split(values, [len(text) for _, text in rows])
        return [float(part.mean()) if len(part) else 0.0 for part in found]

    def first_logits(self, messages: Sequence[Message]) -> list[float]:
        """Logits of every word as the first token of the answer to a conversation."""
        import torch

        ids, mask = left_padded([self.encode(messages)], len(self.encode(messages)), self.machine.device)
        with torch.inference_mode():
            self.model.set_attn_implementation("sdpa")
            logits = self.model(input_ids=ids, attention_mask=mask, logits_to_keep=1).logits[0, -1]
        found: list[float] = logits.float().tolist()
        return found

    def _log_probabilities(self, states: torch.Tensor, tokens: list[int]) -> torch.Tensor:
        """Of the tokens that follow states (n, size), float64 (n,), `HEAD_ROWS` at a time so that each product has one shape."""
        import torch

        cap = getattr(self.model.config.get_text_config(), "final_logit_softcapping", None)
        head = self.model.get_output_embeddings()
        found = []
        for start in range(0, len(tokens), HEAD_ROWS):
            part, wanted = states[start : start + HEAD_ROWS], tokens[start : start + HEAD_ROWS]
            filled = torch.nn.functional.pad(part, (0, 0, 0, HEAD_ROWS - len(part)))
            logits = head(filled)[: len(part)].double()
            if cap is not None:  # Gemma 2 does this behind its head
                logits = cap * torch.tanh(logits / cap)
            chosen = logits.gather(1, torch.tensor(wanted, device=logits.device)[:, None])[:, 0]
            found.append(chosen - logits.logsumexp(1))
        return torch.cat(found) if found else states.new_zeros(0)

    def bits(self, numbers: Sequence[int]) -> list[bytes]:
        """The first logits of its answers to sample texts, and how likely it finds one of them; see `machine.independence`.

        A text beyond its context is cut from the front.
        """
        asked = [[{"role": "user", "content": samples.text(number)}] for number in numbers]
        room = max(BUCKET, int(min(reading.room(self.settings.model, SAMPLE_STEPS), SAMPLE_TOKENS)) // BUCKET * BUCKET)
        encoded = [self.encode(messages)[-room:] for messages in asked]
        found = [b""] * len(numbers)
        for batch in batches(dict(enumerate(map(len, encoded))), self._together(len(numbers)), mixed=self._mixed):
            width = bucket(len(encoded[batch[-1]]))
            rows = self.batches.compute([encoded[i] for i in batch], width, self._first_logits)
            for i, logits in zip(batch, rows, strict=True):
                found[i] += logits
        if not isinstance(self.model, IntegerModel) and not self.model.config.is_encoder_decoder:
            short = [(messages, samples.text(1)) for messages in asked]
            for part in self.log_likelihood(short, len(numbers)):
                for i, value in part:
                    found[i] += value.hex().encode()
        return found

    def _first_logits(self, prompts: Sequence[list[int]]) -> list[bytes]:
        found = [b""] * len(prompts)
        for logits in first_steps(self.model, prompts, self.machine.device, SAMPLE_STEPS, self._least):
            for i, row in enumerate(logits.float().cpu().numpy()):
                found[i] += row.tobytes()
        return found

    def _definition(self) -> str:
        """What its arithmetic depends on: an adapter beside the weights adds products, one merged into them does not."""
        lora = None if self.settings.merge else self.settings.lora
        beside = [lora.rank, lora.target_modules] if lora else None
        return digest(["generator", self.settings.version, weights.digest(self.settings.model), beside])

    def _together(self, batch_size: int | None) -> int:
        """Prompts in a batch at most."""
        most = batch_size or self.machine.batch_size
        return {"any": most, "full": min(most, FULL), "one": 1}[self.mode.batches]

    @property
    def _least(self) -> int:
        """Prompts in a batch at least; copies fill it up."""
        if self.mode.batches == "full":
            return FULL
        return 1 if isinstance(self.model, IntegerModel) else MIN_ROWS

    @property
    def _mixed(self) -> bool:
        """Whether a batch may hold prompts of several widths."""
        return self.mode.batches != "full" and mixes(self.model, self.machine.device)

    def _generation(self, prompt_tokens: int, ids: list[int]) -> Generation:
        return Generation(self._text(ids), prompt_tokens, len(ids))

    def _text(self, ids: list[int]) -> str:
        finished = bool(ids) and ids[-1] in self.ends
        text = self.tokenizer.decode(ids[:-1] if finished else ids, skip_special_tokens=True)
        return cast(str, text).strip()  # of one answer's tokens; of several answers' it would be a list

    def _answers(self, prompts: Sequence[list[int]]) -> list[list[int]]:
        """Tokens of the answers to the prompts of a batch."""
        *_, answers = self._steps(prompts)
        return answers

    def _steps(
        self, prompts: Sequence[list[int]], wanted: Callable[[int], bool] = lambda prompt: True
    ) -> Iterator[list[list[int]]]:
        longest = self.settings.max_new_tokens
        return greedy(self.model, prompts, self.machine.device, self.ends, longest, self._least, wanted)


def _trained_template(folder: Path) -> Template:
    """The prompt template that lies beside an adapter."""
    try:
        values = json.loads((folder / adapters.PROMPT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"adapter {folder}: its {adapters.PROMPT} cannot be read: {error}; export the adapter again") from error
    if not isinstance(values, dict):
        raise InputError(f"adapter {folder}: its {adapters.PROMPT} holds no template; export the adapter again")
    return build(Template, values, str(folder / adapters.PROMPT))


def end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens that end an answer: the tokenizer's, and those of the model's generation settings (``<end_of_turn>``)."""
    named = model.generation_config.eos_token_id
    several = named if isinstance(named, list) else [named]
    return frozenset(token for token in (*several, tokenizer.eos_token_id) if token is not None)


def batches(lengths: Mapping[int, int], batch_size: int, tokens: int | None = None, mixed: bool = False) -> Iterator[list[int]]:
    """Prompts in batches, shortest bucket first.

    Args:
        lengths: tokens of each prompt, by its position.
        batch_size: prompts of a batch at most.
        tokens: padded tokens of a batch at most, if it is not a single prompt.
        mixed: whether a batch may hold prompts of several buckets.

    Yields:
        The positions of a batch's prompts.
    """
    order = sorted(lengths, key=lambda i: (bucket(lengths[i]), i))
    start = 0
    while start < len(order):
        width = bucket(lengths[order[start]])
        rows = min(batch_size, max(1, tokens // width)) if tokens else batch_size
        batch = order[start : start + rows]
        if not mixed:
            batch = [i for i in batch if bucket(lengths[i]) == width]
        yield batch
        start += len(batch)
