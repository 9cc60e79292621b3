"""Slips that say nothing of a manifest or a database: empty variables, odd bytes, full disks, Ctrl-C at any moment."""

from __future__ import annotations

import json
import os
import shlex
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from tablewatcher.embedded import free_port
from tablewatcher.errors import DatabaseError, Reason
from tablewatcher.postgres.connection.session import connect

from ..conftest import Database
from ..integration.sinks.servers import NatsServer
from .commands import manifest, tablewatcher, write, write_secret
from .programs import PROGRAM, started

NOT_UTF8 = os.fsdecode(b"\xff")
Eventually = Callable[..., Awaitable[Any]]


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    """A directory with a sound manifest."""
    return write(tmp_path / "manifests", manifest())


@pytest.mark.parametrize(
    "words",
    [
        ("destroy", "-f", ""),
        ("listen", "-f", ""),
        ("demo", "-f", ""),
        ("destroy", "-f", "{orders}", "--secrets-dir", ""),
        ("listen", "-f", "{orders}", "--http-host", ""),
    ],
    ids=" ".join,
)
async def test_an_empty_place_is_not_the_directory_we_are_in(orders: Path, words: tuple[str, ...]) -> None:
    """As `-f "$MANIFEST"` is where nobody has set that."""
    answer = await tablewatcher(*(word.format(orders=orders) for word in words))
    assert answer.code == 2, answer.out + answer.err
    assert "must name" in answer.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("apply orders.yaml", "is named by -f: `tablewatcher apply -f FILE`"),
        (
            "plan -f a.yaml b.yaml",
            "(b.yaml). A manifest, or a directory of them, is named by -f: `tablewatcher plan -f",
        ),
        ("parked list orders.yaml --limit 3", "`tablewatcher parked list -f FILE`"),
        ("replay --since 1m parked", "`tablewatcher replay -f FILE`"),
        ("listen orders.yaml", "`tablewatcher listen -f FILE`"),
        ("apply", "Missing option '--file' / '-f'."),
        ("version orders.yaml", "Got unexpected extra argument(s) (orders.yaml)"),
    ],
)
async def test_a_manifest_that_is_named_without_its_option(words: str, says: str) -> None:
    answer = await tablewatcher(*words.split(), COLUMNS="300")
    assert answer.code == 2, answer.err
    assert says in answer.err
    assert ("by -f" in answer.err) is (len(words.split()) > 1 and "version" not in words)


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("-", "-f /dev/stdin"),
        ("a" * 300, "File name too long"),
        ("links", "nowhere.yaml cannot be read: it does not exist"),
        ("circle", "circle.yaml cannot be read: Too many levels of symbolic links"),
    ],
    ids=lambda text: text[:10],
)
async def test_a_place_that_cannot_be_read(tmp_path: Path, place: str, says: str) -> None:
    """Beside others of its directory too, of which it would be one less in silence."""
    for folder, link, target in (("links", "nowhere.yaml", "gone.yaml"), ("circle", "circle.yaml", "circle.yaml")):
        (write(tmp_path / folder, manifest()) / link).symlink_to(tmp_path / folder / target)
    answer = await tablewatcher("validate", "-f", place if len(place) in (1, 300) else tmp_path / place)
    assert answer.code == 2, answer.err
    assert says in answer.err
    assert "Traceback" not in answer.err


async def test_a_tab_is_told(tmp_path: Path) -> None:
    file = tmp_path / "orders.yaml"
    file.write_text("kind: TableWatcher\nspec:\n\ttable: {name: orders}\n")
    answer = await tablewatcher("validate", "-f", file)
    assert (answer.code, "line 3, column 1: is not YAML: the line begins with a tab" in answer.err) == (2, True)


@pytest.mark.parametrize(
    ("encoding", "code", "says"), [("utf-8-sig", 0, "valid"), ("utf-16", 2, "is not UTF-8 text; save it as UTF-8")]
)
async def test_a_manifest_of_an_editor_of_windows(tmp_path: Path, encoding: str, code: int, says: str) -> None:
    file = tmp_path / "orders.yaml"
    file.write_bytes(json.dumps(manifest(), indent=1).replace("\n", "\r\n").encode(encoding))
    answer = await tablewatcher("validate", "-f", file)
    assert (answer.code, says in answer.out + answer.err) == (code, True), answer.err


