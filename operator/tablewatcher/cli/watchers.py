"""What the commands do with each watcher of the manifests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import FieldError, Reason, SecretError, SpecInvalid, TableWatcherError
from ..listener.files import manifest_files
from ..listener.load import load
from ..listener.secrets import DirectorySecrets
from ..naming import WatcherNames, watcher_names
from ..postgres.connection.conninfo import Access, access, conninfo
from ..postgres.connection.dsn import checked
from ..postgres.connection.pooling import POOLED
from ..postgres.install import apply as postgres
from ..postgres.install.script import Section, script
from ..postgres.install.survey import survey
from ..sinks.address import AddressPolicy
from ..spec.documents import API_VERSION, KIND
from ..spec.model import Management, WatcherSpec
from .checks import namesake_note
from .progress import progress
from .reaching import Reaching
from .removed import removal_json, removal_text
from .results import Result
from .steps import number_of, steps_json

_NO_WAY_IN = frozenset({Reason.DATABASE_UNREACHABLE, Reason.TLS_FAILED, Reason.AUTHENTICATION_FAILED})
_SQL_ASKS = "`sql` asks the database too: the script depends on the table's columns and key, and on what is there"


@dataclass(frozen=True, slots=True)
class Scope:
    """Which watchers, in which database, as whom; adopt: the home that watchers made elsewhere may move to.

    addresses: where HTTP sinks may be. reaching: what has been found out about the databases.
    """

    files: tuple[Path, ...]
    dsn: str | None = field(repr=False)
    secrets_dir: Path | None
    instance: str
    adopt: str | None = None
    addresses: AddressPolicy = field(default_factory=AddressPolicy)
    reaching: Reaching = field(default_factory=Reaching, repr=False, compare=False)

    @property
    def secrets(self) -> DirectorySecrets:
        """The Secrets of `--secrets-dir`."""
        return DirectorySecrets(self.secrets_dir, database_too=not self.dsn)

    def access(self, spec: WatcherSpec) -> Access:
        """The watcher's database, for changes. Raises SecretError, or SpecInvalid for a DSN that cannot be read."""
        return access(spec, self.secrets, self.dsn)

    def listener_conninfo(self, spec: WatcherSpec) -> str:
        """The same, as the listener connects."""
        return conninfo(spec.database, self.secrets, namespace=spec.namespace, dsn=self.dsn)

    def lacks_admin(self, spec: WatcherSpec, error: TableWatcherError) -> bool:
        """Whether `access` may have failed for want of the admin's Secret alone, as it does in a listener's Pod."""
        return error.reason is Reason.SECRET_NOT_FOUND and spec.database.admin_secret_name is not None

    def conninfo_to_ask(self, spec: WatcherSpec) -> str:
        """To look at how the watcher stands, or to ask something of its listener: either role may. Raises as access."""
        try:
            return self.access(spec).conninfo
        except SecretError as error:
            if not self.lacks_admin(spec, error):
                raise
            return self.listener_conninfo(spec)

    def names(self, spec: WatcherSpec) -> WatcherNames:
        """The watcher's names under our instance."""
        return watcher_names(self.instance, spec.namespace, spec.name)


def of_manifests(scope: Scope) -> frozenset[str]:
    """The identities of all watchers that the manifests name, those with mistakes too."""
    specs, faults = loaded(scope.files, require_secret=False)
    names = [spec.qualified_name for spec in specs] + [fault.name for fault in faults]
    return frozenset(f"{scope.instance}/{name}" for name in names)


def validate(files: Sequence[Path]) -> list[Result]:
    """Every manifest's mistakes; nothing is connected to."""
    specs, faults = loaded(tuple(files), require_secret=False)
    good = [Result(spec.qualified_name, ok=True, text="valid") for spec in specs]
    return good + [Result.failed(fault.name, fault) for fault in faults]


async def apply(scope: Scope) -> list[Result]:
    """Installs or repairs every watcher; one that cannot be does not stop the others."""

    async def one(spec: WatcherSpec) -> Result:
        to, names = scope.access(spec), scope.names(spec)
        try:
            applied = await scope.reaching.patiently(
                to.conninfo,
                lambda: postgres.apply(to.conninfo, spec, names, adopt=scope.adopt, listener_role=to.listener_role),
            )
        except postgres.StepsMissing as error:
            result = Result.failed(spec.qualified_name, error)
            result.extra = steps_json(error.plan)
            return result
        changed = bool(applied.plan)
        text = f"applied, {number_of(applied.plan.steps)}" if changed else "in sync, nothing to do"
        if not applied.primary_key:
            text += f"; {no_key(spec)}"
        notes = [*([POOLED] if applied.pooled else []), *applied.notes]
        if changed and applied.namesakes:
            # It may be the one that was meant.
            notes.append(f"{namesake_note(applied.namesakes, names)}, after `tablewatcher destroy` of this one")
        text = "; ".join([text, *notes])
        extra = {"changed": changed, "primaryKey": list(applied.primary_key), "encrypted": applied.encrypted}
        if notes:
            extra["notes"] = notes
        extra |= steps_json(applied.plan)
        return Result(spec.qualified_name, ok=True, text=text, extra=extra)

    return await each_watcher(scope, one)


