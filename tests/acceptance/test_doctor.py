"""`doctor` and `status` of watchers that are well, and of such that are not."""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tablewatcher.embedded import free_port
from tablewatcher.naming import watcher_names
from tablewatcher.postgres.standing import LONG_SECONDS

from ..conftest import Database, Stream, poll
from .commands import Answer, manifest, tablewatcher, write
from .programs import PROGRAM, Program, running, started
from .terminal import terminal

NAMES = watcher_names("local", "shop", "orders")


@pytest.fixture
async def shop(database: Database) -> Database:
    await database.execute("CREATE TABLE public.orders (id bigint PRIMARY KEY, status text)")
    return database


@pytest.fixture
def files(tmp_path: Path, stream: Stream) -> Path:
    sink = {"nats": {"servers": [stream.url], "subject": f"{stream.prefix}.{{action}}"}}
    return write(tmp_path / "manifests", manifest(sink=sink))


def listening(files: Path, dsn: str, port: int) -> AbstractAsyncContextManager[Program]:
    return running(PROGRAM, "listen", "-f", files, "--dsn", dsn, "--http-port", port)


def checks(answer: Answer) -> dict[str, dict[str, Any]]:
    """The lines of the one watcher by name; of several of a name the last."""
    return {each["check"]: each for each in answer.watchers["shop/orders"]["checks"]}


async def on_terminal(columns: int, *arguments: object) -> str:
    """What the program shows on a terminal of that width, without colours."""
    with terminal(columns) as screen:
        with started(PROGRAM, *arguments, stdout=screen.keyboard, stderr=screen.keyboard, TERM="dumb") as program:
            code = await program.ended(90)
        shown = await screen.finished()
    assert code == 0, shown
    return shown


async def doctor(files: Path, dsn: str, *options: str) -> Answer:
    return await tablewatcher("doctor", "-f", files, "--dsn", dsn, *options)


async def state(files: Path, dsn: str) -> dict[str, Any]:
    answer = await tablewatcher("status", "-f", files, "--dsn", dsn, "-o", "json")
    assert answer.code == 0, answer.err
    return answer.watchers["shop/orders"]


async def test_a_watcher_that_is_well(shop: Database, files: Path, stream: Stream) -> None:
    assert (await state(files, shop.dsn))["state"] == "not installed"
    await tablewatcher("apply", "-f", files, "--dsn", shop.dsn)
    assert (await state(files, shop.dsn))["state"] == "no listener"
    async with listening(files, shop.dsn, free_port()):
        await shop.execute("INSERT INTO orders VALUES (1, 'new')")
        await stream.messages(1, 40)

        async def quiet() -> bool:
            found = await state(files, shop.dsn)
            return bool(found["state"] == "forwarding" and found["waiting"] == 0)

        await poll(quiet, 40)
        found, answer, text, table = await asyncio.gather(
            state(files, shop.dsn),
            doctor(files, shop.dsn, "-o", "json"),
            doctor(files, shop.dsn),
            tablewatcher("status", "-f", files, "--dsn", shop.dsn),
        )
        assert (found["says"], found["lastError"], found["oldestSeconds"]) == ("Forwarding", "", None)
        assert found["leaseSeconds"] > 0 < found["ringBytes"]
        assert (found["gaps"], found["notes"], found["pid"] > 0 <= found["saysSeconds"]) == ([], [], True)
        assert answer.code == 0, answer.out
        lines = checks(answer)
        assert [name for name, line in lines.items() if line["level"] == "fail"] == []
        assert lines["connection"]["level"] == "warn"
        for name in ("manifest", "secret", "server", "primary", "pooler", "rights", "table", "columns", "key"):
            assert lines[name]["level"] == "ok", lines[name]
        for name in ("publications", "triggers", "ring", "capture", "listener", "delivery", "transactions", "wakeup"):
            assert lines[name]["level"] == "ok", lines[name]
        assert text.code == 0
        assert "shop/orders\n  ok    manifest" in text.out
        assert "warn  connection" in text.out
        assert "forwarding" in table.out
    # Released, and said so: who looks at night need not guess whether it died.
    ended = await tablewatcher("status", "-f", files, "--dsn", shop.dsn)
    assert "shop/orders: listener: none runs; the last one, on " in ended.out
    assert "was stopped and released its lease" in ended.out


