"""Who is behind a key, a token or a page's session."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from workbench.serving.caller import Principal
from workbench.serving.problems import NotFoundError, StartingError, UnauthorizedError, UnavailableRecordsError
from workbench.serving.records import people
from workbench.serving.records.database import Database
from workbench.serving.records.writer import Writer
from workbench.serving.settings import Who
from workbench.serving.who import passwords
from workbench.serving.who.issuer import Issuer, Visit
from workbench.serving.who.tokens import PAGE, PAGE_SECONDS, PROGRAM, SIGN_IN, SIGN_IN_SECONDS, TOKEN_SECONDS, Own, OwnTokens

FRESH_SECONDS = 1.0  # for which whoever was found is not looked up again; a key that is revoked is valid so long
MOST_KNOWN = 10_000
THREADS = 4  # that read the records
WAITING_THREADS = 2  # that compute hashes of passwords and wait for an issuer, so that keys are found meanwhile

T = TypeVar("T")


class Directory:
    """Finds principals; it is used by the tasks of one event loop."""

    def __init__(self, database: Database, writer: Writer, who: Who) -> None:
        """Reads nothing yet.

        Args:
            database: the records.
            writer: of the records: users of an issuer are noted when they first come.
            who: settings of the service.

        Raises:
            InputError: the secret of the tokens is too short.
        """
        self.database, self.writer, self.who = database, writer, who
        self.tokens = OwnTokens()
        self.issuer = Issuer(who.issuer, who.audience, who.client) if who.issuer and who.audience else None
        self._readers = ThreadPoolExecutor(THREADS, thread_name_prefix="records-reading")
        self._waiting = ThreadPoolExecutor(WAITING_THREADS, thread_name_prefix="logging-in")
        self._stopped = False
        self._found: OrderedDict[str, tuple[float, Principal]] = OrderedDict()

    async def bearer(self, secret: str) -> Principal:
        """Who is behind a key or a token.

        Raises:
            UnauthorizedError: nobody.
            IssuerError: an issuer does not say what its keys are.
            UnavailableRecordsError: the records cannot be read.
        """
        name = people.digest(secret)
        if known := self._fresh(name):
            return known
        if secret.startswith(people.KEY_START):
            found = await self.read(lambda connection: self._of_key(connection, secret))
        elif secret.count(".") == 2:
            found = await self._of_token(secret)
        else:
            raise UnauthorizedError("what is sent as a key is none; `workbench keys add NAME` makes one")
        self._keep(name, found)
        return found

    async def visitor(self, session: str) -> Principal:
        """Who has logged in to the page.

        Raises:
            UnauthorizedError: nobody, or too long ago.
            UnavailableRecordsError: the records cannot be read.
        """
        name = f"page {people.digest(session)}"
        if known := self._fresh(name):
            return known
        own = self.tokens.read(session, PAGE)
        found = await self.read(lambda connection: self._of_log_in(connection, own))
        self._keep(name, found)
        return found

    async def log_in(self, name: str, password: str) -> str:
        """A session of the page.

        Raises:
            UnauthorizedError: no user of this service has that name and password.
            UnavailableRecordsError: the records cannot be read.
        """
        kept = await self.read(lambda connection: people.password_hash(connection, name))
        fits = await self._in_thread(self._waiting, lambda: passwords.fits(password, kept[1] if kept else passwords.nobodys()))
        if kept is None or not fits:
            raise UnauthorizedError("the name or the password is wrong")
        return self._session(*kept)

    async def begin_sign_in(self, back: str) -> tuple[str, str]:
        """The beginning of a log-in at the issuer: where it is, and what the browser keeps until it is back.

        Args:
            back: address of this service to which the issuer sends the browser.

        Raises:
            NotFoundError: people do not log in at an issuer.
            IssuerError: the issuer does not say where.
        """
        issuer, visit = self._where_people_sign_in(), Visit.begun()
        door = await self._in_thread(self._waiting, lambda: issuer.door(visit, back))
        return door, self.tokens.signed(visit._asdict(), SIGN_IN, SIGN_IN_SECONDS)

    async def end_sign_in(self, kept: str, state: str, code: str, back: str) -> str:
        """A session of the page, for whoever is back from the issuer.

        Args:
            kept: what the browser kept.
            state: what the issuer sends back.
            code: likewise.
            back: as in `begin_sign_in`.

        Raises:
            NotFoundError: people do not log in at an issuer.
            UnauthorizedError: the log-in was not begun in this browser, or too long ago, or the issuer does not confirm it.
            IssuerError: the issuer does not answer.
            UnavailableRecordsError: the records cannot be read or written.
        """
        issuer, claims = self._where_people_sign_in(), self.tokens.claims(kept, SIGN_IN)
        visit = Visit(claims["state"], claims["nonce"], claims["verifier"])
        if not secrets.compare_digest(state.encode(), visit.state.encode()):
            raise UnauthorizedError("the log-in was not begun in this browser; log in again")
        found = await self._in_thread(self._waiting, lambda: issuer.entered(visit, code, back))
        return self._session(await self._number_of(issuer, found), issuer.address)

    def _where_people_sign_in(self) -> Issuer:
        if self.issuer is None or self.issuer.client is None:
            raise NotFoundError("people log in here by name and password: the settings name no who.client")
        return self.issuer

    def token(self, principal: Principal) -> str:
        """A token for whoever has sent a key.

        Raises:
            UnauthorizedError: they have sent none.
        """
        if principal.user is None or principal.key is None:
            raise UnauthorizedError("a token is made for a key; send it as `Authorization: Bearer KEY`")
        return self.tokens.make(Own(principal.user, principal.key), PROGRAM, TOKEN_SECONDS)

    async def read(self, act: Callable[[Connection], T]) -> T:
        """What is read in the records.

        Raises:
            UnavailableRecordsError: they cannot be read.
        """

        def reading() -> T:
            with self.database.reading() as connection:
                return act(connection)

        try:
            return await self._in_thread(self._readers, reading)
        except SQLAlchemyError as error:
            raise UnavailableRecordsError("the records cannot be read; ask again", retry_after=5) from error

    def stop(self) -> None:
        """Ends the threads; nobody is looked up any more."""
        self._stopped = True
        for threads in (self._readers, self._waiting):
            threads.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, threads: ThreadPoolExecutor, act: Callable[[], T]) -> T:
        if self._stopped:
            raise StartingError("the service stops; ask again when it is back", retry_after=5)
        return await asyncio.get_running_loop().run_in_executor(threads, act)

    async def _of_token(self, token: str) -> Principal:
        try:
            own = self.tokens.read(token, PROGRAM)
        except UnauthorizedError:
            if self.issuer is None:
                raise
            return await self._of_issuer(self.issuer, token)
        if own.key is None:
            raise UnauthorizedError("the token names no key; get another")
        number = own.key
        return await self.read(lambda connection: self._of_key_numbered(connection, number))

    async def _of_issuer(self, issuer: Issuer, token: str) -> Principal:
        claims = await self._in_thread(self._waiting, lambda: issuer.read(token))
        number = await self._number_of(issuer, claims)
        return Principal(number, None, self.who.per_minute, self.who.tokens_per_day)

    async def _number_of(self, issuer: Issuer, claims: dict[str, Any]) -> int:
        """The user for whom an issuer vouches, who is noted when they first come."""
        subject, name = str(claims["sub"]), str(claims.get("name") or claims.get("email") or claims["sub"])
        shown = "".join(letter for letter in name if letter.isprintable()).strip()[: people.LONGEST_NAME] or "?"
        user = await self.read(lambda connection: people.find_user(connection, subject, issuer.address))
        if user is not None:
            return user.id

        def added(connection: Connection) -> int:
            there = people.find_user(connection, subject, issuer.address)  # another request may have come first
            return there.id if there else people.add_user(connection, shown, None, issuer.address, subject)

        return await asyncio.wrap_future(self.writer.write(added))

    def _of_key(self, connection: Connection, secret: str) -> Principal:
        return self._principal(people.key_of(connection, secret))

    def _of_key_numbered(self, connection: Connection, number: int) -> Principal:
        return self._principal(people.key_numbered(connection, number))

    def _principal(self, key: people.Key | None) -> Principal:
        if key is None:
            raise UnauthorizedError("the key is not known, or it was revoked")
        per_minute = self.who.per_minute if key.per_minute is None else key.per_minute
        tokens = self.who.tokens_per_day if key.tokens_per_day is None else key.tokens_per_day
        return Principal(key.user, key.id, per_minute, tokens)

    def _session(self, user: int, way: str) -> str:
        return self.tokens.make(Own(user, None, people.digest(way)), PAGE, PAGE_SECONDS)

    def _of_log_in(self, connection: Connection, own: Own) -> Principal:
        way = people.way_in(connection, own.user)
        if way is None or people.digest(way) != own.way:
            raise UnauthorizedError("the log-in is not valid any more; log in again")
        return Principal(own.user, None, self.who.per_minute, self.who.tokens_per_day)

    def _fresh(self, name: str) -> Principal | None:
        until, found = self._found.get(name, (0.0, None))
        return found if time.monotonic() < until else None

    def _keep(self, name: str, principal: Principal) -> None:
        self._found[name] = (time.monotonic() + FRESH_SECONDS, principal)
        self._found.move_to_end(name)
        while len(self._found) > MOST_KNOWN:
            self._found.popitem(last=False)
