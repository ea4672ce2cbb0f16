"""From what ``--workers`` says to a crew."""

from __future__ import annotations

import logging
import os
import re
import secrets
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from workbench import hardware
from workbench.cluster.head import REACHED, connect
from workbench.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from workbench.cluster.crew import RayCrew
    from workbench.store.session import Session

TOKEN, TOKEN_FILE = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"  # where Ray looks for the token, before its own file
PORTS = 65_535  # the largest port
ATTEMPTS = "2"  # to talk to the head; Ray's twenty take a quarter of an hour where something else listens there
SAID = 300  # characters of what Ray says


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
    if not found or not 1 <= int(found[1].rpartition(":")[2]) <= PORTS:
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
    if address:
        _reach(workers, address)
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", ATTEMPTS)
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
    except Exception as error:  # Ray raises this class itself where a machine is too busy to start its processes in time
        ray.shutdown()
        said = " ".join(str(error).split())[:SAID] or type(error).__name__
        if address is None:
            raise InputError(f"--workers {workers}: no cluster can be started on this machine now ({said}); try again") from error
        raise InputError(
            f"--workers {workers}: the cluster cannot be joined ({said}). Needed are the address that `ray start --head` "
            f"printed, the token of its head ({TOKEN}, or ~/.ray/auth_token), the same versions of Ray and Python, and that "
            f"this machine is one of its nodes (`ray start --address {address}`)"
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
    with cluster(workers), _gently():
        from workbench.cluster.crew import RayCrew

        session.crew = crew = RayCrew(session)
        try:
            crew.assemble()
            yield crew
        finally:
            session.crew = None
            crew.leave()


def _reach(workers: str, address: str) -> None:
    """Finds out at once whether something listens where the head should be.

    Raises:
        InputError: nothing does.
    """
    try:
        connect(address, REACHED)
    except OSError as error:
        raise InputError(
            f"--workers {workers}: nothing can be reached at {address} ({error.strerror or error}); name the address and port "
            f"that `ray start --head` printed on the head, and let no firewall lie between"
        ) from error


@contextmanager
def _gently() -> Iterator[None]:
    """Within, SIGTERM, as batch systems send it, is Ctrl-C: left to Ray, it would abort the process and leave files on nodes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _prepare(address: str | None) -> None:
    """Settings that Ray reads from the environment before it is imported: a token always, and nothing sent anywhere."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ["RAY_AUTH_MODE"] = "token"
    for name in (TOKEN, TOKEN_FILE):  # Ray takes an empty one for a token
        if not os.environ.get(name, "token").strip():
            del os.environ[name]
    if TOKEN in os.environ:
        return
    if TOKEN_FILE in os.environ:
        if not Path(os.environ[TOKEN_FILE]).is_file():
            raise InputError(
                f"{TOKEN_FILE}: received {os.environ[TOKEN_FILE]!r}, which is no file; allowed: a file with the cluster's token, "
                f"such as ~/.ray/auth_token of its head; or leave the variable out where that file is here"
            )
        return
    if (Path.home() / ".ray" / "auth_token").is_file():
        return
    if address:
        raise InputError(
            "a cluster without a token computes for whoever reaches its ports; make one (`ray get-auth-token --generate`), give "
            "it to every node, and start them with RAY_AUTH_MODE=token"
        )
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
