"""Everything that can be known about one watcher's database before something is done there. Reads only."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...errors import DatabaseError
from ...naming import WatcherNames
from ...spec.model import Management, WatcherSpec
from ..connection.pooling import Pooling, pooling_of
from ..connection.session import Connection, connected, encrypted
from . import catalog
from . import plan as plans
from .catalog import Observed
from .plan import Plan
from .preflight import faults
from .traps import refuse_traps
from .where_probe import refused_conditions


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found. `faults`: all that stands against applying, the first to mend first; then there is no plan.

    The connection was `encrypted`; pooling: of the pooler it went through.
    """

    observed: Observed
    encrypted: bool
    pooling: Pooling
    faults: tuple[DatabaseError, ...]
    plan: Plan | None


async def survey(
    conninfo: str,
    spec: WatcherSpec,
    names: WatcherNames,
    *,
    adopt: str | None = None,
    listener_role: str | None = None,
) -> Survey:
    """Looks at everything at once. Raises DatabaseError only where the database cannot be asked."""
    async with connected(conninfo) as connection:
        observed = await observe(connection, spec, names, listener_role)
        found = faults(spec, observed, names)
        plan = None
        if not found:
            try:
                plan = plans.plan(spec, observed, names, adopt=adopt)
            except DatabaseError as error:
                found.append(error)
        return Survey(observed, encrypted(connection), await _pooling(connection, conninfo), tuple(found), plan)


async def way(conninfo: str) -> Pooling:
    """How the pooler pools that connections lead through. Raises DatabaseError."""
    async with connected(conninfo) as connection:
        return await _pooling(connection, conninfo)


async def _pooling(connection: Connection, conninfo: str) -> Pooling:
    if not connection.pooled:
        return Pooling.NONE
    async with connected(conninfo) as another:
        return await pooling_of(connection, another)


async def observe(
    connection: Connection, spec: WatcherSpec, names: WatcherNames, listener_role: str | None = None
) -> Observed:
    """The catalog, as planning for `spec` needs it. Raises DatabaseError."""
    if spec.management is Management.OBSERVE and listener_role is None:
        # Whoever runs the SQL is somebody else: the role that looks is the one that delivers.
        (row,) = await (await connection.execute("SELECT current_user::text AS role")).fetchall()
        listener_role = row["role"]
    await refuse_traps(connection, names)
    observed = await catalog.observe(connection, spec.table, names, listener_role=listener_role)
    if not spec.where or observed.table is None:
        return observed
    return replace(observed, refused_conditions=await refused_conditions(connection, spec, observed.table.shape))
