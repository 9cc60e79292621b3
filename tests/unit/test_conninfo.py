"""From the Secrets that operators of Postgres write to a connection string."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from tablewatcher.errors import Reason, SecretError
from tablewatcher.postgres.connection.conninfo import access, conninfo
from tablewatcher.spec.model import Database

from ..integration.capturing import spec_of
from ..integration.sinks.events import MemorySecrets

CNPG = {
    "dbname": "app",
    "fqdn-uri": "postgresql://app:pw@shop-rw.shop.svc.cluster.local:5432/app",
    "host": "shop-rw",
    "password": "pw",
    "pgpass": "shop-rw:5432:app:app:pw\n",
    "port": "5432",
    "uri": "postgresql://app:pw@shop-rw.shop:5432/app",
    "user": "app",
    "username": "app",
}
CRUNCHY = {
    "dbname": "app",
    "host": "shop-primary.shop.svc",
    "password": "pw",
    "pgbouncer-uri": "postgresql://app:pw@shop-pgbouncer.shop.svc:5432/app",
    "port": "5432",
    "uri": "postgresql://app:pw@shop-primary.shop.svc:5432/app",
    "user": "app",
}
ZALANDO = {"host": "shop", "username": "app", "password": "pw", "database": "app"}


def parts(values: dict[str, str], **keys: str) -> dict[str, str]:
    found = conninfo(Database("s", tuple(keys.items())), MemorySecrets({"s": values}), namespace="shop")
    return {key: str(value) for key, value in conninfo_to_dict(found).items()}


@pytest.mark.parametrize(
    ("values", "host"),
    [
        (CNPG, "shop-rw.shop.svc.cluster.local"),
        ({key: text for key, text in CNPG.items() if key != "fqdn-uri"}, "shop-rw.shop"),
        ({key: text for key, text in CNPG.items() if not key.endswith("uri")}, "shop-rw.shop.svc"),
        (CRUNCHY, "shop-primary.shop.svc"),
        (ZALANDO, "shop.shop.svc"),
        ({**ZALANDO, "host": "10.0.0.1"}, "10.0.0.1"),
        ({**ZALANDO, "host": "fd00::1"}, "fd00::1"),
        ({**ZALANDO, "host": "localhost"}, "localhost"),
        ({**ZALANDO, "host": "a,b.example"}, "a.shop.svc,b.example"),
        ({key: f"{text}\n" for key, text in ZALANDO.items()}, "shop.shop.svc"),
        ({"uri": "postgres://app:pw@shop:5432/app\r\n"}, "shop.shop.svc"),
    ],
)
def test_the_usual_secrets(values: dict[str, str], host: str) -> None:
    assert parts(values) == {"host": host, "port": "5432", "user": "app", "password": "pw", "dbname": "app"}


PASSWORD = st.text(st.characters(exclude_characters="\x00\r\n", exclude_categories=["Cs"]), min_size=1)


@given(password=PASSWORD)
def test_any_password(password: str) -> None:
    assert parts({**ZALANDO, "password": password})["password"] == password
    uri = f"postgresql://app:{quote(password, safe='')}@h.example/app"
    assert parts({"uri": uri})["password"] == password


@pytest.mark.parametrize(
    "password", ["p'w", "p\\w", " lead", "trail ", "a=b c", "host=evil", "p@ss/w:rd?#%", "sslmode=disable"]
)
def test_awkward_passwords(password: str) -> None:
    assert parts({**ZALANDO, "password": password}) == {**parts(ZALANDO), "password": password}


def test_keys_by_other_names() -> None:
    values = {"H": "db.example", "U": "me", "P": "x", "uri": "postgresql://wrong@wrong/wrong"}
    assert parts(values, host="H", username="U", password="P") == {
        "host": "db.example",
        "port": "5432",
        "user": "me",
        "password": "x",
    }
    assert parts({"dsn": "postgresql://u@h.example/d"}, uri="dsn")["host"] == "h.example"


BAD = [
    ({}, {}, "none"),
    ({"username": "u", "password": "hunter2"}, {}, "'host'"),
    ({"host": "h", "password": "hunter2"}, {}, "'username'"),
    ({"uri": "mysql://u:hunter2@h/d"}, {}, "postgresql://"),
    ({"uri": "postgresql://u:hunter2%zz@h/d"}, {}, "percent-encode"),
    ({"uri": "postgresql://u:hunter2@h/d?schema=public"}, {}, "leave out parameters that libpq does not know"),
    ({"uri": "postgresql://u:hunter2@h/d?sslkeylogfile=/tmp/keys"}, {}, "sslkeylogfile"),
    ({**ZALANDO, "password": "hunter2"}, {"password": "pw"}, "spec.database.keys.password"),
    ({"uri": ""}, {"uri": "uri"}, "spec.database.keys.uri"),
    ({**ZALANDO, "port": "hunter2"}, {}, "key 'port' of Secret 's'"),
    ({**ZALANDO, "port": "70000"}, {}, "1 to 65535"),
    ({**ZALANDO, "port": "0"}, {}, "1 to 65535"),
    ({**ZALANDO, "host": "a,b", "port": "5432,hunter2"}, {}, "key 'port' of Secret 's'"),
    (
        {"H": "h", "U": "u", "P": "٣", "hunter2": ""},
        {"host": "H", "username": "U", "port": "P"},
        "key 'P' of Secret 's'",
    ),
    ({"uri": '"postgresql://u:hunter2@h/d"'}, {}, "without quotes"),
    ({"uri": "", "password": "hunter2"}, {}, "password, uri (empty)"),
    ({"uri": "postgresql://u:p@hunter2@h/d"}, {}, "percent-encode the special characters"),
    ({"uri": "postgresql://u:hunter2/x@h/d"}, {}, "percent-encode the special characters"),
    ({"uri": "postgresql://u:hunter2@h:abc/d"}, {}, "the port in key 'uri' of Secret 's'"),
    ({"dsn": "postgresql://u:hunter2@h:1,i:x/d"}, {"uri": "dsn"}, "the port in key 'dsn' of Secret 's'"),
]


def test_ports_as_libpq_takes_them() -> None:
    assert parts({**ZALANDO, "host": "a.x,b.x", "port": "5432,65535"})["port"] == "5432,65535"
    assert parts({**ZALANDO, "port": " 05432 "})["port"].strip() == "05432"
    assert parts({"uri": "postgresql://u@a.x:1,b.x/d"})["port"] == "1,"


# servicefile is not known to every libpq.
FILES = ("passfile", "service", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslcrldir")


@pytest.mark.parametrize("parameter", FILES)
@pytest.mark.parametrize("secret", ["s", "admin"])
def test_a_secret_has_no_files_of_the_operators_read(parameter: str, secret: str) -> None:
    """They are of another owner than the Secret: elsewhere, whoever writes it has its files there too."""
    plain = {"uri": "postgresql://u:hunter2@h.example/d"}
    uri = f"{plain['uri']}?{parameter}=/var/run/secrets/theirs"
    kept = MemorySecrets({"s": plain, "admin": plain, secret: {"uri": uri}})
    spec = replace(spec_of(), database=Database("s", (), "admin"))
    with pytest.raises(SecretError) as refused:
        access(spec, kept, reads_files=False)
    assert refused.value.reason is Reason.SECRET_KEY_MISSING
    assert f"the uri in Secret {secret!r} has the parameter {parameter}, " in refused.value.message
    assert "hunter2" not in refused.value.message
    assert access(spec, kept)


def test_the_systems_authorities_are_nobodys() -> None:
    for named in ("system", "/etc/ssl/certs/ca-certificates.crt", ""):
        kept = MemorySecrets({"s": {"uri": f"postgresql://u@h.example/d?sslmode=verify-full&sslrootcert={named}"}})
        assert access(replace(spec_of(), database=Database("s")), kept, reads_files=False)


@pytest.mark.parametrize(("values", "keys", "words"), BAD)
def test_what_is_missing_is_named_and_no_value_is(values: dict[str, str], keys: dict[str, str], words: str) -> None:
    with pytest.raises(SecretError) as refused:
        parts(values, **keys)
    assert refused.value.reason is Reason.SECRET_KEY_MISSING
    assert words in refused.value.message
    assert "hunter2" not in refused.value.message
    assert refused.value.__cause__ is None
