"""How a row trigger sees that a column has changed."""

from __future__ import annotations

import pytest

from tablewatcher.postgres.capture.expressions import same
from tablewatcher.postgres.shape import Column


@pytest.mark.parametrize("kind", ["text", "varchar"])
def test_text_is_compared_byte_by_byte(kind: str) -> None:
    """Under a collation of the column's own, which servers with ICU have, 'a' may be 'A'."""
    assert same([Column("v", kind, -1)]) == 'OLD."v" COLLATE "C" IS NOT DISTINCT FROM NEW."v" COLLATE "C"'


@pytest.mark.parametrize("kind", ["numeric", "float8", "interval", "bpchar", "json", "jsonb", "citext"])
def test_what_may_be_equal_and_not_the_same_is_compared_by_image(kind: str) -> None:
    column = Column("v", kind, -1, builtin=kind != "citext")
    assert same([column]) == 'row(OLD."v")::record *= row(NEW."v")::record'


def test_whole_numbers_are_compared_by_value() -> None:
    assert same([Column("a", "int8", 8), Column("b", "int4", 4)]) == (
        'OLD."a" IS NOT DISTINCT FROM NEW."a" AND OLD."b" IS NOT DISTINCT FROM NEW."b"'
    )
