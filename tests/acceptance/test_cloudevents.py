"""Events as the database makes them, on every sink and in both forms, read and verified by libraries of others."""

from __future__ import annotations

import base64
import datetime
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from standardwebhooks import Webhook

from tablewatcher.naming import token

from ..conftest import Database, HttpReceiver, Stream
from .commands import manifest, tablewatcher, write, write_secret
from .programs import PROGRAM, running

KEY = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
ID = 'ä "b" %41.*>'
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TABLE = "CREATE TABLE public.orders (id text PRIMARY KEY, status text, total numeric, seen timestamptz, note jsonb)"
INSERT = f"""
BEGIN;
SET LOCAL tablewatcher.context = '{{"user": 7, "why": "Grüße\\n"}}';
SET LOCAL tablewatcher.traceparent = '{TRACE}';
INSERT INTO public.orders VALUES ('{ID}', 'nëw', 12.50, '2026-01-31T12:00:00Z', '{{"a": [null, "\\u2028"]}}');
COMMIT"""
CHANGES = (INSERT, "UPDATE public.orders SET status = NULL", "DELETE FROM public.orders", "TRUNCATE public.orders")
TYPES = [
    *(f"io.tablewatcher.row.{done}" for done in ("inserted", "updated", "deleted", "truncated")),
    "io.tablewatcher.gap",
]
FORMS = ("Structured", "Binary")


@pytest.fixture
async def files(database: Database, stream: Stream, http_receiver: HttpReceiver, tmp_path: Path) -> tuple[Path, Path]:
    """Manifests, applied, of a watcher for each sink and form, all of one table, and Secrets."""
    await database.execute(TABLE)
    made = []
    for form in FORMS:
        nats = {"servers": [stream.url], "subject": f"{stream.prefix}.{form}.{{action}}"}
        signing = {"secretRefs": [{"name": "hook", "key": "whsec"}]}
        http = {"url": f"{http_receiver.url}/{form}", "signing": signing}
        for name, sink in {"nats": nats, "http": http}.items():
            fields = {"format": form, "columns": ["*"], "includeBefore": True, "sink": {name: sink}}
            actions = ["insert", "update", "delete", "truncate"]
            made.append(manifest(f"{name}-{form.lower()}", actions=actions, **fields))
    folders = write(tmp_path / "manifests", *made), write_secret(tmp_path / "secrets", "hook", whsec=KEY)
    await _apply(database, folders[0])
    return folders


async def _apply(database: Database, manifests: Path) -> None:
    answer = await tablewatcher("apply", "-f", manifests, "--dsn", database.dsn)
    assert answer.code == 0, answer.out + answer.err


async def test_what_the_database_makes_is_what_others_read(
    database: Database,
    stream: Stream,
    http_receiver: HttpReceiver,
    files: tuple[Path, Path],
    free_port: Callable[[], int],
) -> None:
    options = ("-f", files[0], "--secrets-dir", files[1], "--dsn", database.dsn, "--http-port", free_port())
    count = len(FORMS) * len(CHANGES)

    async def arrived(each: int) -> None:
        await stream.messages(each, 60)
        await http_receiver.wait_for(each, 60)

    async with running(PROGRAM, "listen", *options):
        for change in CHANGES:
            await database.execute(change)
        await arrived(count)
        await database.execute("ALTER TABLE public.orders DISABLE TRIGGER USER")
        await _apply(database, files[0])
        await arrived(count + len(FORMS))
    # By id: on a slow machine one may come twice.
    read: dict[str, dict[str, BaseCloudEvent]] = {}
    for message in await stream.messages():
        name = f"nats-{message.subject.split('.')[1].lower()}"
        message_id = message.headers["Nats-Msg-Id"]
        read.setdefault(name, {})[message_id] = _read(message.headers, message.data, message_id)
    for request in http_receiver.requests:
        Webhook(KEY).verify(request.body, request.headers)
        name = f"http-{request.path.rsplit('/')[-1].lower()}"
        message_id = request.headers["webhook-id"]
        read.setdefault(name, {})[message_id] = _read(request.headers, request.body, message_id)
    for name, events in read.items():
        _check(name, list(events.values()))
    # Whatever the sink and the form: the same change is the same data.
    assert len(read) == 2 * len(FORMS)
    first, *others = ([event.get_data() for event in [*events.values()][:-1]] for events in read.values())
    assert [data == first for data in others] == [True] * 3


def _read(headers: dict[str, str], body: bytes, message_id: str) -> BaseCloudEvent:
    event = from_http_event(HTTPMessage(headers, body))
    assert event.get_id() == message_id
    return event


def _check(name: str, events: list[BaseCloudEvent]) -> None:
    assert [event.get_type() for event in events] == TYPES, name
    keys = [token(ID)] * 3 + ["_"] * 2
    for event, key in zip(events, keys, strict=True):
        assert (event.get_specversion(), event.get_source()) == ("1.0", f"/namespaces/shop/tablewatchers/{name}")
        assert (event.get_subject(), event.get_extension("partitionkey")) == (f"public.orders/{key}", key)
        assert event.get_datacontenttype() == "application/json"
        age = datetime.datetime.now(datetime.UTC) - event.get_time()
        assert abs(age.total_seconds()) < 300
    assert [event.get_extension("traceparent") for event in events] == [TRACE, None, None, None, None]
    sequences = [str(event.get_extension("sequence")) for event in events]
    assert sequences == sorted(set(sequences))
    inserted, updated, deleted, truncated, gap = (dict[str, Any](event.get_data()) for event in events)
    row = {
        "id": ID,
        "status": "nëw",
        "total": 12.5,
        "seen": "2026-01-31T12:00:00+00:00",
        "note": {"a": [None, "\u2028"]},
    }
    assert (inserted["key"], inserted["after"]) == ({"id": ID}, row)
    assert inserted["context"] == {"user": 7, "why": "Grüße\n"}
    assert (updated["before"], updated["after"], updated["changed"]) == (row, row | {"status": None}, ["status"])
    assert (deleted["action"], deleted["before"]) == ("delete", row | {"status": None})
    assert (truncated["action"], set(truncated)) == ("truncate", {"action", "source"})
    assert (gap["gap"]["reason"], gap["gap"]["certain"]) == ("triggerRepaired", False)
