"""All weights of a generator, trained, in the place of an adapter: written and read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.errors import InputError
from workbench.models.adapters import CONFIG, WEIGHTS, base_name

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

METHOD = "full"


def parameters(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Its weights by name, in the model's dtype (float32 in a training), (outputs, inputs) in linear layers; shared ones once."""
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def save(model: PreTrainedModel, base: str, folder: Path) -> None:
    """Writes all weights in float32, so that equal tensors give equal bytes; the base model is named by its digest."""
    from safetensors.torch import save_file

    tensors = {name: tensor.float().cpu().contiguous() for name, tensor in parameters(model).items()}
    save_file(tensors, folder / WEIGHTS)
    config = {"base_model_name_or_path": base_name(base), "method": METHOD}
    (folder / CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True))


def is_whole(folder: Path) -> bool:
    """Whether a folder holds all weights, rather than an adapter's."""
    try:
        return bool(json.loads((folder / CONFIG).read_text()).get("method") == METHOD)
    except (OSError, ValueError, AttributeError):
        return False


def load(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The model with the weights of a folder in the place of its own.

    Raises:
        InputError: the folder holds other weights than the model has.
    """
    from safetensors.torch import load_file

    restore(model, load_file(folder / WEIGHTS))
    return model


def restore(model: PreTrainedModel, tensors: dict[str, torch.Tensor]) -> None:
    """Puts tensors in the place of a model's weights.

    Args:
        model: the model.
        tensors: by name, float32 or the model's dtype, (outputs, inputs) in each linear layer.

    Raises:
        InputError: there are others than the model has.
    """
    found = parameters(model)
    if found.keys() != tensors.keys():
        odd = sorted(found.keys() ^ tensors.keys())
        raise InputError(
            f"trained weights do not belong to this model: {odd[0]} and {len(odd) - 1} more are in one of them alone"
        )
    for name, tensor in tensors.items():
        found[name].copy_(tensor)
