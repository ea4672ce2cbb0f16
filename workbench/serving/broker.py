"""The connection to a broker of messages (RabbitMQ), whose queues of questions are bounded and outlive a restart of it."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from workbench.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from aio_pika.abc import AbstractRobustChannel, AbstractRobustConnection

VARIABLE = "WORKBENCH_BROKER_URL"
CONNECT_SECONDS = 10.0  # for a connection
SEND_SECONDS = 3.0  # for a message, until the broker has confirmed it
AGAIN_SECONDS = 0.5  # between two attempts to connect, or to send
UNUSED_SECONDS = 86_400  # after which a queue of questions that nobody reads is removed: its configuration is served no more

log = logging.getLogger(__name__)


class FullError(Exception):
    """The queue takes no further message."""


class UnreachableError(Exception):
    """The broker did not confirm a message."""


def checked(url: str) -> str:
    """The address of a broker.

    Raises:
        MissingExtraError: its client is not installed.
        InputError: it is none.
    """
    try:
        parts = urlsplit(url)
        _, whole = parts.port, parts.scheme in ("amqp", "amqps") and bool(parts.hostname)
    except ValueError:
        whole = False
    if not whole:
        raise InputError(
            f"{VARIABLE} is no address of a broker; allowed: amqp://USER:PASSWORD@HOST:PORT/, or amqps:// for TLS, as "
            f"RabbitMQ is addressed; unset it to compute in the service's own process"
        )  # what was received may hold a password
    try:
        import aio_pika  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("aio-pika", "queue", f"{VARIABLE}: a queue of questions") from error
    return url


def shown(url: str) -> str:
    """An address without the password in it."""
    before, at, host = url.rpartition("@")
    if not at:
        return url
    scheme, slashes, _ = before.partition("://")
    return f"{scheme}{slashes}...@{host}" if slashes else f"...@{host}"


class Broker:
    """A connection, which is made anew whenever it was lost.

    Attributes:
        url: of the broker.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._connection: AbstractRobustConnection | None = None
        self._sending: AbstractRobustChannel | None = None
        self._lost: float | None = None  # since when there is no connection

    @property
    def down_seconds(self) -> float:
        """Seconds for which there has been no connection; 0: there is one."""
        return 0.0 if self._lost is None else time.monotonic() - self._lost

    async def open(self) -> None:
        """Connects.

        Raises:
            InputError: the broker cannot be reached, or lets nobody in by this address.
        """
        import aio_pika

        for name in ("aio_pika", "aiormq"):  # they write a line or a traceback for each attempt; `_gone` writes one line in all
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                found = await aio_pika.connect_robust(self.url, timeout=CONNECT_SECONDS, reconnect_interval=AGAIN_SECONDS)
        except (OSError, TimeoutError, aio_pika.exceptions.AMQPError) as error:
            said = str(error) or type(error).__name__
            raise InputError(f"{VARIABLE}: the broker at {shown(self.url)} cannot be used ({said}); is it running?") from error
        found.close_callbacks.add(self._gone)
        found.reconnect_callbacks.add(self._back)
        self._connection = found
        self._sending = await self.channel()

    async def close(self) -> None:
        """Ends the connection; what was taken and not acknowledged goes to others."""
        if self._connection is not None:
            self._connection.close_callbacks.discard(self._gone)
            await self._connection.close()

    async def channel(self) -> AbstractRobustChannel:
        """A channel of its own for somebody who takes messages."""
        from aio_pika import RobustChannel

        assert self._connection is not None, "the broker is open"
        found = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
        assert isinstance(found, RobustChannel)
        return found

    async def declare(self, channel: AbstractRobustChannel, name: str, most: int, robust: bool = True) -> Any:
        """A queue of questions, which is there afterwards.

        Args:
            channel: on which it is used.
            name: of the queue, which says exactly what computes its answers.
            most: messages that wait in it; a further one is refused.
            robust: whether it is declared again after a connection was lost.

        Raises:
            InputError: there is one with another bound.
        """
        import aio_pika

        arguments = {"x-max-length": most, "x-overflow": "reject-publish", "x-expires": UNUSED_SECONDS * 1000}
        try:
            return await channel.declare_queue(name, durable=True, arguments=arguments, timeout=CONNECT_SECONDS, robust=robust)
        except aio_pika.exceptions.ChannelPreconditionFailed as error:
            raise InputError(
                f"the queue {name} was made with another bound than {most} ({error}); give all processes of this service the "
                f"same serve.queue with --settings, or delete the queue at the broker"
            ) from error

    async def send(
        self, body: bytes, to: str, number: str, seconds: float, reply_to: str | None = None, lasting: bool = False
    ) -> bool:
        """Sends a message, and waits until the broker has it.

        Args:
            body: of the message.
            to: name of the queue.
            number: says which question it is about.
            seconds: after which the message is of no use.
            reply_to: name of the queue where replies are waited for.
            lasting: whether it outlives a restart of the broker.

        Returns:
            Whether there is such a queue.

        Raises:
            FullError: the queue is full.
            UnreachableError: the broker did not confirm it in time.
        """
        import aio_pika

        message = aio_pika.Message(
            body,
            content_type="application/json",
            correlation_id=number,
            reply_to=reply_to,
            expiration=max(seconds, 0.001),
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT if lasting else aio_pika.DeliveryMode.NOT_PERSISTENT,
        )
        assert self._sending is not None, "the broker is open"
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await self._sending.default_exchange.publish(message, to)
        except aio_pika.exceptions.PublishError:
            return False
        except aio_pika.exceptions.DeliveryError as error:
            raise FullError from error
        except (OSError, TimeoutError, RuntimeError, aio_pika.exceptions.AMQPError) as error:
            raise UnreachableError(str(error) or type(error).__name__) from error
        return True

    def _gone(self, sender: object, error: BaseException | None = None) -> None:
        if self._lost is None:
            self._lost = time.monotonic()
            log.warning("the connection to the broker at %s is lost, and is made again", shown(self.url))

    def _back(self, sender: object) -> None:
        self._lost = None
        log.warning("the broker at %s is connected again", shown(self.url))


async def reached(url: str) -> None:
    """Connects once.

    Raises:
        InputError: the broker cannot be used.
    """
    broker = Broker(url)
    await broker.open()
    await broker.close()
