"""What /docs says of each route: forms of requests and responses, in OpenAPI's terms."""

from __future__ import annotations

import re
from typing import Any

from workbench.serving import problems
from workbench.serving.chat import ChatForm
from workbench.serving.problems import MEDIA_TYPE
from workbench.serving.requests import AnswerForm, Form, SearchForm, TalkForm, VoteForm
from workbench.serving.who.access import PUBLIC

FORMS: dict[str, type[Form]] = {
    "/v1/answers": AnswerForm,
    "/v1/search": SearchForm,
    "/v1/chat/completions": ChatForm,
    "/api/ask": AnswerForm,
    "/v1/answers/{request_id}/vote": VoteForm,
    "POST /v1/conversations": TalkForm,
}
SUMMARIES = {
    "/v1/answers": "Answer a question",
    "/v1/answers/{request_id}": "An answer once more, by the id of its request",
    "/v1/search": "The best passages for a question",
    "/v1/chat/completions": "Answer a conversation, in OpenAI's form",
    "/v1/models": "What can be asked, in OpenAI's form",
    "/v1/about": "What is served, and how good it was measured to be",
    "/healthz": "Whether the process is sound, or is to be started anew",
    "/readyz": "Whether questions are taken",
    "/metrics": "Counts and times, in the text format of Prometheus",
    "/api/ask": "Answer a question, in the form of earlier versions",
    "/api/provenance": "Where answers come from",
    "/health": "As /healthz, in the form of earlier versions",
    "/v1/answers/{request_id}/vote": "Say whether an answer is good",
    "POST /v1/conversations": "Begin a conversation",
    "GET /v1/conversations": "Your conversations",
    "GET /v1/conversations/{conversation}": "A conversation with all that was said in it",
    "DELETE /v1/conversations/{conversation}": "Remove a conversation with all that was said in it",
    "/v1/token": "A token of 15 minutes for the key that is sent",
    "GET /login": "The form to log in to the page",
    "POST /login": "Log in to the page",
    "/logout": "Log out of the page",
    "/login/issuer": "Log in to the page at the issuer",
    "/login/back": "Where the issuer sends a browser back",
}
# what is sent where everything went well, if it is not 200
DONE = {
    "PUT /v1/answers/{request_id}/vote": 204,
    "POST /v1/conversations": 201,
    "DELETE /v1/conversations/{conversation}": 204,
    "POST /login": 303,
    "POST /logout": 303,
    "GET /login/issuer": 303,
    "GET /login/back": 303,
}
PAGES = ("GET /login", "POST /login", "POST /logout", "GET /login/issuer", "GET /login/back")  # of HTML, for people
PLACES = re.compile(r"{(\w+)}")  # names in an address
TEXT = {"type": "string"}
OBJECT = {"type": "object"}
SOURCE = {
    "type": "object",
    "properties": {
        "rank": {"type": "integer"}, "doc_id": TEXT, "start": {"type": "integer"}, "end": {"type": "integer"},
        "score": {"type": "number"}, "title": TEXT, "text": TEXT,
    },
    "required": ["rank", "doc_id", "start", "end", "score", "title", "text"],
}  # fmt: skip
ANSWER = {
    "type": "object",
    "properties": {
        "id": TEXT, "question": TEXT, "answer": {"type": ["string", "null"]}, "reply": TEXT, "status": TEXT,
        "sources": {"type": "array", "items": SOURCE}, "provenance": OBJECT, "tokens": OBJECT, "cut": {"type": "integer"},
        "served": OBJECT,
    },
    "required": ["id", "question", "answer", "reply", "status", "sources", "provenance", "tokens", "cut", "served"],
}  # fmt: skip
# RFC 7240
PREFER = {
    "name": "Prefer", "in": "header", "required": False, "schema": TEXT,
    "description": "`respond-async`: status 202 and an address where the answer is fetched; with `wait=10` only if it is not "
    "there within 10 seconds.",
}  # fmt: skip
LATER_HEADERS = {
    "Location": {"schema": TEXT, "description": "Where the answer is fetched, by whoever asked."},
    "Preference-Applied": {"schema": TEXT},
}
PROBLEM = {
    "type": "object",
    "properties": {"type": TEXT, "title": TEXT, "status": {"type": "integer"}, "detail": TEXT, "instance": TEXT},
    "required": ["type", "title", "status", "detail", "instance"],
}
# which problems a route that reads a body, and one that answers, may end with
READING = (400, 408, 413, 415, 422)
ANSWERING = (429, 500, 503, 504)


