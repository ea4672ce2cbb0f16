"""What lies in an adapter's folder beside its weights: the base model it belongs to, and the prompt it was trained in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypedDict

from workbench import weights
from workbench.component import file_digest
from workbench.errors import InputError

CONFIG = "adapter_config.json"  # peft's
PROMPT = "prompt.json"  # settings of a `Template`
WEIGHTS = "adapter_model.safetensors"  # peft's
EXPORTED = "exported.json"


class Exported(TypedDict):
    """exported.json, of an adapter with its base weights beside it.

    Attributes:
        format: of this file.
        base: folder of the base weights, inside the adapter's.
        base_digest: content digest of that folder.
        trained_on: the base weights as the training named them, by their content; see `base_name`.
        max_new_tokens: longest answer in tokens that was measured.
        weights_digest: of the adapter's own weights; empty in what was exported before they were checked.
    """

    format: int
    base: str
    base_digest: str
    trained_on: str
    max_new_tokens: int
    weights_digest: str


def base_name(model: str) -> str:
    """How an adapter names the weights it belongs to: by their content."""
    return f"sha256:{weights.digest(model)}"


def exported(adapter: Path) -> Exported | None:
    """What an exported adapter says of its base weights; None for one that was not exported.

    Raises:
        InputError: the file that says it cannot be read.
    """
    path = adapter / EXPORTED
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {
            "format": int(found["format"]),
            "base": str(found["base"]),
            "base_digest": str(found["base_digest"]),
            "trained_on": str(found["trained_on"]),
            "max_new_tokens": int(found["max_new_tokens"]),
            "weights_digest": str(found.get("weights_digest", "")),
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"adapter {adapter}: its {EXPORTED} cannot be read; export the adapter again") from error


def _is_whole(path: Path, written: str) -> bool:
    return path.is_file() and file_digest(path) == written


def check_base(model: str, adapter: Path) -> None:
    """Refuses base weights that an adapter was not trained on.

    Raises:
        InputError: other weights, a folder that names none, or an exported adapter that is damaged.
    """
    copied = exported(adapter)
    if copied and copied["weights_digest"] and not _is_whole(adapter / WEIGHTS, copied["weights_digest"]):
        raise InputError(f"adapter {adapter}: its {WEIGHTS} is missing or not what was exported; export the adapter again")
    if copied and weights.digest(model) == copied["base_digest"]:
        return
    try:
        belongs = copied["trained_on"] if copied else json.loads((adapter / CONFIG).read_text())["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"adapter {adapter}: its {CONFIG} names no base model; it is no adapter of ours") from error
    if belongs != base_name(model):
        raise InputError(
            f"adapter {adapter} was trained on {belongs}, not on {model} ({base_name(model)}); name its own base model"
        )
