"""The commands `parked` and `replay`, and their options. What they need is imported where they run, as in `app`."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated

import typer

from ..naming import LOCAL_INSTANCE
from .moment import moment
from .options import Dsn, Files, Instance, OutputOption, SecretsDir, text_option
from .results import Output, finish

parked = typer.Typer(
    help="List, replay or skip events that were put aside as undeliverable.", no_args_is_help=True, add_completion=False
)
KeyOption = Annotated[
    str | None,
    typer.Option("--key", callback=text_option, help="Only events of this key, as `partitionkey` of the event has it."),
]
IdOption = Annotated[str | None, typer.Option("--id", callback=text_option, help="Only the event with this id.")]
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
    from . import asked
    from .watchers import Scope

    scope = Scope(tuple(files), dsn, secrets_dir, instance)
    finish(asyncio.run(asked.list_parked(scope, limit, key=key, event_id=event_id)), output)


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
    from . import asked
    from .watchers import Scope

    scope = Scope(tuple(files), dsn, secrets_dir, instance)
    finish(asyncio.run(asked.replay_parked(scope, output, key=key, event_id=event_id)), output)


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
    """Drop parked events (all, or those of a key or id); what was held behind one of them is sent."""
    from . import asked
    from .watchers import Scope

    scope = Scope(tuple(files), dsn, secrets_dir, instance)
    finish(asyncio.run(asked.skip_parked(scope, output, key=key, event_id=event_id)), output)


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
    from . import asked
    from .watchers import Scope

    try:
        begin = moment(since, datetime.now(UTC))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from None
    scope = Scope(tuple(files), dsn, secrets_dir, instance)
    finish(asyncio.run(asked.replay(scope, output, since=begin, key=key)), output)
