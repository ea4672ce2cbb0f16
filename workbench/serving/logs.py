"""The log of the service: one line of JSON for each event, or lines for people; those of JSON with the id of their request."""

from __future__ import annotations

import json
import logging
import sys
import time
from contextvars import ContextVar
from typing import Any, Literal

REQUEST: ContextVar[str | None] = ContextVar("request", default=None)  # id of the request that a task serves
TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"
FIELDS = "fields"  # attribute of a record: further keys of its line


class JsonFormatter(logging.Formatter):
    """A line of JSON: ``at`` (UTC), ``level``, ``logger``, ``message``, ``request``, further fields, ``error``."""

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        line: dict[str, Any] = {
            "at": at, "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage(),
        }  # fmt: skip
        if request := REQUEST.get():
            line["request"] = request
        line |= getattr(record, FIELDS, {})
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def configure(form: Literal["text", "json"], level: Literal["info", "warning", "error"]) -> None:
    """Has the service and its web server write to standard error.

    Args:
        form: of the lines.
        level: of the least important ones; ``info`` has one for each request.
    """
    handler = logging.StreamHandler(sys.stderr)
    formatter = JsonFormatter() if form == "json" else logging.Formatter(TEXT, "%Y-%m-%d %H:%M:%S")
    handler.setFormatter(formatter)
    if form == "json":  # what libraries say too, so that each line is one object
        logging.captureWarnings(True)
        logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in ("workbench", "uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers = [handler] if name != "uvicorn.error" else []
        logger.propagate = name == "uvicorn.error"
        logger.setLevel(level.upper())