async def test_a_bad_connection_string_hides_no_mistake_of_a_manifest(tmp_path: Path) -> None:
    files = write(tmp_path / "manifests", manifest(), manifest("typo", colums=["a"]))
    answer = await tablewatcher("apply", "-f", files, "--dsn", "postgresql//u:p@h/x", "-o", "json")
    assert (answer.code, len(answer.watchers)) == (2, 2)
    assert "colums" in answer.out


async def test_a_wrong_indentation_says_where_to_look(tmp_path: Path) -> None:
    file = tmp_path / "orders.yaml"
    file.write_text("kind: TableWatcher\nspec:\n  actions: [insert]\n   table: {name: orders}\n")
    answer = await tablewatcher("validate", "-f", file)
    assert (answer.code, "line 4, column " in answer.err, "look at indentation" in answer.err) == (2, True, True)


async def test_a_host_of_ours_that_is_none_is_told(orders: Path) -> None:
    words = ("--dsn", "postgresql://u@127.0.0.1:1/x", "--http-host", "localhost:9090")
    answer = await tablewatcher("listen", "-f", orders, *words)
    assert (answer.code, "correct --http-host" in answer.err) == (10, True), answer.err


async def test_an_empty_connection_string_is_none(tmp_path: Path, database: Database) -> None:
    """As `--dsn "$DSN"` is where nobody has set that: the Secrets are used, and what names none is told so."""
    await database.execute("CREATE TABLE public.orders (id bigint PRIMARY KEY, status text)")
    files = write(tmp_path / "manifests", manifest(), manifest("bare", database=None))
    place = write_secret(tmp_path / "secrets", uri=database.dsn)
    answer = await tablewatcher("apply", "-f", files, "--secrets-dir", place, "--dsn", "", "-o", "json")
    assert answer.code == 2
    assert answer.watchers["shop/orders"]["ok"]
    assert "spec.database.secretRef" in answer.err + answer.out


@pytest.mark.parametrize(
    "words",
    [
        ("apply", "--dsn", f"postgresql://u:{NOT_UTF8}@127.0.0.1:1/x"),
        ("apply", "--instance", NOT_UTF8),
        ("apply", "--adopt", NOT_UTF8),
        ("listen", "--dsn", f"postgresql://u:{NOT_UTF8}@127.0.0.1:1/x"),
        ("listen", "--http-host", NOT_UTF8),
        ("parked", "list", "--key", NOT_UTF8),
        ("parked", "skip", "--id", NOT_UTF8),
        ("replay", "--since", "1m", "--key", NOT_UTF8),
    ],
    ids=lambda words: " ".join(words[:3]).encode("ascii", "replace").decode(),
)
async def test_text_that_no_database_takes_is_refused_by_name(orders: Path, words: tuple[str, ...]) -> None:
    answer = await tablewatcher(*words, "-f", orders)
    assert answer.code == 2, answer.err
    assert "must be UTF-8 text" in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize("host", ["db..svc", ".svc", "a" * 70 + ".svc"])
async def test_a_host_that_can_be_no_name(host: str) -> None:
    with pytest.raises(DatabaseError) as caught:
        await connect(f"postgresql://u@{host}/shop")
    assert caught.value.reason is Reason.DATABASE_UNREACHABLE
    assert "is no host name" in caught.value.message


async def test_such_a_host_in_one_secret_stops_no_other_watcher(tmp_path: Path, database: Database) -> None:
    await database.execute("CREATE TABLE public.orders (id bigint PRIMARY KEY, status text)")
    bad = manifest("bad", database={"secretRef": {"name": "bad"}})
    files = write(tmp_path / "manifests", bad, manifest())
    place = write_secret(tmp_path / "secrets", uri=database.dsn)
    write_secret(place, "bad", host="db..svc", username="u", password="hunter2", dbname="x")
    answer = await tablewatcher("plan", "-f", files, "--secrets-dir", place, "-o", "json")
    assert answer.watchers["shop/bad"]["reason"] == "DatabaseUnreachable"
    assert answer.watchers["shop/orders"]["steps"]
    assert "hunter2" not in answer.out + answer.err


