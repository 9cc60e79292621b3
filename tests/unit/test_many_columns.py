"""The function of a table of as many columns as there may be is written in a blink: meanwhile an operator does nothing
else, and a transaction is open."""

from __future__ import annotations

import pytest

from tablewatcher.naming import watcher_names
from tablewatcher.postgres.capture.ddl import desired
from tablewatcher.postgres.shape import Column, TableShape
from tablewatcher.spec.model import Action, Database, NatsSink, Table, WatcherSpec

COLUMNS = tuple(Column(f"c{nth}", "int4", 4, type_name="pg_catalog.int4") for nth in range(1600))
SPEC = WatcherSpec(
    "shop", "w", Database("s"), Table("public", "t"), frozenset(Action), NatsSink(("nats://n",), "x"), columns=("*",)
)


def test_no_column_is_compared_with_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0

    def equal(_one: object, _other: object) -> bool:
        nonlocal compared
        compared += 1
        return False

    monkeypatch.setattr(Column, "__eq__", equal)
    assert desired(SPEC, TableShape(1, COLUMNS, ("c0",)), watcher_names("local", "shop", "w")).function_source
    assert compared < 10 * len(COLUMNS)
