"""Requests to the active listener: written into the database, and watched until they are done."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ..errors import Reason, TableWatcherError, times
from ..postgres.asking import ParkedEvent, ask, followed, listed, of
from ..postgres.requests import SUSPENDED, TABLE, Kind, Request, State
from ..spec.model import WatcherSpec
from .results import Output, Result
from .watchers import Scope, each_watcher
from .watching import Watching


async def list_parked(scope: Scope, limit: int, *, key: str | None, event_id: str | None) -> list[Result]:
    """The first `limit` parked events of each watcher."""

    async def one(spec: WatcherSpec) -> Result:
        conninfo, names = scope.conninfo_to_ask(spec), scope.names(spec)
        events, number = await scope.reaching.patiently(
            conninfo, lambda: listed(conninfo, names, limit, key=key, event_id=event_id)
        )
        extra = {"count": number, "events": [_as_json(event) for event in events]}
        text = _table(events, number) if events else f"nothing{of(key, event_id)} is parked"
        return Result(spec.qualified_name, ok=True, text=text, extra=extra)

    return await each_watcher(scope, one)


async def replay_parked(scope: Scope, output: Output, *, key: str | None, event_id: str | None) -> list[Result]:
    """Has parked events sent once more."""
    return await _ask(scope, Kind.PARKED, output, key=key, event_id=event_id)


async def skip_parked(scope: Scope, output: Output, *, key: str | None, event_id: str | None) -> list[Result]:
    """Has parked events dropped."""
    return await _ask(scope, Kind.SKIP, output, key=key, event_id=event_id)


async def replay(scope: Scope, output: Output, *, since: datetime | timedelta, key: str | None) -> list[Result]:
    """Has events that were captured since then, or in that span, sent once more."""
    return await _ask(scope, Kind.REPLAY, output, since=since, key=key)


async def _ask(
    scope: Scope,
    kind: Kind,
    output: Output,
    *,
    since: datetime | timedelta | None = None,
    key: str | None = None,
    event_id: str | None = None,
) -> list[Result]:
    async def one(spec: WatcherSpec) -> Result:
        conninfo, names = scope.conninfo_to_ask(spec), scope.names(spec)
        asked = await scope.reaching.patiently(
            conninfo, lambda: ask(conninfo, names, kind, since=since, key=key, event_id=event_id)
        )
        with Watching(spec.qualified_name, quiet=output is Output.JSON, wait=kind is Kind.REPLAY) as watching:
            last = Last(asked, time.monotonic(), watching.progress)
            try:
                found = await scope.reaching.patiently(
                    conninfo, lambda: followed(conninfo, names, last.asked, last.progress), lambda: last.at
                )
            except TableWatcherError as error:
                return _left(spec, error, last.asked)
            return _result(spec, found)

    return await each_watcher(scope, one)


@dataclass(slots=True)
class Last:
    """What was last heard of a request, and when, on the monotonic clock; `progress` of it, as `followed` wants it."""

    asked: Request
    at: float
    show: Callable[[Request, bool], bool]

    def progress(self, asked: Request, active: bool) -> bool:
        self.asked, self.at = asked, time.monotonic()
        return self.show(asked, active)


def _left(spec: WatcherSpec, error: TableWatcherError, asked: Request) -> Result:
    """The result where we cannot see any more what becomes of a request."""
    result = Result.failed(spec.qualified_name, error)
    if error.reason is Reason.DATABASE_UNREACHABLE:
        result.text += (
            f"; request {asked.id} stays {asked.state}, and a listener of this watcher does it when the database is"
            f" back: the row of {TABLE} with id {asked.id} says how far it is"
        )
    result.extra |= {"request": asked.id, "state": str(asked.state), "events": asked.done, "detail": result.text}
    return result


def _result(spec: WatcherSpec, asked: Request) -> Result:
    text = asked.message
    if asked.is_open and not asked.is_sent:
        suspended = " and spec.suspend is false" if asked.message == SUSPENDED else ""
        text = f"request {asked.id} is noted; it is done when a listener of this watcher runs{suspended}"
    extra = {"request": asked.id, "state": str(asked.state), "events": asked.done, "detail": text}
    if asked.state is State.FAILED and asked.kind is Kind.REPLAY:
        return Result(spec.qualified_name, ok=False, text=text, reason=Reason.MANUAL_ACTION_REQUIRED, extra=extra)
    if asked.state is State.FAILED:
        text += "; `tablewatcher parked list` shows why"
        return Result(spec.qualified_name, ok=False, text=text, reason=Reason.EVENTS_PARKED, extra=extra)
    return Result(spec.qualified_name, ok=True, text=text, extra=extra)


def _as_json(event: ParkedEvent) -> dict[str, object]:
    return {
        "id": event.event_id,
        "key": event.key,
        "action": event.action,
        "time": event.captured_at.isoformat(),
        "parkedAt": event.parked_at.isoformat(),
        "attempts": event.attempts,
        "reason": event.reason,
        "message": event.message,
    }


def _table(events: list[ParkedEvent], number: int) -> str:
    now = datetime.now(UTC)
    lines = [f"{number} parked"]
    for event in events:
        age = f"{max((now - event.captured_at).total_seconds(), 0):.0f} s old"
        why = f"refused {times(event.attempts)}: {event.message}" if event.attempts else "behind another of its key"
        lines.append(f"  {event.event_id}  key {event.key}  {event.action}  {age}  {why}")
    if number > len(events):
        lines.append(f"  and {number - len(events)} more (--limit)")
    return "\n".join(lines)
