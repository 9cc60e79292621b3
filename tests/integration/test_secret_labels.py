"""What the operator lets a Secret do: where only labelled ones may be used, that holds for those that a listener
mounts, too; and none has it read files of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlencode

import pytest
from psycopg.conninfo import conninfo_to_dict

from tablewatcher.controller.client import Cluster
from tablewatcher.controller.database import WatchedDatabase
from tablewatcher.controller.poll import Polls
from tablewatcher.controller.secret import SecretReader
from tablewatcher.errors import Reason, SecretError
from tablewatcher.spec.model import Header, HttpSink, SecretKey, WatcherSpec

from ..conftest import Database
from .api_server import Kept, serving_secrets
from .capturing import names_of, spec_of

LABEL = {"tablewatcher.io/allow": "true"}
PLAIN = HttpSink(url="https://hooks.example.com/")
SENDS = replace(PLAIN, headers=(Header("X-Key", secret=SecretKey("someone", "password")),))
SIGNS = replace(PLAIN, signing=(SecretKey("someone", "password"),))
NAMED = replace(PLAIN, url="", url_secret=SecretKey("someone", "password"))


@pytest.fixture
async def kept(database: Database) -> Kept:
    """What the API server keeps of namespace shop: labels and values of each Secret. The database has table `t`."""
    await database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    return {"secret": (LABEL, {"uri": database.dsn}), "someone": ({}, {"password": "theirs"})}


@pytest.fixture
async def cluster(kept: Kept, free_port: Callable[[], int]) -> AsyncIterator[Cluster]:
    async with serving_secrets(kept, free_port()) as found:
        yield found


async def looked_at(cluster: Cluster, *specs: WatcherSpec, require_label: bool = True) -> WatchedDatabase:
    """A watcher's database after a look at each of `specs`, one right after the other."""
    found = WatchedDatabase(SecretReader(cluster, require_label=require_label), Polls(), names_of(specs[0]), print)
    try:
        for spec in specs:
            await found.look(spec)
    finally:
        await found.close()
    return found


@pytest.mark.parametrize("sink", [SENDS, SIGNS, NAMED])
async def test_what_a_sink_would_send_must_be_labelled(sink: HttpSink, cluster: Cluster, kept: Kept) -> None:
    with pytest.raises(SecretError, match="Secret 'someone' may not be used") as caught:
        await looked_at(cluster, spec_of(sink=sink))
    assert caught.value.reason is Reason.SECRET_NOT_ALLOWED
    kept["someone"] = (LABEL, {"password": "given"})
    assert (await looked_at(cluster, spec_of(sink=sink))).applied


async def test_a_sink_that_is_changed_is_looked_at_before_it_is_forwarded(cluster: Cluster) -> None:
    with pytest.raises(SecretError, match="someone"):
        await looked_at(cluster, spec_of(sink=PLAIN), spec_of(sink=SENDS))


async def test_the_operator_reads_no_file_for_a_secret(
    cluster: Cluster, kept: Kept, database: Database, tmp_path: Path
) -> None:
    """Its password would go wherever the Secret says."""
    server, passwords = conninfo_to_dict(database.dsn), tmp_path / "pgpass"
    passwords.write_text(f"*:*:*:*:{server.pop('password')}\n")
    passwords.chmod(0o600)
    uri = f"postgresql:///{server.pop('dbname')}?{urlencode({**server, 'passfile': str(passwords)})}"
    kept["secret"] = (LABEL, {"uri": uri})
    with pytest.raises(SecretError, match="has the parameter passfile, which would read a file of the operator's"):
        await looked_at(cluster, spec_of(sink=PLAIN))


async def test_what_is_not_there_yet_is_not_mounted_in_advance(cluster: Cluster, kept: Kept) -> None:
    del kept["someone"]
    with pytest.raises(SecretError) as caught:
        await looked_at(cluster, spec_of(sink=SENDS))
    assert caught.value.reason is Reason.SECRET_NOT_FOUND


async def test_where_no_label_is_asked_for_a_sink_has_its_secrets(cluster: Cluster) -> None:
    assert (await looked_at(cluster, spec_of(sink=SENDS), require_label=False)).applied
