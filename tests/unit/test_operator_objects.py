"""What the operator writes, decided without a cluster: group objects and status."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tablewatcher.controller import objects, status
from tablewatcher.controller.poll import Subscription
from tablewatcher.controller.reconcile import listener_word
from tablewatcher.controller.references import References, of_database, of_listener
from tablewatcher.controller.sweep import leftovers
from tablewatcher.errors import DatabaseError, Reason, SpecInvalid, TableWatcherError
from tablewatcher.listener.secrets import DirectorySecrets
from tablewatcher.naming import watcher_names
from tablewatcher.postgres.install.removal_sql import removal_sql
from tablewatcher.postgres.progress import Report
from tablewatcher.spec.model import (
    Action,
    CaRef,
    Database,
    DatabaseTls,
    DeletionPolicy,
    Header,
    HttpSink,
    NatsAuth,
    NatsSink,
    SecretKey,
    Table,
    Tls,
    WatcherSpec,
)
from tablewatcher.spec.parse import parse_manifest

SPEC = WatcherSpec(
    namespace="shop",
    name="orders",
    database=Database("shop-app"),
    table=Table("public", "orders"),
    actions=frozenset({Action.INSERT}),
    sink=HttpSink("https://hooks.example.com/", signing=(SecretKey("hook", "whsec"),)),
    generation=3,
)
KEY = objects.GroupKey("shop", "shop-app")
SETTINGS = objects.ListenerSettings(image="tablewatcher:1", instance="uid")
WELL = status.Verdict(True, Reason.CONNECTED)
ALL_WELL = status.Findings(3, database=WELL, triggers=WELL, listener=WELL, sink=WELL)


def test_an_entry_is_read_back_as_the_same_watcher() -> None:
    content = objects.admit({}, SPEC)
    assert list(content) == ["orders.json"]
    assert parse_manifest(json.loads(content["orders.json"])) == SPEC


def test_a_group_past_its_bound_takes_no_more() -> None:
    full = {"other.json": "x" * objects.MAX_CONTENT_BYTES}
    with pytest.raises(TableWatcherError) as caught:
        objects.admit(full, SPEC)
    assert caught.value.reason is Reason.LISTENER_GROUP_FULL


def test_every_long_name_has_a_key_of_its_own() -> None:
    names = ["a" * 253, "a" * 252 + "b", "a" * 248]
    keys = {objects.entry_key(name) for name in names}
    assert len(keys) == 3
    assert all(len(key) <= 253 and key.endswith(".json") for key in keys)


def test_the_secrets_are_those_of_the_manifests_and_what_cannot_be_read_needs_none() -> None:
    content = {**objects.admit({}, SPEC), "broken.json": "{", "alien.json": "{}"}
    assert objects.mounted(content, KEY).secrets == ("hook", "shop-app")
    assert objects.mounted({}, KEY).secrets == ("shop-app",)


TRUSTED = CaRef("ConfigMap", "shop-ca", "ca.crt")
ALL_NATS = NatsSink(
    ("nats://nats",),
    "x",
    auth=NatsAuth(SecretKey("creds", "c"), SecretKey("nkey", "n"), SecretKey("token", "t"), "login"),
    tls=Tls(CaRef("Secret", "nats-ca", "ca.crt"), "nats-client"),
)
ALL_HTTP = HttpSink(
    "",
    signing=(SecretKey("hook", "whsec"),),
    url_secret=SecretKey("url", "u"),
    headers=(Header("A", secret=SecretKey("header", "h")), Header("B", "plain")),
    tls=Tls(CaRef("ConfigMap", "http-ca", "ca.crt")),
)
SECURE = replace(SPEC, database=Database("shop-app", (), "shop-owner", DatabaseTls(None, TRUSTED, "shop-client")))


@pytest.mark.parametrize(
    ("sink", "secrets", "config_maps"),
    [
        (ALL_NATS, {"creds", "nkey", "token", "login", "nats-ca", "nats-client"}, ("shop-ca",)),
        (ALL_HTTP, {"hook", "url", "header"}, ("http-ca", "shop-ca")),
    ],
)
def test_a_listener_has_all_that_its_watchers_name_and_nothing_of_the_admin(
    sink: NatsSink | HttpSink, secrets: set[str], config_maps: tuple[str, ...]
) -> None:
    spec = replace(SECURE, sink=sink)
    found = of_listener([spec, spec])
    assert set(found.secrets) == {"shop-app", "shop-client"} | secrets
    assert list(found.secrets) == sorted(set(found.secrets))
    assert found.config_maps == config_maps
    assert of_database(spec) == References(("shop-app", "shop-client", "shop-owner"), ("shop-ca",))


def test_secrets_and_config_maps_lie_where_the_listener_looks() -> None:
    mounts = References(("shop-app",), ("shop-ca",))
    pod = objects.deployment(SETTINGS, KEY, mounts)["spec"]["template"]["spec"]
    paths = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["secret-0"]["secret"] == {"secretName": "shop-app", "optional": True}
    assert paths["secret-0"] == f"{objects.SECRETS_PATH}/shop-app"
    assert volumes["configmap-0"]["configMap"] == {"name": "shop-ca", "optional": True}
    assert paths["configmap-0"] == f"{objects.CONFIG_MAPS_PATH}/shop-ca"


def test_nothing_is_mounted_within_another_mount(tmp_path: Path) -> None:
    """That is read-only, so the Pod would not start. Secrets and ConfigMaps may have any names, also the same."""
    names = ("ca", "configmaps", "config-maps", "shop.app")
    pod = objects.deployment(SETTINGS, KEY, References(names, names))["spec"]["template"]["spec"]
    paths = [Path(mount["mountPath"]) for mount in pod["containers"][0]["volumeMounts"]]
    assert not [path for path in paths if set(path.parents) & set(paths)]
    for path in paths:
        place = tmp_path / path.relative_to("/")
        place.mkdir(parents=True)
        (place / "key").write_text(path.parent.name)
    found = DirectorySecrets(tmp_path / Path(objects.SECRETS_PATH).relative_to("/"))
    for name in names:
        assert found.read(name) == {"key": "secrets"}
        assert found.config_map(name) == {"key": Path(objects.CONFIG_MAPS_PATH).name}


def test_a_change_of_manifests_is_no_rollout_and_a_change_of_secrets_is() -> None:
    first = objects.deployment(SETTINGS, KEY, References(("shop-app",)))
    assert objects.deployment(SETTINGS, KEY, References(("shop-app",))) == first
    assert objects.deployment(SETTINGS, KEY, References(("hook", "shop-app"))) != first


def test_settings_of_the_chart_reach_the_pod() -> None:
    defaults = {
        "resources": {"limits": {"memory": "128Mi"}},
        "nodeSelector": {"disk": "ssd"},
        "podLabels": {"team": "shop", objects.LABEL_GROUP: "not this"},
        "serviceAccountName": "listener",
    }
    settings = replace(
        SETTINGS,
        defaults=defaults,
        image_pull_secrets=("pull",),
        public_only=True,
        http_allow=("10.0.0.0/8", "*.x.org"),
        http_deny=("fd00::/8",),
    )
    template = objects.deployment(settings, KEY, References(("shop-app",)))["spec"]["template"]
    pod, container = template["spec"], template["spec"]["containers"][0]
    assert container["resources"] == {"limits": {"memory": "128Mi"}}
    assert pod["nodeSelector"] == {"disk": "ssd"}
    assert pod["serviceAccountName"] == "listener"
    assert pod["imagePullSecrets"] == [{"name": "pull"}]
    guard = ["--http-public-only", "--http-allow=10.0.0.0/8", "--http-allow=*.x.org", "--http-deny=fd00::/8"]
    assert [each for each in container["args"] if each.startswith(("--http-p", "--http-a", "--http-d"))][-4:] == guard
    assert template["metadata"]["labels"]["team"] == "shop"
    assert template["metadata"]["labels"][objects.LABEL_GROUP] == objects.group_name("uid", KEY)


def test_two_operators_have_groups_of_their_own() -> None:
    assert objects.group_name("one", KEY) != objects.group_name("two", KEY)
    assert objects.selector("one") != objects.selector("two")


def test_ready_is_the_first_that_is_not_well() -> None:
    order = ("database", "triggers", "listener", "sink")
    reasons = (Reason.DATABASE_UNREACHABLE, Reason.TABLE_LOCKED, Reason.LISTENER_ROLLING_OUT, Reason.SINK_UNREACHABLE)
    assert ALL_WELL.ready.reason is Reason.FORWARDING
    for at in range(len(order)):
        bad = {name: status.Verdict(False, reasons[index]) for index, name in enumerate(order) if index >= at}
        assert replace(ALL_WELL, **bad).ready.reason is reasons[at]
    invalid = SpecInvalid("shop/orders", ())
    assert replace(ALL_WELL, invalid=invalid).ready == status.Verdict(False, Reason.SPEC_INVALID, invalid.message)


def test_a_suspended_watcher_and_one_without_a_key_are_ready() -> None:
    suspended = replace(ALL_WELL, suspended=True)
    assert (suspended.ready.holds, suspended.ready.reason) == (True, Reason.SUSPENDED)
    kinds = {each["type"]: each["reason"] for each in status.render(suspended, {}, "t")["conditions"]}
    assert kinds["Suspended"] == "Suspended"
    # What would keep it from going on is told before it is wanted to.
    down = replace(suspended, sink=status.Verdict(False, Reason.SINK_UNREACHABLE))
    assert (down.ready.holds, down.ready.reason) == (False, Reason.SINK_UNREACHABLE)
    keyless = replace(ALL_WELL, triggers=status.Verdict(True, Reason.NO_PRIMARY_KEY, status.NO_KEY))
    assert keyless.ready.holds is True


@pytest.mark.parametrize(
    ("reason", "kind"), [(Reason.DATABASE_UNREACHABLE, "Reconciling"), (Reason.PERMISSION_DENIED, "Stalled")]
)
def test_what_is_not_ready_reconciles_or_is_stalled(reason: Reason, kind: str) -> None:
    database, triggers = status.database_fault(DatabaseError(reason, "why"), applied=False)
    rendered = status.render(status.Findings(1, database=database, triggers=triggers), {}, "t")
    kinds = {each["type"]: each["status"] for each in rendered["conditions"]}
    assert kinds[kind] == "True"
    assert not {"Reconciling", "Stalled"} - {kind} & set(kinds)
    assert kinds["Ready"] == "False"


def test_a_transition_keeps_its_time_until_the_status_changes() -> None:
    first = status.render(ALL_WELL, {}, "t1")
    again = status.render(replace(ALL_WELL, generation=4), first, "t2")
    assert {each["lastTransitionTime"] for each in again["conditions"]} == {"t1"}
    assert {each["observedGeneration"] for each in again["conditions"]} == {4}
    broken = replace(ALL_WELL, sink=status.Verdict(False, Reason.SINK_UNREACHABLE))
    times = {each["type"]: each["lastTransitionTime"] for each in status.render(broken, again, "t3")["conditions"]}
    assert times == {
        "Ready": "t3",
        "DatabaseReady": "t1",
        "TriggersInstalled": "t1",
        "ListenerAvailable": "t1",
        "SinkReady": "t3",
        "Reconciling": "t3",
    }


def test_the_same_status_is_the_same_in_any_order() -> None:
    first = status.render(ALL_WELL, {}, "t1")
    assert status.same(status.render(ALL_WELL, first, "t2"), {**first, "conditions": first["conditions"][::-1]})
    assert not status.same(status.render(replace(ALL_WELL, suspended=True), first, "t2"), first)
    assert not status.same(first, {**first, "sink": "nats"})


FORWARDING = Report(
    proof=(1, 1),
    lease_seconds=9.0,
    spoken=True,
    spec_generation=3,
    forwarding=True,
    reason="Forwarding",
    message="",
)


def report(**changes: Any) -> Report:
    return replace(FORWARDING, **changes)


@pytest.mark.parametrize(
    ("found", "holds", "reason"),
    [
        (None, None, Reason.RECONCILING),
        (report(), True, Reason.ACKNOWLEDGED),
        (report(spec_generation=2), None, Reason.RECONCILING),
        (report(spoken=False), None, Reason.RECONCILING),
        (report(lease_seconds=0.0), None, Reason.RECONCILING),
        (report(forwarding=False, reason="NoStreamForSubject"), False, Reason.NO_STREAM_FOR_SUBJECT),
        (report(forwarding=False, reason="Reconciling"), None, Reason.RECONCILING),
        (report(forwarding=False, reason="of a later version"), None, Reason.RECONCILING),
        (report(reason="Suspended"), True, Reason.ACKNOWLEDGED),
    ],
)
def test_what_the_listener_says(found: Report | None, holds: bool | None, reason: Reason) -> None:
    subscription = Subscription(watcher_names("uid", "shop", "orders"), lambda: None, print)
    subscription.take(found, 100.0)
    stopped, sink = listener_word(subscription, 3)
    assert stopped is None
    assert (sink.holds, sink.reason) == (holds, reason)


def test_capture_that_has_stopped_is_the_triggers_fault() -> None:
    subscription = Subscription(watcher_names("uid", "shop", "orders"), lambda: None, print)
    subscription.take(report(forwarding=False, reason="CaptureStopped", message="full"), 100.0)
    stopped, sink = listener_word(subscription, 3)
    assert stopped == status.Verdict(False, Reason.CAPTURE_STOPPED, "full")
    assert sink.holds is None


def test_a_lease_that_is_not_proven_any_more_is_none_and_each_change_is_told_once() -> None:
    told: list[int] = []
    subscription = Subscription(watcher_names("uid", "shop", "orders"), lambda: told.append(1), print)
    for now in (0.0, 2.0, 4.0):
        subscription.take(report(), now)
    assert subscription.leased
    assert len(told) == 1
    subscription.take(report(), 8.0)
    assert not subscription.leased
    assert len(told) == 2
    subscription.take(report(proof=(1, 2)), 9.0)
    assert subscription.leased


def test_what_is_left_over() -> None:
    def config_map(*names: str) -> objects.Object:
        return {"metadata": {"namespace": "shop", "name": "group"}, "data": {f"{name}.json": "{}" for name in names}}

    watchers = [{"metadata": {"namespace": "shop", "name": "orders"}}]
    assert leftovers([config_map("orders")], watchers) == []
    half = config_map("orders", "gone")
    assert leftovers([half], watchers) == [(half, {"orders.json": "{}"})]
    elsewhere = [{"metadata": {"namespace": "other", "name": "orders"}}]
    assert leftovers([config_map("orders")], elsewhere) == [(config_map("orders"), {})]


def test_the_sql_by_hand_fits_into_an_event_and_keeps_what_is_to_stay() -> None:
    names = watcher_names("u" * 36, "n" * 63, "w" * 253)
    everything = removal_sql(names, DeletionPolicy.DELETE)
    assert len(everything) < 900
    assert all(name in everything for name in (*names.rings, *names.cursors, names.ids, names.stop))
    assert "ring" not in removal_sql(names, DeletionPolicy.RETAIN)


def test_parked_events_show_in_their_condition_and_leave_the_watcher_ready() -> None:
    subscription = Subscription(watcher_names("uid", "shop", "orders"), lambda: None, print)
    subscription.take(report(reason="EventsParked", message="some are put aside"), 100.0)
    stopped, sink = listener_word(subscription, 3)
    assert stopped is None
    assert sink == status.Verdict(True, Reason.EVENTS_PARKED, "some are put aside")
    assert replace(ALL_WELL, sink=sink).ready.reason is Reason.FORWARDING
