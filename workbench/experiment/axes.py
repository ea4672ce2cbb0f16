"""The axes of an experiment's file: their values, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.component import Component, build
from workbench.data.chunking import Chunking
from workbench.errors import InputError, unknown
from workbench.experiment.components import Components
from workbench.experiment.config import ALWAYS, NEVER, NONE, ExperimentSettings, at
from workbench.retrieval.gate import Gate

AXES = ("chunking", "rewriting", "expansion", "retriever", "reranker", "retrieval", "passages", "prompt", "generator")
GENERATION_AXES = ("retrieval", "passages", "prompt", "generator")
DEFAULTS: dict[str, Any] = {"chunking": {"words": 80, "overlap": 10}, "passages": 2, "prompt": "terse"}
DEFAULTS |= {"rewriting": NONE, "expansion": NONE, "reranker": NONE, "retrieval": ALWAYS}


def axes_of(settings: ExperimentSettings, components: Components) -> dict[str, list[Any]]:
    """Values of every axis that the experiment has, defaults filled in; names and forms checked.

    Without generators the axes `passages`, `prompt` and `generator` do not exist.
    """
    for section in ("axes", "baseline"):
        for key in getattr(settings, section):
            if key not in AXES:
                raise at(section, unknown("axis", key, AXES))
    generating = "generator" in settings.axes or "generator" in settings.baseline
    used = AXES if generating else tuple(a for a in AXES if a not in GENERATION_AXES)
    if not generating and (extra := [a for a in GENERATION_AXES if a in settings.axes or a in settings.baseline]):
        raise InputError(f"axes: {extra[0]!r} was given without 'generator'; without one only rankings are compared")
    axes = {}
    for axis in used:
        values = settings.axes.get(axis)
        if values is None:
            values = [settings.baseline[axis]] if axis in settings.baseline else [_default(axis, components)]
        if not values:
            raise InputError(f"axes.{axis}: the list is empty; give at least one value or leave the axis out")
        axes[axis] = [_axis_value(axis, value, components, f"axes.{axis}") for value in values]
        if len({str(v) for v in axes[axis]}) < len(axes[axis]):
            raise InputError(f"axes.{axis}: a value is given twice: {values}")
    return axes


def _default(axis: str, components: Components) -> Any:
    if axis in DEFAULTS:
        return DEFAULTS[axis]
    named: Mapping[str, Component] = components.retrievers if axis == "retriever" else components.generators
    if not named:
        raise InputError(f"components.{axis}s: none is defined; an experiment needs at least one {axis}")
    return next(iter(named))


def axis_value(axis: str, value: Any, components: Components) -> Any:
    """One value of an axis, checked: a `Chunking`, a `Gate`, a number, or a name."""
    return _axis_value(axis, value, components, f"baseline.{axis}")


def _axis_value(axis: str, value: Any, components: Components, where: str) -> Any:
    if axis == "chunking":
        if value == "whole":
            return Chunking(words=None, overlap=0)
        if not isinstance(value, dict):
            raise InputError(
                f"{where}: received {value!r}; allowed: whole, {{words: 80, overlap: 10}}, {{sentences: 5, overlap: 1}}, or "
                f"{{recursive: 200}}, to which at and keep may be added"
            )
        return build(Chunking, value, where)
    if axis == "retrieval":
        return _retrieval(value, where)
    if axis == "passages":
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(f"{where}: received {value!r}; allowed: a whole number from 1")
        return value
    if axis == "prompt":
        return str(value)
    families: dict[str, Mapping[str, Component]] = {
        "rewriting": components.rewriters,
        "expansion": components.expanders,
        "retriever": components.retrievers,
        "reranker": components.rerankers,
        "generator": components.generators,
    }
    named = families[axis]
    optional = axis in ("rewriting", "expansion", "reranker")
    if optional and value in (NONE, None):
        return NONE
    if not isinstance(value, str) or value not in named:
        raise at(where, unknown(axis, value, [*named, NONE] if optional else named))
    return value


def _retrieval(value: Any, where: str) -> str | Gate:
    if isinstance(value, str) and value in (ALWAYS, NEVER):
        return value
    if not isinstance(value, dict):
        raise InputError(f"{where}: received {value!r}; allowed: {ALWAYS}, {NEVER}, or {{when: top_score}}, {{when: margin}}")
    return build(Gate, value, where)
