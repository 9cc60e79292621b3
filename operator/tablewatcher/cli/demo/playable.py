"""Which watchers the demonstration can play: those whose events it can count against what it writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...errors import FieldError, SpecInvalid
from ...spec.model import Action, HttpSink, Management, NatsSink, Ordering, WatcherSpec
from .load import NOTE, SCHEMA, STATUS, TABLE

STREAM, SUBJECTS, _PREFIX = "SHOP", ("shop.>",), "shop."
_CHANGES = {Action.INSERT, Action.UPDATE, Action.DELETE}


def sink_kind(spec: WatcherSpec) -> str:
    """What the demonstration calls the watcher's sink."""
    return "NATS" if isinstance(spec.sink, NatsSink) else "HTTP"


def takes_notes(spec: WatcherSpec) -> bool:
    """Whether a change of the column NOTE alone is an event."""
    return not spec.trigger_columns or NOTE in spec.trigger_columns


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
        if takes_notes(spec) != takes_notes(specs[0]):
            text = f"must have {NOTE}, or not, as in {specs[0].qualified_name}: demo counts the same changes for both"
            errors.append(FieldError("spec.triggerColumns", text))
        if errors:
            raise SpecInvalid(spec.qualified_name, tuple(errors))


def _counted(spec: WatcherSpec) -> Iterator[tuple[str, str]]:
    if (spec.table.schema, spec.table.name) != (SCHEMA, TABLE):
        yield "table", f"must be {SCHEMA}.{TABLE}, which demo changes"
    if missing := _CHANGES - spec.actions:
        yield "actions", f"must have {', '.join(sorted(missing))} too, which demo counts"
    if spec.trigger_columns and STATUS not in spec.trigger_columns:
        yield "triggerColumns", f"must have {STATUS}, or be left out: demo changes it, and counts that"
    if spec.where:
        yield "where", "must be left out: demo counts all changes"
    if spec.delivery.ordering is not Ordering.PER_KEY:
        yield "delivery.ordering", "must be PerKey: demo counts what is out of order"
    if spec.suspend:
        yield "suspend", "must be false: nothing would arrive"
    if spec.management is not Management.MANAGED:
        yield "management", "must be Managed: demo is its own DBA"


def _received(sink: NatsSink | HttpSink) -> Iterator[tuple[str, str]]:
    if isinstance(sink, HttpSink):
        return
    if sink.stream not in (None, STREAM):
        yield "sink.nats.jetStream.stream", f"must be {STREAM}, which demo makes, or left out"
    if not sink.subject.startswith(_PREFIX):
        yield "sink.nats.subject", f"must begin with {_PREFIX!r}: the stream of demo has {SUBJECTS[0]}"
