"""What is wrong with a request, or with the service, in the form of RFC 9457 (problem details for HTTP APIs)."""

from __future__ import annotations

import json
from typing import Any, ClassVar

MEDIA_TYPE = "application/problem+json"
UNEXPECTED = "the question could not be answered because of an error in the server; its log says more"


class ProblemError(Exception):
    """Base of all problems: each class is one type, ``urn:workbench:problem:NAME``.

    Attributes:
        name: of the type.
        status: of the HTTP response.
        title: what is wrong, the same for all problems of the type.
        detail: what is wrong with this request, and what is allowed.
        retry_after: whole seconds after which asking again may help; None: it does not by itself.
        more: further members, such as ``allowed`` and ``received``.
    """

    name: ClassVar[str]
    status: ClassVar[int]
    title: ClassVar[str]

    def __init__(self, detail: str, retry_after: int | None = None, **more: Any) -> None:
        super().__init__(detail)
        self.detail, self.retry_after, self.more = detail, retry_after, more

    def as_json(self, request_id: str) -> dict[str, Any]:
        """The problem's members; ``instance`` is the request."""
        known = {"type": f"urn:workbench:problem:{self.name}", "title": self.title, "status": self.status, "detail": self.detail}
        return known | {"instance": request_id} | self.more

    def body(self, request_id: str) -> bytes:
        """The members as JSON."""
        return json.dumps(self.as_json(request_id), ensure_ascii=False).encode()


class NotJsonError(ProblemError):
    """The body is no JSON."""

    name, status, title = "not-json", 400, "The body is not JSON"


class HostError(ProblemError):
    """The request names a host that is not this service's."""

    name, status, title = "unknown-host", 400, "The host is not served here"


class UnauthorizedError(ProblemError):
    """Nobody knows who asks."""

    name, status, title = "unauthorized", 401, "A key or a log-in is needed"


class ForeignPageError(ProblemError):
    """A page of somebody else has the reader's browser send it."""

    name, status, title = "foreign-page", 403, "Pages of other addresses may not send this"


class NotFoundError(ProblemError):
    """There is no such address, answer or model."""

    name, status, title = "not-found", 404, "There is no such thing"


class MethodError(ProblemError):
    """The address is asked otherwise."""

    name, status, title = "method-not-allowed", 405, "The address does not take this method"


class NotAcceptableError(ProblemError):
    """No form that the client accepts."""

    name, status, title = "not-acceptable", 406, "There is no answer of the accepted type"


class SlowBodyError(ProblemError):
    """The body did not arrive in time."""

    name, status, title = "slow-body", 408, "The body did not arrive in time"


class ConflictError(ProblemError):
    """Something else has to end, or to be removed, first."""

    name, status, title = "conflict", 409, "Not as things stand"


class GoneError(ProblemError):
    """The answer was there, and is kept no more."""

    name, status, title = "gone", 410, "The answer is kept no more"


class TooLargeError(ProblemError):
    """The body is too large."""

    name, status, title = "too-large", 413, "The body is too large"


class MediaTypeError(ProblemError):
    """The body is of another type."""

    name, status, title = "media-type", 415, "The body is of a type that is not read"


class InvalidError(ProblemError):
    """The body is JSON, and not what is asked for."""

    name, status, title = "invalid", 422, "The request is not valid"


class RateLimitedError(ProblemError):
    """The client asks too much."""

    name, status, title = "rate-limited", 429, "Too many requests of one client"


class BudgetSpentError(ProblemError):
    """The client has used what it may use."""

    name, status, title = "budget-spent", 429, "What may be used today is used"


class UnexpectedError(ProblemError):
    """An error in the server."""

    name, status, title = "unexpected", 500, "The server failed"


class OverloadedError(ProblemError):
    """The service is full."""

    name, status, title = "overloaded", 503, "The service is full"


class StartingError(ProblemError):
    """The service is not ready yet, or stops."""

    name, status, title = "unavailable", 503, "The service is not available"


class UnavailableRecordsError(ProblemError):
    """The records cannot be written or read."""

    name, status, title = "records-unavailable", 503, "The records cannot be used"


class IssuerError(ProblemError):
    """Who vouches for people does not answer."""

    name, status, title = "issuer-unavailable", 503, "The issuer of tokens does not answer"


class NoAnswerError(ProblemError):
    """The model does not answer, and nothing answers in its place."""

    name, status, title = "no-answer", 503, "The model does not answer"


class TooLateError(ProblemError):
    """The answer would come too late."""

    name, status, title = "too-late", 504, "There was no answer in time"


PROBLEMS: tuple[type[ProblemError], ...] = tuple(ProblemError.__subclasses__())
