"""One watcher's database as the operator sees it: the connection, the last apply, the listener's word.

Looks are spaced: a Secret every minute, the catalog every half minute, both every ten seconds while something is
wrong. A changed manifest, a request, or a lost connection makes the next look due at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import DatabaseError, Reason, TableWatcherError
from ..naming import WatcherNames
from ..postgres.install.apply import Applied, apply
from ..postgres.progress import NoAnswer
from ..spec.model import WatcherSpec
from .client import ApiError
from .poll import Polls, Subscription
from .secret import SecretReader, keyed_hash

SECRET_SECONDS = 60.0
CATALOG_SECONDS = 30.0
FAULTY_SECONDS = 10.0
# All of it has to show in status within eight seconds.
APPLY_SECONDS = 7.0
LOCK_PATIENCE = 4.0
SAID_FIRST_SECONDS = 1.0


@dataclass(slots=True)
class _Due:
    secret: float = 0.0
    catalog: float = 0.0


class WatchedDatabase:
    """`changed` is called when the listener's word changes, and when the database is lost."""

    def __init__(self, secrets: SecretReader, polls: Polls, names: WatcherNames, changed: Callable[[], None]) -> None:
        self._secrets = secrets
        self._polls = polls
        self._changed = changed
        self._due = _Due()
        self._conninfo = ""
        self._listener_role: str | None = None
        self._hash = ""
        self._spec: WatcherSpec | None = None
        self._fault: TableWatcherError | None = None
        self._secret_fault: TableWatcherError | ApiError | None = None
        self._subscribed = ""
        self._adopt = ""
        self.names = names
        self.subscription = Subscription(names, changed, self._lost)
        self.applied: Applied | None = None
        self.last_working = ""
        self.repaired: tuple[str, ...] = ()

    def demand(self) -> None:
        """The next look is due at once."""
        self._due = _Due()

    def allow(self, adopt: str) -> None:
        """The home that the watcher may move to, as an annotation names it; "" where none does."""
        if adopt != self._adopt:
            self._adopt = adopt
            self.demand()

    def seconds_left(self, now: float) -> float:
        """Until the next look is due."""
        due = self._due.secret if self._secret_fault is not None else min(self._due.secret, self._due.catalog)
        return max(due - now, 0.0)

    async def look(self, spec: WatcherSpec) -> None:
        """Brings the database to `spec` if it is time. Raises what is wrong: DatabaseError, SecretError, ApiError.

        `applied` stays what the last apply that succeeded has found; `repaired` is what this look put right.
        """
        now = asyncio.get_running_loop().time()
        self.repaired = ()
        before = self._spec
        if now >= self._due.secret or (before and _what_names_secrets(before) != _what_names_secrets(spec)):
            await self._read_secret(spec, now)
        if self._secret_fault is not None:
            raise self._secret_fault
        if now >= self._due.catalog or spec != self._spec:
            await self._apply(spec, now)
        if self._fault is not None:
            raise self._fault
        await self._subscribe()

    async def close(self) -> None:
        """Stops asking for the listener's word."""
        if self._subscribed:
            await self._polls.unsubscribe(self._subscribed, self.subscription)
            self._subscribed = ""

    async def _read_secret(self, spec: WatcherSpec, now: float) -> None:
        try:
            await self._secrets.check_mounted(spec)
            found = await self._secrets.access(spec)
        except (TableWatcherError, ApiError) as error:
            self._secret_fault = error
            self._due.secret = now + FAULTY_SECONDS
            return
        self._secret_fault = None
        self._due.secret = now + (SECRET_SECONDS if self._fault is None else FAULTY_SECONDS)
        hashed = keyed_hash(f"{found.conninfo} {found.listener_role}")
        if hashed != self._hash:
            self._conninfo, self._listener_role, self._hash = found.conninfo, found.listener_role, hashed
            self._due.catalog = 0.0

    async def _apply(self, spec: WatcherSpec, now: float) -> None:
        in_sync_before = spec == self._spec and self.applied is not None and self._fault is None
        self._spec = spec
        try:
            self.applied = await self._bounded(spec)
        except TableWatcherError as error:
            self._fault = error
            self._due.catalog = now + FAULTY_SECONDS
            self._due.secret = min(self._due.secret, now + FAULTY_SECONDS)
            return
        self._fault = None
        self.last_working = self._conninfo
        self._due.catalog = now + CATALOG_SECONDS
        if in_sync_before:
            self.repaired = self.applied.plan.kinds

    async def _bounded(self, spec: WatcherSpec) -> Applied:
        try:
            async with asyncio.timeout(APPLY_SECONDS):
                return await apply(
                    self._conninfo,
                    spec,
                    self.names,
                    patience=LOCK_PATIENCE,
                    adopt=self._adopt,
                    listener_role=self._listener_role,
                )
        except TimeoutError:
            raise DatabaseError(
                Reason.DATABASE_UNREACHABLE, "the database accepts connections but does not answer"
            ) from None

    async def _subscribe(self) -> None:
        if self._subscribed != self._conninfo:
            await self.close()
            self._polls.subscribe(self._conninfo, self.subscription)
            self._subscribed = self._conninfo

    def _lost(self, why: TableWatcherError) -> None:
        self.demand()
        if isinstance(why, NoAnswer):
            # A look of our own may take as long again: it comes after what is known has been said.
            self._fault = why
            self._due.catalog = asyncio.get_running_loop().time() + SAID_FIRST_SECONDS
        self._changed()


def _what_names_secrets(spec: WatcherSpec) -> object:
    return spec.database, spec.management, spec.sink
