"""Lets in whoever may come. It stands before every route of the application, the page's own ones too."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any

from workbench.serving.caller import Principal
from workbench.serving.problems import UnauthorizedError
from workbench.serving.records.people import KEY_START
from workbench.serving.who.directory import Directory

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "workbench_session"
LOGIN = "/login"
TO_ISSUER, FROM_ISSUER = "/login/issuer", "/login/back"  # where people log in elsewhere
# what everybody may ask: whether the service lives, and the way in
PUBLIC = ("/healthz", "/readyz", "/health", LOGIN, TO_ISSUER, FROM_ISSUER)
# what proxies add: a request with one of them was passed on, whatever address the header names
PASSED_ON = {b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip", b"forwarded", b"via"}
POLICY_VIOLATED = 1008  # how a web socket is refused


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Access:
    """Finds out who asks, and refuses what nobody in particular may ask.

    The principal is `state.principal` of a request; None where a public route is asked by nobody in particular.
    """

    def __init__(self, app: App, directory: Directory | None, is_open: bool) -> None:
        """Stands before an application.

        Args:
            app: the application.
            directory: who is known; None: nobody is, in an open service without records.
            is_open: whether everybody may ask.
        """
        self.app, self.directory, self.is_open = app, directory, is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, with who asks; raises `UnauthorizedError` for one that may not be asked."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        try:
            principal = await self._principal(scope)
        except UnauthorizedError:
            if scope["type"] == "websocket":
                await receive()
                await send({"type": "websocket.close", "code": POLICY_VIOLATED})
                return
            if _path(scope) in PUBLIC:
                principal = None
            elif _is_visit(scope):
                await _to_login(send)
                return
            else:
                raise
        scope.setdefault("state", {})["principal"] = principal
        await self.app(scope, receive, send)

    async def _principal(self, scope: Scope) -> Principal:
        headers = dict(scope["headers"])
        is_open = self.is_open and _from_here(scope) and PASSED_ON.isdisjoint(headers)
        kind, _, secret = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if self.directory and kind.lower() == "bearer" and (not is_open or _is_ours(secret.strip())):
            return await self.directory.bearer(secret.strip())
        if self.directory and (session := _session(headers)):
            try:
                return await self.directory.visitor(session)
            except UnauthorizedError:
                if not is_open:
                    raise
        if is_open:
            return Principal()
        raise UnauthorizedError("send a key as `Authorization: Bearer KEY`, or log in at /login")


def _from_here(scope: Scope) -> bool:
    """Whether a request comes from this machine."""
    client = scope.get("client")
    return client is None or is_loopback(client[0])


def _is_ours(secret: str) -> bool:
    """Whether it looks like a key or a token: an open service takes no notice of others, which some clients have to send."""
    return secret.startswith(KEY_START) or secret.count(".") == 2


def _session(headers: dict[bytes, bytes]) -> str | None:
    try:
        found = SimpleCookie(headers.get(b"cookie", b"").decode("latin-1")).get(COOKIE)
    except CookieError:
        return None
    return found.value if found else None


def _path(scope: Scope) -> str:
    path: str = scope["path"]
    return path


def _is_visit(scope: Scope) -> bool:
    """Whether a browser opens the page."""
    accepted = dict(scope["headers"]).get(b"accept", b"")
    return scope["type"] == "http" and scope["method"] == "GET" and _path(scope) == "/" and b"text/html" in accepted


async def _to_login(send: Send) -> None:
    await send(
        {"type": "http.response.start", "status": 303, "headers": [(b"location", LOGIN.encode()), (b"content-length", b"0")]}
    )
    await send({"type": "http.response.body", "body": b""})
