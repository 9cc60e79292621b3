"""Encryption of the connection to the database: libpq's own checks, against real handshakes."""

from __future__ import annotations

import asyncio
import gc
import os
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from tablewatcher.errors import DatabaseError, Reason, SecretError
from tablewatcher.postgres.connection.conninfo import conninfo
from tablewatcher.postgres.connection.dsn import with_tls
from tablewatcher.postgres.connection.session import connect, connected, encrypted
from tablewatcher.postgres.install.apply import apply
from tablewatcher.spec.model import CaRef, DatabaseTls
from tablewatcher.spec.model import Database as DatabaseSpec

from ..conftest import Database, poll
from .capturing import names_of, spec_of
from .sinks.events import MemorySecrets
from .tls_front import TlsFront, certificate, pem

CA = CaRef("ConfigMap", "shop-ca", "ca.crt")


@dataclass(slots=True)
class World:
    """A database behind TLS, its authority, and Secrets that know it."""

    front: TlsFront
    authority: trustme.CA
    secrets: MemorySecrets
    database: str

    def conninfo(self, tls: DatabaseTls | None, *, host: str = "localhost", options: str = "") -> str:
        self.secrets.values["shop-app"] = {"uri": self.front.dsn(host, self.database) + options}
        return conninfo(DatabaseSpec("shop-app", tls=tls), self.secrets, namespace="shop")

    async def fault(self, tls: DatabaseTls | None, **where: str) -> DatabaseError:
        with pytest.raises(DatabaseError) as refused:
            async with connected(self.conninfo(tls, **where)):
                pass
        return refused.value


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    async with TlsFront(database.server, context) as front:
        yield World(front, authority, MemorySecrets({}, {"shop-ca": {"ca.crt": pem(authority)}}), database.name)


async def is_encrypted(text: str) -> bool:
    async with connected(text) as connection:
        found = await (await connection.execute("SELECT 1 AS one")).fetchone()
        assert found == {"one": 1}
        return encrypted(connection)


async def test_an_authority_means_that_name_and_certificate_are_checked(world: World) -> None:
    assert await is_encrypted(world.conninfo(DatabaseTls(ca=CA)))
    assert await is_encrypted(world.conninfo(DatabaseTls("VerifyFull", CA)))
    assert world.front.hellos == 2


async def test_an_authority_in_a_secret(world: World) -> None:
    world.secrets.values["shop-ca-secret"] = {"root.pem": pem(world.authority)}
    assert await is_encrypted(world.conninfo(DatabaseTls(ca=CaRef("Secret", "shop-ca-secret", "root.pem"))))


async def test_another_authority_is_not_believed(world: World) -> None:
    world.secrets.config_maps["shop-ca"] = {"ca.crt": pem(trustme.CA())}
    fault = await world.fault(DatabaseTls(ca=CA))
    assert (fault.reason, "spec.database.tls.caRef" in fault.message) == (Reason.TLS_FAILED, True)
    assert "localhost" not in fault.message


async def test_a_rotated_authority_is_used_at_the_next_connection(world: World) -> None:
    world.secrets.config_maps["shop-ca"] = {"ca.crt": pem(trustme.CA())}
    await world.fault(DatabaseTls(ca=CA))
    world.secrets.config_maps["shop-ca"] = {"ca.crt": pem(world.authority)}
    assert await is_encrypted(world.conninfo(DatabaseTls(ca=CA)))


async def test_the_host_name_must_stand_in_the_certificate(world: World) -> None:
    fault = await world.fault(DatabaseTls(ca=CA), host="127.0.0.1")
    assert (fault.reason, "another host name" in fault.message) == (Reason.TLS_FAILED, True)
    assert await is_encrypted(world.conninfo(DatabaseTls("VerifyCA", CA), host="127.0.0.1"))


async def test_without_an_authority_those_of_the_system_are_asked(world: World) -> None:
    fault = await world.fault(DatabaseTls("VerifyFull"))
    assert (fault.reason, "not signed by an authority" in fault.message) == (Reason.TLS_FAILED, True)


@pytest.mark.parametrize("mode", ["Prefer", "Require"])
async def test_modes_that_encrypt_without_a_check(world: World, mode: str) -> None:
    assert await is_encrypted(world.conninfo(DatabaseTls(mode), host="127.0.0.1"))


