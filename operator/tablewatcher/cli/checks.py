"""What was found about one watcher, as lines of ok, warn or fail with the remedy. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ..errors import DatabaseError, Reason, TableWatcherError
from ..naming import WatcherNames
from ..postgres.capture.granularity import notes
from ..postgres.connection.pooling import Pooling
from ..postgres.drift import remedy
from ..postgres.install.capture_rights import lost_rights
from ..postgres.install.catalog import Observed
from ..postgres.install.comparison import AnotherTable
from ..postgres.install.survey import Survey
from ..postgres.standing import LONG_SECONDS, OpenGap, Standing, Surroundings
from ..spec.model import WatcherSpec

OLD_SECONDS = 60.0
# The line of changes that were not captured because that was asked for.
SKIPPED = "skipped"
OTHERS = "other watchers"
_FULL = 0.5
_QUEUE = 0.25
# The line on which a fault of the database shows.
_PLACES = {
    Reason.READ_ONLY_REPLICA: "primary",
    Reason.PERMISSION_DENIED: "rights",
    Reason.TABLE_NOT_FOUND: "table",
    Reason.COLUMN_NOT_FOUND: "columns",
    Reason.SPEC_INVALID: "columns",
    Reason.PUBLICATION_CONFLICT: "publications",
    Reason.OWNED_ELSEWHERE: "objects",
    Reason.TRIGGERS_DRIFTED: "objects",
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


def database_checks(spec: WatcherSpec, found: Survey, names: WatcherNames) -> Iterator[Check]:
    """Connection, server, rights, table, and whether what is installed is as it should be."""
    server, table = found.observed.server, found.observed.table
    is_table = table is not None and table.is_table
    if found.encrypted:
        yield Check("connection", Level.OK, "encrypted")
    else:
        yield Check("connection", Level.WARN, "made, but not encrypted; spec.database.tls, or sslmode, turns that on")
    yield pooler_check("pooler", found.pooling)
    places = [(_place(fault), fault) for fault in found.faults]
    lines = {
        "server": f"PostgreSQL {server.version // 10_000}, database {server.database}, encoding {server.encoding}",
        "primary": "this server takes writes",
        "rights": f"role {server.role} may do what it has to",
        "table": f"{spec.table.schema}.{spec.table.name} is there",
        "columns": "all that the manifest names are there, and may be used so",
        "publications": "none carries the ring away" if not server.publications else "FOR ALL TABLES, and allowed",
        "objects": "none of our names is taken",
        "home": "this is the database the watcher was made in, or will be",
    }
    for name, text in lines.items():
        if faults := [fault for place, fault in places if place == name]:
            yield from (Check.fault(name, fault) for fault in faults)
        elif is_table or name not in ("table", "columns"):
            yield Check(name, Level.OK, text)
    if is_table and table is not None:
        yield from (Check("table", Level.WARN, note) for note in notes(table.shape))
        yield _key(table.shape.primary_key)
    if found.plan is not None:
        yield _triggers(spec, found)
    if found.observed.function is not None:
        yield _writes(spec, found.observed, names)


def _place(fault: DatabaseError) -> str:
    return "table" if isinstance(fault, AnotherTable) else _PLACES.get(fault.reason, "server")


def pooler_check(name: str, pooling: Pooling) -> Check:
    """What is between us and the database."""
    if pooling is Pooling.NONE:
        return Check(name, Level.OK, "the connection leads to the database itself")
    if pooling is Pooling.SESSION:
        return Check(name, Level.OK, "through a pooler that keeps sessions, as good as none")
    text = (
        "through a pooler by transaction: a listener looks for changes 20 times a second instead of being woken; where"
        " that is too slow, name the database's own host and port"
    )
    return Check(name, Level.WARN, text, Reason.POOLER_DETECTED)


def _key(columns: tuple[str, ...]) -> Check:
    if columns:
        return Check("key", Level.OK, f"primary key {', '.join(columns)}")
    text = "no immediate primary key: the whole row is the key, and only equal rows keep their order; add a primary key"
    return Check("key", Level.WARN, text, Reason.NO_PRIMARY_KEY)


def _triggers(spec: WatcherSpec, found: Survey) -> Check:
    if not found.plan:
        return Check("triggers", Level.OK, "as the manifest wants them")
    run = remedy(spec)
    if found.observed.registered_table is None:
        return Check("triggers", Level.FAIL, f"nothing is installed yet: {run}", Reason.TRIGGERS_DRIFTED)
    what = ", ".join(step.what for step in found.plan.steps)
    return Check("triggers", Level.FAIL, f"not as the manifest wants them ({what}): {run}", Reason.TRIGGERS_DRIFTED)


def _writes(spec: WatcherSpec, observed: Observed, names: WatcherNames) -> Check:
    lost, made = lost_rights(observed, names), observed.function
    if not lost.grants or made is None:
        return Check("writes", Level.OK, "the capture function may do what it does")
    table = f"{spec.table.schema}.{spec.table.name}"
    harm = (
        f"every write to {table} fails" if lost.of_every_write else f"some writes to {table} may fail, or wake nobody"
    )
    text = (
        f"{harm}: role {made.owner}, as which the capture function runs, has lost rights; their owner must run:"
        f" {lost.grants};"
    )
    return Check("writes", Level.FAIL, text, Reason.PERMISSION_DENIED)


def filling(spec: WatcherSpec, found: Standing) -> bool:
    """Whether the ring is so full that it matters who keeps it from being emptied."""
    return bool(found.stopped_at) or found.ring_bytes > spec.delivery.overflow_bytes * _FULL


def standing_checks(spec: WatcherSpec, found: Standing) -> Iterator[Check]:
    """Ring, capture, changes skipped, gaps, listener, delivery, parked events."""
    bound = spec.delivery.overflow_bytes
    size = f"{found.ring_bytes / 2**20:.1f} of {bound / 2**20:.0f} MiB"
    if found.ring_bytes > bound * _FULL:
        text = (
            f"{size}: past the bound capture stops; mend what lines listener and sink say, or raise"
            " spec.delivery.overflow.maxBytes"
        )
        yield Check("ring", Level.WARN, text)
    else:
        yield Check("ring", Level.OK, size)
    if found.stopped_at:
        text = "stopped, since the ring was full; it starts again when half is delivered, and a gap event says so"
        yield Check("capture", Level.FAIL, text, Reason.CAPTURE_STOPPED)
    elif not found.captured:
        text = "nothing is captured, and the ring keeps what was: removed with deletionPolicy Retain, or by hand"
        yield Check("capture", Level.FAIL, f"{text}; {remedy(spec)} to go on", Reason.TRIGGERS_DRIFTED)
    else:
        yield Check("capture", Level.OK, "runs")
    if found.skipped:
        number = f"{found.skipped} change{'s' if found.skipped > 1 else ''}"
        yield Check(SKIPPED, Level.OK, f"{number} since installation, whose transactions set tablewatcher.skip")
    yield from map(_gap, found.gaps)
    if not found.gaps:
        yield Check("gaps", Level.OK, "none waits to be told")
    yield _listener(found)
    yield _delivery(spec, found)
    if found.parked:
        text = f"{found.parked} put aside as undeliverable: `tablewatcher parked list` shows them"
        yield Check("parked", Level.WARN, text, Reason.EVENTS_PARKED)
    elif found.parked is not None:
        yield Check("parked", Level.OK, "none")


def unattended_check(names: WatcherNames) -> Check:
    """Of another watcher of the same table, whose lease nobody holds, and that no manifest is of."""
    instance, namespace, name = names.identity.rsplit("/", 2)
    text = (
        f"watcher {namespace}/{name} captures from this table too: no manifest that is given here is of it, and no"
        " listener delivers it, so its ring only grows. If this manifest had that name before, remove the former:"
        f" `tablewatcher destroy --instance {instance}` with a copy of the manifest that has metadata.name: {name} and"
        f" metadata.namespace: {namespace}"
    )
    return Check(OTHERS, Level.WARN, text)


def namesake_note(instances: Sequence[str], names: WatcherNames) -> str:
    """Of watchers of the same name that other instances have here: whoever forgets --instance means one of those."""
    _, namespace, name = names.identity.rsplit("/", 2)
    have = f"instance {instances[0]} has" if len(instances) == 1 else f"instances {', '.join(instances)} have"
    return (
        f"{have} a watcher {namespace}/{name} in this database: if that one is meant, and no other, give --instance"
        f" {instances[0]}"
    )


def _gap(gap: OpenGap) -> Check:
    begun = f" from {gap.since:%Y-%m-%d %H:%M:%S %Z}" if gap.since else ""
    missed = f"{gap.reason}: changes {'were' if gap.certain else 'may have been'} missed{begun}"
    ended = f"{missed} until {gap.until:%Y-%m-%d %H:%M:%S %Z}{', told as open' if gap.told else ''}"
    if not gap.waits_for:
        return Check("gaps", Level.WARN, f"{ended}; the listener tells it at its next look: see that one runs")
    who = ", ".join(map(str, gap.waits_for))
    return Check("gaps", Level.WARN, f"{ended}; its end is told when these have ended: {who}; end what hangs")


def _listener(found: Standing) -> Check:
    if not found.host:
        text = f"{_last_listener(found)}: start `tablewatcher listen`, or see in its log why it does not run"
        return Check("listener", Level.FAIL, text, Reason.LISTENER_ROLLING_OUT)
    held = f"on {_who(found)}, lease for {found.lease_seconds:.0f} s more"
    if not found.reason:
        return Check("listener", Level.WARN, f"{held}; it has said nothing yet: wait, or look at its log")
    said = f"{held}; for {span(found.said_seconds or 0.0)} it has said {found.reason}"
    if found.forwarding and found.refused:
        return Check("listener", Level.WARN, f"{said}: {found.message}")
    if found.forwarding:
        return Check("listener", Level.OK, said)
    reason = Reason(found.reason) if found.reason in set(Reason) else Reason.RECONCILING
    level = Level.WARN if reason is Reason.RECONCILING else Level.FAIL
    return Check("listener", level, f"{said}: {found.message}", reason)


def _last_listener(found: Standing) -> str:
    if not found.last_host:
        return "none has run yet"
    if found.ended_seconds is None:
        return f"none runs; the last one, on {_who(found)}, was stopped and released its lease"
    ago = span(found.ended_seconds)
    return f"none runs; the lease of the last one, on {_who(found)}, ran out {ago} ago: it was killed or cut off"


def _who(found: Standing) -> str:
    return found.last_host if found.last_pid is None else f"{found.last_host} (pid {found.last_pid})"


def _delivery(spec: WatcherSpec, found: Standing) -> Check:
    if not found.waiting:
        return Check("delivery", Level.OK, "nothing waits")
    age = found.oldest_seconds or 0.0
    text = f"{'1 waits, and has' if found.waiting == 1 else f'{found.waiting} wait, the oldest'} for {span(age)}"
    if spec.suspend:
        return Check("delivery", Level.WARN, f"{text}: spec.suspend is true", Reason.SUSPENDED)
    if age > OLD_SECONDS:
        return Check("delivery", Level.WARN, f"{text}: lines listener and sink say why")
    return Check("delivery", Level.OK, text)


def surrounding_checks(found: Surroundings, pooling: Pooling = Pooling.NONE) -> Iterator[Check]:
    """Other people's transactions, and how writers wake the listener."""
    for holder in found.holders:
        end = "end it if it hangs" if holder.gid is None else "COMMIT PREPARED or ROLLBACK PREPARED it"
        yield Check("transactions", Level.WARN, f"{holder} keeps the ring from being emptied: {end}")
    if not found.holders:
        yield Check("transactions", Level.OK, f"none holds the ring for over {LONG_SECONDS} s")
    if pooling is Pooling.TRANSACTION:
        yield Check("wakeup", Level.OK, "by polling, since a pooler is in between")
    elif found.notify_used > _QUEUE:
        used = f"{found.notify_used:.0%}"
        text = f"the notification queue is {used} full: end the session that LISTENs and sits idle in a transaction"
        yield Check("wakeup", Level.WARN, text)
    elif found.prepared_transactions:
        text = f"by polling, since max_prepared_transactions is {found.prepared_transactions}"
        yield Check("wakeup", Level.OK, text)
    else:
        yield Check("wakeup", Level.OK, "by notification")


def sink_checks(fault: TableWatcherError | None, makes: Iterable[str], notes: Iterable[str]) -> Iterator[Check]:
    """Whether the sink would take events, what a listener would make there first, and what it says about itself."""
    yield Check.fault("sink", fault) if fault is not None else Check("sink", Level.OK, "would take events")
    for sentence in makes:
        yield Check("sink", Level.OK, sentence)
    for note in notes:
        yield Check("sink", Level.WARN, note)


def span(seconds: float) -> str:
    """A length of time for people: two digits and a unit."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0.0):.0f} s"
