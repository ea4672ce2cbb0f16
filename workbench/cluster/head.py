"""The head of a cluster, without which Ray ends the driver within a minute: whether it can be reached."""

from __future__ import annotations

import socket
import time

from workbench.errors import StageFailedError

REACHED = 10.0  # seconds in which the head has to accept the first connection; Ray itself would try for minutes
AGAIN = 2.0  # seconds in which it has to accept a later one
GONE = 20.0  # seconds without a connection after which it is given up, before Ray ends the process, which it does after 60


def connect(address: str, seconds: float) -> None:
    """Connects to the head, and disconnects.

    Args:
        address: ``HOST:PORT``.
        seconds: in which it has to accept.

    Raises:
        OSError: it does not.
    """
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=seconds).close()


class Head:
    """The head while a driver computes.

    Attributes:
        address: ``HOST:PORT``.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._seen = time.monotonic()

    def there(self) -> bool:
        """Whether it can be reached now, so that Ray may be asked something.

        Raises:
            StageFailedError: it could not be reached for `GONE` seconds.
        """
        try:
            connect(self.address, AGAIN)
        except OSError as error:
            if time.monotonic() - self._seen > GONE:
                raise StageFailedError(
                    f"the head of the cluster at {self.address} cannot be reached any more ({error.strerror or error}); what is "
                    f"stored is kept, and the same command goes on once a cluster is there"
                ) from error
            return False
        self._seen = time.monotonic()
        return True
