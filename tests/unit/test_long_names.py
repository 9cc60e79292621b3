"""A server whose names are shorter than ours."""

from __future__ import annotations

from dataclasses import replace

from tablewatcher.errors import Reason
from tablewatcher.naming import watcher_names
from tablewatcher.postgres.install.catalog import Observed, Server
from tablewatcher.postgres.install.preflight import faults
from tablewatcher.spec.model import Action, Database, NatsSink, Table, WatcherSpec

NAMES = watcher_names("local", "shop", "orders")
SPEC = WatcherSpec(
    "shop",
    "orders",
    Database("secret"),
    Table("public", "orders"),
    actions=frozenset(Action),
    sink=NatsSink(("nats://127.0.0.1:4222",), "x"),
)
SERVER = Server(
    version=160_000,
    in_recovery=False,
    database="shop",
    encoding="UTF8",
    longest_name=63,
    role="shop",
    system_identifier="1",
    may_create_schema=True,
    may_use_schema=None,
    may_see_schema=None,
    publications=(),
)


def test_names_that_the_server_would_cut_are_refused() -> None:
    def said(longest: int) -> list[str]:
        observed = Observed(server=replace(SERVER, longest_name=longest), table=None)
        return [
            fault.message for fault in faults(SPEC, observed, NAMES) if fault.reason is Reason.MANUAL_ACTION_REQUIRED
        ]

    assert (said(63), said(NAMES.longest)) == ([], [])
    (message,) = said(NAMES.longest - 1)
    assert "max_identifier_length" in message
    assert f"NAMEDATALEN is {NAMES.longest + 1} or more" in message