async def test_names_that_the_terminal_has_no_letters_for(tmp_path: Path, database: Database) -> None:
    await database.execute('CREATE TABLE public."bücher€" (id bigint PRIMARY KEY, status text)')
    files = write(tmp_path / "manifests", manifest(table={"name": "bücher€"}))
    answer = await tablewatcher("doctor", "-f", files, "--dsn", database.dsn, PYTHONIOENCODING="ascii")
    assert answer.code == 10, answer.err
    assert r"public.b\xfccher\u20ac is there" in answer.out


@pytest.mark.parametrize("output", ["text", "json"])
async def test_what_came_of_it_cannot_be_written(orders: Path, tmp_path: Path, output: str) -> None:
    """As where the disk is full, to a file that may not grow."""
    words = shlex.join(map(str, (PROGRAM, "validate", "-f", orders, "-o", output)))
    with started("bash", "-c", f"(ulimit -f 0; exec {words} 2>&1 > {tmp_path}/out) | cat") as program:
        await program.ended(30)
        assert "could not be written: File too large" in program.out
        assert "Traceback" not in program.out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
async def test_a_listener_is_told_to_end_while_it_is_loaded(
    orders: Path, number: signal.Signals, eventually: Eventually
) -> None:
    nowhere = f"postgresql://u@127.0.0.1:{free_port()}/x"
    with started(PROGRAM, "listen", "-f", orders, "--dsn", nowhere, "--http-port", free_port()) as program:

        async def is_loaded() -> bool:
            with started("ps", "-o", "args=", "-p", program.pid) as ps:
                await ps.ended(10)
                return "tablewatcher.cli.listening" in ps.out

        await eventually(is_loaded, 30)
        assert await program.end(number) == 0
        assert "Traceback" not in program.err


async def test_a_terminal_that_is_closed_ends_a_listener_in_order(
    orders: Path, database: Database, eventually: Eventually
) -> None:
    await database.execute("CREATE TABLE public.orders (id bigint PRIMARY KEY, status text)")
    assert (await tablewatcher("apply", "-f", orders, "--dsn", database.dsn)).code == 0
    with started(PROGRAM, "listen", "-f", orders, "--dsn", database.dsn, "--http-port", free_port()) as program:
        await eventually(lambda: "the lease" in program.err or "SinkUnreachable" in program.err, 40)
        assert await program.end(signal.SIGHUP) == 0
    answer = await tablewatcher("doctor", "-f", orders, "--dsn", database.dsn)
    assert "was stopped and released its lease" in answer.out


async def test_nohup_is_heeded(orders: Path, eventually: Eventually) -> None:
    nowhere = f"postgresql://u@127.0.0.1:{free_port()}/x"
    words = shlex.join(map(str, (PROGRAM, "listen", "-f", orders, "--dsn", nowhere, "--http-port", free_port())))
    with started("bash", "-c", f"trap '' HUP; exec {words}") as program:
        await eventually(lambda: "DatabaseUnreachable" in program.err, 40)
        program.send(signal.SIGHUP)
        assert await program.end(signal.SIGTERM) == 0


async def test_libraries_say_nothing_on_their_own(orders: Path, database: Database, tmp_path: Path) -> None:
    """A look at a NATS server that has TLS ends a connection, which Python's own event loop warns of."""
    await database.execute("CREATE TABLE public.orders (id bigint PRIMARY KEY, status text)")
    authority, pem, store = trustme.CA(), tmp_path / "server.pem", tmp_path / "nats"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(pem)
    store.mkdir()
    server = NatsServer(store, f"tls {{cert_file: {json.dumps(str(pem))}, key_file: {json.dumps(str(pem))}}}")
    server.start()
    try:
        place = write_secret(tmp_path / "secrets", "ca", **{"ca.crt": authority.cert_pem.bytes().decode()})
        sink = {"servers": [server.url], "subject": "shop.{action}", "jetStream": {"enabled": False}}
        tls = {"caRef": {"kind": "Secret", "name": "ca", "key": "ca.crt"}}
        write(orders, manifest(sink={"nats": sink | {"tls": tls}}))
        answer = await tablewatcher("plan", "-f", orders, "--dsn", database.dsn, "--secrets-dir", place)
        assert (answer.code, answer.err) == (0, "")
    finally:
        server.kill()
