"""From what ``--workers`` says to a crew."""

from __future__ import annotations

import logging
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from workbench import hardware
from workbench.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from workbench.cluster.crew import RayCrew
    from workbench.store.session import Session

TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")  # where Ray looks for the token, before its own file


def head(workers: str) -> str | None:
    """The address of a cluster's head, ``HOST:PORT``; None: a cluster on this machine is started.

    Args:
        workers: ``ray`` or ``ray:HEAD:PORT``.

    Raises:
        InputError: it is neither.
    """
    if workers == "ray":
        return None
    found = re.fullmatch(r"ray:((?:[\w.-]+|\[[0-9A-Fa-f:]+\]):[0-9]{1,5})", workers)
    if not found:
        raise InputError(
            f"--workers: received {workers!r}; allowed: ray (a cluster on this machine), or ray:HEAD:PORT, such as "
            f"ray:10.0.0.5:6379, the address that `ray start --head` printed"
        )
    return found[1]


@contextmanager
def cluster(workers: str) -> Iterator[None]:
    """Within, this process is one of a cluster's.

    Args:
        workers: as `head` reads it.

    Raises:
        InputError: Ray is not installed, or the cluster cannot be reached or has no token.
    """
    address = head(workers)
    _prepare(address)
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("ray", "distributed", "computing on several machines") from error

    processors = None if address else hardware.threads()
    dashboard = None if address else False
    try:
        ray.init(
            address or "local", num_cpus=processors, include_dashboard=dashboard, log_to_driver=False, logging_level=logging.ERROR
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"--workers {workers}: the cluster cannot be reached ({said}); this machine must be one of its nodes "
            f"(`ray start --address {address}`), with the same token"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def connected(workers: str, session: Session) -> Iterator[RayCrew]:
    """Within, the session's work is computed by the nodes of a cluster.

    Args:
        workers: as `head` reads it.
        session: of the driver.

    Raises:
        InputError: Ray is not installed, the cluster cannot be reached or has no token, or no node fits.
    """
    with cluster(workers):
        from workbench.cluster.crew import RayCrew

        try:
            session.crew = crew = RayCrew(session)
            crew.assemble()
            yield crew
        finally:
            session.crew = None


def _prepare(address: str | None) -> None:
    """Settings that Ray reads from the environment before it is imported: a token always, and nothing sent anywhere."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ["RAY_AUTH_MODE"] = "token"
    if any(name in os.environ for name in TOKENS) or (Path.home() / ".ray" / "auth_token").is_file():
        return
    if address:
        raise InputError(
            "a cluster without a token computes for whoever reaches its ports; make one (`ray get-auth-token --generate`), give "
            "it to every node, and start them with RAY_AUTH_MODE=token"
        )
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
