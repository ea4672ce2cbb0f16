"""Lists inside a generator's `lora`: short for one generator for each combination of their values."""

from __future__ import annotations

from itertools import product
from typing import Any

from workbench.errors import InputError


def spelled_out(values: dict[str, Any]) -> dict[str, Any]:
    """An experiment's file with its lists of LoRA settings spelled out.

    ``tuned: {lora: {rank: [4, 16]}}`` stands for the generators ``tuned rank=4`` and ``tuned rank=16``, and ``tuned`` on the
    axis `generator` for both.

    Args:
        values: as read from YAML; whatever has not the expected form is left for the typed settings to refuse.

    Raises:
        InputError: an empty list, or a baseline that names several generators.
    """
    components = values.get("components")
    if not isinstance(components, dict) or not isinstance(generators := components.get("generators"), dict):
        return values
    named = {name: _generators(name, given) for name, given in generators.items()}
    spelled = {new: given for made in named.values() for new, given in made.items()}
    values = values | {"components": components | {"generators": spelled}}
    axes, baseline = values.get("axes"), values.get("baseline")
    if isinstance(axes, dict) and isinstance(axes.get("generator"), list):
        listed = [new for name in axes["generator"] for new in _names(named, name)]
        values["axes"] = axes | {"generator": listed}
    if isinstance(baseline, dict) and "generator" in baseline and len(_names(named, baseline["generator"])) > 1:
        several = ", ".join(_names(named, baseline["generator"]))
        raise InputError(f"baseline.generator: {baseline['generator']!r} stands for several generators; name one: {several}")
    return values


def _names(named: dict[str, dict[str, Any]], name: Any) -> list[Any]:
    return list(named[name]) if isinstance(name, str) and name in named else [name]


def _generators(name: str, given: Any) -> dict[str, Any]:
    """One generator by its own name, or one for each combination."""
    if not isinstance(given, dict) or not isinstance(lora := given.get("lora"), dict):
        return {name: given}
    lists = {key: value for key, value in lora.items() if isinstance(value, list)}
    if not lists:
        return {name: given}
    for key, options in lists.items():
        if not options:
            raise InputError(f"components.generators.{name}.lora.{key}: the list is empty; give at least one value")
        if twice := [value for i, value in enumerate(options) if value in options[:i]]:
            raise InputError(f"components.generators.{name}.lora.{key}: {twice[0]!r} is given twice; give each value once")
    made = {}
    for chosen in product(*lists.values()):
        point = dict(zip(lists, chosen, strict=True))
        made[" ".join([name, *(f"{key}={_short(value)}" for key, value in point.items())])] = given | {"lora": lora | point}
    return made


def _short(value: Any) -> str:
    return "-".join(map(str, value.values())) if isinstance(value, dict) else str(value)