async def test_whoever_forgets_the_instance_is_told(shop: Database, files: Path) -> None:
    """Else they would apply a second watcher, beside the one that they mean."""
    meant = ("-f", files, "--dsn", shop.dsn, "--instance", "production")
    assert (await tablewatcher("apply", *meant)).code == 0
    status, plan, lines = await asyncio.gather(
        tablewatcher("status", "-f", files, "--dsn", shop.dsn),
        tablewatcher("plan", "-f", files, "--dsn", shop.dsn),
        doctor(files, shop.dsn, "-o", "json"),
    )
    told = "instance production has a watcher shop/orders in this database: if that one is meant"
    assert told in status.out
    assert told in plan.out
    assert told in checks(lines)["other watchers"]["text"]
    applied = await tablewatcher("apply", "-f", files, "--dsn", shop.dsn, "-o", "json")
    assert (applied.code, told in applied.watchers["shop/orders"]["notes"][0]) == (0, True)
    # What is there under its own name is asked for no more.
    again = await tablewatcher("apply", "-f", files, "--dsn", shop.dsn)
    assert again.out == "shop/orders: in sync, nothing to do\n"
    assert "production" not in (await tablewatcher("status", *meant)).out


async def test_nobody_delivers(shop: Database, files: Path) -> None:
    await tablewatcher("apply", "-f", files, "--dsn", shop.dsn)
    await shop.execute("INSERT INTO orders SELECT n, 'new' FROM generate_series(1, 5) AS n")
    await shop.execute(
        f"UPDATE tablewatcher.{NAMES.rings[0]} SET at = at - interval '3 h';"
        f" SELECT setval('tablewatcher.{NAMES.stop}', 1);"
        " INSERT INTO tablewatcher.parked"
        " (hash, ring_id, event_id, op, key, time, captured_at, sequence, data, attempts, reason, message)"
        f" VALUES ('{NAMES.hash}', 1, 'e', 'i', '1', 't', 0, 's', '{{}}', 8, 'SinkUnreachable', 'no')"
    )
    answer, found, text = await asyncio.gather(
        doctor(files, shop.dsn, "-o", "json"),
        state(files, shop.dsn),
        tablewatcher("status", "-f", files, "--dsn", shop.dsn),
    )
    lines = checks(answer)
    assert (lines["listener"]["level"], "tablewatcher listen" in lines["listener"]["text"]) == ("fail", True)
    assert (lines["delivery"]["level"], "5 wait, the oldest for 3 h" in lines["delivery"]["text"]) == ("warn", True)
    assert (lines["capture"]["level"], lines["capture"]["reason"]) == ("fail", "CaptureStopped")
    assert (lines["parked"]["level"], "parked list" in lines["parked"]["text"]) == ("warn", True)
    assert answer.watchers["shop/orders"]["reason"] == "CaptureStopped"
    assert answer.code == 10
    assert (found["state"], found["waiting"], found["parked"]) == ("stopped", 5, 1)
    assert found["oldestSeconds"] > 10_000
    told = [line for line in text.out.splitlines() if line.startswith("shop/orders: ")]
    assert [line.split(": ")[1] for line in told] == [
        "capture",
        "listener",
        "delivery",
        "parked",
    ]
    none = await tablewatcher("parked", "list", "-f", files, "--dsn", shop.dsn, "--key", "42")
    assert (none.code, none.out) == (0, "shop/orders: nothing with key 42 is parked\n")
    skip = await tablewatcher("parked", "skip", "-f", files, "--dsn", shop.dsn, "--key", "42", "--id", "e")
    assert (skip.code, "nothing with id e and key 42 is parked" in skip.err) == (10, True)
    # Nothing of a bar is left where nobody watches, not even an empty line.
    asked = await tablewatcher("parked", "replay", "-f", files, "--dsn", shop.dsn)
    assert (asked.code, asked.err) == (0, "")
    assert asked.out == "shop/orders: request 1 is noted; it is done when a listener of this watcher runs\n"


