"""What all watchers of a database share in schema `tablewatcher`, read from the migrations that make it. Pure.

What is added there is granted, guarded and dropped with the rest.
"""

from __future__ import annotations

import re

from ..naming import SCHEMA
from .sql import migrations

_TABLE = re.compile(rf"^CREATE TABLE {SCHEMA}\.(\S+)", re.MULTILINE)
_FUNCTION = re.compile(rf"^CREATE FUNCTION {SCHEMA}\.(\w+)\((?:\w+ )?([\w\[\]]*)\)", re.MULTILINE)

# By name, in the order they are made in: each refers to earlier ones only.
SHARED_TABLES: tuple[str, ...] = tuple(table for _, text in migrations() for table in _TABLE.findall(text))
# As `name(type)`.
SHARED_FUNCTIONS: tuple[str, ...] = tuple(
    f"{name}({argument})" for _, text in migrations() for name, argument in _FUNCTION.findall(text)
)
