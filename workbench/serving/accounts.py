"""Routes of what belongs to one person: votes, conversations, tokens, and the log-in of the page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from workbench.serving.caller import caller_of
from workbench.serving.problems import (
    InvalidError,
    IssuerError,
    MediaTypeError,
    NotFoundError,
    ProblemError,
    RateLimitedError,
    UnauthorizedError,
)
from workbench.serving.recording import Recording
from workbench.serving.requests import TalkForm, VoteForm, read
from workbench.serving.who.access import COOKIE, FROM_ISSUER, LOGIN, TO_ISSUER
from workbench.serving.who.directory import Directory
from workbench.serving.who.login import login_html
from workbench.serving.who.tokens import PAGE_SECONDS, SIGN_IN_SECONDS, TOKEN_SECONDS

CHAT_ID = "chatcmpl-"  # before the id of a request in OpenAI's form
LOGOUT = "/logout"
SIGN_IN_COOKIE = "workbench_sign_in"  # between leaving for an issuer and coming back

Add = Callable[[str, str, Callable[[Request], Any]], None]


class Accounts:
    """What the routes of one person's own do with a request that was let in."""

    def __init__(self, asking: Recording) -> None:
        """Routes on records.

        Args:
            asking: keeps the records.
        """
        self.asking = asking

    async def vote(self, request: Request) -> Response:
        """PUT /v1/answers/ID/vote: keeps a vote on an answer."""
        form = read(await request.body(), VoteForm, request.headers.get("content-type"))
        request_id = request.path_params["request_id"].removeprefix(CHAT_ID)
        await self.asking.vote(request_id, caller_of(request).principal, form.vote, form.comment, form.correction)
        return Response(status_code=204)

    async def begin(self, request: Request) -> Response:
        """POST /v1/conversations: a new conversation."""
        form = read(await request.body() or b"{}", TalkForm, request.headers.get("content-type"))
        talk = await self.asking.begin_talk(caller_of(request).principal, form.title)
        return JSONResponse(talk.as_json(), 201, {"location": f"/v1/conversations/{talk.id}"})

    async def listed(self, request: Request) -> Response:
        """GET /v1/conversations: those of whoever asks."""
        found = await self.asking.talks_of(caller_of(request).principal)
        return JSONResponse({"conversations": [talk.as_json() for talk in found]})

    async def shown(self, request: Request) -> Response:
        """GET /v1/conversations/ID: one, with what was said in it."""
        talk, said = await self.asking.talk(request.path_params["conversation"], caller_of(request).principal)
        return JSONResponse(talk.as_json() | {"said": [one.as_json() for one in said]})

    async def ended(self, request: Request) -> Response:
        """DELETE /v1/conversations/ID: removes one with all that was said in it."""
        await self.asking.end_talk(request.path_params["conversation"], caller_of(request).principal)
        return Response(status_code=204)

    async def token(self, request: Request) -> Response:
        """POST /v1/token: a token that stands for a key for some minutes."""
        made = _known(self.asking).token(caller_of(request).principal)
        headers = {"cache-control": "no-store"}
        return JSONResponse({"access_token": made, "token_type": "Bearer", "expires_in": TOKEN_SECONDS}, headers=headers)

    async def login_page(self, request: Request) -> Response:
        """GET /login: the form."""
        return HTMLResponse(login_html(issuer=self._issuer()), headers={"cache-control": "no-store"})

    async def log_in(self, request: Request) -> Response:
        """POST /login: opens a session of the page."""
        name, password = _credentials(request.headers.get("content-type", ""), await request.body())
        try:
            await self._try_login(request, f"name {name}")
            session = await _known(self.asking).log_in(name, password)
        except (UnauthorizedError, RateLimitedError) as problem:
            return _refused(problem, self._issuer())
        return _entered(request, session)

    async def to_issuer(self, request: Request) -> Response:
        """GET /login/issuer: sends the browser to where people log in."""
        directory = _known(self.asking)
        await self._try_login(request)
        door, kept = await directory.begin_sign_in(_back(request))
        response = Response(status_code=303, headers={"location": door})
        _keep(request, response, SIGN_IN_COOKIE, kept, SIGN_IN_SECONDS)
        return response

    async def from_issuer(self, request: Request) -> Response:
        """GET /login/back: opens a session of the page for whoever the issuer says it is."""
        directory, asked = _known(self.asking), request.query_params
        try:
            await self._try_login(request)
            kept = request.cookies.get(SIGN_IN_COOKIE, "")
            session = await directory.end_sign_in(kept, asked.get("state", ""), asked.get("code", ""), _back(request))
        except (UnauthorizedError, RateLimitedError, IssuerError) as problem:
            response = _refused(problem, self._issuer())
        else:
            response = _entered(request, session)
        response.delete_cookie(SIGN_IN_COOKIE, httponly=True, samesite="lax")
        return response

    async def _try_login(self, request: Request, *others: str) -> None:
        """Counts an attempt to log in, of the address that it comes from, and for others."""
        address = request.client.host if request.client else ""
        for counted in (f"address {address}", *others):
            await self.asking.limits.try_login(counted, self.asking.settings.who.log_ins_per_minute)

    def _issuer(self) -> str | None:
        """Where people may log in, too."""
        who = self.asking.settings.who
        return who.issuer if who.client else None

    async def log_out(self, request: Request) -> Response:
        """POST /logout: forgets the session in the browser."""
        response = Response(status_code=303, headers={"location": LOGIN})
        response.delete_cookie(COOKIE, httponly=True, samesite="lax")
        return response


