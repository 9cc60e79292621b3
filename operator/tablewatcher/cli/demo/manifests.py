"""The demonstration's manifests: those of `examples/`, or somebody's own, with the servers just started for theirs."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from ...errors import FieldError, SpecInvalid
from ...spec.model import Database, Header, HttpSink, NatsSink, SecretKey, WatcherSpec
from ...spec.render import to_manifest
from ..watchers import loaded
from .playable import refuse_unplayable

PACKAGED = Path(__file__).with_name("examples")
SCHEMA_FILE = "orders.sql"
# For a sink that does not sign: our endpoint takes nothing else.
_SIGNING = SecretKey("demo", "whsec")


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the servers are, and the secret that the HTTP endpoint knows."""

    dsn: str
    nats: str
    http: str
    secret: str


def new_signing_secret() -> str:
    """A signing secret as Standard Webhooks writes one."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()


def chosen(sources: Sequence[Path]) -> Sequence[WatcherSpec]:
    """The watchers to play, of `sources` or those that come along. Raises SpecInvalid for the first that cannot be."""
    specs, faults = loaded(tuple(sources) or (PACKAGED,), require_secret=True)
    for fault in faults:
        raise fault
    refuse_unplayable(specs)
    return specs


def place(specs: Iterable[WatcherSpec], directory: Path, addresses: Addresses) -> tuple[Path, Path]:
    """Writes manifests and Secrets below `directory`; gives their folders."""
    manifests, folder = directory / "manifests", directory / "secrets"
    manifests.mkdir()
    folder.mkdir(mode=0o700)
    for spec in specs:
        _write(folder, spec.database.secret_name, "uri", addresses.dsn)
        played = replace(spec, database=Database(spec.database.secret_name), sink=_addressed(spec.sink, addresses))
        if isinstance(played.sink, HttpSink):
            for reference in played.sink.signing:
                _write(folder, reference.name, reference.key, addresses.secret)
        text = yaml.safe_dump(to_manifest(played), sort_keys=False)
        (manifests / f"{spec.namespace}.{spec.name}.yaml").write_text(text, encoding="utf-8")
    return manifests, folder


def table_sql(sources: Sequence[Path]) -> str:
    """The SQL that makes the table. Raises SpecInvalid where a source has one that cannot be read."""
    own = [source / SCHEMA_FILE for source in sources if (source / SCHEMA_FILE).is_file()]
    try:
        return (own[0] if own else PACKAGED / SCHEMA_FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text; save it as UTF-8"
        raise SpecInvalid("demo", (FieldError("-f", f"{own[0]} cannot be read: {why}"),)) from None


def _addressed(sink: NatsSink | HttpSink, addresses: Addresses) -> NatsSink | HttpSink:
    """The sink at our server, which wants no login and no TLS; what a header gets from a Secret nobody reads there."""
    if isinstance(sink, NatsSink):
        return replace(sink, servers=(addresses.nats,), auth=None, tls=None)
    return replace(
        sink,
        url=addresses.http,
        url_secret=None,
        headers=tuple(Header(each.name, each.value or "demo") for each in sink.headers),
        signing=sink.signing or (_SIGNING,),
        tls=None,
    )


def _write(folder: Path, secret: str, key: str, value: str) -> None:
    (folder / secret).mkdir(exist_ok=True)
    (folder / secret / key).write_text(value, encoding="utf-8")
