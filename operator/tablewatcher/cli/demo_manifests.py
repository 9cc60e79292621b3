"""The demonstration's manifests: those of `examples/`, with the addresses of the servers just started."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..errors import FieldError, SpecInvalid
from ..listener.files import manifest_files
from ..listener.load import load
from ..spec.parse import KIND

PACKAGED = Path(__file__).with_name("examples")
SCHEMA_FILE = "orders.sql"


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


def check(sources: Sequence[Path]) -> None:
    """Raises SpecInvalid for the first manifest of `sources` that has a mistake."""
    for fault in load(sources, require_secret=True).faults:
        raise fault


def place(sources: Sequence[Path], directory: Path, addresses: Addresses) -> tuple[Path, Path, str]:
    """Writes manifests and Secrets below `directory`: their folders, and the SQL that makes the tables.

    Raises SpecInvalid where a source cannot be read.
    """
    manifests, folder = directory / "manifests", directory / "secrets"
    manifests.mkdir()
    folder.mkdir(mode=0o700)
    try:
        for source in manifest_files(sources or (PACKAGED,)):
            documents = [
                _addressed(found, addresses, folder) for found in yaml.safe_load_all(source.read_text(encoding="utf-8"))
            ]
            (manifests / source.name).write_text(yaml.safe_dump_all(documents, sort_keys=False), encoding="utf-8")
        return manifests, folder, _schema(sources)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = error.strerror if isinstance(error, OSError) else "no manifest of a watcher"
        fault = FieldError("-f", f"cannot be used ({why}): give a directory such as examples/, or leave -f out")
        raise SpecInvalid("demo", (fault,)) from None


def _schema(sources: Sequence[Path]) -> str:
    own = [source / SCHEMA_FILE for source in sources if (source / SCHEMA_FILE).is_file()]
    return (own[0] if own else PACKAGED / SCHEMA_FILE).read_text(encoding="utf-8")


def _addressed(document: object, addresses: Addresses, folder: Path) -> object:
    """`document` with our servers in place of its own; its Secrets are written as it names them."""
    if not isinstance(document, dict) or document.get("kind") != KIND:
        return document
    spec: dict[str, Any] = document["spec"]
    _write(folder, spec["database"]["secretRef"]["name"], "uri", addresses.dsn)
    nats, http = spec["sink"].get("nats"), spec["sink"].get("http")
    if nats:
        nats["servers"] = [addresses.nats]
    if http:
        http["url"] = addresses.http
        for reference in http.get("signing", {}).get("secretRefs", ()):
            _write(folder, reference["name"], reference["key"], addresses.secret)
    return document


def _write(folder: Path, secret: str, key: str, value: str) -> None:
    (folder / secret).mkdir(exist_ok=True)
    (folder / secret / key).write_text(value, encoding="utf-8")