async def sql(scope: Scope) -> tuple[str, list[Result]]:
    """What a DBA must run so that nobody else runs DDL, as a script, and what stands against it."""
    sections: list[Section] = []

    async def one(spec: WatcherSpec) -> Result:
        # The role that delivers gets its rights: it is not the one that runs the script.
        looked = replace(spec, management=Management.OBSERVE)
        to, names = scope.access(looked), scope.names(spec)
        try:
            found = await scope.reaching.patiently(
                to.conninfo, lambda: survey(to.conninfo, looked, names, adopt=scope.adopt)
            )
        except TableWatcherError as error:
            if error.reason in _NO_WAY_IN:
                raise TableWatcherError(error.reason, f"{error.message}; {_SQL_ASKS}") from None
            raise
        if found.plan is None:
            return refused(spec.qualified_name, found.faults)
        sections.append(Section(spec.qualified_name, found.observed.server.database, found.plan))
        text = f"{number_of(found.plan.steps)} to run" if found.plan else "in sync, nothing to run"
        return Result(spec.qualified_name, ok=True, text=text, extra=steps_json(found.plan))

    results = await each_watcher(scope, one)
    return script(sections), results


async def destroy(scope: Scope) -> list[Result]:
    """Removes every watcher from the database."""

    async def one(spec: WatcherSpec) -> Result:
        to, names = scope.access(spec), scope.names(spec)
        done = await scope.reaching.patiently(to.conninfo, lambda: postgres.destroy(to.conninfo, spec, names))
        return Result(spec.qualified_name, ok=True, text=removal_text(done, names), extra=removal_json(done))

    return await each_watcher(scope, one)


def refused(name: str, faults: Sequence[TableWatcherError]) -> Result:
    """The result of several faults, the first to mend first."""
    result = Result.failed(name, faults[0])
    result.text = "\n".join([faults[0].message, *(f"{fault.reason}: {fault.message}" for fault in faults[1:])])
    result.extra["faults"] = [{"reason": str(each.reason), "message": each.message} for each in faults]
    return result


async def each_watcher(scope: Scope, one: Callable[[WatcherSpec], Awaitable[Result]]) -> list[Result]:
    """`one` of every watcher of the manifests: a fault of one does not stop the others."""
    specs, faults = loaded(scope.files, require_secret=scope.dsn is None)
    results, named = [], [(fault.name, fault) for fault in faults]
    if scope.dsn:
        try:
            checked(scope.dsn)
        except TableWatcherError as error:
            return [Result.failed(name, fault) for name, fault in (("connection", error), *named)]
    with progress(len(specs)) as begin:
        for spec in specs:
            begin(spec.qualified_name)
            try:
                results.append(await one(spec))
            except TableWatcherError as error:
                results.append(Result.failed(spec.qualified_name, error))
    return results + [Result.failed(name, fault) for name, fault in named]


def loaded(files: tuple[Path, ...], *, require_secret: bool) -> tuple[list[WatcherSpec], list[SpecInvalid]]:
    """The good watchers of the manifests, and what is wrong with the others, or that there are none."""
    found = load(files, require_secret=require_secret)
    specs, faults = list(found.specs.values()), list(found.faults)
    if not specs and not faults:
        looked = ", ".join(str(path) for path in manifest_files(files)) or "no .yaml, .yml or .json file"
        text = (
            f"no TableWatcher manifest found ({looked}): a document begins with apiVersion: {API_VERSION} and"
            f" kind: {KIND}"
        )
        nothing = FieldError("-f", text)
        faults = [SpecInvalid(", ".join(map(str, files)), (nothing,))]
    return specs, faults


def no_key(spec: WatcherSpec) -> str:
    """What is to be said of a table without a key."""
    return (
        f"{spec.table.schema}.{spec.table.name} has no immediate primary key: the whole row is the key,"
        " and order holds only between rows that are equal"
    )
