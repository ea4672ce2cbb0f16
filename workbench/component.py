"""What every component is: frozen settings, a version, a definition that can be digested.

A component is one class in one file. Its fields are its settings; unknown keys are refused. `version` is raised when
the meaning of its output changes, `libraries` names the distributions whose version its output depends on.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import json
import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from workbench.errors import InputError, unknown

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


def canonical(value: object) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: object) -> str:
    """SHA-256 of the canonical JSON of `value`, 64 hexadecimal characters."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal characters."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# one module that several distributions provide
ALTERNATIVES = {"faiss": ("faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs")}


@cache
def library_version(distribution: str) -> str:
    """Installed version of a distribution without its local part (``2.13.0+cpu`` -> ``2.13.0``), or ``absent``.

    The local part names the hardware a wheel was built for, which `workbench.machine` puts into keys itself.
    """
    from importlib import metadata  # takes a while, and processes that read documents never ask

    for name in ALTERNATIVES.get(distribution, (distribution,)):
        try:
            return metadata.version(name).split("+")[0]
        except metadata.PackageNotFoundError:
            continue
    return "absent"


class Component(BaseModel):
    """Base of all components.

    Class attributes:
        version: raised when the meaning of the output changes, so that stored results are not reused.
        libraries: distributions whose installed version is part of the key.
        references: fields holding the *name* of another component. They are left out of the definition, because
            the stage of the component they name is an input of this one's and its key says more than a name.
        added: fields that came later. They are left out while they have their default, so that older keys stay.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ()
    references: ClassVar[tuple[str, ...]] = ()
    added: ClassVar[tuple[str, ...]] = ()

    def settings(self) -> dict[str, Any]:
        """Settings that define the output, as plain JSON values; `references` left out, and defaults of what was `added`.

        The kind of a class of one's own is its name and the digest of its source, wherever its file lies.
        """
        silent = {name for name in self.added if getattr(self, name) == type(self).model_fields[name].default}
        found = self.model_dump(mode="json", exclude=silent | set(self.references))
        own = not type(self).__module__.startswith("workbench.")
        return found | {"kind": component_name(type(self))} if own and "kind" in found else found

    def definition(self) -> dict[str, Any]:
        """Everything of the component itself that decides its output: class, version, libraries, settings."""
        return {
            "component": component_name(type(self)),
            "version": self.version,
            "libraries": {name: library_version(name) for name in self.libraries},
            "settings": self.settings(),
        }


class Source(NamedTuple):
    """A Python file of the user's: its name, its content and the SHA-256 digest of the content in hex."""

    name: str
    content: bytes
    digest: str


_imported: dict[str, Source] = {}  # name of a module that was imported from a file -> the file as it was then


def component_name(cls: type[Component]) -> str:
    """Name of a component's class for keys: its short name inside the package, else with its source's digest."""
    if cls.__module__.startswith("workbench."):
        return cls.__name__
    return f"{cls.__name__}@{source_digest(cls)}"


C = TypeVar("C", bound=Component)


def load_class(spec: str, base: type[C], folder: Path | None = None) -> type[C]:
    """The component class that ``package.module:Class`` or ``./file.py:Class`` names.

    Args:
        spec: the text of `kind:` in a configuration.
        base: the class it has to be derived from.
        folder: where a relative file is looked for (the configuration's folder); default: the current folder.

    Raises:
        InputError: the module or file cannot be found or imported, has no such class, or the class is not a `base`.
            A class that exists only in a notebook is refused, since another process could not load it.
    """
    found, module = _load(spec, folder, "Class")
    if found is None:
        own = [(n, c) for n, c in vars(module).items() if inspect.isclass(c) and c.__module__ == module.__name__]
        place, _, name = spec.rpartition(":")
        raise unknown(f"class in {place}", name, [n for n, c in own if issubclass(c, base)])
    if not (inspect.isclass(found) and issubclass(found, base)):
        raise InputError(f"{spec!r} is no {base.__name__}; derive the class from {base.__module__}.{base.__name__}")
    if lacking := sorted(getattr(found, "__abstractmethods__", ())):
        methods = ", ".join(f"{name}()" for name in lacking)
        raise InputError(f"{spec!r} lacks what every {base.__name__} has to define: {methods}; add that, or name another")
    return found


