"""Names in a database are anybody's: what a terminal would obey, or psql would run, stays text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from psycopg import sql

from ..conftest import Database
from .commands import manifest, tablewatcher, write
from .programs import PROGRAM, started
from .terminal import terminal

# Sets the clipboard and the title, moves up, turns the direction of writing; and would end a comment.
HOSTILE = "\x1b]52;c;aGk=\x07\x1b]0;x\x07\x1b[2A\x9b31m\u202e\rDROP"
DROPS = "0\nDROP TABLE public.orders; --"


@pytest.fixture
async def shop(database: Database) -> Database:
    column, trigger = (sql.Identifier(name).as_string(None) for name in (HOSTILE, DROPS))
    await database.execute(
        f"CREATE TABLE public.orders (id bigint PRIMARY KEY, status text, {column} text);"
        "CREATE FUNCTION public.nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"
        f"CREATE TRIGGER {trigger} AFTER UPDATE ON public.orders FOR EACH ROW EXECUTE FUNCTION public.nothing()"
    )
    return database


@pytest.mark.parametrize("command", ["apply", "plan", "doctor", "sql", "validate"])
@pytest.mark.parametrize("fields", [{"columns": ["missing"]}, {"columns": [HOSTILE]}, {HOSTILE: 1}])
async def test_a_terminal_gets_nothing_to_obey(
    command: str, fields: dict[str, Any], shop: Database, tmp_path: Path
) -> None:
    files = write(tmp_path / "manifests", manifest(**fields))
    to = () if command == "validate" else ("--dsn", shop.dsn)
    with terminal(80) as screen:
        with started(PROGRAM, command, "-f", files, *to, stdout=screen.keyboard, stderr=screen.keyboard) as program:
            await program.ended(60)
        shown = await screen.finished()
    assert not set("\x07\x9b\u202e") & set(shown)
    assert "\x1b]" not in shown
    assert "\x1b[2A" not in shown
    assert "\rDROP" not in shown


async def test_a_name_does_not_end_the_comment_it_stands_in(shop: Database, tmp_path: Path) -> None:
    files = write(tmp_path / "manifests", manifest())
    for command in ("plan", "sql"):
        answer = await tablewatcher(command, "-f", files, "--dsn", shop.dsn)
        assert "FOR EACH ROW EXECUTE" in answer.out
        assert not [line for line in answer.out.splitlines() if line.startswith("DROP TABLE")]
