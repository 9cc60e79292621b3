"""Tables that somebody may have meant who named one that is not there."""

from __future__ import annotations

import pytest

from tablewatcher.postgres.install.similar import hint, similar
from tablewatcher.spec.model import Table

THERE = [
    Table(*name.split("."))
    for name in ("public.accounts", "public.Orders2", "public.orders", "public.order_items", "sales.orders", "sales.x")
]


@pytest.mark.parametrize(
    ("wanted", "first"),
    [
        (("public", "Orders"), "public.orders"),
        (("public", "order"), "public.orders"),
        (("public", "public.orders"), "public.orders"),
        (("public", "sales.orders"), "sales.orders"),
        (("public", '"orders"'), "public.orders"),
        (("pubic", "orders"), "public.orders"),
        (("sales", "order"), "sales.orders"),
        (("public", "orderitems"), "public.order_items"),
    ],
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else "",
)
def test_the_likeliest_first(wanted: tuple[str, str], first: str) -> None:
    assert hint(Table(*wanted), similar(Table(*wanted), THERE)).startswith(f"; did you mean {first}")


def test_nothing_like_it_is_not_named() -> None:
    """A schema may have hundreds of tables, and the first of them help nobody."""
    assert hint(Table("public", "invoices"), similar(Table("public", "invoices"), THERE)) == ""
    assert similar(Table("public", "x"), THERE) == (Table("sales", "x"),)


def test_a_name_with_its_schema_says_how_to_write_it() -> None:
    wanted = Table("public", "sales.orders")
    assert hint(wanted, similar(wanted, THERE)).endswith("without quotes of SQL: {schema: sales, name: orders}")
