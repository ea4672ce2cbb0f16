"""How servers are asked: again where waiting helps, after the time they name, by fewer requests at a time where they are busy.

One `Patience` stands before each server, whichever client sends the requests; the clients themselves try nothing again.
"""

from __future__ import annotations

import json
import os
import random
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from workbench.errors import InputError, StageFailedError

AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504, 529})  # answers that another attempt may change; 529: Anthropic's 503
BUSY = 429
FIRST_WAIT = 0.5  # seconds; doubled at each attempt
LONGEST_WAIT = 60.0  # seconds; a server that asks for more is not waited for
SHOWN = 300  # characters of a server's message that are quoted
HALVES = re.compile("[\ud800-\udfff]")  # of characters, which JSON can say and no file can hold

T = TypeVar("T")


class AttemptError(Exception):
    """One attempt brought no answer.

    Attributes:
        reason: what happened, the key hidden.
        status: the server's status; None: there was no answer at all, or none that can be read.
        again: whether another attempt may help.
        retry_after: what the server says of how long to wait, as it says it.
    """

    def __init__(self, reason: str, status: int | None = None, again: bool = True, retry_after: str | None = None) -> None:
        super().__init__(reason)
        self.reason, self.status, self.again, self.retry_after = reason, status, again, retry_after


class RefusedError(InputError):
    """A server refuses a request, and asking again would not help.

    Attributes:
        status: the server's status; None: what it answers cannot be read.
    """

    def __init__(self, text: str, status: int | None) -> None:
        super().__init__(text)
        self.status = status


class NoAnswerError(StageFailedError):
    """A server gave no usable answer after all attempts.

    Attributes:
        status: of the last attempt; None: no answer at all.
    """

    def __init__(self, text: str, status: int | None) -> None:
        super().__init__(text)
        self.status = status


class Slots:
    """How many requests may be under way: at first `most`, half as many after each 429, one more after as many answers.

    Attributes:
        most: the limit at first.
        now: the limit now.
    """

    def __init__(self, most: int) -> None:
        self.most = self.now = most
        self._under_way = self._answers = 0
        self._changed = threading.Condition()

    @contextmanager
    def one(self) -> Iterator[None]:
        """A place for one request; waits until there is one."""
        with self._changed:
            self._changed.wait_for(lambda: self._under_way < self.now)
            self._under_way += 1
        try:
            yield
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

    def busy(self) -> None:
        """The server says that it is asked too often."""
        with self._changed:
            self.now, self._answers = max(1, self.now // 2), 0

    def answered(self) -> None:
        """The server answered."""
        with self._changed:
            self._answers += 1
            if self._answers >= self.now < self.most:
                self.now, self._answers = self.now + 1, 0
                self._changed.notify_all()


class Patience:
    """How often and how fast one server is asked.

    Attributes:
        attempts: requests before giving up.
        slots: how many may be under way.
        sent: requests so far, those tried again included.
    """

    def __init__(self, attempts: int, parallel: int) -> None:
        self.attempts = attempts
        self.slots = Slots(parallel)
        self.sent = 0
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Ends all waiting: whoever asked has gone."""
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        """Whether nobody is to be asked any more."""
        return self._stopped.is_set()

    def pause(self, seconds: float) -> None:
        """Waits, unless or until it is stopped."""
        self._stopped.wait(seconds)

    def until_answered(self, where: str, once: Callable[[], T], key_env: str | None) -> T:
        """What `once` gives, called again where that may help.

        Args:
            where: the address asked, for messages.
            once: one request; raises `AttemptError` where it brings no answer.
            key_env: environment variable that holds the key, for messages.

        Raises:
            RefusedError: another attempt would not help.
            NoAnswerError: no usable answer after all attempts, or the server asks to wait for longer than a minute.
        """
        for attempt in range(1, self.attempts + 1):
            try:
                with self.slots.one():
                    with self._lock:
                        self.sent += 1
                    answer = once()
            except AttemptError as error:
                failed = error
                if not error.again:
                    raise RefusedError(refusal(where, error, key_env), error.status) from None
                if error.status == BUSY:
                    self.slots.busy()
            else:
                self.slots.answered()
                return answer
            wait = asked_to_wait(failed.retry_after)
            if attempt == self.attempts or self.stopped or (wait or 0) > LONGEST_WAIT:
                break
            self.pause(wait if wait is not None else FIRST_WAIT * 2 ** (attempt - 1) * random.uniform(1, 1.25))
        asked = f"; it asks to wait {wait:.0f} s" if (wait or 0) > LONGEST_WAIT else ""
        raise NoAnswerError(
            f"{where} gave no usable answer in {attempt} attempts, the last: {failed.reason}{asked}. "
            f"What was received before is stored; run again when the server is well",
            failed.status,
        )


def refusal(where: str, error: AttemptError, key_env: str | None) -> str:
    """What a refused request means, and the way out."""
    code = error.status
    if code is None:
        return f"{where} {error.reason}"
    if code in (401, 403):
        way_out = (
            f"check the key in the environment variable {key_env!r}"
            if key_env
            else "name the environment variable that holds its key as api_key_env"
        )
    elif code == 402:
        way_out = "the account has to be topped up"
    elif code in (404, 405):
        way_out = "check the address, which mostly ends in /v1, and the model's name"
    elif 300 <= code < 400:
        way_out = "write the address it redirects to"
    elif code >= 500:
        way_out = "the server is at fault; run the same command again when it is well"
    else:
        way_out = "the request has to be changed"
    return f"{where} refuses: {error.reason}; {way_out}"


def key_of(url: str, variable: str | None) -> str | None:
    """The key that an environment variable holds; None where none is named.

    Raises:
        InputError: it is not set, or holds what cannot be sent.
    """
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise InputError(f"{url} needs a key: the environment variable {variable!r} is not set")
    if not (key.isascii() and key.isprintable()):  # else the library that sends it would quote it in its error
        raise InputError(f"the environment variable {variable!r} holds no key: only printable ASCII can be sent")
    return key


def said(text: str, otherwise: str, key: str | None) -> str:
    """What a server says is wrong: the message in its JSON, else the start of its text, without the key."""
    with suppress(ValueError, AttributeError, KeyError, TypeError):
        found = json.loads(text)
        found = found.get("error", found)
        text = found if isinstance(found, str) else found["message"]
    return hidden(" ".join(str(text).split()) or otherwise, key)[:SHOWN]


def hidden(text: str, key: str | None) -> str:
    """The text without the key, which some servers repeat in what they answer, and with a sign in place of half characters."""
    return HALVES.sub("\ufffd", text.replace(key, "***") if key else text)


def asked_to_wait(header: str | None) -> float | None:
    """Seconds in ``Retry-After``, which is a number or a date (RFC 9110, section 10.2.3); None where it says nothing."""
    if not header:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # TypeError: a date without its zone
        return None
