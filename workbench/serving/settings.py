"""What a service is, apart from the run that it serves: room, patience, what is kept, and what answers when the model does not.

Nothing here decides an answer: that is in the run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from workbench.data.readers import yaml_files
from workbench.errors import InputError
from workbench.models.served import EndpointGenerator


class Section(BaseModel):
    """Base of all sections: unknown keys and values of another type are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Room(Section):
    """How much the service takes on.

    Attributes:
        queue: questions that wait at most; further ones are answered 503.
        at_once: requests of one address under way at most; further ones are answered 429.
        deadline: seconds within which an answer must be there; later ones are answered 504.
        grace: seconds that questions under way have when the service stops.
        gate: measured answers that are computed again before anybody is let in.
        hosts: names by which the service may be called, besides this machine's own and its address; ``*``: any.
    """

    queue: Annotated[int, Field(ge=1)] = 64
    at_once: Annotated[int, Field(ge=1)] = 16
    deadline: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30.0
    grace: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 10.0
    gate: Annotated[int, Field(ge=1)] = 2
    hosts: tuple[str, ...] = Field(default=(), strict=False)


class Caching(Section):
    """How many answers are kept, and how long.

    Attributes:
        memory_mb: in memory.
        disk_mb: in the table on disk; 0: there is none.
        days: for which an answer is kept on disk.
        folder: of the table, and of the records; default: ``.service`` in the folder of runs.
    """

    memory_mb: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 64.0
    disk_mb: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 512.0
    days: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30.0
    folder: Annotated[Path | None, Field(strict=False)] = None


class Keeping(Section):
    """What is kept of questions.

    Attributes:
        texts: questions, answers, votes' comments and conversations; without them, digests and numbers alone.
        days: for which they are kept.
    """

    texts: bool = True
    days: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30.0


class Who(Section):
    """Who may ask, and how much.

    Attributes:
        open: ``loopback``: whoever reaches the service may ask where it listens on this machine alone; ``never``: nobody may
            without a key or a log-in.
        issuer: an issuer of OpenID Connect, whose tokens are taken.
        audience: what its tokens for this service are for.
        client: what it calls this service where people log in to the page there; null: they do not.
        per_minute: questions of one key, or of one person without a key, in a minute.
        tokens_per_day: of prompts and answers, likewise, in a day of UTC; null: any number.
        log_ins_per_minute: attempts to log in of one address, and for one name.
    """

    open: Literal["loopback", "never"] = "loopback"
    issuer: Annotated[str, Field(pattern=r"^https?://\S+$")] | None = None
    audience: Annotated[str, Field(min_length=1)] | None = None
    client: Annotated[str, Field(min_length=1)] | None = None
    per_minute: Annotated[int, Field(ge=1)] = 60
    tokens_per_day: Annotated[int, Field(ge=1)] | None = None
    log_ins_per_minute: Annotated[int, Field(ge=1)] = 10

    @model_validator(mode="after")
    def _whole(self) -> Who:
        if (self.issuer is None) != (self.audience is None):
            raise ValueError("issuer and audience belong together: a token has to be the issuer's, and for this service")
        if self.client and self.issuer is None:
            raise ValueError("client needs an issuer, where people log in")
        return self


class Prices(Section):
    """What a million tokens cost.

    Attributes:
        prompt: of prompts.
        answer: of answers.
        currency: of both.
    """

    prompt: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    answer: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    currency: Annotated[str, Field(min_length=1)] = "EUR"


class Logs(Section):
    """What is written to standard error.

    Attributes:
        form: ``text``: lines for people; ``json``: an object in each line.
        level: of the least important lines; ``info``: one for each request too.
    """

    form: Literal["text", "json"] = "text"
    level: Literal["info", "warning", "error"] = "warning"


class RunFallback(Section):
    """Another run answers, with its promoted configuration.

    Attributes:
        run: its folder.
    """

    run: Annotated[Path, Field(strict=False)]


Fallback = Literal["passage"] | RunFallback | EndpointGenerator


class ServiceSettings(Section):
    """A service.

    Attributes:
        serve: how much it takes on.
        cache: which answers it keeps.
        keep: what it keeps of questions; ``none``: counts and what was spent alone.
        who: who may ask, and how much.
        prices: what answers cost.
        logs: what is written to standard error.
        fallback: what answers when the model does not, in this order: ``passage`` (the best passage, word for word),
            ``{run: FOLDER}``, or a generator behind a server, written as in an experiment's file.
    """

    serve: Room = Room()
    cache: Caching = Caching()
    keep: Keeping | Literal["none"] = Keeping()
    who: Who = Who()
    prices: Prices = Prices()
    logs: Logs = Logs()
    fallback: tuple[Fallback, ...] = Field(default=("passage",), strict=False)

    @property
    def keeps_texts(self) -> bool:
        """Whether texts of people may be on the disk."""
        return self.keep != "none" and self.keep.texts


def read_service(path: Path | None) -> ServiceSettings:
    """The settings of a file; without one, the defaults.

    Raises:
        InputError: no such file, no YAML, an unknown key, or a value that is not allowed.
    """
    if path is None:
        return ServiceSettings()
    if not path.is_file():
        raise InputError(f"service file {path} does not exist; leave --settings out to serve with the defaults")
    values = yaml_files.read(path)
    if values is None:
        return ServiceSettings()
    if not isinstance(values, dict):
        raise InputError(f"{path}: received {type(values).__name__}; allowed: the keys {', '.join(ServiceSettings.model_fields)}")
    try:
        return ServiceSettings.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{path}: {_said(error)}") from error


def _said(error: ValidationError) -> str:
    """The first thing that is wrong, with all that would be allowed in its place."""
    found: list[tuple[str, dict[str, Any]]] = [(_where(one["loc"]), dict(one)) for one in error.errors()]
    where, first = found[0]
    if first["type"] == "extra_forbidden":
        return f"{where} is no setting of a service; docs/serving.md and docs/people.md list them"
    allowed, *others = dict.fromkeys(_allowed(one) for place, one in found if place == where)
    said = [allowed, *(one.removeprefix("input should be ") for one in others)]
    return f"{where}: received {first['input']!r}; {' or '.join(said)}"


def _where(place: tuple[str | int, ...]) -> str:
    """Keys and numbers of a place, without the names of classes that could have stood there."""
    return ".".join(str(part) for part in place if isinstance(part, int) or (part.isidentifier() and part.islower()))


def _allowed(error: dict[str, Any]) -> str:
    """What is allowed, in words that do not presume Python."""
    kinds = {"model_type": "keys with values", "tuple_type": "a list"}
    if kind := kinds.get(error["type"]):
        return f"input should be {kind}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{message[:1].lower()}{message[1:]}"
