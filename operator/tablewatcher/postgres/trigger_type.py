"""What pg_trigger.tgtype says of a trigger, as far as ours go. Pure."""

from __future__ import annotations

from ..spec.model import Action

ROW_BIT = 1
BITS = {Action.INSERT: 4, Action.DELETE: 8, Action.UPDATE: 16, Action.TRUNCATE: 32}
# It fires once a statement of inserts.
STATEMENT_INSERT = BITS[Action.INSERT]
