"""Models of a few thousand weights, made in a second: what needs a model's shape and not its knowledge uses these.

The tokenizers are trained on the built-in documents. The embedder's token vectors are far apart, so that passages which share
words with a question lie nearest to it; the language model says nothing of sense; the parrot repeats words of its prompt.

`made(embedder)` is the folder of the one that all tests of a session share.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


PLACES = ["gate", "mill", "harbour", "tower", "garden", "bridge", "castle", "chapel", "market", "station", "library", "theatre"]
KEPT = [
    "dictionary",
    "generator",
    "iteration",
    "statement",
    "attribute",
    "function",
    "module",
    "string",
    "integer",
    "exception",
    "sequence",
    "debugger",
]
ASKED = {
    "train": "What does the {} keep?",
    "dev": "Which thing is it that people look for at the {}?",
    "test": "I went to the {} at night. What did I find there?",
}
SHARED = TemporaryDirectory(prefix="workbench-toys-")  # removed when the process ends


@cache
def made(kind: Callable[[Path], str]) -> str:
    """The folder of a toy, made once in a process; tests read it and write nothing there."""
    return kind(Path(SHARED.name) / kind.__name__)


@cache
def texts() -> list[str]:
    """Some of the built-in documents."""
    from workbench.data.sources import pydocs

    return pydocs().documents["text"].to_pylist()[:30]


@cache
def subwords(size: int = 1500) -> Tokenizer:
    """Byte-level subwords, so many of them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts(), trainer)
    return tokenizer


@cache
def words() -> Tokenizer:
    """Lower-case word pieces, as BERT reads them: 2,000 words, and what the others begin and end with.

    Counted here, since what the library's own trainer learns depends on the process.
    """
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    normalizer, cutter = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    counts = Counter(word for text in texts() for word, _ in cutter.pre_tokenize_str(normalizer.normalize_str(text)))
    letters = sorted({letter for word in counts for letter in word})
    pieces: Counter[str] = Counter()
    for word, n in counts.items():
        for k in range(2, min(5, len(word))):
            pieces[word[:k]] += n
            pieces[f"##{word[-k:]}"] += n
    common = [text for found in (counts, pieces) for text in sorted(found, key=lambda text, n=found: (-n[text], text))[:2_000]]
    vocabulary = dict.fromkeys([*special, *letters, *(f"##{letter}" for letter in letters), *common])
    tokenizer = Tokenizer(models.WordPiece({text: number for number, text in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, cutter
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def facts(folder: Path) -> str:
    """Twelve documents on a place each, which overlap, and twelve questions a split that `parrot` often answers; their folder.

    Every fifth question has no answer in the documents.
    """
    (folder / "documents").mkdir(parents=True)
    rows = []
    for i, (place, kept) in enumerate(zip(PLACES, KEPT, strict=True)):
        other, place_after, kept_after = KEPT[(i + 5) % 12], PLACES[(i + 1) % 12], KEPT[(i + 1) % 12]
        evidence = f"The {place} keeps a {kept}, and the {kept} is all that it keeps."
        told = f"People look for a {other} there at night. They find a {kept_after} beside the {place_after}, or that alone."
        (folder / "documents" / f"{place}.txt").write_text(f"The {place} and its {kept}\n\n{evidence}\n\n{told}\n")
        answers = (
            {"answers": [], "evidence": None}
            if i % 5 == 4
            else {"answers": [kept, f"a {kept} and a {place}"], "evidence": evidence}
        )
        rows += [
            {"id": f"{split}{i}", "split": split, "question": asked.format(place)} | answers for split, asked in ASKED.items()
        ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


def chat_tokenizer(folder: Path, size: int = 1500) -> object:
    """`subwords` as transformers' tokenizer with a chat template, saved into a folder."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=subwords(size), eos_token="<|im_end|>", pad_token="<|im_end|>", bos_token="<|im_start|>"
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return tokenizer


def language_model(folder: Path) -> str:
    """A Llama of two narrow layers with a chat template, saved into a folder; returns its path."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = chat_tokenizer(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=8192, **shape, **heads, **ends)
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


def parrot(folder: Path) -> str:
    """A Llama that answers with the words of its prompt that are frequent there and rare elsewhere; returns its path.

    Its weights are set, not learned: attention looks at all tokens alike and adds up a direction of each word's own, longer for
    rare words; the head names the word whose direction is longest in the sum, other than the last one. So its answers depend on
    the passages it is shown, often hold the accepted answer, and come out alike on every processor.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from workbench.models import prompts

    tokenizer = chat_tokenizer(folder, 4000)
    names = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    counts = Counter(token for found in tokenizer.backend_tokenizer.encode_batch(texts()) for token in found.ids)
    total, width, heads = counts.total(), 128, 4
    asked = {token for name in prompts.names() for token in tokenizer.encode(str(prompts.load(name).fill("", [])))}
    word = [name.startswith("Ġ") and name[1:].isalpha() and i not in asked for i, name in enumerate(names)]
    rare = [math.log(total / (counts[i] + 1)) / math.log(total) if word[i] else 0.0 for i in range(len(names))]
    length = torch.tensor(rare) ** 3
    torch.manual_seed(0)
    direction = torch.nn.functional.normalize(torch.randn(len(names), width), dim=1)
    shape = {"hidden_size": 2 * width, "intermediate_size": 64, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": heads, "num_key_value_heads": 2}
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(names), max_position_embeddings=2048, **shape, **ends))
    with torch.no_grad():
        # a token's own direction in the first half, and what makes all rows of one length in the last column
        tokens, head = model.model.embed_tokens.weight.zero_(), model.lm_head.weight.zero_()
        tokens[:, :width], tokens[:, -1] = length[:, None] * direction, (1 - length**2).sqrt()
        for layer in model.model.layers:
            for product in (layer.self_attn.q_proj, layer.self_attn.v_proj, layer.self_attn.o_proj, layer.mlp.down_proj):
                product.weight.zero_()
        # the first layer writes the mean of all directions into the second half; two heads share each half of it
        attention, part = model.model.layers[0].self_attn, width // 2
        attention.v_proj.weight[:, :width] = torch.eye(width)
        for written, read in ((width, 0), (width + part, 2 * part)):
            attention.o_proj.weight[written : written + part, read : read + part] = 4 * torch.eye(part)
        said = length > 0
        head[said, width:-1], head[said, :width] = direction[said, :-1], -direction[said]
    model.save_pretrained(folder)
    return str(folder)


def bert_tokenizer() -> object:
    """`words` as transformers' tokenizer."""
    from transformers import BertTokenizerFast

    return BertTokenizerFast(tokenizer_object=words(), model_max_length=256)


def encoder(folder: Path) -> str:
    """A BERT of two narrow layers without anything behind it, saved into a folder; returns its path."""
    import torch
    from transformers import BertConfig, BertModel

    tokenizer = bert_tokenizer()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=256, **shape), add_pooling_layer=False)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight.normal_(std=1.0)  # words decide, their places hardly
    model.save_pretrained(folder)
    return str(folder)


def embedder(folder: Path) -> str:
    """`encoder` with the mean over tokens, as sentence-transformers saves it; returns its path."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    inner = encoder(folder.parent / f"{folder.name}-inner")
    transformer = Transformer(inner, max_seq_length=256)
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="mean")
    SentenceTransformer(modules=[transformer, pooling], device="cpu").save(str(folder), create_model_card=False)
    return str(folder)
