"""What the server has no room for is told in its own words, not as a connection that broke."""

from __future__ import annotations

from pathlib import Path

import pytest

from tablewatcher.errors import DatabaseError, Reason
from tablewatcher.postgres.install.apply import apply

from ..conftest import POSTGRES_SETTINGS, Database
from ..versions import newest_postgres
from .capturing import names_of, spec_of

SPEC = spec_of()
NAMES = names_of(SPEC)
PARTITIONS = """DO $$ BEGIN FOR n IN 1..1500 LOOP
  EXECUTE format('CREATE TABLE t%s PARTITION OF t FOR VALUES IN (%s)', n, n); COMMIT;
END LOOP; END $$"""


async def test_more_partitions_than_the_server_has_locks_for(server_directory: Path) -> None:
    few = POSTGRES_SETTINGS | {"max_locks_per_transaction": "10", "max_connections": "10"}
    with newest_postgres(server_directory / "small", few) as server:
        database = Database(server, "postgres")
        await database.execute("CREATE TABLE t (id int PRIMARY KEY) PARTITION BY LIST (id)")
        await database.execute(PARTITIONS)
        with pytest.raises(DatabaseError, match="max_locks_per_transaction") as refused:
            await apply(database.dsn, SPEC, NAMES)
        assert refused.value.reason is Reason.MANUAL_ACTION_REQUIRED
        assert "out of shared memory" in refused.value.message
        # Nothing is half-installed.
        assert await database.execute("SELECT FROM pg_namespace WHERE nspname = 'tablewatcher'") == []
