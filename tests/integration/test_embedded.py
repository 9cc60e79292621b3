"""The embedded servers: what was acknowledged survives a crash, ports stay, nothing outlives its owner."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import nats
import psycopg
import pytest

from tablewatcher.embedded import EmbeddedNats, EmbeddedPostgres, EmbeddedUnavailable, free_port
from tablewatcher.embedded.installation import postgres_package

OPERATOR = Path(__file__).parents[2] / "operator"

START_BOTH = """
import sys
from pathlib import Path
from tablewatcher.embedded import EmbeddedNats, EmbeddedPostgres
base = Path(sys.argv[1])
with EmbeddedPostgres(base / "postgres") as postgres, EmbeddedNats(base / "nats") as nats:
    print(postgres.pid, nats.pid, postgres.dsn(), postgres.bin, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(params=[18, 16])
def server(request: pytest.FixtureRequest, server_directory: Path) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(server_directory / "postgres", request.param) as started:
        yield started


def ask(server: EmbeddedPostgres, statement: str, dsn: str | None = None) -> Any:
    with psycopg.connect(dsn or server.dsn(), autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        row = cursor.fetchone() if cursor.description else None
        return row and row[0]


def lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_postgres_is_the_version_asked_for_with_durability_on(server: EmbeddedPostgres) -> None:
    assert int(ask(server, "SHOW server_version_num")) // 10000 == server.version
    assert (ask(server, "SHOW fsync"), ask(server, "SHOW synchronous_commit")) == ("on", "on")
    assert ask(server, "SHOW listen_addresses") == "127.0.0.1"
    assert Path(f"/proc/{server.pid}").stat().st_uid != 0


def test_postgres_keeps_commits_over_a_crash_in_mid_transaction(server: EmbeddedPostgres) -> None:
    ask(server, "CREATE TABLE kept (id int)")
    dsn, pid = server.dsn(), server.pid
    with psycopg.connect(dsn) as open_one, psycopg.connect(dsn, autocommit=True) as busy:
        open_one.execute("INSERT INTO kept SELECT generate_series(1, 1000)")
        busy.execute("INSERT INTO kept VALUES (-1)")
        backends = [open_one.info.backend_pid, busy.info.backend_pid]
        server.kill()
        assert not server.running
        assert [each for each in (pid, *backends) if lives(each)] == []
        with pytest.raises(psycopg.OperationalError):
            open_one.commit()
    server.start()
    assert (server.dsn(), server.pid != pid) == (dsn, True)
    assert ask(server, "SELECT array_agg(id) FROM kept") == [-1]
    assert "was not properly shut down" in server.log.read_text()


@pytest.mark.parametrize("immediate", [False, True])
def test_postgres_stops_and_starts_again_on_its_port(server: EmbeddedPostgres, immediate: bool) -> None:
    ask(server, "CREATE TABLE kept AS SELECT 7 AS id")
    port, pid = server.port, server.pid
    server.stop(immediate=immediate)
    assert not lives(pid)
    with pytest.raises(EmbeddedUnavailable, match="not running"):
        _ = server.pid
    server.stop()
    server.start()
    assert (server.port, ask(server, "SELECT id FROM kept")) == (port, 7)
    assert ("automatic recovery in progress" in server.log.read_text()) is immediate


def test_postgres_asks_everybody_for_a_password(server: EmbeddedPostgres) -> None:
    password = "p@ss:w/o#%? 'x'"
    ask(server, "CREATE ROLE \"odd user\" LOGIN PASSWORD 'p@ss:w/o#%? ''x'''")
    assert ask(server, "SELECT current_user", server.dsn(user="odd user", password=password)) == "odd user"
    for refused in (server.dsn(user="odd user", password="no"), server.dsn(password="no")):
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            ask(server, "SELECT 1", refused)


def test_another_object_takes_the_same_directory_over(server: EmbeddedPostgres) -> None:
    ask(server, "CREATE TABLE kept AS SELECT 7 AS id")
    server.stop()
    with EmbeddedPostgres(server.directory, server.version, {"work_mem": "5MB"}) as again:
        assert (ask(again, "SELECT id FROM kept"), ask(again, "SHOW work_mem")) == (7, "5MB")
    with pytest.raises(EmbeddedUnavailable, match="choose another directory"):
        EmbeddedPostgres(server.directory, 34 - server.version).start()


def test_a_postgres_that_cannot_start_says_why(server_directory: Path) -> None:
    server = EmbeddedPostgres(server_directory / "postgres", settings={"shared_buffers": "plenty"})
    with pytest.raises(EmbeddedUnavailable, match='invalid value for parameter "shared_buffers"'):
        server.start()
    assert not server.running
    with pytest.raises(EmbeddedUnavailable, match="choose one of 16, 18"):
        EmbeddedPostgres(server_directory / "other", 9)


def test_a_port_taken_in_the_meantime_is_replaced_before_it_was_told(
    server: EmbeddedPostgres, server_directory: Path
) -> None:
    second = EmbeddedPostgres(server_directory / "second", server.version)
    second.port = server.port
    with second, EmbeddedNats(server_directory / "one") as one:
        assert second.port != server.port
        other = EmbeddedNats(server_directory / "other")
        other.port = one.port
        with other:
            assert other.port != one.port


async def publish(server: EmbeddedNats, *bodies: bytes) -> int:
    """Publish, each acknowledged; the stream's count of messages afterwards."""
    async with await nats.connect(server.url) as client:
        jetstream = client.jetstream()
        await jetstream.add_stream(name="KEPT", subjects=["kept.>"])
        for body in bodies:
            await jetstream.publish("kept.one", body)
        return (await jetstream.stream_info("KEPT")).state.messages


async def test_nats_keeps_what_it_acknowledged_over_a_crash(server_directory: Path) -> None:
    with EmbeddedNats(server_directory / "nats") as server:
        url, pid = server.url, server.pid
        assert await publish(server, *(b"%d" % number for number in range(200))) == 200
        server.kill()
        assert not lives(pid)
        server.start()
        assert (server.url, await publish(server)) == (url, 200)
        server.stop()
        server.start()
        assert (server.url, await publish(server, b"more")) == (url, 201)


async def test_nats_takes_further_configuration(server_directory: Path) -> None:
    with EmbeddedNats(server_directory / "nats", "authorization { token: sesame }") as server:
        async with await nats.connect(server.url, token="sesame") as client:
            assert (await client.jetstream().account_info()).streams == 0
    with pytest.raises(EmbeddedUnavailable, match="unknown field"):
        EmbeddedNats(server_directory / "other", "no_such_setting: 1").start()


def spawn(base: Path, *prefix: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*prefix, sys.executable, "-W", "error", "-c", START_BOTH, str(base)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(OPERATOR), **environment},
        cwd="/",
    )


def started(owner: subprocess.Popen[str]) -> tuple[int, int, str, Path]:
    assert owner.stdout is not None
    postgres, server, dsn, programs = owner.stdout.readline().split()
    return int(postgres), int(server), dsn, Path(programs)


async def test_servers_end_when_their_owner_is_killed(
    server_directory: Path, eventually: Callable[..., Awaitable[Any]]
) -> None:
    with spawn(server_directory) as owner:
        pids = started(owner)[:2]
        assert all(lives(pid) for pid in pids)
        owner.send_signal(signal.SIGKILL)
    await eventually(lambda: not any(lives(pid) for pid in pids))


def test_an_ordinary_user_starts_both_as_itself(server_directory: Path) -> None:
    """As root: through another user, who keeps only the right to read our files (a Python below /root)."""
    prefix: list[str] = []
    if os.geteuid() == 0:
        shutil.chown(server_directory, "nobody")
        prefix = ["setpriv", "--reuid=nobody", "--clear-groups"]
        prefix += ["--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override"]
    with spawn(server_directory, *prefix) as owner:
        postgres, server, dsn, _ = started(owner)
        owners = {Path(f"/proc/{pid}").stat().st_uid for pid in (postgres, server)}
        with psycopg.connect(dsn) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        owner.communicate("\n", timeout=30)
    assert owner.returncode == 0
    assert owners == {server_directory.stat().st_uid}
    assert 0 not in owners
    assert not lives(postgres)


def test_an_installation_closed_to_others_is_used_all_the_same(server_directory: Path) -> None:
    """As root it is copied once to where the account without rights can start it."""
    closed, temporary = server_directory / "closed", server_directory / "temporary"
    temporary.mkdir()
    server_directory.chmod(0o755)
    closed.mkdir(mode=0o700)
    package = postgres_package()
    shutil.copytree(package / "pginstall18", closed / package.name / "pginstall18")
    shutil.copytree(package.with_name(f"{package.name}.libs"), closed / f"{package.name}.libs")
    (closed / package.name / "__init__.py").touch()
    seen = set()
    for _ in range(2):
        path = f"{closed}{os.pathsep}{OPERATOR}"
        with spawn(temporary / "servers", PYTHONPATH=path, TMPDIR=str(temporary)) as owner:
            _, _, dsn, programs = started(owner)
            with psycopg.connect(dsn) as connection:
                assert connection.execute("SHOW server_version_num").fetchone() == ("180004",)
            owner.communicate("\n", timeout=30)
        assert owner.returncode == 0
        seen.add(programs)
    (programs,) = seen
    assert programs.is_relative_to(temporary if os.geteuid() == 0 else closed)


def test_a_free_port_is_outside_the_range_of_outgoing_connections_and_given_once() -> None:
    given = [free_port() for _ in range(500)]
    assert all(15000 <= port < 32768 for port in given)
    assert len(set(given)) == 500
