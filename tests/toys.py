"""Models of a few thousand random weights, made in a second: what needs a model's shape and not its knowledge uses these.

The tokenizers are trained on the built-in documents. The embedder's token vectors are far apart, so that passages which share
words with a question lie nearest to it; the language model says nothing of sense.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@cache
def texts() -> list[str]:
    """Some of the built-in documents."""
    from workbench.data.sources import pydocs

    return pydocs().documents["text"].to_pylist()[:30]


@cache
def subwords() -> Tokenizer:
    """Byte-level subwords, 1,500 of them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1500, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts(), trainer)
    return tokenizer


@cache
def words() -> Tokenizer:
    """Lower-case word pieces, 3,000 of them, as BERT reads them."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=3000, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(texts(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def language_model(folder: Path) -> str:
    """A Llama of two narrow layers with a chat template, saved into a folder; returns its path."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=subwords(), eos_token="<|im_end|>", pad_token="<|im_end|>", bos_token="<|im_start|>"
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=2048, **shape, **heads, **ends)
    LlamaForCausalLM(config).save_pretrained(folder)
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
