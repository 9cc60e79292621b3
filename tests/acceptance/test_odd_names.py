"""Names, keys and passwords that are legal and unusual, the whole way from a Secret to the sink."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from psycopg import sql

from ..conftest import Database, Stream
from .commands import manifest, tablewatcher, write, write_secret
from .programs import PROGRAM, running

PASSWORD = """ %25 @:/?#[]&=+ '"\\ $x {y} ;-- ü€😀"""
ROLE = 'o"dd :@/% rôle'
SCHEMA = 'Sch"ema. one'
TABLE = "Zeilen '%s' {x} ü"
COLUMNS = ("Key A", 'k"b', "select", "väl ue%")


def statement(text: str, **names: str) -> str:
    """`text` with quoted identifiers in place of {name}."""
    return sql.SQL(text).format(**{key: sql.Identifier(name) for key, name in names.items()}).as_string(None)


@pytest.fixture
async def odd_shop(database: Database) -> Database:
    names = {"s": SCHEMA, "t": TABLE, "r": ROLE, "a": COLUMNS[0], "b": COLUMNS[1], "c": COLUMNS[2], "d": COLUMNS[3]}
    await database.execute(statement("DROP ROLE IF EXISTS {r}", **names))
    secret = sql.Literal(PASSWORD).as_string(None)
    await database.execute(statement("CREATE ROLE {r} LOGIN PASSWORD ", **names) + secret)
    await database.execute(statement("CREATE SCHEMA {s} AUTHORIZATION {r}", **names))
    columns = "({a} integer, {b} text, {c} text, {d} text, PRIMARY KEY ({b}, {a}))"
    await database.execute(statement("CREATE TABLE {s}.{t} " + columns, **names))
    await database.execute(statement("ALTER TABLE {s}.{t} OWNER TO {r}", **names))
    await database.execute(statement("GRANT CREATE ON DATABASE {d} TO {r}", **(names | {"d": database.name})))
    return database


async def ready(port: int) -> bool:
    try:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/readyz") as answer:
            return answer.status == 200 and bool((await answer.json())["watchers"])
    except aiohttp.ClientError:
        return False


@pytest.mark.parametrize("as_uri", [False, True], ids=["parts", "uri"])
async def test_from_a_secret_to_the_stream(
    odd_shop: Database,
    stream: Stream,
    tmp_path: Path,
    as_uri: bool,
    free_port: Callable[[], int],
    eventually: Callable[..., Awaitable[Any]],
) -> None:
    parts = {
        "host": "127.0.0.1",
        "port": str(odd_shop.server.port),
        "username": ROLE,
        "password": PASSWORD,
        "dbname": odd_shop.name,
    }
    keys = {"uri": odd_shop.dsn_of(ROLE, PASSWORD)} if as_uri else parts
    secrets = write_secret(tmp_path / "secrets", **keys)
    watcher = manifest(
        table={"schema": SCHEMA, "name": TABLE},
        columns=list(COLUMNS[2:]),
        sink={"nats": {"servers": [stream.url], "subject": f"{stream.prefix}.{{schema}}.{{table}}.{{action}}.{{key}}"}},
    )
    files = write(tmp_path / "manifests", watcher)
    applied = await tablewatcher("apply", "-f", files, "--secrets-dir", secrets)
    assert applied.code == 0, applied.err
    port = free_port()
    async with running(PROGRAM, "listen", "-f", files, "--secrets-dir", secrets, "--http-port", port):
        await eventually(lambda: ready(port), 40)
        table = statement("{s}.{t}", s=SCHEMA, t=TABLE)
        await odd_shop.execute(f"INSERT INTO {table} VALUES (7, 'a.b *>', 'sé', NULL)")
        (stored,) = await stream.messages(1)
    assert stored.subject == ".".join(
        (
            stream.prefix,
            "Sch%22ema%2E%20one",
            "Zeilen%20%27%25s%27%20%7Bx%7D%20%C3%BC",
            "insert",
            "a%2Eb%20%2A%3E,7",
        )
    )
    data = json.loads(stored.data)["data"]
    assert data["key"] == {COLUMNS[1]: "a.b *>", COLUMNS[0]: 7}
    assert list(data["key"]) == [COLUMNS[1], COLUMNS[0]], "in the order of the primary key"
    assert data["after"] == {COLUMNS[1]: "a.b *>", COLUMNS[0]: 7, COLUMNS[2]: "sé", COLUMNS[3]: None}
    assert data["source"]["table"] == TABLE
    removed = await tablewatcher("destroy", "-f", files, "--secrets-dir", secrets)
    assert removed.code == 0, removed.err
    assert await odd_shop.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'tablewatcher'") == [(0,)]