def add_accounts(add: Add, asking: Recording) -> None:
    """Adds the routes.

    Args:
        add: adds one: method, path and what handles it.
        asking: keeps the records.
    """
    routes = Accounts(asking)
    add("PUT", "/v1/answers/{request_id}/vote", routes.vote)
    add("POST", "/v1/conversations", routes.begin)
    add("GET", "/v1/conversations", routes.listed)
    add("GET", "/v1/conversations/{conversation}", routes.shown)
    add("DELETE", "/v1/conversations/{conversation}", routes.ended)
    add("POST", "/v1/token", routes.token)
    add("GET", LOGIN, routes.login_page)
    add("POST", LOGIN, routes.log_in)
    add("POST", LOGOUT, routes.log_out)
    add("GET", TO_ISSUER, routes.to_issuer)
    add("GET", FROM_ISSUER, routes.from_issuer)


def _known(asking: Recording) -> Directory:
    if asking.directory is None:
        raise NotFoundError("this service keeps no records, so it knows nobody")
    return asking.directory


def _credentials(content_type: str, body: bytes) -> tuple[str, str]:
    """Name and password of a form.

    Raises:
        MediaTypeError: it is no form.
        InvalidError: one of them is missing.
    """
    if content_type.partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise MediaTypeError("the log-in reads a form; allowed: application/x-www-form-urlencoded")
    fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=10)
    name, password = (fields.get(key, [""])[0] for key in ("name", "password"))
    if not name or not password:
        raise InvalidError("the form has no name or no password; send both")
    return name, password


def _back(request: Request) -> str:
    """The address of this service to which an issuer sends a browser back."""
    return f"{request.url.scheme}://{request.headers.get('host', '')}{FROM_ISSUER}"


def _keep(request: Request, response: Response, name: str, value: str, seconds: int) -> None:
    """Has the browser keep a text that no script reads; only over HTTPS where it came so."""
    response.set_cookie(name, value, seconds, httponly=True, samesite="lax", secure=request.url.scheme == "https")


def _entered(request: Request, session: str) -> Response:
    response = Response(status_code=303, headers={"location": "/"})
    _keep(request, response, COOKIE, session, PAGE_SECONDS)
    return response


def _refused(problem: ProblemError, issuer: str | None) -> Response:
    headers = {"cache-control": "no-store"}
    if problem.retry_after is not None:
        headers["retry-after"] = str(problem.retry_after)
    return HTMLResponse(login_html(problem.detail, issuer), problem.status, headers)
