"""Who asks."""

from __future__ import annotations

from typing import NamedTuple


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
    """

    name: str = ""
    request_id: str = ""
    principal: Principal = Principal()
    conversation: str | None = None


NOBODY = Caller()
