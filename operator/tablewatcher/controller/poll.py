"""What listeners say, polled: one query every one and a half seconds for all watchers of a database."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from ..errors import TableWatcherError
from ..naming import WatcherNames
from ..postgres.progress import ProgressReader, Report

POLL_SECONDS = 1.5
# A lease is proven within two seconds; a listener that has not done so for longer is not there any more. That is to be
# in status within eight seconds of when it died, which may be just before a look that finds its last proof.
STALE_SECONDS = 4.5

log = structlog.get_logger("tablewatcher.operator")


@dataclass(slots=True)
class Subscription:
    """One watcher's place in a poll. `changed` is called with every change, `failed` with why the database is lost."""

    names: WatcherNames
    changed: Callable[[], None]
    failed: Callable[[TableWatcherError], None]
    report: Report | None = None
    proven_at: float = float("-inf")
    _leased: bool = False

    @property
    def leased(self) -> bool:
        """Whether a listener has proven its lease a moment ago."""
        return self._leased

    def silent(self, now: float) -> None:
        """Nothing could be read; a lease that is not proven any more is none."""
        self._leased = self._leased and now - self.proven_at < STALE_SECONDS

    def take(self, report: Report | None, now: float) -> None:
        """A new report; None: the watcher is not installed."""
        before = (self._words(), self._leased)
        if report is None:
            self._leased = False
        else:
            if report.lease_seconds > 0 and (self.report is None or report.proof != self.report.proof):
                self.proven_at = now
            self._leased = now - self.proven_at < STALE_SECONDS
        self.report = report
        if before != (self._words(), self._leased):
            self.changed()

    def _words(self) -> tuple[object, ...]:
        found = self.report
        if found is None:
            return ()
        return (found.spoken, found.spec_generation, found.forwarding, found.reason, found.message)


@dataclass(slots=True)
class _Poll:
    reader: ProgressReader
    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None


class Polls:
    """One poll per database; a database is one connection string."""

    def __init__(self) -> None:
        self._polls: dict[str, _Poll] = {}

    def subscribe(self, conninfo: str, subscription: Subscription) -> None:
        """Asks for a watcher from now on."""
        poll = self._polls.get(conninfo)
        if poll is None:
            poll = self._polls[conninfo] = _Poll(ProgressReader(conninfo))
            poll.task = asyncio.create_task(self._run(poll), name="progress poll")
        poll.subscriptions[subscription.names.hash] = subscription

    async def unsubscribe(self, conninfo: str, subscription: Subscription) -> None:
        """Asks no more; the last one closes the connection."""
        poll = self._polls.get(conninfo)
        if poll is None or poll.subscriptions.get(subscription.names.hash) is not subscription:
            return
        del poll.subscriptions[subscription.names.hash]
        if not poll.subscriptions:
            del self._polls[conninfo]
            await _end(poll)

    async def close(self) -> None:
        """Ends all."""
        polls, self._polls = list(self._polls.values()), {}
        await asyncio.gather(*(_end(poll) for poll in polls))

    async def _run(self, poll: _Poll) -> None:
        well = True
        while True:
            try:
                await self._once(poll)
                well = True
            except TableWatcherError as error:
                # The first failure sends everybody to look for themselves; what they find is what status says.
                now = asyncio.get_running_loop().time()
                for subscription in list(poll.subscriptions.values()):
                    subscription.silent(now)
                    if well:
                        subscription.failed(error)
                if well:
                    log.warning("progress cannot be read", reason=str(error.reason))
                well = False
            except Exception:
                log.exception("unexpected fault while reading progress")
            await asyncio.sleep(POLL_SECONDS)

    async def _once(self, poll: _Poll) -> None:
        reports = await poll.reader.read([each.names for each in poll.subscriptions.values()])
        now = asyncio.get_running_loop().time()
        for hashed, subscription in list(poll.subscriptions.items()):
            subscription.take(reports.get(hashed), now)


async def _end(poll: _Poll) -> None:
    if poll.task is not None:
        poll.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await poll.task
    await poll.reader.close()
