"""Which watchers the demonstration can play: those whose events it can count against what it writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..errors import FieldError, SpecInvalid
from ..spec.model import Action, Format, HttpSink, Management, NatsSink, Ordering, WatcherSpec
from .demo_load import COUNTED, SCHEMA, TABLE, UNWATCHED

STREAM, SUBJECTS, _PREFIX = "SHOP", ("shop.>",), "shop."
_CHANGES = {Action.INSERT, Action.UPDATE, Action.DELETE}


def sink_kind(spec: WatcherSpec) -> str:
    """What the demonstration calls the watcher's sink."""
    return "NATS" if isinstance(spec.sink, NatsSink) else "HTTP"


def refuse_unplayable(specs: Sequence[WatcherSpec]) -> None:
    """Raises SpecInvalid for the first watcher that cannot be played: else its events would be told as lost, or as such
    that must not arrive, though all is well."""
    first_of: dict[str, str] = {}
    for spec in specs:
        errors = [FieldError(f"spec.{path}", text) for path, text in (*_counted(spec), *_received(spec.sink))]
        kind = sink_kind(spec)
        first = first_of.setdefault(kind, spec.qualified_name)
        if first != spec.qualified_name:
            errors.append(FieldError("spec.sink", f"{first} sends to {kind} already, and demo plays one of each"))
        if errors:
            raise SpecInvalid(spec.qualified_name, tuple(errors))


def _counted(spec: WatcherSpec) -> Iterator[tuple[str, str]]:
    if (spec.table.schema, spec.table.name) != (SCHEMA, TABLE):
        yield "table", f"must be {SCHEMA}.{TABLE}, which demo changes"
    if missing := _CHANGES - spec.actions:
        yield "actions", f"must have {', '.join(sorted(missing))} too, which demo counts"
    watched = spec.trigger_columns
    if COUNTED not in watched or UNWATCHED in watched:
        yield "triggerColumns", f"must have {COUNTED} and not {UNWATCHED}: demo changes both, and counts the first"
    if spec.where:
        yield "where", "must be left out: demo counts all changes"
    if spec.format is not Format.STRUCTURED:
        yield "format", "must be Structured: demo reads events as one JSON object"
    if spec.delivery.ordering is not Ordering.PER_KEY:
        yield "delivery.ordering", "must be PerKey: demo counts what is out of order"
    if spec.suspend:
        yield "suspend", "must be false: nothing would arrive"
    if spec.management is not Management.MANAGED:
        yield "management", "must be Managed: demo is its own DBA"


def _received(sink: NatsSink | HttpSink) -> Iterator[tuple[str, str]]:
    if isinstance(sink, HttpSink):
        if sink.batch.max_events > 1:
            yield "sink.http.batch.maxEvents", "must be 1: demo reads events as one JSON object"
        return
    if sink.stream not in (None, STREAM):
        yield "sink.nats.jetStream.stream", f"must be {STREAM}, which demo makes, or left out"
    if not sink.subject.startswith(_PREFIX):
        yield "sink.nats.subject", f"must begin with {_PREFIX!r}: the stream of demo has {SUBJECTS[0]}"
