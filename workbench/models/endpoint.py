"""A server that speaks OpenAI's protocol: requests in JSON, sent as `workbench.models.patience` says."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from workbench.models.patience import AGAIN, SHOWN, AttemptError, Patience, hidden, key_of, said

ATTEMPTS = 6


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
        patience: how often and how fast it is asked.
    """

    url: str
    key_env: str | None = None
    timeout: float = 120.0
    patience: Patience = field(default_factory=lambda: Patience(ATTEMPTS, 2))

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON answered to `body`; connection errors, timeouts and the answers in `AGAIN` are tried again.

        Raises:
            InputError: the server refuses the request (4xx), redirects it, or the key is not in the environment.
            StageFailedError: no usable answer after all attempts.
        """
        key = key_of(self.url, self.key_env)
        return self.patience.until_answered(f"{self.url}{path}", lambda: self._once(path, body, key), self.key_env)

    def _once(self, path: str, body: dict[str, Any], key: str | None) -> Any:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        request = urllib.request.Request(self.url.rstrip("/") + path, json.dumps(body).encode(), headers)
        try:
            with urllib.request.build_opener(_NoRedirect).open(request, timeout=self.timeout) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            reason = f"{error.code} {_message(error, key)}"
            raise AttemptError(reason, error.code, error.code in AGAIN, error.headers.get("Retry-After")) from None
        except (OSError, http.client.HTTPException) as error:
            raise AttemptError(hidden(f"{type(error).__name__}: {error}", key)) from None
        try:
            return json.loads(text)
        except ValueError:
            shown = hidden(" ".join(text.decode("utf-8", "replace").split()), key)[:SHOWN]
            reason = f"answers no JSON: {shown!r}; check the address, which mostly ends in /v1"
            raise AttemptError(reason, again=False) from None


def check_url(url: str) -> str:
    """An endpoint's address as it may stand in a file: http or https, without a key in it.

    Raises:
        ValueError: anything else.
    """
    parts, allowed = urlsplit(url), "allowed: an address such as http://localhost:11434/v1"
    try:
        (parts.hostname or "").encode("idna")
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{allowed}; no request can be sent to this one: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or not url.isprintable() or " " in url:
        raise ValueError(allowed)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("allowed: an address without user, password, ? and #; a key belongs into the environment (api_key_env)")
    return url.rstrip("/")


def _message(error: urllib.error.HTTPError, key: str | None) -> str:
    """What a server says is wrong."""
    try:
        text = error.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return str(error.reason)
    return said(text, str(error.reason), key)
