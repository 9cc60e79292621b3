"""`plan` checks against the live database and sink: each thing that stands against a watcher, and all at once."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.js.errors import NotFoundError

from ..conftest import Database, Stream
from .commands import manifest, tablewatcher, write

TABLES = """
CREATE TABLE public.orders (id bigint PRIMARY KEY, status text, total numeric);
CREATE TABLE public.keyless (status text);
CREATE VIEW public.overview AS SELECT * FROM public.orders;
CREATE TABLE public.sales (id bigint, status text, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE public.sales_2026 PARTITION OF public.sales FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE public.family (id bigint PRIMARY KEY, status text);
CREATE TABLE public.child () INHERITS (public.family);
"""


@pytest.fixture
async def shop(database: Database) -> Database:
    await database.execute(TABLES)
    return database


async def test_plan_reports_each_thing_that_stands_against_a_watcher(
    shop: Database, stream: Stream, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    def nats(subject: str = f"{stream.prefix}.{{action}}", **changes: Any) -> dict[str, Any]:
        return {"nats": {"servers": [stream.url], "subject": subject, **changes}}

    port = free_port()
    # Of each watcher: its fault, and words of the message.
    wanted = {
        "missing-table": ({"table": {"name": "Orders"}}, "TableNotFound", "did you mean public.orders"),
        "view": ({"table": {"name": "overview"}}, "TableNotFound", "is a view"),
        "columns": ({"columns": ["state"], "triggerColumns": ["at"]}, "ColumnNotFound", "'at' (spec.triggerColumns)"),
        "condition": (
            {"where": [{"column": "total", "operator": "In", "values": ["much"]}]},
            "SpecInvalid",
            "spec.where[0]",
        ),
        "statement": (
            {"table": {"name": "sales"}, "capture": {"granularity": "Statement"}},
            "SpecInvalid",
            "the table has partitions",
        ),
        "no-stream": ({"sink": nats("nobody.{action}")}, "NoStreamForSubject", "'nobody."),
        "other-stream": ({"sink": nats(jetStream={"stream": "NONE"})}, "NoStreamForSubject", "'NONE' does not exist"),
        "no-nats": (
            {"sink": {"nats": {"servers": [f"nats://127.0.0.1:{port}"], "subject": "x.{action}"}}},
            "SinkUnreachable",
            f"127.0.0.1:{port}",
        ),
        "no-endpoint": ({"sink": {"http": {"url": f"http://127.0.0.1:{port}/x"}}}, "SinkUnreachable", str(port)),
        # 64 bytes each: the second in 32 characters.
        "long-table": ({"table": {"name": "a" * 64}}, "SpecInvalid", "spec.table.name: must be an SQL identifier of 1"),
        "long-column": ({"columns": ["é" * 32]}, "SpecInvalid", "1 to 63 bytes"),
    }
    noted = {
        "keyless": ("keyless", "no immediate primary key"),
        "partition": ("sales_2026", "name public.sales for all of them"),
        "parent": ("family", "tables that inherit from it are not captured"),
    }
    files = write(
        tmp_path / "manifests",
        *(manifest(name, **{"sink": nats()} | changes) for name, (changes, _, _) in wanted.items()),
        *(manifest(name, table={"name": table}, sink=nats()) for name, (table, _) in noted.items()),
        manifest("sound", sink=nats()),
        manifest("root", table={"name": "sales"}, sink=nats()),
    )
    answer = await tablewatcher("plan", "-f", files, "--dsn", shop.dsn, "-o", "json")
    found = answer.watchers
    faults = {name: found[key] for name in wanted for key in found if key.endswith((f"/{name}", f"/{name}.yaml"))}
    assert {name: fault["reason"] for name, fault in faults.items()} == {name: case[1] for name, case in wanted.items()}
    for name, (_, _, words) in wanted.items():
        assert words in faults[name]["message"], name
        assert "CREATE" not in faults[name]["message"], "the SQL has a place of its own"
    for name, (_, words) in noted.items():
        assert (found[f"shop/{name}"]["ok"], words in " ".join(found[f"shop/{name}"]["notes"])) == (True, True), name
    for name in ("sound", "root", "no-stream"):
        assert any(step["sql"].startswith("CREATE") and step["locksTable"] for step in found[f"shop/{name}"]["steps"])
    # What is doubtful about a stream of one copy is said of both.
    assert found["shop/sound"]["notes"] == found["shop/root"]["notes"]
    assert await shop.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'tablewatcher'") == [(0,)]


async def test_plan_prints_sql_for_pipes_and_faults_where_they_are_seen(
    shop: Database, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    role = f"clerk_{secrets.token_hex(4)}"
    await shop.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'p'")
    sink = {"nats": {"servers": [f"nats://127.0.0.1:{free_port()}"], "subject": "x"}}
    files = write(tmp_path / "manifests", manifest(sink=sink, columns=["state"]), manifest("sound", sink=sink))
    try:
        lacking = await tablewatcher("plan", "-f", files / "orders.yaml", "--dsn", shop.dsn_of(role, "p"))
    finally:
        await shop.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    said = [line.split(":")[0] for line in lacking.err.splitlines()]
    assert said == ["error PermissionDenied", "error ColumnNotFound", "error SinkUnreachable"]
    assert (lacking.code, lacking.out) == (6, "")
    planned = await tablewatcher("plan", "-f", files / "sound.yaml", "--dsn", shop.dsn)
    assert planned.err.startswith("error SinkUnreachable: shop/sound: ")
    assert (planned.code, planned.err.count("\n")) == (9, 1)
    assert "\nCREATE OR REPLACE FUNCTION tablewatcher." in planned.out


@pytest.mark.parametrize("command", ["plan", "doctor"])
async def test_a_look_makes_no_stream(shop: Database, stream: Stream, tmp_path: Path, command: str) -> None:
    name, prefix = f"{stream.name}_MADE", f"{stream.prefix}-made"
    sinks = {
        "orders": {"subject": f"{prefix}.{{action}}", "jetStream": {"stream": name, "create": {}}},
        # Another stream has these.
        "taken": {"subject": f"{stream.prefix}.{{action}}", "jetStream": {"stream": name, "create": {}}},
    }
    manifests = [manifest(of, sink={"nats": {"servers": [stream.url], **sink}}) for of, sink in sinks.items()]
    files = write(tmp_path / "manifests", *manifests)
    answer = await tablewatcher(command, "-f", files, "--dsn", shop.dsn, "-o", "json")
    async with await nats.connect(stream.url) as client:
        with pytest.raises(NotFoundError):
            await client.jetstream().stream_info(name)
    sound, taken = (answer.watchers[f"shop/{of}"] for of in sinks)
    notes, faults = (sound.get("notes"), taken.get("faults")) if command == "plan" else _of_sink(sound, taken)
    assert f"stream {name!r} does not exist yet: a listener makes it when it starts" in " ".join(notes)
    assert [fault["reason"] for fault in faults] == ["NoStreamForSubject"]
    assert f"overlap with those of stream {stream.name}" in str(faults)


def _of_sink(*watchers: dict[str, Any]) -> tuple[list[str], list[dict[str, Any]]]:
    """What `doctor` says well of the sink of the first, and ill of that of the second."""
    well, ill = ([line for line in found["checks"] if line["check"] == "sink"] for found in watchers)
    return [line["text"] for line in well if line["level"] == "ok"], [line for line in ill if line["level"] == "fail"]


async def test_sql_says_that_it_needs_the_database(database: Database, tmp_path: Path) -> None:
    files = write(tmp_path / "manifests", manifest())
    answer = await tablewatcher("sql", "-f", files, "--dsn", database.dsn_of("nobody", "p"))
    assert (answer.code, answer.out, "`sql` asks the database too" in answer.err) == (5, "", True)