def load_function(spec: str, folder: Path | None = None) -> Callable[..., Any]:
    """The function that ``package.module:function`` or ``./file.py:function`` names.

    Args:
        spec: as written in a configuration.
        folder: where a relative file is looked for (the configuration's folder); default: the current folder.

    Raises:
        InputError: the module or file cannot be found or imported, has no such function, or exists only in a notebook.
    """
    found, module = _load(spec, folder, "function")
    if inspect.isfunction(found):
        return found
    if found is not None:
        kind = "class" if inspect.isclass(found) else type(found).__name__
        raise InputError(f"{spec!r} is a {kind}, no function written in Python; write one that calls it: def name(...): ...")
    place, _, name = spec.rpartition(":")
    own = [n for n, f in vars(module).items() if inspect.isfunction(f) and f.__module__ == module.__name__]
    raise unknown(f"function in {place}", name, own)


def source_digest(named: Callable[..., Any]) -> str:
    """Digest of the file that a class or a function was written in, below its decorators, as it was when it was imported."""
    named = inspect.unwrap(named)
    source = _imported.get(named.__module__)
    return source.digest if source else file_digest(Path(inspect.getsourcefile(named) or ""))


def _load(spec: str, folder: Path | None, what: str) -> tuple[object, ModuleType]:
    """What ``place:name`` names, None where the place has no such thing, and the module that the place is."""
    place, _, name = spec.rpartition(":")
    if not place:
        raise InputError(f"{spec!r} names no {what.lower()}; write ./file.py:{what} or package.module:{what}")
    if place == "__main__":
        raise InputError(
            f"{spec!r} exists only in this notebook or script; save the {what.lower()} in a file beside the configuration and "
            f"name it ./file.py:{name}"
        )
    module = load_file(place, folder) if place.endswith(".py") else _load_module(place)
    return getattr(module, name, None), module


def load_file(place: str, folder: Path | None) -> ModuleType:
    """The module that a file is, imported under a name that its content decides.

    Args:
        place: the file, relative to the folder.
        folder: default: the current one.

    Raises:
        InputError: there is no such file, or it cannot be imported.
    """
    path = ((folder or Path()) / place).resolve()
    if not path.is_file():
        raise InputError(f"file {place!r} does not exist (looked for {path}); put it there, or correct its name")
    # the digest in the module's name lets two versions of one file live in one process
    content = path.read_bytes()
    source = Source(path.name, content, hashlib.sha256(content).hexdigest())
    name = f"workbench_user_{path.stem}_{source.digest[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    module_spec = importlib.util.spec_from_file_location(name, path)
    if module_spec is None or module_spec.loader is None:
        raise InputError(f"file {path} cannot be imported: Python has no loader for such files")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module
    _imported[name] = source
    try:
        module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name], _imported[name]
        raise InputError(f"file {path} cannot be imported: {type(error).__name__}: {error}") from error
    return module


def imported_sources() -> dict[str, Source]:
    """Name of a module -> the file it was imported from, of every file of the user's that this process imported."""
    return dict(_imported)


