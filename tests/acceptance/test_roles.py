"""Two Secrets, or a DBA: as people use them, with files."""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import trustme

from ..conftest import Database, Stream
from ..integration.tls_front import TlsFront, certificate, pem
from .commands import manifest, tablewatcher, write, write_secret
from .programs import PROGRAM, Program, running


@pytest.fixture
async def clerk(database: Database) -> AsyncIterator[str]:
    """A role that may log in and no more; `orders` is there."""
    role = f"clerk_{secrets.token_hex(4)}"
    await database.execute(
        "CREATE TABLE public.orders (id bigint PRIMARY KEY, status text);"
        f" CREATE ROLE {role} LOGIN PASSWORD 'p'; REVOKE CREATE ON SCHEMA public FROM PUBLIC"
    )
    yield role
    await database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def listening(*options: object) -> AbstractAsyncContextManager[Program]:
    return running(PROGRAM, "listen", *options)


async def test_the_owner_installs_and_another_role_delivers(
    database: Database, stream: Stream, clerk: str, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    sink = {"nats": {"servers": [stream.url], "subject": f"{stream.prefix}.{{action}}"}}
    owned = manifest(database={"secretRef": {"name": "shop-app"}, "adminSecretRef": {"name": "shop-owner"}}, sink=sink)
    files = write(tmp_path / "manifests", owned)
    everything = write_secret(tmp_path / "all", "shop-app", uri=database.dsn_of(clerk, "p"))
    write_secret(everything, "shop-owner", uri=database.dsn)
    listeners = write_secret(tmp_path / "listener", "shop-app", uri=database.dsn_of(clerk, "p"))
    lacking = await tablewatcher("apply", "-f", files, "--secrets-dir", listeners)
    assert (lacking.code, "'shop-owner'" in lacking.err) == (3, True)
    planned = await tablewatcher("plan", "-f", files, "--secrets-dir", everything)
    assert planned.code == 0, planned.err
    assert f'TO "{clerk}"' in planned.out
    applied = await tablewatcher("apply", "-f", files, "--secrets-dir", everything)
    assert applied.code == 0, applied.err
    async with listening("-f", files, "--secrets-dir", listeners, "--http-port", free_port()):
        await database.execute("INSERT INTO orders VALUES (1, 'new')")
        (message,) = await stream.messages(1, 40)
        await check_what_a_listeners_pod_can_ask(files, listeners)
    assert json.loads(message.data)["data"]["key"] == {"id": 1}
    removed = await tablewatcher("destroy", "-f", files, "--secrets-dir", everything)
    assert removed.code == 0, removed.err
    assert await database.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'tablewatcher'") == [(0,)]


async def check_what_a_listeners_pod_can_ask(files: Path, listeners: Path) -> None:
    """It does not have the admin's Secret."""
    options = ("-f", files, "--secrets-dir", listeners)
    said = await tablewatcher("status", *options, "-o", "json")
    assert (said.code, said.watchers["shop/orders"]["state"]) == (0, "forwarding"), said.out + said.err
    parked = await tablewatcher("parked", "list", *options)
    assert (parked.code, "nothing is parked" in parked.out) == (0, True), parked.err
    again = await tablewatcher("replay", *options, "--since", "1m")
    assert again.code == 0, again.err
    seen = await tablewatcher("doctor", *options, "-o", "json")
    checks = {check["check"]: check for check in seen.watchers["shop/orders"]["checks"]}
    assert seen.code == 0, seen.out
    assert (checks["secret"]["level"], "'shop-owner'" in checks["secret"]["text"]) == ("warn", True)
    assert [checks[name]["level"] for name in ("listener's login", "listener", "delivery")] == ["ok"] * 3


async def test_certificates_as_files_below_the_directory_of_secrets(
    database: Database, stream: Stream, clerk: str, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    tls = {
        "caRef": {"kind": "ConfigMap", "name": "shop-ca", "key": "ca.crt"},
        "clientCertSecretRef": {"name": "shop-client"},
    }
    async with TlsFront(database.server, context) as front:
        sink = {"nats": {"servers": [stream.url], "subject": f"{stream.prefix}.{{action}}"}}
        files = write(
            tmp_path / "manifests", manifest(database={"secretRef": {"name": "shop-app"}, "tls": tls}, sink=sink)
        )
        place = write_secret(tmp_path / "secrets", "shop-app", uri=front.dsn("localhost", database.name))
        write_secret(place, "shop-client", **certificate(authority, "app@example.com"))
        options = ("-f", files, "--secrets-dir", place)
        lacking = await tablewatcher("apply", *options)
        assert (lacking.code, "configmaps" in lacking.err or "shop-ca" in lacking.err) == (3, True)
        write_secret(place / "configmaps", "shop-ca", **{"ca.crt": pem(authority)})
        # As a kubelet mounts it where the Pod has an fsGroup; libpq refuses such a key.
        (place / "shop-client" / "tls.key").chmod(0o644)
        applied = await tablewatcher("apply", *options, "-o", "json")
        assert applied.code == 0, applied.out + applied.err
        assert applied.watchers["shop/orders"]["encrypted"] is True
        async with listening(*options, "--http-port", free_port()):
            await database.execute("INSERT INTO orders VALUES (1, 'new')")
            assert len(await stream.messages(1, 20)) == 1
        assert front.hellos >= 4
        dsn = front.dsn("localhost", database.name)
        # The server lets nobody in without our certificate.
        async with listening(*options, "--dsn", dsn, "--http-port", free_port()):
            await database.execute("INSERT INTO orders VALUES (2, 'new')")
            assert len(await stream.messages(2, 20)) == 2
        checked = await tablewatcher("doctor", *options)
        assert "ok    connection       encrypted" in checked.out
        await check_that_a_dsn_is_checked_the_same(dsn, files, place)


async def check_that_a_dsn_is_checked_the_same(dsn: str, files: Path, secrets_dir: Path) -> None:
    """With `--dsn` the manifest's tls holds, and what it needs is asked for; a dsn of its own mind is let be."""
    with_secrets, without, said = await asyncio.gather(
        tablewatcher("plan", "-f", files, "--dsn", dsn, "--secrets-dir", secrets_dir),
        tablewatcher("plan", "-f", files, "--dsn", dsn),
        tablewatcher("doctor", "-f", files, "--dsn", f"{dsn}?sslmode=disable"),
    )
    assert with_secrets.code == 0, with_secrets.err
    assert (without.code, "say in --dsn itself" in without.err) == (3, True), without.err
    assert "spec.database.tls is left out" in said.out
    assert "warn  connection       made, but not encrypted" in said.out


async def test_a_dba_runs_what_sql_prints(
    database: Database, stream: Stream, clerk: str, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    sink = {"nats": {"servers": [stream.url], "subject": f"{stream.prefix}.{{action}}"}}
    files = write(tmp_path / "manifests", manifest(management="Observe", sink=sink))
    options = ("-f", files, "--dsn", database.dsn_of(clerk, "p"))
    refused = await tablewatcher("apply", *options, "-o", "json")
    assert refused.code == 10
    found = refused.watchers["shop/orders"]
    assert found["reason"] == "ManualActionRequired"
    assert any("CREATE" in step["sql"] for step in found["steps"])
    stands = await tablewatcher("status", *options)
    assert "nothing of it is in this database: have a DBA run what `tablewatcher sql` prints" in stands.out
    printed = await tablewatcher("sql", *options)
    assert printed.code == 0, printed.err
    assert "steps to run" in printed.err
    await database.execute(printed.out)
    again = await tablewatcher("sql", *options)
    assert (again.out, "nothing to run" in again.err) == ("", True)
    assert (await tablewatcher("apply", *options)).out == "shop/orders: in sync, nothing to do\n"
    async with listening(*options, "--http-port", free_port()):
        await database.execute("INSERT INTO orders VALUES (1, 'new')")
        assert len(await stream.messages(1, 20)) == 1
    removal = await tablewatcher("destroy", *options)
    assert (removal.code, "ManualActionRequired" in removal.err) == (10, True)
    await database.execute(removal.err.partition("to remove it: ")[2])
    again = await tablewatcher("destroy", *options)
    assert again.out == "shop/orders: nothing of local/shop/orders was there (--instance says whose)\n"


async def test_sql_for_a_managed_watcher_is_all_that_apply_would_run(
    database: Database, clerk: str, tmp_path: Path
) -> None:
    files = write(tmp_path / "manifests", manifest())
    options = ("-f", files, "--dsn", database.dsn_of(clerk, "p"))
    assert (await tablewatcher("apply", *options)).code == 6
    printed = await tablewatcher("sql", *options)
    assert printed.code == 0, printed.err
    await database.execute(printed.out)
    assert (await tablewatcher("sql", *options)).out == ""


async def test_plan_tells_all_faults_of_database_and_sink_together(
    database: Database, clerk: str, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    sink = {"nats": {"servers": [f"nats://127.0.0.1:{free_port()}"], "subject": "shop.{table}"}}
    files = write(tmp_path / "manifests", manifest(columns=["state"], sink=sink))
    options, nowhere = ("plan", "-f", files, "--dsn"), f"postgresql://u@127.0.0.1:{free_port()}/x"
    answer, text, away = await asyncio.gather(
        tablewatcher(*options, database.dsn_of(clerk, "p"), "-o", "json"),
        tablewatcher(*options, database.dsn_of(clerk, "p")),
        tablewatcher(*options, nowhere, "-o", "json"),
    )
    faults = answer.watchers["shop/orders"]["faults"]
    assert [fault["reason"] for fault in faults] == ["PermissionDenied", "ColumnNotFound", "SinkUnreachable"]
    assert answer.code == 6
    assert all(fault["message"] in text.err for fault in faults)
    faults = away.watchers["shop/orders"]["faults"]
    assert [fault["reason"] for fault in faults] == ["DatabaseUnreachable", "SinkUnreachable"]
