"""Each way to sign in to NATS, from the manifest and its Secret to a server that lets nobody else in; and rights."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.errors import Error

from ..conftest import Database, poll
from ..integration.sinks.accounts import Operator, key_pair, public
from ..integration.sinks.servers import NatsServer
from .commands import manifest, tablewatcher, write, write_secret
from .conftest import Forwarding
from .listeners import nats_sink, write_manifest
from .programs import PROGRAM, running
from .writers import put


@dataclass(frozen=True, slots=True)
class Way:
    """config: of the server. auth: of the manifest. secret: what it names, which `login` holds, too. login: the client
    library's own options, with the mounted Secret's folder in braces."""

    config: str
    auth: dict[str, Any]
    secret: dict[str, str]
    login: dict[str, str]


SEED = key_pair()
OPERATOR = Operator()
WAYS = {
    "creds": Way(
        OPERATOR.config,
        {"credsSecretRef": {"name": "login", "key": "user.creds"}},
        {"user.creds": OPERATOR.creds()},
        {"user_credentials": "{}/user.creds"},
    ),
    "nkey": Way(
        f"authorization {{users: [{{nkey: {public(SEED)}}}]}}",
        {"nkeySecretRef": {"name": "login", "key": "seed"}},
        {"seed": SEED.seed.decode()},
        {"nkeys_seed_str": SEED.seed.decode()},
    ),
    "token": Way(
        "authorization {token: a-token}",
        {"tokenSecretRef": {"name": "login", "key": "token"}},
        {"token": "a-token"},
        {"token": "a-token"},
    ),
    "user and password": Way(
        "authorization {user: a-user, password: a-password}",
        {"userPasswordSecretRef": {"name": "login"}},
        {"username": "a-user", "password": "a-password"},
        {"user": "a-user", "password": "a-password"},
    ),
}


@pytest.mark.parametrize("name", WAYS)
async def test_a_manifest_signs_in(database: Database, tmp_path: Path, free_port: Callable[[], int], name: str) -> None:
    way = WAYS[name]
    await database.execute("CREATE TABLE public.orders (id bigint PRIMARY KEY, status text)")
    server = NatsServer(tmp_path, way.config)
    await asyncio.to_thread(server.start)
    try:
        sink = {"servers": [server.url], "subject": "shop.{action}", "jetStream": {"stream": "SHOP", "create": {}}}
        files = write(tmp_path / "manifests", manifest(sink={"nats": sink | {"auth": way.auth}}))
        secrets = write_secret(tmp_path / "secrets", "login", **way.secret)
        options = ("-f", files, "--secrets-dir", secrets, "--dsn", database.dsn)
        applied = await tablewatcher("apply", *options)
        assert applied.code == 0, applied.err
        await database.execute("INSERT INTO public.orders VALUES (1, 'new')")
        login: dict[str, Any] = {key: text.format(secrets / "login") for key, text in way.login.items()}
        async with (
            running(PROGRAM, "listen", *options, "--http-port", free_port()),
            await nats.connect(server.url, **login) as client,
        ):

            async def stored() -> bool:
                try:
                    return (await client.jetstream().stream_info("SHOP")).state.messages == 1
                except Error:  # the listener has yet to make it
                    return False

            await poll(stored, 40)
    finally:
        server.kill()


def _denied(*subjects: str) -> str:
    """Who signs in as nobody may not publish to these."""
    denied = ", ".join(f'"{each}"' for each in subjects)
    return f"""accounts {{ SHOP: {{
      jetstream: enabled
      users: [{{user: watcher, password: p, permissions: {{publish: {{allow: [">"], deny: [{denied}]}}}}}}]
    }} }}
    no_auth_user: watcher"""


async def test_a_subject_that_is_denied_holds_up_no_other(
    database: Database, tmp_path: Path, forwarding: Forwarding
) -> None:
    """It is told, though the watcher forwards, and goes on when the right is granted."""
    server = NatsServer(tmp_path, _denied("shop.account.delete"))
    await asyncio.to_thread(server.start)
    try:
        async with await nats.connect(server.url) as client:
            jetstream = client.jetstream()
            await jetstream.add_stream(name="SHOP", subjects=["shop.>"])
            watcher = write_manifest(tmp_path / "nats.yaml", nats_sink(server.url, "shop"))
            listener = await forwarding(watcher, database)
            await put(database, "a")
            await database.execute("DELETE FROM account")

            async def is_told() -> bool:
                await put(database, "b")
                ready, reason, message = await listener.state()
                return ready and reason == "Forwarding" and 'publish to "shop.account.delete"' in message

            await poll(is_told, 40)
            server.reload(_denied("nothing"))

            async def is_deleted() -> bool:
                return bool((await jetstream.stream_info("SHOP", subjects_filter="*.*.delete")).state.subjects)

            await poll(is_deleted, 40)
    finally:
        server.kill()