async def test_disable_asks_for_nothing(world: World) -> None:
    assert not await is_encrypted(world.conninfo(DatabaseTls("Disable"), options="?sslmode=require"))
    assert world.front.hellos == 0


@pytest.mark.parametrize(("options", "expected"), [("", True), ("?sslmode=disable", False)])
async def test_without_tls_the_uri_decides(world: World, options: str, expected: bool) -> None:
    assert await is_encrypted(world.conninfo(None, options=options)) is expected


async def test_a_client_certificate_is_shown(world: World) -> None:
    context = world.front.context
    assert context is not None
    context.verify_mode = ssl.CERT_REQUIRED
    world.authority.configure_trust(context)
    world.secrets.values["shop-client"] = certificate(world.authority, "app@example.com")
    assert await is_encrypted(world.conninfo(DatabaseTls(ca=CA, client_cert="shop-client")))
    world.secrets.values["shop-client"] = certificate(trustme.CA(), "app@example.com")
    assert (await world.fault(DatabaseTls(ca=CA, client_cert="shop-client"))).reason is Reason.TLS_FAILED
    assert (await world.fault(DatabaseTls(ca=CA))).reason is Reason.TLS_FAILED


async def test_a_certificate_that_expires_is_told_and_the_next_one_is_used(world: World) -> None:
    context = world.front.context
    assert context is not None
    context.verify_mode = ssl.CERT_REQUIRED
    world.authority.configure_trust(context)
    world.secrets.values["shop-client"] = certificate(world.authority, "app@example.com", seconds=-1)
    fault = await world.fault(DatabaseTls(ca=CA, client_cert="shop-client"))
    assert fault.reason in (Reason.TLS_FAILED, Reason.DATABASE_UNREACHABLE)  # asyncio's servers hang up without a word
    world.secrets.values["shop-client"] = certificate(world.authority, "app@example.com")
    assert await is_encrypted(world.conninfo(DatabaseTls(ca=CA, client_cert="shop-client")))


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("memory", [True, False])
async def test_files_of_certificates_are_closed_to_others_and_go_with_the_connection(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, memory: bool
) -> None:
    """However often they are rotated: whoever reads them every minute must not run out of descriptors."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    if not memory:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    context = world.front.context
    assert context is not None
    context.verify_mode = ssl.CERT_REQUIRED
    world.authority.configure_trust(context)
    tls = DatabaseTls(ca=CA, client_cert="shop-client")
    before = _descriptors()
    for _ in range(20):
        world.secrets.values["shop-client"] = certificate(world.authority, "app@example.com")
        text = world.conninfo(tls)
        assert text == world.conninfo(tls)  # the same content is the same connection
    assert (_descriptors(), os.listdir(tmp_path)) == (before, [])
    # The second is lost, and nobody closes it.
    for closes in (True, False):
        connection = await connect(text)
        assert os.stat(connection.info.get_parameters()["sslkey"]).st_mode & 0o077 == 0
        if closes:
            # To cancel takes a connection of its own, and the same files again: else this would last for a minute.
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await connection.execute("SELECT pg_catalog.pg_sleep(60)")
            await connection.close()
        else:
            connection.pgconn.finish()
        del connection
        gc.collect()
        assert os.listdir(tmp_path) == []
        await poll(lambda: _descriptors() == before)


async def test_what_is_no_certificate_with_its_key_is_named(world: World) -> None:
    good, other = (certificate(world.authority, name) for name in ("a", "b"))
    locked = load_pem_private_key(good["tls.key"].encode(), None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"s3cret")
    )
    broken = {each: text.replace("M", "?") for each, text in good.items()}
    for changed in (
        {"tls.key": other["tls.key"]},
        {"tls.crt": broken["tls.crt"]},
        {"tls.key": broken["tls.key"]},
        {"tls.key": ""},
        {"tls.crt": "hunter2"},
        {"tls.key": locked.decode()},
    ):
        world.secrets.values["shop-client"] = good | changed
        with pytest.raises(SecretError) as refused:
            world.conninfo(DatabaseTls(ca=CA, client_cert="shop-client"))
        assert refused.value.reason is Reason.TLS_FAILED
        for said in ("'shop-client'", "spec.database.tls.clientCertSecretRef", "tls.crt", "belong together"):
            assert said in refused.value.message
        assert "hunter2" not in refused.value.message
    # libpq can read it: the string says with what.
    assert "s3cret" in world.conninfo(DatabaseTls(client_cert="shop-client"), options="?sslpassword=s3cret")


async def test_a_bundle_may_name_its_authorities_in_any_script(world: World) -> None:
    world.secrets.config_maps["shop-ca"] = {"ca.crt": f"# Autorité d'essai\n{pem(world.authority)}"}
    assert await is_encrypted(world.conninfo(DatabaseTls(ca=CA)))


@pytest.mark.parametrize("tls", [DatabaseTls("Require"), DatabaseTls(ca=CA)])
async def test_a_server_without_tls_is_refused(world: World, tls: DatabaseTls) -> None:
    world.front.context = None
    fault = await world.fault(tls)
    assert (fault.reason, "offers no TLS" in fault.message) == (Reason.TLS_FAILED, True)
    assert not await is_encrypted(world.conninfo(None))


async def test_apply_tells_whether_the_connection_is_encrypted(world: World, database: Database) -> None:
    await database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    spec = spec_of()
    spec = replace(spec, actions=spec.actions - {"truncate"})
    assert (await apply(world.conninfo(DatabaseTls(ca=CA)), spec, names_of(spec))).encrypted
    assert not (await apply(database.dsn, spec, names_of(spec))).encrypted


async def test_a_dsn_is_checked_as_the_manifest_says_unless_it_says_so_itself(world: World) -> None:
    dsn = world.front.dsn("localhost", world.database)
    elsewhere = world.front.dsn("127.0.0.1", world.database)
    tls = DatabaseTls(ca=CA)
    assert await is_encrypted(with_tls(dsn, tls, world.secrets))
    with pytest.raises(DatabaseError) as refused:
        await is_encrypted(with_tls(elsewhere, tls, world.secrets))
    assert (refused.value.reason, "another host name" in refused.value.message) == (Reason.TLS_FAILED, True)
    # Taken as they are: nothing of `tls` is read.
    nothing = MemorySecrets()
    assert await is_encrypted(with_tls(f"{elsewhere}?sslmode=require", tls, nothing))
    assert not await is_encrypted(with_tls(f"{elsewhere}?sslmode=disable", tls, nothing))
    assert with_tls(dsn, None, nothing) == dsn


async def test_a_dsn_whose_check_needs_what_is_missing_says_both_ways_on(world: World) -> None:
    with pytest.raises(SecretError) as refused:
        with_tls(world.front.dsn("localhost", world.database), DatabaseTls(ca=CA), MemorySecrets())
    assert refused.value.reason is Reason.CONFIG_MAP_NOT_FOUND
    for said in ("'shop-ca'", "sslmode=require"):
        assert said in refused.value.message


NOTHING: dict[str, str] = {}
BAD = [
    (DatabaseTls(ca=CaRef("ConfigMap", "gone", "ca.crt")), Reason.CONFIG_MAP_NOT_FOUND, "'gone'"),
    (DatabaseTls(ca=CaRef("Secret", "gone", "ca.crt")), Reason.SECRET_NOT_FOUND, "'gone'"),
    (DatabaseTls(ca=CaRef("ConfigMap", "shop-ca", "root.pem")), Reason.SECRET_KEY_MISSING, "it has the keys: ca.crt"),
    (DatabaseTls(ca=CaRef("Secret", "text", "tls.crt")), Reason.TLS_FAILED, "spec.database.tls.caRef"),
    (DatabaseTls(client_cert="gone"), Reason.SECRET_NOT_FOUND, "'gone'"),
    (DatabaseTls(client_cert="shop-app"), Reason.SECRET_KEY_MISSING, "'tls.crt'"),
    (DatabaseTls(client_cert="text"), Reason.TLS_FAILED, "clientCertSecretRef"),
]


@pytest.mark.parametrize(("tls", "reason", "words"), BAD)
async def test_what_is_missing_is_named(world: World, tls: DatabaseTls, reason: Reason, words: str) -> None:
    world.secrets.values["text"] = {"tls.crt": "hunter2", "tls.key": "hunter2"}
    with pytest.raises(SecretError) as refused:
        world.conninfo(tls)
    assert (refused.value.reason, words in refused.value.message) == (reason, True), refused.value.message
    assert "hunter2" not in refused.value.message
