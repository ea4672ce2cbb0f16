"""Cross-encoder: query and passage read together by one encoder (Nogueira and Cho 2019, arXiv:1901.04085).

The score of a pair does not depend on the pairs beside it: see `workbench.retrieval.batching`. A batch has never fewer
than `MIN_ROWS` rows (copies fill it up), since the product of a single row sums in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from workbench import products, weights
from workbench.errors import InputError
from workbench.machine import Machine, independence, samples
from workbench.machine.independence import Mode
from workbench.models import attention
from workbench.models.training import LOSSES, Step, Training, write_losses
from workbench.quiet import quiet_transformers
from workbench.retrieval.batching import batches, filled, full, padded
from workbench.retrieval.learning import RankedExample, RankedTraining, given_or_default
from workbench.retrieval.rerankers.base import Pair, PairScorer

if TYPE_CHECKING:
    import torch

MIN_ROWS = 4
SAMPLE_TOKENS = 128  # of a pair of sample texts, at most
MICRO_TOKENS = 4096  # padded tokens of one forward pass in training


class CrossTraining(RankedTraining):
    """Settings of training a cross-encoder on the train split."""

    epochs: int = Field(default=2, ge=1)
    learning_rate: float = Field(default=2e-4, gt=0)


class CrossEncoder(PairScorer):
    """The score of a sequence classifier with one label, before any activation.

    Attributes:
        model: weights source: a cross-encoder; with `train`, any encoder, which then gets a new head.
        train: how to fine-tune it on the train split; None: the model as it is.
        max_length: tokens of query and passage together; a longer passage is cut.
    """

    libraries: ClassVar = ("torch", "transformers")
    references: ClassVar = ("model", "train")

    kind: Literal["cross_encoder"] = "cross_encoder"
    model: str
    train: Annotated[CrossTraining | None, BeforeValidator(given_or_default)] = None
    max_length: int = Field(default=256, ge=8)

    def definition(self) -> dict[str, Any]:
        """Adds the digest of the weights, which stands for their name and place."""
        return super().definition() | {"weights": weights.digest(self.model)}

    def score(self, pairs: Sequence[Pair], machine: Machine, trained: Path | None = None) -> Iterator[list[tuple[int, float]]]:
        """Logits, longest pairs first.

        Args:
            pairs: distinct (query, passage text) pairs.
            machine: where to compute.
            trained: folder that `train` wrote, for a scorer that is trained.
        """
        loaded = _load(str(trained or weights.folder(self.model)), self.model, machine)
        for batch in loaded.scores(pairs, self.max_length):
            yield [(i, round(value, 6)) for i, value in batch]


class _Loaded:
    """A cross-encoder in memory. The head computes in float32, so that few passages tie.

    Attributes:
        mode: how it computes here so that each pair depends on itself alone.
    """

    mode = Mode()
    copies = 4  # of pairs of sample texts that fill a batch

    def __init__(self, path: str, name: str, machine: Machine, new_head: bool = False) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        machine.prepare()
        precision = torch.float32 if new_head else getattr(torch, machine.precision)
        given = {"num_labels": 1} if new_head else {}
        try:
            with quiet_transformers():
                self.tokenizer = AutoTokenizer.from_pretrained(path)
                self.model, read = AutoModelForSequenceClassification.from_pretrained(
                    path, dtype=precision, output_loading_info=True, **given
                )
        except Exception as error:  # each library below raises its own kinds for damaged weights
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(f"weights {name!r}: {path} cannot be read as a cross-encoder: {first}") from error
        labels = self.model.config.num_labels
        if labels != 1:
            raise InputError(
                f"weights {name!r}: a classifier with {labels} labels ranks nothing; take a cross-encoder with one label, "
                "or an encoder with train: true"
            )
        if not new_head and (missing := sorted(read["missing_keys"])):
            raise InputError(
                f"weights {name!r}: {path} lacks {len(missing)} weights of a cross-encoder, such as {missing[0]}, which would be "
                f"random numbers; name a trained cross-encoder, or train one with train: true"
            )
        self.model = attention.independent(products.with_independent_rows(self.model.to(machine.device).eval()))
        self.device = machine.device

    def scores(self, pairs: Sequence[Pair], max_length: int) -> Iterator[list[tuple[int, float]]]:
        """Logits of pairs, longest first: after each batch its (position in `pairs`, logit) pairs."""
        import torch

        rows = self.tokenize(pairs, max_length)
        for batch, wide in batches([len(ids) for ids, _ in rows], self.mode.batches != "one"):
            least = max(MIN_ROWS, full(wide)) if self.mode.batches == "full" else MIN_ROWS
            with torch.inference_mode(), self.mode.computing():
                logits = self.logits(filled([rows[i] for i in batch], least), wide)
            yield list(zip(batch, logits.tolist(), strict=False))

    def bits(self, numbers: Sequence[int]) -> list[bytes]:
        """The scores of pairs of sample texts, as bits; see `machine.independence`."""
        found: dict[int, float] = {}
        for batch in self.scores([(samples.text(0), samples.text(number)) for number in numbers], SAMPLE_TOKENS):
            found.update(batch)
        return [found[i].hex().encode() for i in range(len(numbers))]

    def tokenize(self, pairs: Sequence[Pair], max_length: int) -> list[tuple[list[int], list[int]]]:
        """Token ids and segment of each token of every pair; the longer side is cut."""
        if not pairs:
            return []
        queries, passages = zip(*pairs, strict=True)
        found = self.tokenizer(list(queries), list(passages), truncation="longest_first", max_length=max_length)
        segments = found.get("token_type_ids") or [[0] * len(ids) for ids in found["input_ids"]]
        return list(zip(found["input_ids"], segments, strict=True))

    def logits(self, rows: Sequence[tuple[list[int], list[int]]], wide: int) -> torch.Tensor:
        """Float32 (len(rows),)."""
        given = {
            "input_ids": padded([ids for ids, _ in rows], wide, self.tokenizer.pad_token_id),
            "attention_mask": padded([[1] * len(ids) for ids, _ in rows], wide, 0),
        }
        if "token_type_ids" in self.tokenizer.model_input_names:
            given["token_type_ids"] = padded([segments for _, segments in rows], wide, 0)
        found: torch.Tensor = self.model(**{name: tensor.to(self.device) for name, tensor in given.items()}).logits[:, 0].float()
        return found


@lru_cache(maxsize=2)
def _load(path: str, name: str, machine: Machine) -> _Loaded:
    loaded = _Loaded(path, name, machine)
    definition = f"cross-encoder {weights.digest(name)}"  # a trained one computes as what it was trained from
    independence.check(loaded, definition, f"cross-encoder {name!r} in {machine.precision}", machine)
    return loaded


def train(
    reranker: CrossEncoder,
    examples: Sequence[RankedExample],
    machine: Machine,
    seed: int,
    folder: Path,
    work: Path,
    on_step: Callable[[Step, int], None],
) -> None:
    """Trains a cross-encoder and writes it into an empty folder, with ``training.csv``.

    Args:
        reranker: its settings, with `train`.
        examples: at least one.
        machine: where to compute.
        seed: of the new head and of the order of examples.
        folder: receives weights, configuration and tokenizer, as transformers saves them.
        work: kept between calls; holds the last checkpoint, from which a training goes on.
        on_step: called after each step with it and the number of all steps.
    """
    training = _CrossTraining(reranker, examples, machine, seed)
    training.run(work, on_step)
    with quiet_transformers():
        training.loaded.model.save_pretrained(folder)
        training.loaded.tokenizer.save_pretrained(folder)
    write_losses(training.steps, folder / LOSSES)


class _CrossTraining(Training):
    """Cross-entropy of the right passage among the wrong ones of its query (Gao, Dai and Callan, ECIR 2021, arXiv:2101.08751)."""

    def __init__(self, reranker: CrossEncoder, examples: Sequence[RankedExample], machine: Machine, seed: int) -> None:
        import torch

        if reranker.train is None:
            raise ValueError(f"the cross-encoder {reranker.model!r} has no settings of a training")
        torch.manual_seed(seed)
        self.machine = machine
        self.loaded = _Loaded(str(weights.folder(reranker.model)), reranker.model, machine, new_head=True)
        self.rows = [
            self.loaded.tokenize([(one.query, text) for text in (one.gold, *one.wrong)], reranker.max_length) for one in examples
        ]
        # dropout stays off: with some hundred examples and two epochs it costs more than it brings, and a resumed
        # training needs no state of the random numbers
        super().__init__(reranker.train, len(examples), seed, list(self.loaded.model.parameters()))

    def backward(self, examples: Sequence[int]) -> tuple[float, int]:
        import torch

        total, tokens = 0.0, 0
        precision = getattr(torch, self.machine.precision)
        for i in examples:
            rows = self.rows[i]
            wide = max(len(ids) for ids, _ in rows)
            with torch.autocast(self.machine.device, precision, enabled=precision != torch.float32):
                logits = self.loaded.logits(rows, wide)
            loss = torch.nn.functional.cross_entropy(logits[None], torch.zeros(1, dtype=torch.long, device=logits.device))
            (loss / len(examples)).backward()  # type: ignore[no-untyped-call]
            total += loss.item() / len(examples)
            tokens += len(rows) * wide
        return total, tokens

    def state(self) -> dict[str, torch.Tensor]:
        tensors: dict[str, torch.Tensor] = self.loaded.model.state_dict()
        return tensors

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        self.loaded.model.load_state_dict(state)
