"""Manifests: what is accepted, how every mistake is told, and that nothing is lost on the way back."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tablewatcher.errors import FieldError, Reason, SpecInvalid
from tablewatcher.spec import checks
from tablewatcher.spec.model import (
    WHOLE_ROW,
    Action,
    Backoff,
    Batch,
    Capture,
    CaRef,
    Condition,
    CreateStream,
    Database,
    DatabaseTls,
    DatabaseTlsMode,
    DeletionPolicy,
    DeliveryPolicy,
    Format,
    Granularity,
    Header,
    HttpSink,
    Management,
    NatsAuth,
    NatsSink,
    OnExhausted,
    Operator,
    Ordering,
    SecretKey,
    SourceKind,
    Table,
    Tls,
    WatcherSpec,
)
from tablewatcher.spec.parse import TOO_LARGE, parse_manifest, read_manifests, to_manifest

MANIFEST: dict[str, Any] = {
    "apiVersion": "tablewatcher.io/v1alpha1",
    "kind": "TableWatcher",
    "metadata": {"name": "orders", "namespace": "shop"},
    "spec": {
        "database": {"secretRef": {"name": "shop-app"}},
        "table": {"name": "orders"},
        "actions": ["insert"],
        "sink": {"nats": {"servers": ["nats://nats:4222"], "subject": "shop.{table}"}},
    },
}
HTTP = {"http": {"url": "https://hooks.example.com/orders"}}


def manifest(**fields: Any) -> dict[str, Any]:
    found = copy.deepcopy(MANIFEST)
    found["spec"].update(fields)
    return found


def nats(**fields: Any) -> dict[str, Any]:
    return manifest(sink={"nats": {**MANIFEST["spec"]["sink"]["nats"], **fields}})


def http(**fields: Any) -> dict[str, Any]:
    return manifest(sink={"http": {**HTTP["http"], **fields}})


def errors_of(document: object, **options: Any) -> dict[str, str]:
    with pytest.raises(SpecInvalid) as refused:
        parse_manifest(document, **options)
    assert refused.value.reason is Reason.SPEC_INVALID
    return {error.path: error.message for error in refused.value.errors}


def test_defaults() -> None:
    assert parse_manifest(MANIFEST) == WatcherSpec(
        namespace="shop",
        name="orders",
        database=Database("shop-app"),
        table=Table("public", "orders"),
        actions=frozenset({Action.INSERT}),
        sink=NatsSink(("nats://nats:4222",), "shop.{table}"),
    )


def test_everything_set() -> None:
    document = manifest(
        database={"secretRef": {"name": "shop-app"}, "keys": {"password": "pw", "host": "server"}},
        table={"schema": "Sales", "name": 'Odd "name"; drop'},
        actions=["delete", "update"],
        columns=["*"],
        triggerColumns=["status"],
        includeBefore=True,
        sink={"http": {**HTTP["http"], "timeoutSeconds": 5, "signing": {"secretRefs": [{"name": "h", "key": "k"}]}}},
        format="Binary",
        delivery={"backoff": {"initialMilliseconds": 10, "maxSeconds": 20}},
        suspend=True,
        deletionPolicy="Retain",
        listener={"group": "default"},
    )
    document["metadata"] |= {"generation": 7, "uid": "u", "managedFields": [{}], "labels": {"a": "b"}}
    document["status"] = {"observedGeneration": -1}
    assert parse_manifest(document) == WatcherSpec(
        namespace="shop",
        name="orders",
        database=Database("shop-app", (("host", "server"), ("password", "pw"))),
        table=Table("Sales", 'Odd "name"; drop'),
        actions=frozenset({Action.UPDATE, Action.DELETE}),
        sink=HttpSink("https://hooks.example.com/orders", 5, (SecretKey("h", "k"),)),
        columns=WHOLE_ROW,
        trigger_columns=("status",),
        include_before=True,
        format=Format.BINARY,
        delivery=DeliveryPolicy(backoff=Backoff(10, 20)),
        suspend=True,
        deletion_policy=DeletionPolicy.RETAIN,
        generation=7,
    )


def test_the_document_is_left_as_it_was() -> None:
    document = manifest(listener={"replicas": 2}, columns=["a"])
    before = copy.deepcopy(document)
    errors_of(document)
    assert document == before


def test_a_manifest_without_a_namespace_is_in_default() -> None:
    document = copy.deepcopy(MANIFEST)
    del document["metadata"]["namespace"]
    assert parse_manifest(document).namespace == "default"


@pytest.mark.parametrize("database", [None, {}, {"keys": {"uri": "dsn"}}])
def test_a_dsn_needs_no_secret(database: dict[str, Any] | None) -> None:
    document = manifest(database=database)
    if database is None:
        del document["spec"]["database"]
    assert errors_of(document).keys() == {"spec.database.secretRef"}
    spec = parse_manifest(document, require_secret=False)
    assert spec.database.secret_name == ""
    assert parse_manifest(to_manifest(spec), require_secret=False) == spec


MISTAKES = {
    "unknown field": (manifest(colums=["a"]), "spec.colums", "unknown field: did you mean columns?"),
    "snake case": (
        manifest(trigger_columns=["a"]),
        "spec.trigger_columns",
        "unknown field: did you mean triggerColumns?",
    ),
    "unknown nested field": (
        nats(jetstream={}),
        "spec.sink.nats.jetstream",
        "unknown field: did you mean jetStream?",
    ),
    "unknown field in a list": (
        http(signing={"secretRefs": [{"name": "a", "key": "b", "keys": "c"}]}),
        "spec.sink.http.signing.secretRefs[0].keys",
        "unknown field: did you mean key?",
    ),
    "nothing like it": (
        manifest(table={"name": "a", "zzz": 1}),
        "spec.table.zzz",
        "unknown field: known are schema, name",
    ),
    "null as the source of a header": (
        http(headers=[{"name": "X", "value": "x", "valueFrom": None}]),
        "spec.sink.http.headers[0].valueFrom",
        "is empty (null): give it a value, or remove the field",
    ),
    "null below a list": (
        http(headers=[{"name": "X", "valueFrom": {"secretKeyRef": None}}]),
        "spec.sink.http.headers[0].valueFrom.secretKeyRef",
        "required: such as secretKeyRef: {name: hook, key: token}",
    ),
    "null in a condition": (
        manifest(where=[{"column": "a", "operator": "IsNull", "values": None}]),
        "spec.where[0].values",
        "is empty (null): give it a value, or remove the field",
    ),
    "control character in the name of a routed column": (
        nats(subject="shop.{column:a\tb}"),
        "spec.sink.nats.subject",
        checks.SUBJECT_SIGNS,
    ),
    "null": (
        manifest(columns=None),
        "spec.columns",
        "is empty (null): give it a value, or remove the field",
    ),
    "no values": (
        manifest(where=[{"column": "a", "operator": "In"}]),
        "spec.where[0].values",
        "must hold values for In and NotIn, exactly one for GreaterThan and LessThan, none for IsNull and IsNotNull",
    ),
    "values for nothing": (
        manifest(where=[{"column": "a", "operator": "IsNull", "values": ["1"]}]),
        "spec.where[0].values",
        "must hold values for In and NotIn, exactly one for GreaterThan and LessThan, none for IsNull and IsNotNull",
    ),
    "number as a value": (
        manifest(where=[{"column": "a", "operator": "In", "values": [1]}]),
        "spec.where[0].values[0]",
        "must be text: put it in quotes",
    ),
    "header twice": (
        http(headers=[{"name": "X-A", "value": "1"}, {"name": "x-a", "value": "2"}]),
        "spec.sink.http.headers[1].name",
        "is there twice: remove one",
    ),
    "two ways to sign in": (
        nats(auth={"tokenSecretRef": {"name": "a", "key": "b"}, "userPasswordSecretRef": {"name": "a"}}),
        "spec.sink.nats.auth",
        "must have exactly one of credsSecretRef, nkeySecretRef, tokenSecretRef and userPasswordSecretRef",
    ),
    "field of a later version": (
        manifest(listener={"replicas": 2}),
        "spec.listener.replicas",
        "not supported by this version: remove it",
    ),
    "action": (
        manifest(actions=["inserts"]),
        "spec.actions[0]",
        "must be insert, update, delete or truncate: did you mean insert?",
    ),
    "no action": (manifest(actions=[]), "spec.actions", "must have at least 1 item"),
    "format": (
        manifest(format="binary"),
        "spec.format",
        "must be Structured or Binary: did you mean Binary?",
    ),
    "policy": (manifest(deletionPolicy=3), "spec.deletionPolicy", "must be Delete or Retain"),
    "number as a column": (manifest(columns=[1]), "spec.columns[0]", "must be text: put it in quotes"),
    "yes as a column": (manifest(columns=[True]), "spec.columns[0]", "must be text: put it in quotes"),
    "text as a switch": (manifest(suspend="true"), "spec.suspend", "must be true or false"),
    "text as a list": (
        manifest(columns="*"),
        "spec.columns",
        'must be a list, such as columns: [status, total], or ["*"] for the whole row',
    ),
    "SQL as conditions": (
        manifest(where="total > 100"),
        "spec.where",
        'must be a list, such as where: [{column: total, operator: GreaterThan, values: ["100"]}]',
    ),
    "text as the values of a condition": (
        manifest(where=[{"column": "a", "operator": "In", "values": "1"}]),
        "spec.where[0].values",
        'must be a list, such as values: ["100"]',
    ),
    "sign as an operator": (
        manifest(where=[{"column": "a", "operator": ">", "values": ["1"]}]),
        "spec.where[0].operator",
        "must be In, NotIn, GreaterThan, LessThan, IsNull or IsNotNull: did you mean GreaterThan?",
    ),
    "operator of another tool": (
        manifest(where=[{"column": "a", "operator": "Equals", "values": ["1"]}]),
        "spec.where[0].operator",
        "must be In, NotIn, GreaterThan, LessThan, IsNull or IsNotNull: did you mean In?",
    ),
    "the connection itself": (
        manifest(database={"secretRef": {"name": "a"}, "uri": "postgresql://u:hunter2@h/d"}),
        "spec.database.uri",
        (
            "unknown field: a manifest holds no connection; name the Secret that does in secretRef, or on the command"
            " line give --dsn"
        ),
    ),
    "nothing in a required field": (manifest(sink=None), "spec.sink", "required: exactly one of nats and http"),
    "nothing in a stream to make": (
        nats(jetStream={"stream": "SHOP", "create": None}),
        "spec.sink.nats.jetStream.create",
        "is empty (null): write create: {} to have the stream made, or remove the field",
    ),
    "switch as a stream to make": (
        nats(jetStream={"stream": "SHOP", "create": True}),
        "spec.sink.nats.jetStream.create",
        "must be an object with fields of its own: maxBytes, replicas; such as create: {}",
    ),
    "misspelt update beside columns that trigger": (
        manifest(actions=["insert", "updated"], triggerColumns=["a"]),
        "spec.actions[1]",
        "must be insert, update, delete or truncate: did you mean update?",
    ),
    "number with a fraction": (
        manifest(delivery={"maxAttempts": 8.5}),
        "spec.delivery.maxAttempts",
        "must be a whole number",
    ),
    "bytes in megabytes": (
        manifest(delivery={"overflow": {"maxBytes": "1.5GiB"}}),
        "spec.delivery.overflow.maxBytes",
        "must be a whole number of bytes: 1610612736, not 1.5GiB",
    ),
    "bytes that are no whole number": (
        manifest(delivery={"overflow": {"maxBytes": "1.5"}}),
        "spec.delivery.overflow.maxBytes",
        "must be a whole number of bytes, in digits alone",
    ),
    "seconds as a power": (
        manifest(delivery={"retentionSeconds": "1e3"}),
        "spec.delivery.retentionSeconds",
        "must be a whole number of seconds, in digits alone",
    ),
    "text as an object": (
        manifest(table="orders"),
        "spec.table",
        "must be an object with fields of its own: schema, name; such as table: {schema: public, name: orders}",
    ),
    "text as a sink": (
        manifest(sink="nats"),
        "spec.sink",
        (
            "must be an object with fields of its own: nats, http; such as sink: {nats: {servers:"
            ' [nats://nats.nats.svc:4222], subject: "shop.{table}.{action}"}}'
        ),
    ),
    "text as a kind of sink": (
        manifest(sink={"http": "https://hooks.example.com"}),
        "spec.sink.http",
        (
            "must be an object with fields of its own: url, urlSecretRef, headers, signing, timeoutSeconds, batch,"
            " concurrency, tls; such as http: {url: https://hooks.example.com/orders}"
        ),
    ),
    "text as a stream": (
        manifest(sink={"nats": {"servers": ["nats://nats:4222"], "subject": "a", "jetStream": "SHOP"}}),
        "spec.sink.nats.jetStream",
        "must be an object with fields of its own: stream, create, enabled; such as jetStream: {stream: SHOP}",
    ),
    "text as a reference": (
        manifest(database={"secretRef": "shop-app"}),
        "spec.database.secretRef",
        "must be an object with fields of its own: name; such as secretRef: {name: shop-app}",
    ),
    "text as a condition": (
        manifest(where=["total > 100"]),
        "spec.where[0]",
        (
            "must be an object with fields of its own: column, operator, values; such as {column: total, operator: In,"
            ' values: ["100"]}'
        ),
    ),
    "text as a key of a Secret": (
        http(signing={"secretRefs": ["hook"]}),
        "spec.sink.http.signing.secretRefs[0]",
        "must be an object with fields of its own: name, key; such as {name: hook, key: token}",
    ),
    "text as something with no example": (
        manifest(delivery={"overflow": "1Gi"}),
        "spec.delivery.overflow",
        "must be an object with fields of its own: maxBytes",
    ),
    "repeated column": (manifest(columns=["a", "b", "a"]), "spec.columns[2]", "is there twice: remove one"),
    "repeated action": (
        manifest(actions=["insert", "insert"]),
        "spec.actions[1]",
        "is there twice: remove one",
    ),
    "repeated key": (
        http(signing={"secretRefs": [{"name": "a", "key": "b"}, {"key": "b", "name": "a"}]}),
        "spec.sink.http.signing.secretRefs[1]",
        "is there twice: remove one",
    ),
    "too many columns": (
        manifest(columns=[f"c{n}" for n in range(1601)]),
        "spec.columns",
        "must have at most 1600 items",
    ),
    "time-out": (http(timeoutSeconds=301), "spec.sink.http.timeoutSeconds", "must be at most 300"),
    "no time-out": (http(timeoutSeconds=0), "spec.sink.http.timeoutSeconds", "must be at least 1"),
    "time-out as text": (
        http(timeoutSeconds="5"),
        "spec.sink.http.timeoutSeconds",
        "must be a whole number without quotes",
    ),
    "time-out as a duration": (
        http(timeoutSeconds="2m"),
        "spec.sink.http.timeoutSeconds",
        "must be a whole number of seconds: 120, not 2m",
    ),
    "wait as a duration": (
        manifest(delivery={"backoff": {"initialMilliseconds": "2s"}}),
        "spec.delivery.backoff.initialMilliseconds",
        "must be a whole number of milliseconds: 2000, not 2s",
    ),
    "bytes as a quantity": (
        manifest(delivery={"overflow": {"maxBytes": "16Mi"}}),
        "spec.delivery.overflow.maxBytes",
        "must be a whole number of bytes: 16777216, not 16Mi",
    ),
    "bytes as no quantity": (
        manifest(delivery={"overflow": {"maxBytes": "16 loaves"}}),
        "spec.delivery.overflow.maxBytes",
        "must be a whole number of bytes, in digits alone",
    ),
    "long URL": (
        http(url="http://h/" + "a" * 2048),
        "spec.sink.http.url",
        "must be at most 2048 characters long",
    ),
    "too large": (manifest(columns=["x" * 32768]), "spec", TOO_LARGE),
    "no sink": (manifest(sink={}), "spec.sink", "must have exactly one of nats and http"),
    "no servers": (
        manifest(sink={"nats": {"subject": "a"}}),
        "spec.sink.nats.servers",
        "required: such as servers: [nats://nats.nats.svc:4222]",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake(mistake: str) -> None:
    document, path, message = MISTAKES[mistake]
    assert errors_of(document) == {path: message}


@pytest.mark.parametrize("text", ["", "a\0b", "x" * 64, "ü" * 32, "\ud800"])
def test_no_identifier(text: str) -> None:
    assert errors_of(manifest(table={"name": text})).keys() == {"spec.table.name"}


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http:///path",
        "//host",
        "HTTP//h",
        "http://h:port/",
        "http://[::1",
        "http://h/a b",
        "http://h\n/",
        "",
    ],
)
def test_no_url(url: str) -> None:
    assert errors_of(http(url=url)).keys() == {"spec.sink.http.url"}


@pytest.mark.parametrize(
    "url", ["nats", "nats:4222", "ws://n", "nats://n/path", "nats://n:x", "nats://n:1,nats://m:2 "]
)
def test_no_server(url: str) -> None:
    assert errors_of(nats(servers=[url])).keys() == {"spec.sink.nats.servers[0]"}


@pytest.mark.parametrize("url", ["nats://n,m:4222", "nats://n:1,nats://m:2", "nats://n:1, m:2", "n,m"])
def test_several_servers_are_a_list(url: str) -> None:
    (text,) = errors_of(nats(servers=[url])).values()
    assert "each as an item of its own" in text


@pytest.mark.parametrize("stream", ["", "a.b", "a b", "a*", "a>", "a/b"])
def test_no_stream(stream: str) -> None:
    assert errors_of(nats(jetStream={"stream": stream})).keys() == {"spec.sink.nats.jetStream.stream"}


@pytest.mark.parametrize(
    "document",
    [
        nats(servers=["nats://me:hunter2@n:4222"]),
        nats(servers=["nats://hunter2@n"]),
        nats(servers=["hunter2@n"]),
        http(url="https://me:hunter2@h/"),
        http(url="https://h/ ?token=hunter2"),
        http(headers=[{"name": "Authorization", "value": "hunter2\n"}]),
        nats(auth={"token": "hunter2"}),
        manifest(database={"secretRef": {"name": "postgresql://me:hunter2@h/d"}}),
    ],
)
def test_no_message_repeats_a_password(document: dict[str, Any]) -> None:
    with pytest.raises(SpecInvalid) as refused:
        parse_manifest(document)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "name",
    ["Host", "content-length", "Content-Type", "connection", "Transfer-Encoding", "webhook-id", "ce-id", "traceparent"],
)
def test_no_header_for_a_manifest_to_set(name: str) -> None:
    with pytest.raises(ValueError, match="ours to set"):
        checks.header_name(name)


def test_a_header_without_a_value() -> None:
    """Else the request would go without it."""
    for field in ("value", "valueFrom"):
        document = http(headers=[{"name": "A", "value": "a"}, {"name": "X", field: None}])
        assert errors_of(document) == {
            "spec.sink.http.headers[1]": "must have exactly one of value and valueFrom",
            f"spec.sink.http.headers[1].{field}": "is empty (null): give it a value, or remove the field",
        }


def test_a_routed_column_may_have_nearly_any_name() -> None:
    names = ("a b", "*", ">", "a.b", "..", "$", "ü ☃", "  ")
    found = parse_manifest(nats(subject=".".join(f"{{column:{name}}}" for name in names)))
    assert found.routing_columns == names


def test_all_errors_at_once() -> None:
    document = manifest(
        tabel={},
        where=[{"column": "a", "operator": "In"}],
        actions=["insert", "truncat"],
        columns=["*", "a"],
        triggerColumns=["a"],
        sink={"nats": {"servers": ["ws://n"], "subject": "a..b", "tls": {"mode": "x"}}, **HTTP},
        delivery={"ordering": "perkey", "backoff": {"initialMilliseconds": 5000, "maxSeconds": 1}},
    )
    document["metadata"] = {"name": "Orders", "namespace": "a.b", "generation": "1"}
    del document["spec"]["table"]
    del document["spec"]["database"]
    document["apiVersion"] = "tablewatcher.io/v1"
    assert list(errors_of(document)) == [
        "apiVersion",
        "metadata.generation",
        "metadata.name",
        "metadata.namespace",
        "spec.actions[1]",
        "spec.columns",
        "spec.database.secretRef",
        "spec.delivery.backoff",
        "spec.delivery.ordering",
        "spec.sink",
        "spec.sink.nats.servers[0]",
        "spec.sink.nats.subject",
        "spec.sink.nats.tls.mode",
        "spec.tabel",
        "spec.table",
        "spec.triggerColumns",
        "spec.where[0].values",
    ]


def test_a_field_outside_spec() -> None:
    assert errors_of({**MANIFEST, "table": {}}) == {"table": "unknown field: did you mean spec.table?"}


@pytest.mark.parametrize("document", [None, [], "text", 3, {}, {"spec": []}])
def test_no_document(document: object) -> None:
    assert errors_of(document)


def text_of(*documents: object) -> str:
    return yaml.safe_dump_all(documents)


def load_manifests(text: str, origin: str) -> list[WatcherSpec]:
    """All watchers of a text without a mistake."""
    found, fault = read_manifests(text, origin)
    if fault is not None:
        raise fault
    return found


def named(name: str, **fields: Any) -> dict[str, Any]:
    return {**manifest(**fields), "metadata": {"name": name}}


def test_other_documents_are_left_alone() -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "shop-app"}}
    listed = {"apiVersion": "v1", "kind": "List", "items": [secret, named("b")]}
    text = text_of(secret, named("a"), None, {"replicas": 3}, listed)
    assert [spec.name for spec in load_manifests(text, "all.yaml")] == ["a", "b"]
    assert load_manifests("", "empty.yaml") == []


@pytest.mark.parametrize(
    "document",
    [
        {**MANIFEST, "kind": "TableWacher"},
        {**MANIFEST, "apiVersion": "tablewatcher.dev/v1"},
        {name: MANIFEST[name] for name in ("metadata", "spec")},
        ["a"],
    ],
)
def test_a_document_meant_to_be_a_watcher_is_not_passed_over(document: object) -> None:
    with pytest.raises(SpecInvalid, match=r"f\.yaml"):
        load_manifests(text_of(document), "f.yaml")


def test_errors_of_all_documents() -> None:
    with pytest.raises(SpecInvalid) as refused:
        load_manifests(text_of(named("a", columns=1), named("b"), named("c", suspend=1)), "f.yaml")
    assert refused.value.name == "f.yaml"
    assert [error.path for error in refused.value.errors] == ["default/a: spec.columns", "default/c: spec.suspend"]
    good, _ = read_manifests(text_of(named("a", columns=1), named("b")), "f.yaml")
    assert [spec.name for spec in good] == ["b"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: b\nc: [1,\n", "line 3, column 1"),
        ("a: 1\nb: 2\na: 3\n", "line 3, column 1"),
        ("a:\n\t- b\n", "line 2, column 1"),
        ("a: !!python/object:os.system x\n", "line 1, column 4"),
        ("a: \0", "(document)"),
        ("a: 2026-13-45\n", "(document)"),
    ],
)
def test_no_yaml(text: str, place: str) -> None:
    with pytest.raises(SpecInvalid) as refused:
        load_manifests(text, "f.yaml")
    assert [error.path for error in refused.value.errors] == [place]
    assert refused.value.name == "f.yaml"


def test_a_merge_key_may_be_overridden() -> None:
    text = "base: &b {name: x}\nother: {<<: *b, name: y}\n"
    assert load_manifests(text, "f.yaml") == []


def test_a_document_that_grows_by_aliases_is_refused_in_time() -> None:
    levels = "\n".join(f"  l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 12))
    text = f"kind: TableWatcher\nspec:\n  l0: &l0 [x, x]\n{levels}\n"
    with pytest.raises(SpecInvalid) as refused:
        load_manifests(text, "f.yaml")
    assert FieldError("spec", TOO_LARGE) in refused.value.errors


@pytest.mark.parametrize("place", ["apiVersion: {}", "kind: TableWatcher\nmetadata: {{namespace: {}}}"])
def test_what_aliases_make_endless_is_not_written_out(place: str) -> None:
    levels = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 12))
    with pytest.raises(SpecInvalid):
        load_manifests(f"l0: &l0 [x, x]\n{levels}\nspec: {{}}\n{place.format('*l11')}\n", "f.yaml")


# PostgreSQL takes any text as a name but one with NUL; a Secret's names and keys are plain.
identifiers = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1).filter(
    lambda text: len(text.encode()) <= 63
)
# Literals of the source are tried, too.
schemas = identifiers.filter(lambda name: name not in ("tablewatcher", "pg_catalog", "information_schema"))
columns = st.lists(identifiers.filter(lambda name: name != "*"), unique=True, max_size=5).map(tuple)
names = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
secret_keys = st.from_regex(r"[-._a-zA-Z0-9]{1,40}", fullmatch=True)
WORDS = ("uri", "host", "port", "username", "password", "database")
places = st.builds(SecretKey, names, secret_keys)
cas = st.none() | st.builds(CaRef, st.sampled_from(SourceKind), names, secret_keys)
databases = st.builds(
    Database,
    secret_name=names,
    keys=st.dictionaries(st.sampled_from(WORDS), secret_keys).map(
        lambda found: tuple((word, found[word]) for word in WORDS if word in found)
    ),
    admin_secret_name=st.none() | names,
    tls=st.none()
    | st.builds(
        DatabaseTls,
        mode=st.sampled_from([None, DatabaseTlsMode.VERIFY_CA, DatabaseTlsMode.VERIFY_FULL]),
        ca=cas,
        client_cert=st.none() | names,
    )
    | st.builds(DatabaseTls, mode=st.sampled_from(DatabaseTlsMode)),
    allow_all_tables_publication=st.booleans(),
)
signing_in = st.one_of(
    st.builds(NatsAuth, creds=places),
    st.builds(NatsAuth, nkey=places),
    st.builds(NatsAuth, token=places),
    st.builds(NatsAuth, user_password=names),
)
nats_servers = st.lists(names.map(lambda host: f"nats://{host}:4222"), min_size=1, max_size=16, unique=True).map(tuple)
subject_words = st.sampled_from(["shop", "{schema}", "{table}", "{action}", "{key}", "a-{key}", "{column:a}", "ü"])
subjects = st.lists(subject_words, min_size=1, max_size=6)
nats_sinks = st.builds(
    NatsSink,
    servers=nats_servers,
    subject=subjects.map(".".join),
    stream=st.from_regex(r"[A-Z_]{1,20}", fullmatch=True),
    create=st.none() | st.builds(CreateStream, st.none() | st.integers(1, 2**60), st.none() | st.integers(1, 5)),
    auth=st.none() | signing_in,
    tls=st.none() | st.builds(Tls, cas, st.none() | names, st.booleans()),
) | st.builds(NatsSink, servers=nats_servers, subject=subjects.map(".".join), jet_stream=st.booleans())
header_names = st.from_regex(r"X-[A-Za-z0-9_-]{1,20}", fullmatch=True)
header_values = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
http_sinks = st.builds(
    HttpSink,
    url=names.map(lambda host: f"https://{host}.example.com/hook?a=b"),
    timeout_seconds=st.integers(1, 300),
    signing=st.lists(places, max_size=8, unique=True).map(tuple),
    headers=st.lists(
        st.builds(Header, header_names, value=header_values) | st.builds(Header, header_names, secret=places),
        max_size=5,
        unique_by=lambda header: header.name.lower(),
    ).map(tuple),
    batch=st.builds(Batch, st.just(1), st.integers(1024, 67_108_864), st.integers(0, 60_000)),
    concurrency=st.integers(1, 1024),
    tls=st.none() | st.builds(Tls, cas, st.none() | names),
) | st.builds(HttpSink, url=st.just(""), url_secret=places)
value_texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=20)
conditions = st.one_of(
    st.builds(
        Condition,
        identifiers,
        st.sampled_from([Operator.IN, Operator.NOT_IN]),
        st.lists(value_texts, min_size=1, max_size=4).map(tuple),
    ),
    st.builds(
        Condition, identifiers, st.sampled_from([Operator.GREATER_THAN, Operator.LESS_THAN]), st.tuples(value_texts)
    ),
    st.builds(Condition, identifiers, st.sampled_from([Operator.IS_NULL, Operator.IS_NOT_NULL])),
)


@st.composite
def specs(draw: st.DrawFn) -> WatcherSpec:
    trigger_columns = draw(columns)
    actions = draw(st.frozensets(st.sampled_from(Action), min_size=1))
    longest = draw(st.integers(1, 86_400))
    return WatcherSpec(
        namespace=draw(names),
        name=draw(names),
        database=draw(databases),
        table=Table(draw(schemas), draw(identifiers)),
        actions=actions | {Action.UPDATE} if trigger_columns else actions,
        sink=draw(nats_sinks | http_sinks),
        columns=draw(st.just(WHOLE_ROW) | columns),
        trigger_columns=trigger_columns,
        where=draw(st.lists(conditions, max_size=4).map(tuple)),
        include_before=draw(st.booleans()),
        capture=draw(
            st.builds(Capture, st.sampled_from(Granularity), st.integers(1024, 8_388_608), allow_skip=st.booleans())
        ),
        format=draw(st.sampled_from(Format)),
        delivery=DeliveryPolicy(
            ordering=draw(st.sampled_from(Ordering)),
            backoff=Backoff(draw(st.integers(1, min(60_000, longest * 1000))), longest),
            max_attempts=draw(st.integers(1, 1000)),
            max_age_seconds=draw(st.integers(1, 31_536_000)),
            on_exhausted=draw(st.sampled_from(OnExhausted)),
            retention_seconds=draw(st.integers(0, 31_536_000)),
            overflow_bytes=draw(st.integers(1_048_576, 2**50)),
        ),
        suspend=draw(st.booleans()),
        deletion_policy=draw(st.sampled_from(DeletionPolicy)),
        management=draw(st.sampled_from(Management)),
        generation=draw(st.integers(0, 2**40)),
    )


@given(specs())
def test_there_and_back(spec: WatcherSpec) -> None:
    written = to_manifest(spec)
    assert parse_manifest(written) == spec
    assert to_manifest(parse_manifest(written)) == written


@given(specs())
def test_there_and_back_as_text(spec: WatcherSpec) -> None:
    assert load_manifests(yaml.safe_dump(to_manifest(spec)), "f.yaml") == [spec]


@given(specs(), st.booleans())
def test_there_and_back_as_json(spec: WatcherSpec, ascii_only: bool) -> None:
    # As it stands in a ConfigMap.
    assert load_manifests(json.dumps(to_manifest(spec), ensure_ascii=ascii_only), "orders") == [spec]


@pytest.mark.parametrize("field", ["name", "namespace"])
def test_a_name_that_yaml_takes_for_a_number(field: str) -> None:
    document = copy.deepcopy(MANIFEST)
    document["metadata"][field] = 2024
    assert errors_of(document) == {f"metadata.{field}": "must be text: put it in quotes"}


YAML_SLIPS = {
    "columns: [*]": "what begins with * is a reference to an anchor (&) above it: put it in quotes, as in",
    "columns: [*id]": "what begins with * is a reference to an anchor (&) above it: put it in quotes, as in",
    "name: {{ .Values.name }}": "the line has {{, as templates do: render the template first",
    "table:{schema: public, name: orders}": "put a space behind the colon of each field",
    "subject: shop: {table}": "put text with a colon in quotes",
    "a: 1\nb: 2\na: 3": "line 3, column 1: field 'a' is there twice: remove one",
    "kind: TableWatcher\nspec: {}\nkind: TableWatcher": (
        "line 3, column 1: field 'kind' is there twice: remove one, or put a line with --- before it where another"
        " document begins"
    ),
}


@pytest.mark.parametrize("text", YAML_SLIPS)
def test_what_is_no_yaml_says_what_to_do(text: str) -> None:
    with pytest.raises(SpecInvalid) as refused:
        load_manifests(text, "f.yaml")
    (error,) = refused.value.errors
    assert YAML_SLIPS[text] in str(error)


def test_a_misspelt_kind_is_not_passed_over() -> None:
    """Also where the group is misspelt, by which it would be known."""
    with pytest.raises(SpecInvalid) as refused:
        load_manifests("apiVersion: tablewatchers.io/v1\nkind: tableWatcher\n", "f.yaml")
    assert {"apiVersion", "kind"} <= {error.path for error in refused.value.errors}


def test_json_with_a_field_twice() -> None:
    with pytest.raises(SpecInvalid, match=r"line 1, column 9: .*'a' is there twice"):
        load_manifests('{"a":1, "a":2}', "f.json")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
paths = st.sampled_from([*MANIFEST["spec"], "columns", "delivery", "listener", "format"])


@given(paths, json_values)
def test_anything_else_is_an_error_of_the_manifest(field: str, value: object) -> None:
    try:
        parse_manifest(manifest(**{field: value}))
    except SpecInvalid as refused:
        paths_and_messages = [(error.path[:4], bool(error.message)) for error in refused.errors]
    else:
        paths_and_messages = [("spec", True)]
    assert set(paths_and_messages) == {("spec", True)}
