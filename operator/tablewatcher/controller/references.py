"""The Secrets and ConfigMaps that a watcher names, by who reads them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..spec.model import CaRef, DatabaseTls, NatsSink, Tls, WatcherSpec


@dataclass(frozen=True, slots=True)
class References:
    """Names, sorted, each once."""

    secrets: tuple[str, ...] = ()
    config_maps: tuple[str, ...] = ()

    def with_secrets(self, *names: str) -> References:
        """These and `names`."""
        return References(tuple(sorted({*self.secrets, *names})), self.config_maps)


def of_database(spec: WatcherSpec) -> References:
    """What the operator reads in order to connect: the admin's Secret too, where there is one."""
    database = spec.database
    admin = (database.admin_secret_name,) if database.admin_secret_name else ()
    return _sorted((database.secret_name, *admin, *_client(database.tls)), (database.tls,))


def of_listener(specs: Iterable[WatcherSpec]) -> References:
    """What a listener of `specs` has mounted. Never the admin's Secret: a listener runs no DDL."""
    secrets: set[str] = set()
    trusting: list[Tls | DatabaseTls | None] = []
    for spec in specs:
        secrets |= {spec.database.secret_name, *_client(spec.database.tls), *_client(spec.sink.tls), *_of_sink(spec)}
        trusting += [spec.database.tls, spec.sink.tls]
    return _sorted(secrets, trusting)


def _of_sink(spec: WatcherSpec) -> Iterator[str]:
    sink = spec.sink
    if isinstance(sink, NatsSink):
        if sink.auth is not None:
            yield from (key.name for key in (sink.auth.creds, sink.auth.nkey, sink.auth.token) if key is not None)
            yield from filter(None, (sink.auth.user_password,))
        return
    yield from (key.name for key in sink.signing)
    yield from (header.secret.name for header in sink.headers if header.secret is not None)
    if sink.url_secret is not None:
        yield sink.url_secret.name


def _client(tls: Tls | DatabaseTls | None) -> tuple[str, ...]:
    return (tls.client_cert,) if tls is not None and tls.client_cert else ()


def _sorted(secrets: Iterable[str], trusting: Iterable[Tls | DatabaseTls | None]) -> References:
    authorities: list[CaRef] = [tls.ca for tls in trusting if tls is not None and tls.ca is not None]
    maps = {ca.name for ca in authorities if ca.kind == "ConfigMap"}
    found = {*secrets, *(ca.name for ca in authorities if ca.kind != "ConfigMap")}
    return References(tuple(sorted(found)), tuple(sorted(maps)))
