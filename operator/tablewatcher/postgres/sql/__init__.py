"""SQL text, loaded once: named queries of `queries.sql`, and the migrations in order."""

from __future__ import annotations

import re
from importlib.resources import files

_NAMED = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_PART = re.compile(r"\{(\w+)\}")


def _text(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


def _load_queries() -> dict[str, str]:
    pieces = _NAMED.split(_text("queries.sql"))
    found: dict[str, str] = {}
    for name, body in zip(pieces[1::2], pieces[2::2], strict=True):
        # {name}: an earlier one, as a part of this.
        found[name] = _PART.sub(lambda part: f"\n{found[part[1]]}\n", body.strip())
    return found


QUERIES = _load_queries()
CAPTURE = _text("capture.sql")
CAPTURE_CONTEXT = _text("capture_context.sql").rstrip()
CAPTURE_NOTIFY = _text("capture_notify.sql").rstrip()
CAPTURE_ROW = _text("capture_row.sql").rstrip()
CAPTURE_ROUTES = _text("capture_routes.sql").rstrip()
CAPTURE_FILTER = _text("capture_filter.sql").rstrip()
CAPTURE_UNCHANGED = _text("capture_unchanged.sql").rstrip()
CAPTURE_SKIP = _text("capture_skip.sql").rstrip()
CAPTURE_BOUND = _text("capture_bound.sql").rstrip()
CAPTURE_CHUNK = _text("capture_chunk.sql").rstrip()
_CAPTURE_INSERT = _text("capture_insert.sql").rstrip()
CAPTURE_STATEMENT = _text("capture_statement.sql")
CAPTURE_ONE_BY_ONE = _text("capture_one_by_one.sql").rstrip()
CAPTURE_SET = _text("capture_set.sql").rstrip()
RING = _text("ring.sql")
RING_SKIPS = _text("ring_skips.sql")
RING_SLOT = _text("ring_slot.sql")


def insert_into_slot(ring: object, columns: str, source: str, *, first: str = "", stopped: str = "") -> str:
    """PL/pgSQL that writes `source`, VALUES or a SELECT, to the slot in turn.

    Statements: `first` goes before it, `stopped` in its place where capture is; without that it is known not to be.
    """
    return _CAPTURE_INSERT.format(
        ring=ring,
        columns=columns,
        source=source,
        first=first and f"\n      {first};",
        stopped=stopped and f"    ELSE\n      {stopped};\n",
    )


def migrations() -> list[tuple[int, str]]:
    """(version, text) of every migration of schema `tablewatcher`, oldest first."""
    found = sorted(entry.name for entry in (files(__package__) / "migrations").iterdir() if entry.name.endswith(".sql"))
    return [(int(name[:4]), _text(f"migrations/{name}")) for name in found]
