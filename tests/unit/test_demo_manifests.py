"""Somebody's own manifests in the demonstration: with its servers for theirs, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tablewatcher.cli.demo.manifests import Addresses, chosen, place
from tablewatcher.errors import SpecInvalid
from tablewatcher.listener.load import load
from tablewatcher.listener.secrets import DirectorySecrets
from tablewatcher.postgres.connection.conninfo import access
from tablewatcher.spec.model import Header, HttpSink, NatsSink, SecretKey

ADDRESSES = Addresses("postgresql://127.0.0.1:1/shop", "nats://127.0.0.1:2", "http://127.0.0.1:3/orders", "whsec_AAAA")
CA = {"kind": "ConfigMap", "name": "ca", "key": "ca.crt"}
NATS = {"servers": ["tls://nats.example.com"], "subject": "shop.{action}"}
HTTP = {"url": "https://hooks.example.com"}
KEY = {"name": "hook", "key": "some"}


def watcher(name: str = "mine", sink: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    spec = {
        "database": {"secretRef": {"name": "shop-app"}},
        "table": {"name": "orders"},
        "actions": ["insert", "update", "delete"],
        "triggerColumns": ["status"],
        "sink": sink or {"nats": NATS},
    }
    head = {"apiVersion": "tablewatcher.io/v1alpha1", "kind": "TableWatcher"}
    return head | {"metadata": {"name": name, "namespace": "shop"}, "spec": spec | changes}


def written(path: Path, *documents: dict[str, Any]) -> list[Path]:
    path.write_text(yaml.safe_dump_all(documents))
    return [path]


def test_our_servers_take_the_place_of_theirs(tmp_path: Path) -> None:
    database = {
        "secretRef": {"name": "shop-app"},
        "keys": {"host": "address"},
        "adminSecretRef": {"name": "shop-owner"},
        "tls": {"caRef": CA},
    }
    secret = {"secretKeyRef": KEY}
    watchers = [
        watcher("a", {"nats": NATS | {"auth": {"tokenSecretRef": KEY}, "tls": {"caRef": CA}}}, database=database),
        watcher(
            "b",
            {
                "http": {
                    "urlSecretRef": KEY,
                    "headers": [{"name": "X-Team", "value": "shop"}, {"name": "Authorization", "valueFrom": secret}],
                    "tls": {"caRef": CA},
                }
            },
        ),
    ]
    source = written(tmp_path / "own.yaml", {"apiVersion": "v1", "kind": "List", "items": watchers})
    manifests, secrets = place(chosen(source), tmp_path, ADDRESSES)
    played = load([manifests], require_secret=True)
    assert not played.faults
    nats, http = played.specs["shop/a"], played.specs["shop/b"]
    assert nats.sink == NatsSink((ADDRESSES.nats,), "shop.{action}")
    assert http.sink == HttpSink(
        ADDRESSES.http,
        signing=(SecretKey("demo", "whsec"),),
        headers=(Header("X-Team", "shop"), Header("Authorization", "demo")),
    )
    found = DirectorySecrets(secrets)
    assert "port=1" in access(nats, found).conninfo
    assert access(nats, found).listener_role is None
    assert (secrets / "demo" / "whsec").read_text() == ADDRESSES.secret


def test_its_own_keys_sign(tmp_path: Path) -> None:
    source = written(tmp_path / "own.yaml", watcher(sink={"http": HTTP | {"signing": {"secretRefs": [KEY]}}}))
    manifests, secrets = place(chosen(source), tmp_path, ADDRESSES)
    (spec,) = load([manifests], require_secret=True).specs.values()
    assert isinstance(spec.sink, HttpSink)
    assert spec.sink.signing == (SecretKey("hook", "some"),)
    assert (secrets / "hook" / "some").read_text() == ADDRESSES.secret


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("spec.table", {"table": {"name": "customers"}}),
        ("spec.actions", {"actions": ["insert", "update"]}),
        ("spec.triggerColumns", {"triggerColumns": ["total", "note"]}),
        ("spec.where", {"where": [{"column": "total", "operator": "GreaterThan", "values": ["1"]}]}),
        ("spec.delivery.ordering", {"delivery": {"ordering": "Unordered"}}),
        ("spec.suspend", {"suspend": True}),
        ("spec.management", {"management": "Observe"}),
        ("spec.sink.nats.subject", {"sink": {"nats": NATS | {"subject": "orders.{action}"}}}),
        ("spec.sink.nats.jetStream.stream", {"sink": {"nats": NATS | {"jetStream": {"stream": "ORDERS"}}}}),
    ],
    ids=lambda found: found if isinstance(found, str) else json.dumps(found),
)
def test_what_could_not_be_counted_is_refused(tmp_path: Path, field: str, changes: dict[str, Any]) -> None:
    document = watcher(**changes)
    with pytest.raises(SpecInvalid) as refused:
        chosen(written(tmp_path / "own.yaml", document))
    assert [error.path for error in refused.value.errors] == [field]


def test_one_of_each_kind_is_played(tmp_path: Path) -> None:
    with pytest.raises(SpecInvalid, match="shop/a sends to NATS already"):
        chosen(written(tmp_path / "own.yaml", watcher("a"), watcher("b", {"http": HTTP}), watcher("c")))


def test_all_are_watchers_of_the_same_changes(tmp_path: Path) -> None:
    other = watcher("b", {"http": HTTP}, triggerColumns=["status", "note"])
    with pytest.raises(SpecInvalid, match="must have note, or not, as in shop/a"):
        chosen(written(tmp_path / "own.yaml", watcher("a"), other))


def test_a_folder_without_manifests_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecInvalid, match="no TableWatcher manifest found"):
        chosen([tmp_path])


def test_those_that_come_along_can_be_played() -> None:
    assert [type(spec.sink) for spec in chosen([])] == [HttpSink, NatsSink]