def documented(method: str, path: str) -> dict[str, Any]:
    """What FastAPI is told of a route beside its function.

    Args:
        method: such as ``GET``.
        path: of the route.
    """
    named = f"{method} {path}"
    form = FORMS.get(named) or FORMS.get(path)
    responses: dict[int | str, Any] = {200: _json(_success(path))}
    if named in DONE:
        responses = {DONE[named]: _json(OBJECT) if DONE[named] == 201 else {"description": "Done"}}
    if named in PAGES:
        responses |= {
            401: {"description": "The form"},
            415: _problem(path, 415),
            422: _problem(path, 422),
            429: {"description": "The form"},
        }
    extra: dict[str, Any] = {}
    if form:
        schema = form.model_json_schema(ref_template=f"#/components/schemas/{form.__name__}/$defs/{{model}}")
        extra = {"requestBody": {"required": True, "content": {"application/json": {"schema": _inlined(schema)}}}}
        responses |= {status: _problem(path, status) for status in (*READING, *ANSWERING)}
    if path == "/v1/answers":
        responses[200]["content"]["text/event-stream"] = {"schema": TEXT}
        responses[202] = _json(OBJECT) | {"headers": LATER_HEADERS}
        extra["parameters"] = [PREFER]
    if path == "/v1/chat/completions":
        responses[200]["content"]["text/event-stream"] = {"schema": TEXT}
        responses[404] = _problem(path, 404)
    if path == "/v1/answers/{request_id}":
        responses |= {202: _json(OBJECT) | {"headers": {"Retry-After": {"schema": TEXT}}}, 410: _problem(path, 410)}
        responses |= {status: _problem(path, status) for status in ANSWERING}
    if found := PLACES.findall(path):
        responses[404] = _problem(path, 404)
        extra["parameters"] = [{"name": name, "in": "path", "required": True, "schema": TEXT} for name in found]
    if method != "GET":
        responses[403] = _problem(path, 403)
    if path.startswith(("/v1/answers", "/v1/conversations")) and method != "GET":
        responses |= {status: _problem(path, status) for status in (409, 429)}
    if path not in PUBLIC:
        responses[401] = _problem(path, 401)
    if path.startswith(("/v1/conversations", "/v1/answers/", "/v1/token")):
        responses |= {status: _problem(path, status) for status in (404, 422, 503)}
    if path == "/metrics":
        responses[200] = {"description": "Done", "content": {"text/plain": {"schema": TEXT}}}
    if path.startswith("/login/"):
        responses |= {status: _problem(path, status) for status in (404, 503)}
    if path in ("/readyz", "/healthz", "/health"):
        responses[503] = _json(OBJECT)
    name = f"{method.lower()} {path}".replace("/", "_").replace("{", "").replace("}", "")
    return {
        "summary": SUMMARIES.get(named) or SUMMARIES[path],
        "responses": responses,
        "openapi_extra": extra,
        "operation_id": name,
    }


def _success(path: str) -> dict[str, Any]:
    return ANSWER if path in ("/v1/answers", "/v1/answers/{request_id}") else OBJECT


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": "Done", "content": {"application/json": {"schema": schema}}}


def _problem(path: str, status: int) -> dict[str, Any]:
    titles = " or ".join(one.title for one in problems.PROBLEMS if one.status == status)
    own = OBJECT if path.startswith(("/v1/chat/", "/api/")) else PROBLEM
    return {"description": titles, "content": {MEDIA_TYPE: {"schema": own}}}


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema with its definitions where they are referred to."""
    definitions = schema.pop("$defs", {})

    def inlined(value: Any) -> Any:
        if isinstance(value, dict):
            if "$ref" in value:
                return inlined(definitions[value["$ref"].rpartition("/")[2]])
            return {name: inlined(one) for name, one in value.items()}
        return [inlined(one) for one in value] if isinstance(value, list) else value

    found: dict[str, Any] = inlined(schema)
    return found
