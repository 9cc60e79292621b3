"""`tablewatcher doctor`: everything about each watcher, line by line, with what to do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from ..errors import TableWatcherError
from ..postgres.connection.conninfo import Access
from ..postgres.connection.dsn import brings_tls
from ..postgres.connection.pooling import Pooling
from ..postgres.install.survey import way
from ..postgres.standing import standing, surroundings
from ..postgres.unattended import others
from ..spec.model import WatcherSpec
from .checks import (
    OTHERS,
    Check,
    Level,
    database_checks,
    namesake_note,
    pooler_check,
    sink_checks,
    standing_checks,
    surrounding_checks,
    unattended_check,
)
from .looking import look_at_database, look_at_sink
from .plain import plain
from .results import Result
from .watchers import Scope, each_watcher, of_manifests

_LOGIN = "listener's login"
_STYLES = {Level.OK: "green", Level.WARN: "bold yellow", Level.FAIL: "bold red"}


async def doctor(scope: Scope) -> list[Result]:
    """One result a watcher; not ok where a check failed."""
    known = of_manifests(scope)

    async def one(spec: WatcherSpec) -> Result:
        checks = [check async for check in _Visit(scope, spec, known).checks()]
        failed = [check for check in checks if check.level is Level.FAIL]
        extra = {"checks": [_as_json(check) for check in checks]}
        result = Result(spec.qualified_name, ok=not failed, text="", extra=extra)
        if failed:
            result.reason, result.text = failed[0].reason, f"{failed[0].name}: {failed[0].text}"
        return result

    return [_with_checks(result) for result in await each_watcher(scope, one)]


def _with_checks(result: Result) -> Result:
    """What could not even be begun has one line: a file that is wrong, or a connection string that cannot be read."""
    if "checks" not in result.extra:
        name = "connection" if result.name == "connection" else "manifest"
        result.extra["checks"] = [_as_json(Check(name, Level.FAIL, result.text, result.reason))]
    return result


@dataclass(frozen=True, slots=True)
class _Visit:
    """To one watcher. known: the identities of all that the manifests name."""

    scope: Scope
    spec: WatcherSpec
    known: frozenset[str]

    async def checks(self) -> AsyncIterator[Check]:
        scope, spec = self.scope, self.spec
        yield Check("manifest", Level.OK, "valid")
        try:
            to = scope.access(spec)
        except TableWatcherError as error:
            if scope.lacks_admin(spec, error):
                async for check in self._as_the_listener(error):
                    yield check
            else:
                yield Check.fault("secret", error)
        else:
            yield Check("secret", Level.OK, self._whose_connection())
            async for check in self._database(to):
                yield check
        sink = await look_at_sink(scope, spec)
        for check in sink_checks(sink.fault, sink.makes, sink.notes):
            yield check

    def _whose_connection(self) -> str:
        if not self.scope.dsn:
            return "read"
        if self.spec.database.tls is not None and brings_tls(self.scope.dsn):
            return "not needed: --dsn is given; it says itself how to encrypt, and spec.database.tls is left out"
        return "not needed: --dsn is given"

    async def _database(self, to: Access) -> AsyncIterator[Check]:
        scope, spec = self.scope, self.spec
        try:
            found = await look_at_database(scope, spec, to)
        except TableWatcherError as error:
            yield Check.fault("connection", error)
            return
        for check in database_checks(spec, found, scope.names(spec)):
            yield check
        pooling = found.pooling
        if to.listener_role is not None:
            check, pooling = await self._second_connection()
            yield check
        if found.observed.registered_table is None:
            async for check in self._others(to.conninfo, installed=False):
                yield check
            return
        async for check in self._standing(to.conninfo, pooling):
            yield check

    async def _as_the_listener(self, error: TableWatcherError) -> AsyncIterator[Check]:
        """What can be told without the admin's Secret, for which `error` was raised: how the watcher stands."""
        try:
            conninfo = self.scope.listener_conninfo(self.spec)
        except TableWatcherError as own:
            yield Check.fault("secret", own)
            return
        yield Check("secret", Level.WARN, f"{error}; what `apply` needs is not looked at, only how it stands")
        try:
            pooling = await way(conninfo)
        except TableWatcherError as refused:
            yield Check.fault(_LOGIN, refused)
            return
        yield _login(pooling)
        async for check in self._standing(conninfo, pooling):
            yield check

    async def _standing(self, conninfo: str, pooling: Pooling) -> AsyncIterator[Check]:
        names = self.scope.names(self.spec)
        try:
            stands = await standing(conninfo, names)
            around = await surroundings(conninfo, names) if stands is not None else None
        except TableWatcherError as error:
            yield Check.fault("ring", error)
            return
        if stands is not None and around is not None:
            for check in (*standing_checks(self.spec, stands), *surrounding_checks(around, pooling)):
                yield check
        async for check in self._others(conninfo):
            yield check

    async def _others(self, conninfo: str, *, installed: bool = True) -> AsyncIterator[Check]:
        names = self.scope.names(self.spec)
        try:
            found = await others(conninfo, self.spec.table, names, self.known)
        except TableWatcherError as error:
            yield Check.fault(OTHERS, error)
            return
        if found.namesakes and not installed:
            yield Check(OTHERS, Level.WARN, namesake_note(found.namesakes, names))
        for other in found.unattended:
            yield unattended_check(other)

    async def _second_connection(self) -> tuple[Check, Pooling]:
        """With an admin's Secret the listener logs in as another role, and maybe on another way."""
        try:
            found = await way(self.scope.listener_conninfo(self.spec))
        except TableWatcherError as error:
            return Check.fault(_LOGIN, error), Pooling.NONE
        return _login(found), found


def _login(found: Pooling) -> Check:
    return Check(_LOGIN, Level.OK, "works") if found is Pooling.NONE else pooler_check(_LOGIN, found)


def show_checks(results: Iterable[Result]) -> None:
    """Prints the lines of each watcher for people."""
    console = Console(highlight=False, soft_wrap=True)
    for result in results:
        console.print(Text(plain(result.name), "bold"))
        for check in result.extra["checks"]:
            level = Level(check["level"])
            first, *rest = plain(check["text"]).splitlines() or [""]
            console.print(Text.assemble("  ", (f"{level:<6}", _STYLES[level]), f"{check['check']:<17}{first}"))
            for line in rest:
                console.print(Text(" " * 25 + line.strip()))


def _as_json(check: Check) -> dict[str, str]:
    found = {"check": check.name, "level": str(check.level), "text": check.text}
    return found | ({"reason": str(check.reason)} if check.reason is not None else {})