def _load_module(place: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except (Exception, SystemExit) as error:
        raise InputError(f"module {place!r} cannot be imported: {type(error).__name__}: {error}") from error


def build(cls: type[C], values: dict[str, Any], where: str) -> C:
    """`cls(**values)`, with pydantic's errors turned into one message that names the key in the file.

    Args:
        cls: the component's class.
        values: its settings, as read from YAML.
        where: the dotted place in the file, e.g. ``components.retrievers.bm25``.

    Raises:
        InputError: an unknown key, a missing one, or a value out of range.
    """
    try:
        return cls(**values)
    except ValidationError as error:
        raise InputError("; ".join(explain(cls, item, where) for item in error.errors())) from error


def explain(cls: type[BaseModel], item: ErrorDetails, where: str) -> str:
    """One of pydantic's errors in a sentence: the place in the file, what was received, what is allowed."""
    classes, keys = [cls], []
    for part in item["loc"]:
        found = [model for one in classes for model in _sections(one, str(part))]
        if found or any(str(part) in one.model_fields for one in classes) or isinstance(part, int):
            keys.append(str(part))
            classes = found or classes
        elif chosen := [one for one in classes if one.model_fields.get("kind") and one.model_fields["kind"].default == part]:
            classes = chosen  # the kind of what stands there: no key of its own
        elif not re.match(r"constrained-|\w+\[", str(part)):  # pydantic's name for one of several types: no key
            keys.append(str(part))
    place = ".".join([where, *keys]).strip(".")
    if item["type"] == "extra_forbidden":
        return f"{place}: {unknown('key', item['loc'][-1], dict.fromkeys(key for one in classes for key in one.model_fields))}"
    if item["type"] == "missing":
        return f"{place}: this key is required"
    if item["type"] == "value_error":
        return f"{place}: {item['ctx']['error']} (received {item['input']!r})"
    if place.endswith("_env"):  # somebody may have written a key there, which no message is to repeat
        return f"{place}: received {type(item['input']).__name__} that is no name; allowed: the name of an environment variable"
    allowed = ALLOWED.get(item["type"])
    if allowed is None:
        return f"{place}: {item['msg']} (received {item['input']!r})"
    return f"{place}: received {item['input']!r}; allowed: {allowed.format(**item.get('ctx', {}))}"


# pydantic's names of errors -> what is allowed instead
ALLOWED = {
    "greater_than": "a number greater than {gt}",
    "greater_than_equal": "a number greater than or equal to {ge}",
    "less_than": "a number less than {lt}",
    "less_than_equal": "a number less than or equal to {le}",
    "multiple_of": "multiples of {multiple_of}",
    "finite_number": "finite numbers",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a text",
    "path_type": "the path of a file or folder, as a text",
    "none_required": "null",
    "literal_error": "{expected}",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "keys with values below them",
    "model_type": "keys with values below them",
    "model_attributes_type": "keys with values below them",
    "too_short": "at least {min_length} values",
    "string_too_short": "a text of at least {min_length} characters",
    "string_too_long": "a text of at most {max_length} characters",
    "string_pattern_mismatch": "a text that the regular expression {pattern} describes",
    "union_tag_invalid": "as {discriminator} one of {expected_tags}",
    "union_tag_not_found": "an object with the key {discriminator}",
}


def _is_number(annotation: object) -> bool:
    """Whether a field takes numbers, and neither true nor false."""
    kinds = _kinds(annotation)
    return bool(kinds & {int, float}) and not kinds & {bool, Any, object}


def _kinds(annotation: object) -> set[object]:
    parts = get_args(annotation)
    return set().union(*map(_kinds, parts)) if parts and get_origin(annotation) is not Literal else {annotation}


def no_truth(cls: type[BaseModel], value: object, field: str) -> object:
    """The value of a field before it is checked; pydantic would read true as 1.

    Args:
        cls: the settings.
        value: what was given.
        field: the field's name.

    Raises:
        ValueError: true or false where a number is meant.
    """
    if isinstance(value, bool) and _is_number(cls.model_fields[field].annotation):
        raise ValueError(f"{str(value).lower()} is no number")
    return value


def _sections(cls: type[BaseModel], key: str) -> list[type[BaseModel]]:
    """The settings that may stand below a key."""

    def models(annotation: object) -> list[type[BaseModel]]:
        if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
            return [annotation]
        return [model for part in get_args(annotation) for model in models(part)]

    field = cls.model_fields.get(key)
    return models(field.annotation) if field else []
