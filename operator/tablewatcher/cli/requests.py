"""`parked` and `replay`: what people ask of the active listener. The commands write down what is wanted and watch."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated

import typer

from ..errors import Reason
from ..naming import LOCAL_INSTANCE
from ..postgres.asking import ParkedEvent, ask, followed, listed
from ..postgres.requests import SUSPENDED, Kind, Request, State
from ..spec.model import WatcherSpec
from .moment import moment
from .options import Dsn, Files, Instance, OutputOption, SecretsDir
from .results import Output, Result, finish
from .watchers import Scope, each_watcher, patiently
from .watching import Watching

parked = typer.Typer(
    help="List, replay or skip events that were put aside as undeliverable.", no_args_is_help=True, add_completion=False
)
KeyOption = Annotated[
    str | None, typer.Option("--key", help="Only events of this key, as `partitionkey` of the event has it.")
]
IdOption = Annotated[str | None, typer.Option("--id", help="Only the event with this id.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, help="Show so many at the most.")]
SinceOption = Annotated[
    str,
    typer.Option("--since", help="Events captured since then: 90s, 10m, 2h, 1d, or a time such as 2026-01-31T12:00Z."),
]


@parked.command("list")
def list_parked(
    files: Files,
    dsn: Dsn = None,
    secrets_dir: SecretsDir = None,
    instance: Instance = LOCAL_INSTANCE,
    key: KeyOption = None,
    event_id: IdOption = None,
    limit: LimitOption = 100,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show parked events in the order in which they would be sent."""
    scope = Scope(tuple(files), dsn, secrets_dir, instance)

    async def one(spec: WatcherSpec) -> Result:
        conninfo, names = scope.access(spec).conninfo, scope.names(spec)
        events, number = await patiently(lambda: listed(conninfo, names, limit, key=key, event_id=event_id))
        extra = {"count": number, "events": [_as_json(event) for event in events]}
        return Result(spec.qualified_name, ok=True, text=_table(events, number), extra=extra)

    finish(asyncio.run(each_watcher(scope, one)), output)


@parked.command("replay")
def replay_parked(
    files: Files,
    dsn: Dsn = None,
    secrets_dir: SecretsDir = None,
    instance: Instance = LOCAL_INSTANCE,
    key: KeyOption = None,
    event_id: IdOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Send parked events (all, or those of a key) once more, in order and before later ones of their keys."""
    _ask(Scope(tuple(files), dsn, secrets_dir, instance), Kind.PARKED, output, key=key, event_id=event_id)


@parked.command("skip")
def skip_parked(
    files: Files,
    dsn: Dsn = None,
    secrets_dir: SecretsDir = None,
    instance: Instance = LOCAL_INSTANCE,
    key: KeyOption = None,
    event_id: IdOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Drop parked events; what was held behind one of them is sent."""
    _ask(Scope(tuple(files), dsn, secrets_dir, instance), Kind.SKIP, output, key=key, event_id=event_id)


def replay(
    files: Files,
    since: SinceOption,
    dsn: Dsn = None,
    secrets_dir: SecretsDir = None,
    instance: Instance = LOCAL_INSTANCE,
    key: KeyOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Send delivered events that the ring still holds once more; live delivery waits meanwhile."""
    scope = Scope(tuple(files), dsn, secrets_dir, instance)
    try:
        begin = moment(since, datetime.now(UTC))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from None
    _ask(scope, Kind.REPLAY, output, since=begin, key=key)


def _ask(
    scope: Scope,
    kind: Kind,
    output: Output,
    *,
    since: datetime | None = None,
    key: str | None = None,
    event_id: str | None = None,
) -> None:
    async def one(spec: WatcherSpec) -> Result:
        conninfo, names = scope.access(spec).conninfo, scope.names(spec)
        asked = await patiently(lambda: ask(conninfo, names, kind, since=since, key=key, event_id=event_id))
        with Watching(spec.qualified_name, quiet=output is Output.JSON, wait=kind is Kind.REPLAY) as watching:
            return _result(spec, await followed(conninfo, names, asked, watching.progress))

    finish(asyncio.run(each_watcher(scope, one)), output)


def _result(spec: WatcherSpec, asked: Request) -> Result:
    text = asked.message
    if asked.is_open:
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
    if not events:
        return "nothing is parked"
    now = datetime.now(UTC)
    lines = [f"{number} parked"]
    for event in events:
        age = f"{max((now - event.captured_at).total_seconds(), 0):.0f} s old"
        why = f"refused {event.attempts} times: {event.message}" if event.attempts else "behind another of its key"
        lines.append(f"  {event.event_id}  key {event.key}  {event.action}  {age}  {why}")
    if number > len(events):
        lines.append(f"  and {number - len(events)} more (--limit)")
    return "\n".join(lines)
