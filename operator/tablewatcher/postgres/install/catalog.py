"""What is there: the server, the table, and what of ours is installed. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ...errors import DatabaseError, Reason
from ...naming import WatcherNames
from ...spec.model import Table
from ..connection.session import Connection
from ..ring.home import Home
from ..shape import Column, TableShape
from ..shared import SHARED_FUNCTIONS, SHARED_TABLES
from ..sql import QUERIES
from .grants import Grantee, Right, in_place_of, needed, to_capture
from .similar import as_meant, similar

# The migration that gave watchers a home.
HOME_MIGRATION = 4


@dataclass(frozen=True, slots=True)
class Server:
    """The server and what our role may do there. longest_name: bytes that a name may have; what is longer is cut.

    `publications`: those FOR ALL TABLES. subscriptions: those that write to tables in schema tablewatcher.
    closed_languages: those of our functions that our role may not write any in.
    """

    version: int
    in_recovery: bool
    database: str
    encoding: str
    longest_name: int
    role: str
    system_identifier: str
    may_create_schema: bool
    may_use_schema: bool | None
    may_see_schema: bool | None
    publications: tuple[str, ...]
    subscriptions: tuple[str, ...] = ()
    closed_languages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TableFacts:
    """The watched table as it is. `kind` is pg_class.relkind.

    closed_partitions: partitions, qualified and quoted, that we lack the TRIGGER privilege on. temporary: of a session.
    owners: its own, and those of partitions that have partitions. may_alter: whether our role may act for its own.
    """

    shape: TableShape
    kind: str
    may_trigger: bool
    may_see: bool
    owners: tuple[str, ...]
    closed_partitions: tuple[str, ...] = ()
    temporary: bool = False
    may_alter: bool = False

    @property
    def is_table(self) -> bool:
        """Whether it is one, with partitions or without; else it has but its name."""
        return self.kind in ("r", "p")


@dataclass(frozen=True, slots=True)
class Function:
    """A capture function as it is; `comment` names the watcher's identity.

    owner: the role that made it; may_change: whether ours may act for that one. owners_may_call: whether the table's
    owners may call it, which Postgres asks for when they make or attach a partition. all_may_call: whether everybody
    may, as after a restore without privileges.
    """

    oid: int
    source: str
    security_definer: bool
    settings: tuple[str, ...]
    comment: str | None
    owner: str
    may_change: bool
    owners_may_call: bool
    all_may_call: bool


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger that calls our capture function; `type` and `enabled` as pg_trigger has them.

    touched: it fires, and its row was changed since it was made, so that it may have been turned off in between.
    """

    name: str
    table_oid: int
    type: int
    enabled: str
    touched: bool = False
    new_table: str | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything `plan` compares with what is desired.

    registered_table: the oid of the table that the watcher was last applied to; registered_name: as the manifest had it
    then, quoted, None where an earlier version wrote it; others: more watchers are registered; namesakes: instances
    that are not ours and have one of this name; renamed: what the table is called, where none has the name wanted.
    here: this database (None on a standby); recorded: the one the watcher was made in. installed_source: digest of the
    source that the function was last written with. grantee: the role that delivers, where it is not ours. capturers:
    ours, and the function's owner, with what each holds of the rights to capture. not_ours: which of `objects` belong
    to roles that ours may not act for; shared_owners: such roles that own what all watchers share.
    refused_conditions: values of `where` that cannot be compared, and why. ids: how far apart, and how many a session
    draws ahead.
    """

    server: Server
    table: TableFacts | None
    similar_tables: tuple[Table, ...] = ()
    renamed: str = ""
    schema_exists: bool = False
    migrations: tuple[int, ...] = ()
    objects: dict[str, str | None] = field(default_factory=dict)
    function: Function | None = None
    triggers: tuple[Trigger, ...] = ()
    registered_table: int | None = None
    registered_name: str | None = None
    others: bool = False
    namesakes: tuple[str, ...] = ()
    here: Home | None = None
    recorded: Home | None = None
    installed_source: str | None = None
    shared_tables: tuple[str, ...] = ()
    shared_functions: tuple[str, ...] = ()
    shared_usable: bool = True
    shared_owners: tuple[str, ...] = ()
    shared_readable: bool = True
    grantee: Grantee | None = None
    capturers: tuple[Grantee, ...] = ()
    not_ours: tuple[str, ...] = ()
    refused_conditions: tuple[str, ...] = ()
    rings_without_routing: tuple[str, ...] = ()
    rings_without_chunks: tuple[str, ...] = ()
    ids: tuple[int, int] = (0, 1)


async def observe(
    connection: Connection, table: Table, names: WatcherNames, *, listener_role: str | None = None
) -> Observed:
    """Reads the catalog for one watcher, and what `listener_role` may do with its objects. Raises DatabaseError."""
    server, facts = await _server(connection), await _table(connection, table)
    (version,) = await _all(connection, "schema_version")
    function = await _function(connection, names, facts)
    triggers = await _all(connection, "capture_triggers", function_oid=function.oid) if function else []
    (shared,) = await _all(connection, "shared_rights", tables=list(SHARED_TABLES), functions=list(SHARED_FUNCTIONS))
    known = {"migration", "watcher"} <= {*shared["tables"]}
    readable = known and server.may_see_schema is True and shared["readable"] is True
    migrated = tuple(row["version"] for row in await _all(connection, "applied_migrations")) if readable else ()
    registered = await _registered(connection, names, readable=readable)
    objects = await _all(connection, "owned_objects", names=[*names.rings, *names.cursors, *names.sequences])
    return Observed(
        server=server,
        table=facts,
        similar_tables=await _similar(connection, table) if facts is None else (),
        renamed=await _name(connection, registered["registered_table"]) if facts is None or not facts.is_table else "",
        schema_exists=version["schema_exists"],
        migrations=migrated,
        objects={row["name"]: row["comment"] for row in objects},
        not_ours=tuple(row["name"] for row in objects if not row["ours"]),
        rings_without_routing=await _rings_without(connection, names, "routing"),
        rings_without_chunks=await _rings_without(connection, names, "bodies"),
        ids=await _ids(connection, names),
        function=function,
        triggers=tuple(Trigger(**row) for row in triggers),
        **registered,
        here=await _home(connection, "home"),
        recorded=await _home(connection, "recorded_home", hash=names.hash) if HOME_MIGRATION in migrated else None,
        installed_source=await _installed_source(connection, names) if HOME_MIGRATION in migrated else None,
        shared_tables=tuple(shared["tables"]),
        shared_functions=tuple(shared["functions"]),
        shared_usable=shared["usable"] is not False,
        shared_owners=tuple(shared["foreign_owners"]),
        shared_readable=shared["readable"] is not False,
        grantee=await _listener(connection, names, listener_role) if listener_role else None,
        capturers=await _capturers(connection, names, server, function),
    )


async def _similar(connection: Connection, table: Table) -> tuple[Table, ...]:
    rows = await _all(connection, "similar_tables", schema=table.schema, plain=as_meant(table)[1])
    return similar(table, (Table(**row) for row in rows))


async def _name(connection: Connection, table_oid: int | None) -> str:
    return "".join(row["name"] for row in await _all(connection, "table_name", table_oid=table_oid))


async def _rings_without(connection: Connection, names: WatcherNames, column: str) -> tuple[str, ...]:
    rows = await _all(connection, "rings_without", names=list(names.rings), column=column)
    return tuple(row["name"] for row in rows)


async def _ids(connection: Connection, names: WatcherNames) -> tuple[int, int]:
    rows = await _all(connection, "ids", name=names.ids)
    return (rows[0]["apart"], rows[0]["ahead"]) if rows else (0, 1)


async def _all(connection: Connection, query: str, **parameters: object) -> list[dict[str, Any]]:
    cursor = await connection.execute(QUERIES[query], parameters or None)
    return await cursor.fetchall()


async def _server(connection: Connection) -> Server:
    (row,) = await _all(connection, "server")
    return Server(**row | {name: tuple(row[name]) for name in ("publications", "subscriptions", "closed_languages")})


async def _table(connection: Connection, table: Table) -> TableFacts | None:
    rows = await _all(connection, "table", schema=table.schema, table=table.name)
    if not rows:
        return None
    found = rows[0]
    oid, same = found["oid"], ("kind", "may_trigger", "may_see", "temporary", "may_alter")
    columns = await _all(connection, "columns", table_oid=oid)
    key = await _all(connection, "primary_key", table_oid=oid)
    below = await _all(connection, "partitions", table_oid=oid) if found["kind"] == "p" else []
    shape = TableShape(
        oid,
        tuple(Column(**row) for row in columns),
        tuple(row["name"] for row in key),
        tuple((row["oid"], row["name"]) for row in below),
        tuple(row["why"] for row in await _all(connection, "rows_only", table_oid=oid)),
        tells_compression=connection.info.server_version >= 140_000,
        remarks=tuple(row["what"] for row in await _all(connection, "remarks", table_oid=oid)),
        spills_limited=(await _all(connection, "spills_limited"))[0]["limited"],
    )
    closed = tuple(row["name"] for row in below if not row["may_trigger"])
    owners = tuple(found["owners"])
    return TableFacts(shape, closed_partitions=closed, owners=owners, **{name: found[name] for name in same})


async def _function(connection: Connection, names: WatcherNames, facts: TableFacts | None) -> Function | None:
    owners = list(facts.owners) if facts else []
    rows = await _all(connection, "capture_function", function=names.function, owners=owners)
    return Function(**{**rows[0], "settings": tuple(rows[0]["settings"])}) if rows else None


async def _home(connection: Connection, query: str, **parameters: object) -> Home | None:
    rows = await _all(connection, query, **parameters)
    return Home(**rows[0]) if rows and rows[0]["timeline"] is not None else None


async def _listener(connection: Connection, names: WatcherNames, role: str) -> Grantee:
    if not await _all(connection, "role_exists", role=role):
        raise DatabaseError(
            Reason.AUTHENTICATION_FAILED,
            "the role that spec.database.secretRef names does not exist in the database; create it, with LOGIN",
        )
    return await _grantee(connection, needed(names), role)


async def _capturers(
    connection: Connection, names: WatcherNames, server: Server, function: Function | None
) -> tuple[Grantee, ...]:
    roles = {server.role: None, **({function.owner: None} if function else {})}
    asked = [*(wanted := to_capture(names)), *filter(None, map(in_place_of, wanted))]
    return tuple([await _grantee(connection, asked, role) for role in roles])


async def _grantee(connection: Connection, rights: Sequence[Right], role: str) -> Grantee:
    rows = await _all(
        connection,
        "held_rights",
        role=role,
        kinds=[right.kind for right in rights],
        names=[right.name for right in rights],
        privileges=[right.privilege for right in rights],
    )
    return Grantee(role, frozenset(rights[row["nth"] - 1] for row in rows))


async def _installed_source(connection: Connection, names: WatcherNames) -> str | None:
    rows = await _all(connection, "installed_source", hash=names.hash)
    return rows[0]["source_digest"] if rows else None


async def _registered(connection: Connection, names: WatcherNames, *, readable: bool) -> dict[str, Any]:
    """The table that the watcher is registered for, its name then, and what other watchers there are."""
    rows = await _all(connection, "watchers") if readable else []
    found = {row["hash"]: (row["table_oid"], row["table_name"]) for row in rows}
    table, name = found.get(names.hash, (None, None))
    namesakes = names.namesakes(row["identity"] for row in rows)
    others = bool(found.keys() - {names.hash})
    return {"registered_table": table, "registered_name": name, "others": others, "namesakes": namesakes}
