"""`tablewatcher destroy` says what had not been delivered, and whether it is gone."""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import Any

import pytest

from ..conftest import Database, HttpReceiver, poll
from .arrivals import Endpoint
from .commands import manifest, tablewatcher, write
from .conftest import MakeListener
from .parking import command, is_aside, put_aside, watched
from .writers import put

TABLE = "CREATE TABLE public.orders (id bigint PRIMARY KEY, status text, total numeric)"


@pytest.fixture
async def shop(database: Database) -> Database:
    await database.execute(TABLE)
    return database


async def _applied(shop: Database, folder: Path, **spec: Any) -> Path:
    files = write(folder, manifest(database=None, **spec))
    answer = await tablewatcher("apply", "-f", files, "--dsn", shop.dsn)
    assert answer.code == 0, answer.err
    return files


async def _insert(shop: Database, number: int) -> None:
    await shop.execute(f"INSERT INTO orders SELECT generate_series(1, {number})")


@pytest.mark.parametrize(
    ("number", "says"),
    [(0, ""), (1, "; 1 event that was not delivered is gone"), (500, "; 500 events that were not delivered are gone")],
)
async def test_what_was_not_delivered_is_gone(shop: Database, tmp_path: Path, number: int, says: str) -> None:
    files = await _applied(shop, tmp_path / "manifests")
    await _insert(shop, number)
    answer = await tablewatcher("destroy", "-f", files, "--dsn", shop.dsn)
    assert answer.code == 0, answer.err
    assert re.fullmatch(rf"shop/orders: removed, \d+ steps{says}\n", answer.out)


async def test_a_program_is_told_the_number(shop: Database, tmp_path: Path) -> None:
    files = await _applied(shop, tmp_path / "manifests")
    await _insert(shop, 500)
    first, again = [await tablewatcher("destroy", "-f", files, "--dsn", shop.dsn, "-o", "json") for _ in range(2)]
    for answer, number in ((first, 500), (again, 0)):
        found = answer.watchers["shop/orders"]
        assert (found["undelivered"], found["parked"], found["ringKept"]) == (number, 0, False)


async def test_what_stays_is_not_gone(shop: Database, tmp_path: Path) -> None:
    files = await _applied(shop, tmp_path / "manifests", deletionPolicy="Retain")
    await _insert(shop, 2)
    answer = await tablewatcher("destroy", "-f", files, "--dsn", shop.dsn)
    assert (
        "the ring stays, with what it holds (deletionPolicy: Retain): 2 events that were not delivered\n" in answer.out
    )
    again = await tablewatcher("destroy", "-f", files, "--dsn", shop.dsn, "-o", "json")
    found = again.watchers["shop/orders"]
    assert (found["undelivered"], found["parked"], found["ringKept"]) == (2, 0, True)


async def test_what_was_parked_is_gone_too(
    tmp_path: Path, database: Database, http_receiver: HttpReceiver, make_listener: MakeListener
) -> None:
    endpoint = Endpoint(http_receiver)
    path = await watched(database, endpoint, tmp_path / "http.yaml")
    listener = make_listener(path, database.dsn)
    listener.start()
    await put_aside(database, endpoint, "bad")
    assert await is_aside(database, "bad")

    async def nothing_waits() -> bool:
        return bool((await command(path, database, "status")).watchers["faults/http"]["waiting"] == 0)

    # What was written until the first was put aside; one that is told to end reads no further.
    await poll(nothing_waits, 40)
    await listener.terminate()
    await put(database, "good", "good")
    answer = await tablewatcher("destroy", "-f", path, "--dsn", database.dsn)
    assert "; 2 events that were not delivered are gone, and 1 that was parked\n" in answer.out
    assert (await command(path, database, "destroy")).watchers["faults/http"]["parked"] == 0


async def test_what_another_role_shares_is_left_to_it(shop: Database, tmp_path: Path) -> None:
    """The role of the last watcher is not the one that made the schema."""
    ours = await _applied(shop, tmp_path / "ours")
    theirs = write(tmp_path / "theirs", manifest("others", database=None))
    role = f"second_{secrets.token_hex(4)}"
    await shop.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'p'")
    try:
        options = ("-f", theirs, "--dsn", shop.dsn_of(role, "p"), "-o", "json")
        refused = await tablewatcher("apply", *options)
        await shop.execute(refused.watchers["shop/others"]["message"].partition("must run: ")[2])
        assert (await tablewatcher("apply", *options)).code == 0
        first = await tablewatcher("destroy", "-f", ours, "--dsn", shop.dsn, "-o", "json")
        assert "notes" not in first.watchers["shop/orders"], "another watcher needs it"
        last = await tablewatcher("destroy", *options)
        (note,) = last.watchers["shop/others"]["notes"]
        assert 'it belongs to role "postgres": run `tablewatcher destroy` with the same manifest as that role' in note
        again = await tablewatcher("destroy", *options[:-2])
        assert again.out.endswith(f"; {note}\n")
        told = await tablewatcher("destroy", "-f", theirs, "--dsn", shop.dsn)
        assert re.fullmatch(r"shop/others: removed, \d+ steps\n", told.out)
        assert await shop.execute("SELECT FROM pg_namespace WHERE nspname = 'tablewatcher'") == []
    finally:
        await shop.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_what_cannot_be_counted_is_removed_all_the_same(shop: Database, tmp_path: Path) -> None:
    files = await _applied(shop, tmp_path / "manifests")
    await _insert(shop, 3)
    cursors = await shop.execute("SELECT relname FROM pg_class WHERE relname ~ '^cursor_.*_0$' AND relkind = 'r'")
    await shop.execute(f"ALTER TABLE tablewatcher.{cursors[0][0]} RENAME COLUMN after_id TO other")
    answer = await tablewatcher("destroy", "-f", files, "--dsn", shop.dsn)
    assert answer.code == 0, answer.err
    assert "; what was not delivered is gone, and could not be counted\n" in answer.out
