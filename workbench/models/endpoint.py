"""A server that speaks OpenAI's protocol: requests in JSON, tried again where waiting helps, refused in plain words."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from time import sleep
from typing import Any
from urllib.parse import urlsplit

from workbench.errors import InputError, StageFailedError

AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})  # answers that another attempt may change
FIRST_WAIT = 0.5  # seconds; doubled at each attempt
LONGEST_WAIT = 60.0  # seconds; a server that asks for more is not waited for
SHOWN = 300  # characters of a server's message that are quoted


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would send texts and key to a place that nobody named."""

    def redirect_request(self, *given: Any) -> None:
        return None


@dataclass(frozen=True)
class Endpoint:
    """A server's address and how patiently it is asked.

    Attributes:
        url: its root, e.g. ``http://localhost:11434/v1``.
        key_env: environment variable that holds the key; None: no key is sent. The key itself is never kept or shown.
        timeout: seconds that one attempt may take.
        attempts: requests before giving up.
    """

    url: str
    key_env: str | None = None
    timeout: float = 120.0
    attempts: int = 6

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON answered to `body`.

        Connection errors, timeouts and the answers in `AGAIN` are tried again, after the time that the server names in
        ``Retry-After``, else after a time that doubles.

        Raises:
            InputError: the server refuses the request (4xx), redirects it, or the key is not in the environment.
            StageFailedError: no usable answer after all attempts.
        """
        key = self._key()
        for attempt in range(1, self.attempts + 1):
            try:
                return self._once(path, body, key)
            except urllib.error.HTTPError as error:
                reason = f"{error.code} {_message(error, key)}"
                if error.code not in AGAIN:
                    raise self._refused(path, error.code, reason) from None
                wait = _asked_to_wait(error.headers.get("Retry-After"))
            except (OSError, http.client.HTTPException) as error:
                reason, wait = _hidden(f"{type(error).__name__}: {error}", key), None
            if attempt == self.attempts or (wait or 0) > LONGEST_WAIT:
                break
            sleep(wait if wait is not None else FIRST_WAIT * 2 ** (attempt - 1) * random.uniform(1, 1.25))
        asked = f"; it asks to wait {wait:.0f} s" if (wait or 0) > LONGEST_WAIT else ""
        raise StageFailedError(
            f"{self.url}{path} gave no usable answer in {attempt} attempts, the last: {reason}{asked}. "
            f"What was received before is stored; run again when the server is well"
        )

    def _once(self, path: str, body: dict[str, Any], key: str | None) -> Any:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        request = urllib.request.Request(self.url.rstrip("/") + path, json.dumps(body).encode(), headers)
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=self.timeout) as answer:
            text = answer.read()
        try:
            return json.loads(text)
        except ValueError:
            shown = _hidden(" ".join(text.decode("utf-8", "replace").split()), key)[:SHOWN]
            raise InputError(
                f"{self.url}{path} answers no JSON: {shown!r}; check the address, which mostly ends in /v1"
            ) from None

    def _key(self) -> str | None:
        if self.key_env is None:
            return None
        key = os.environ.get(self.key_env, "").strip()
        if not key:
            raise InputError(f"{self.url} needs a key: the environment variable {self.key_env!r} is not set")
        if not (key.isascii() and key.isprintable()):  # else the library that sends it would quote it in its error
            raise InputError(f"the environment variable {self.key_env!r} holds no key: only printable ASCII can be sent")
        return key

    def _refused(self, path: str, code: int, reason: str) -> InputError:
        if code in (401, 403):
            way_out = (
                f"check the key in the environment variable {self.key_env!r}"
                if self.key_env
                else "name the environment variable that holds its key as api_key_env"
            )
        elif code == 404:
            way_out = "check the address, which mostly ends in /v1, and the model's name"
        elif 300 <= code < 400:
            way_out = "write the address it redirects to"
        else:
            way_out = "the request has to be changed"
        return InputError(f"{self.url}{path} refuses: {reason}; {way_out}")


def check_url(url: str) -> str:
    """An endpoint's address as it may stand in a file: http or https, without a key in it.

    Raises:
        ValueError: anything else.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("allowed: an address such as http://localhost:11434/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("allowed: an address without user, password, ? and #; a key belongs into the environment (api_key_env)")
    return url.rstrip("/")


def _message(error: urllib.error.HTTPError, key: str | None) -> str:
    """What a server says is wrong: the message in its JSON, else the start of its text."""
    try:
        text = error.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return str(error.reason)
    with contextlib.suppress(ValueError, AttributeError, KeyError, TypeError):
        found = json.loads(text)
        found = found.get("error", found)
        text = found if isinstance(found, str) else found["message"]
    return _hidden(" ".join(str(text).split()) or str(error.reason), key)[:SHOWN]


def _hidden(text: str, key: str | None) -> str:
    """The text without the key, which some servers repeat in what they refuse."""
    return text.replace(key, "***") if key else text


def _asked_to_wait(header: str | None) -> float | None:
    """Seconds in ``Retry-After``, which is a number or a date (RFC 9110, section 10.2.3); None where it says nothing."""
    if not header:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # TypeError: a date without its zone
        return None