async def test_a_gap_that_waits_names_the_transaction_that_it_waits_for(shop: Database, files: Path) -> None:
    await tablewatcher("apply", "-f", files, "--dsn", shop.dsn)
    async with await psycopg.AsyncConnection.connect(shop.dsn, application_name="till") as writer:
        await writer.execute("INSERT INTO orders VALUES (1, 'new')")
        # As `apply` notes it where the function had been replaced by hand.
        await shop.execute(
            f"INSERT INTO tablewatcher.gap (hash, reason, certain) VALUES ('{NAMES.hash}', 'functionReplaced', false)"
        )
        line = checks(await doctor(files, shop.dsn, "-o", "json"))["gaps"]
        assert line["level"] == "warn"
        assert f"pid {writer.info.backend_pid} (till), open since" in line["text"]
        found = await state(files, shop.dsn)
        assert [(gap["reason"], gap["certain"]) for gap in found["gaps"]] == [("functionReplaced", False)]
    line = checks(await doctor(files, shop.dsn, "-o", "json"))["gaps"]
    assert ("see that one runs" in line["text"], "till" in line["text"]) == (True, False)


async def test_a_terminal_of_80_columns_shows_names_and_states_whole(
    shop: Database, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    await tablewatcher("apply", "-f", files, "--dsn", shop.dsn)
    shown = await on_terminal(80, "status", "-f", files, "--dsn", shop.dsn)
    row = next(line for line in shown.splitlines() if "no listener" in line)
    assert "shop/orders" in row
    assert "0.2 MiB" in row or "0.0 MiB" in row
    assert "…" not in shown


async def test_drift_and_what_is_not_installed(shop: Database, files: Path) -> None:
    lines = checks(await doctor(files, shop.dsn, "-o", "json"))
    assert (lines["triggers"]["level"], "nothing is installed" in lines["triggers"]["text"]) == ("fail", True)
    await tablewatcher("apply", "-f", files, "--dsn", shop.dsn)
    await shop.execute(f'ALTER TABLE orders DISABLE TRIGGER "{NAMES.trigger}"')
    lines = checks(await doctor(files, shop.dsn, "-o", "json"))
    assert (lines["triggers"]["level"], "install trigger" in lines["triggers"]["text"]) == ("fail", True)
    assert lines["triggers"]["reason"] == "TriggersDrifted"


async def test_another_table_in_the_manifest_is_a_fault_of_the_table(shop: Database, files: Path) -> None:
    await tablewatcher("apply", "-f", files, "--dsn", shop.dsn)
    await shop.execute("CREATE TABLE public.bills (id bigint PRIMARY KEY, status text)")
    write(files, manifest(table={"name": "bills"}))
    lines = checks(await doctor(files, shop.dsn, "-o", "json"))
    assert (lines["table"]["level"], "applied to" in lines["table"]["text"]) == ("fail", True)
    assert lines["server"]["level"] == "ok"


async def test_a_watcher_whose_name_was_changed_is_told(shop: Database, files: Path, tmp_path: Path) -> None:
    """It goes on to capture, and nobody delivers it: said before the other is applied, and after."""
    await tablewatcher("apply", "-f", files, "--dsn", shop.dsn)
    renamed = write(tmp_path / "renamed", manifest("sales", sink=manifest()["spec"]["sink"]))
    said = "watcher shop/orders captures from this table too"

    async def told(*manifests: Path) -> list[bool]:
        given = [word for path in manifests for word in ("-f", path)]
        words = ("status", "doctor")
        answers = await asyncio.gather(*(tablewatcher(word, *given, "--dsn", shop.dsn) for word in words))
        return [said in answer.out and "metadata.name: orders" in answer.out for answer in answers]

    assert await told(renamed) == [True, True]
    await tablewatcher("apply", "-f", renamed, "--dsn", shop.dsn)
    assert await told(renamed) == [True, True]
    assert await told(renamed, files) == [False, False], "its manifest is there"
    await tablewatcher("apply", "-f", renamed, "--dsn", shop.dsn, "--instance", "other")
    async with listening(files, shop.dsn, free_port()):

        async def is_quiet() -> bool:
            return await told(renamed) == [False, False]

        await poll(is_quiet, 40)
    await tablewatcher("destroy", "-f", files, "--dsn", shop.dsn)
    assert await told(renamed) == [False, False]


async def test_the_transaction_that_holds_the_ring_is_named(shop: Database, files: Path) -> None:
    await tablewatcher("apply", "-f", files, "--dsn", shop.dsn)
    role = f"clerk_{secrets.token_hex(4)}"
    await shop.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'p'; GRANT ALL ON orders TO {role}")
    try:
        async with await psycopg.AsyncConnection.connect(shop.dsn_of(role, "p"), application_name="shop") as writer:
            pid = writer.info.backend_pid
            # One that has just begun is nobody's concern, for those who may see that.
            for _ in range(10):
                await writer.rollback()
                began = time.monotonic()
                await writer.execute("INSERT INTO orders VALUES (1, 'new')")
                level = checks(await doctor(files, shop.dsn, "-o", "json"))["transactions"]["level"]
                if time.monotonic() - began < LONG_SECONDS:
                    break  # else it may have been looked at too late
            assert level == "ok"
            # Others are told of it when it does not end.
            other = f"other_{secrets.token_hex(4)}"
            await shop.execute(
                f"CREATE ROLE {other} LOGIN PASSWORD 'p'; GRANT USAGE, CREATE ON SCHEMA tablewatcher TO {other};"
                f" GRANT ALL ON ALL TABLES IN SCHEMA tablewatcher TO {other};"
                f" GRANT ALL ON ALL SEQUENCES IN SCHEMA tablewatcher TO {other}"
            )
            lines = checks(await doctor(files, shop.dsn_of(other, "p"), "-o", "json"))
            await shop.execute(f"DROP OWNED BY {other}; DROP ROLE {other}")
            assert lines["transactions"]["level"] == "warn"
            assert f"pid {pid}" in lines["transactions"]["text"]
            assert lines["rights"]["level"] == "fail"
    finally:
        await shop.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_all_that_is_wrong_has_a_line_of_its_own(shop: Database, tmp_path: Path) -> None:
    await shop.execute("CREATE TABLE keyless (v int); CREATE PUBLICATION everything FOR ALL TABLES")
    sink = {"nats": {"servers": [f"nats://127.0.0.1:{free_port()}"], "subject": "x"}}
    bad = write(tmp_path / "bad", manifest(table={"name": "keyless"}, columns=["nothing"], sink=sink))
    answer, text = await asyncio.gather(doctor(bad, shop.dsn, "-o", "json"), doctor(bad, shop.dsn))
    lines = checks(answer)
    failed = {name: line["reason"] for name, line in lines.items() if line["level"] == "fail"}
    assert failed == {
        "columns": "ColumnNotFound",
        "publications": "PublicationConflict",
        "sink": "SinkUnreachable",
    }
    assert (lines["key"]["level"], lines["key"]["reason"]) == ("warn", "NoPrimaryKey")
    assert answer.code == 7
    assert (text.code, text.out.count("\n  fail  ")) == (7, 3)


async def test_a_database_that_is_away_hides_no_other_fault(tmp_path: Path, files: Path) -> None:
    (files / "broken.yaml").write_text("spec: [")
    dsn = f"postgresql://u@127.0.0.1:{free_port()}/x"
    answer, text, status = await asyncio.gather(
        doctor(files, dsn, "-o", "json"), doctor(files, dsn), tablewatcher("status", "-f", files, "--dsn", dsn)
    )
    assert {line["check"]: line["level"] for line in answer.watchers["shop/orders"]["checks"]} == {
        "manifest": "ok",
        "secret": "ok",
        "connection": "fail",
        "sink": answer.watchers["shop/orders"]["checks"][-1]["level"],
    }
    assert answer.watchers["shop/orders"]["checks"][-1]["level"] != "fail"
    assert any(name.endswith("broken.yaml") and not found["ok"] for name, found in answer.watchers.items())
    assert answer.code == 4
    assert "is not YAML" in text.out
    assert (status.code, "DatabaseUnreachable" in status.out) == (4, True)


async def test_a_missing_secret_is_a_line(files: Path, tmp_path: Path) -> None:
    answer = await tablewatcher("doctor", "-f", files, "--secrets-dir", tmp_path, "-o", "json")
    assert (answer.code, checks(answer)["secret"]["reason"]) == (3, "SecretNotFound")
