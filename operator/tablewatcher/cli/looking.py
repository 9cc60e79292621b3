"""What a watcher's database and sink say before anything is done there, for `plan` and `doctor`. Changes nothing."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import TableWatcherError
from ..postgres.connection.conninfo import Access
from ..postgres.install.survey import Survey, survey
from ..sinks.kinds import make_sink
from ..spec.model import WatcherSpec
from .watchers import Scope


@dataclass(frozen=True, slots=True)
class SinkFound:
    """fault: why the sink would not take events now. makes: what a listener would make there first. notes: what works,
    and may still cost somebody events. The latter two a sentence each."""

    fault: TableWatcherError | None
    makes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


async def look_at_database(scope: Scope, spec: WatcherSpec, to: Access) -> Survey:
    """What stands in the database `to`, and what `apply` would do. Raises DatabaseError where it cannot be asked."""
    return await scope.reaching.once(
        to.conninfo,
        lambda: survey(to.conninfo, spec, scope.names(spec), adopt=scope.adopt, listener_role=to.listener_role),
    )


async def look_at_sink(scope: Scope, spec: WatcherSpec) -> SinkFound:
    """What the sink of `spec` would say to events."""
    try:
        sink = make_sink(spec, scope.secrets, addresses=scope.addresses)
    except TableWatcherError as error:
        return SinkFound(error)
    try:
        makes = await sink.look()
    except TableWatcherError as error:
        return SinkFound(error)
    finally:
        await sink.close()
    return SinkFound(None, tuple(makes), tuple(sink.notes))
