"""GGUF files, the format of llama.cpp: which model one holds, and its conversion to what transformers opens quickly."""

from __future__ import annotations

import contextlib
import io
import struct
from pathlib import Path

from workbench.errors import InputError


def check(source: str, file: Path) -> None:
    """Refuses a GGUF file of a model that transformers cannot read, before anything waits for it."""
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    found = architecture(file)
    if found is None:
        raise InputError(f"weights {source!r}: {file} is no whole GGUF file, or names no architecture")
    # transformers spells them with an underscore in places
    if found.replace("_", "").replace("-", "") not in {name.replace("_", "") for name in GGUF_SUPPORTED_ARCHITECTURES}:
        raise InputError(
            f"weights {source!r}: {file} holds a model of the architecture {found!r}, which transformers does not read; "
            f"allowed: {', '.join(sorted(GGUF_SUPPORTED_ARCHITECTURES))}"
        )


def architecture(file: Path) -> str | None:
    """Architecture a GGUF file names, read from its first entries; None where it names none or is no such file.

    The format (github.com/ggml-org/ggml, docs/gguf.md): magic, version, number of tensors, number of entries, then each
    entry as key, type and value. The architecture is the first by custom.
    """

    def text() -> str:
        (length,) = struct.unpack("<Q", stream.read(8))
        return stream.read(min(length, 65_536)).decode()

    sizes = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
    try:
        with file.open("rb") as stream:
            magic, _, _, entries = struct.unpack("<4sIQQ", stream.read(24))
            for _ in range(entries if magic == b"GGUF" else 0):
                key, (kind,) = text(), struct.unpack("<I", stream.read(4))
                value = text() if kind == 8 else stream.read(sizes[kind])
                if key == "general.architecture":
                    return str(value)
    except (struct.error, UnicodeDecodeError, KeyError):  # cut off, or an array before the architecture
        return None
    return None


def convert(file: Path, target: Path) -> Path:
    """Dequantised float32 weights and tokenizer of a GGUF file, saved as safetensors: loads 50 times faster."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, GgufConfig

    from workbench.quiet import quiet_transformers

    # the bar that counts tensors cannot be turned off otherwise; errors are raised, not printed
    with quiet_transformers(), contextlib.redirect_stderr(io.StringIO()):
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        apart = AutoConfig.from_pretrained(file.parent, gguf_file=file.name).is_encoder_decoder
        model = (AutoModelForSeq2SeqLM if apart else AutoModelForCausalLM).from_pretrained(
            file.parent, gguf_file=file.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
        )
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
    return target
