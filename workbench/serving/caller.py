"""Who asks."""

from __future__ import annotations

from typing import NamedTuple

from starlette.requests import HTTPConnection


class Principal(NamedTuple):
    """Whose request it is.

    Attributes:
        user: number of the user; None: whoever reaches an open service.
        key: number of the key, if there is one.
        per_minute: questions in a minute; None: any number.
        tokens_per_day: of prompts and answers in a day of UTC; None: any number.
    """

    user: int | None = None
    key: int | None = None
    per_minute: int | None = None
    tokens_per_day: int | None = None

    @property
    def account(self) -> tuple[int, int]:
        """What is spent is counted for this pair of user and key; 0: none."""
        return self.user or 0, self.key or 0


class Caller(NamedTuple):
    """A request that asks a question.

    Attributes:
        name: those of one name have a limited number of requests under way.
        request_id: of the request; it may be chosen by the client.
        principal: whose it is.
        conversation: in which the question is asked.
        after: the conversation's last answered turn, as it was read for the question; 0: none; None: nobody has read it.
    """

    name: str = ""
    request_id: str = ""
    principal: Principal = Principal()
    conversation: str | None = None
    after: int | None = None


NOBODY = Caller()


def caller_of(request: HTTPConnection, request_id: str = "") -> Caller:
    """Who sends a request; those who have no name are counted by their address.

    Args:
        request: that was let in.
        request_id: of the question; default: the request's.
    """
    principal = getattr(request.state, "principal", None) or Principal()
    address = request.client.host if request.client else ""
    name = address if principal.user is None else f"user {principal.user}, key {principal.key}"
    return Caller(name, request_id or request.state.request_id, principal)
