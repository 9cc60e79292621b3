"""What was found about one watcher, as lines of ok, warn or fail with the remedy. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from ..errors import Reason, TableWatcherError
from ..postgres.standing import LONG_SECONDS, Standing, Surroundings
from ..postgres.survey import Survey
from ..spec.model import Management, WatcherSpec

OLD_SECONDS = 60.0
_FULL = 0.5
_QUEUE = 0.25
# The line on which a fault of the database shows.
_PLACES = {
    Reason.READ_ONLY_REPLICA: "primary",
    Reason.POOLER_DETECTED: "pooler",
    Reason.PERMISSION_DENIED: "rights",
    Reason.TABLE_NOT_FOUND: "table",
    Reason.COLUMN_NOT_FOUND: "columns",
    Reason.PUBLICATION_CONFLICT: "publications",
    Reason.OWNED_ELSEWHERE: "objects",
    Reason.CLONE_REFUSED: "home",
}


class Level(StrEnum):
    """How grave it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One line. `text` holds the remedy where the level is not ok."""

    name: str
    level: Level
    text: str
    reason: Reason | None = None

    @classmethod
    def fault(cls, name: str, error: TableWatcherError) -> Check:
        """The line of a fault."""
        return cls(name, Level.FAIL, error.message, error.reason)


def database_checks(spec: WatcherSpec, found: Survey) -> Iterator[Check]:
    """Connection, server, rights, table, and whether what is installed is as it should be."""
    server, table = found.observed.server, found.observed.table
    if found.encrypted:
        yield Check("connection", Level.OK, "encrypted")
    else:
        yield Check("connection", Level.WARN, "made, but not encrypted; spec.database.tls, or sslmode, turns that on")
    faults: dict[str, TableWatcherError] = {_PLACES.get(fault.reason, "server"): fault for fault in found.faults}
    lines = {
        "server": f"PostgreSQL {server.version // 10_000}, database {server.database}, encoding {server.encoding}",
        "primary": "this server takes writes",
        "pooler": "the connection leads to the database itself",
        "rights": f"role {server.role} may do what it has to",
        "table": f"{spec.table.schema}.{spec.table.name} is there",
        "columns": "all that the manifest names are there",
        "publications": "none carries the ring away" if not server.publications else "FOR ALL TABLES, and allowed",
        "objects": "none of our names is taken",
        "home": "this is the database the watcher was made in, or will be",
    }
    for name, text in lines.items():
        if name in faults:
            yield Check.fault(name, faults[name])
        elif table is not None or name not in ("table", "columns"):
            yield Check(name, Level.OK, text)
    if table is not None:
        yield _key(table.shape.primary_key)
    if found.plan is not None:
        yield _triggers(spec, found)


def _key(columns: tuple[str, ...]) -> Check:
    if columns:
        return Check("key", Level.OK, f"primary key {', '.join(columns)}")
    text = "no immediate primary key: the whole row is the key, and only equal rows keep their order; add a primary key"
    return Check("key", Level.WARN, text, Reason.NO_PRIMARY_KEY)


def _triggers(spec: WatcherSpec, found: Survey) -> Check:
    if not found.plan:
        return Check("triggers", Level.OK, "as the manifest wants them")
    run = "have a DBA run what `tablewatcher sql` prints" if spec.management is Management.OBSERVE else "run `apply`"
    if found.observed.registered_table is None:
        return Check("triggers", Level.FAIL, f"nothing is installed yet: {run}", Reason.TRIGGERS_DRIFTED)
    what = ", ".join(step.what for step in found.plan.steps)
    return Check("triggers", Level.FAIL, f"not as the manifest wants them ({what}): {run}", Reason.TRIGGERS_DRIFTED)


def standing_checks(spec: WatcherSpec, found: Standing) -> Iterator[Check]:
    """Ring, capture, listener, delivery, parked events."""
    bound = spec.delivery.overflow_bytes
    size = f"{found.ring_bytes / 2**20:.1f} of {bound / 2**20:.0f} MiB"
    if found.ring_bytes > bound * _FULL:
        text = f"{size}: past the bound capture stops; see that the listener runs and the sink takes events"
        yield Check("ring", Level.WARN, text)
    else:
        yield Check("ring", Level.OK, size)
    if found.stopped_at:
        text = "stopped, since the ring was full; it starts again when half is delivered, and a gap event says so"
        yield Check("capture", Level.FAIL, text, Reason.CAPTURE_STOPPED)
    else:
        yield Check("capture", Level.OK, "runs")
    yield _listener(spec, found)
    yield _delivery(spec, found)
    if found.parked:
        text = f"{found.parked} put aside as undeliverable: `tablewatcher parked list` shows them"
        yield Check("parked", Level.WARN, text, Reason.EVENTS_PARKED)
    elif found.parked is not None:
        yield Check("parked", Level.OK, "none")


def _listener(spec: WatcherSpec, found: Standing) -> Check:
    if not found.host:
        text = "no listener holds the lease: start `tablewatcher listen`, or look at its log"
        return Check("listener", Level.FAIL, text, Reason.LISTENER_ROLLING_OUT)
    held = f"on {found.host}, whose lease runs for {found.lease_seconds:.0f} s more"
    if found.forwarding:
        return Check("listener", Level.OK, f"{held}; it says {found.reason}")
    if not found.reason:
        return Check("listener", Level.WARN, f"{held}; it has said nothing yet")
    reason = Reason(found.reason) if found.reason in set(Reason) else Reason.RECONCILING
    level = Level.WARN if reason is Reason.RECONCILING else Level.FAIL
    return Check("listener", level, f"{held}; it says {found.reason}: {found.message}", reason)


def _delivery(spec: WatcherSpec, found: Standing) -> Check:
    if not found.waiting:
        return Check("delivery", Level.OK, "nothing waits")
    age = found.oldest_seconds or 0.0
    text = f"{found.waiting} wait, the oldest for {span(age)}"
    if spec.suspend:
        return Check("delivery", Level.WARN, f"{text}: spec.suspend is true", Reason.SUSPENDED)
    return Check("delivery", Level.WARN if age > OLD_SECONDS else Level.OK, text)


def surrounding_checks(found: Surroundings) -> Iterator[Check]:
    """Other people's transactions, and how writers wake the listener."""
    for holder in found.holders:
        end = "end it if it hangs" if holder.gid is None else "COMMIT PREPARED or ROLLBACK PREPARED it"
        yield Check("transactions", Level.WARN, f"{holder} keeps the ring from being emptied: {end}")
    if not found.holders:
        yield Check("transactions", Level.OK, f"none holds the ring for over {LONG_SECONDS} s")
    if found.notify_used > _QUEUE:
        used = f"{found.notify_used:.0%}"
        text = f"the notification queue is {used} full: end the session that LISTENs and sits idle in a transaction"
        yield Check("wakeup", Level.WARN, text)
    elif found.prepared_transactions:
        text = f"by polling, since max_prepared_transactions is {found.prepared_transactions}"
        yield Check("wakeup", Level.OK, text)
    else:
        yield Check("wakeup", Level.OK, "by notification")


def sink_checks(fault: TableWatcherError | None, notes: Iterable[str]) -> Iterator[Check]:
    """Whether the sink would take events, and what it says about itself."""
    yield Check.fault("sink", fault) if fault is not None else Check("sink", Level.OK, "would take events")
    for note in notes:
        yield Check("sink", Level.WARN, note)


def span(seconds: float) -> str:
    """A length of time for people: two digits and a unit."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0.0):.0f} s"
