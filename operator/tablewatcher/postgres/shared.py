"""What all watchers of a database share in schema `tablewatcher`, read from the migrations that make it. Pure.

What is added there is granted, guarded and dropped with the rest.
"""

from __future__ import annotations

import re

from ..naming import SCHEMA
from .sql import migrations

_TABLE = re.compile(rf"^CREATE TABLE {SCHEMA}\.(\S+)", re.MULTILINE)
_FUNCTION = re.compile(rf"^CREATE FUNCTION {SCHEMA}\.(\w+)\((?:\w+ )?([\w\[\]]*)\)", re.MULTILINE)

_TABLES = {table: version for version, text in migrations() for table in _TABLE.findall(text)}
_FUNCTIONS = {
    f"{name}({argument})": version for version, text in migrations() for name, argument in _FUNCTION.findall(text)
}
# By name, in the order they are made in: each refers to earlier ones only.
SHARED_TABLES: tuple[str, ...] = tuple(_TABLES)
# As `name(type)`.
SHARED_FUNCTIONS: tuple[str, ...] = tuple(_FUNCTIONS)
# By which migration each is made.
MADE_BY: dict[str, int] = _TABLES | _FUNCTIONS
