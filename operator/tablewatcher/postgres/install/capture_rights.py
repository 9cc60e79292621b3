"""Whether the capture function's owner may do what the function does. Pure.

The function and its ring mostly belong to one role. They need not: another role brings a ring up, or writes a function
that was dropped. The function runs as its owner, so what that one lacks would be every writer's error.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import DatabaseError, Reason
from ...naming import SCHEMA, WatcherNames
from ...spec.model import Management
from .catalog import Observed
from .grants import Grantee, in_place_of, missing, to_capture

# From this version on a look at a sequence gives NULL where the right to it is missing, and raises no error.
_LOOKS_AS_NULL = 180_000


def capture_grants(observed: Observed, names: WatcherNames, management: Management, *, written: bool) -> str:
    """The GRANT statements that capture lacks; "" where it lacks none, DatabaseError where our role may not give them.

    written: the plan makes the function, which then belongs to the role that runs it.
    """
    grantee = _capturer(observed, management, written=written)
    if grantee is None:
        return ""
    made_by_us = grantee.role == observed.server.role
    rights = [
        right
        for right in to_capture(names)
        # What the plan makes is ours. Of the schema, preflight has asked.
        if not made_by_us or right.name in observed.objects
    ]
    grants = missing(rights, grantee)
    if grants and observed.not_ours and management is Management.MANAGED:
        raise DatabaseError(
            Reason.PERMISSION_DENIED,
            "the capture function would run without rights on its ring, and writes would fail; the ring's owner must"
            f" run: {grants};",
        )
    return grants


@dataclass(frozen=True, slots=True)
class Lost:
    """What capture lacks now. grants: the statements that give it back, "" where it lacks nothing; of_every_write: for
    want of some of it every write to the table fails, else only some do, or the ring is not looked after."""

    grants: str = ""
    of_every_write: bool = False


def lost_rights(observed: Observed, names: WatcherNames) -> Lost:
    """What the capture function's owner cannot do of what the function does."""
    grantee = _capturer(observed, Management.OBSERVE, written=False)
    if grantee is None or not observed.triggers:
        return Lost()
    there = [right for right in to_capture(names) if right.name in {SCHEMA, *observed.objects}]
    lacking = [right for right in there if not {right, in_place_of(right)} & grantee.held]
    looks_raise = observed.server.version < _LOOKS_AS_NULL
    every = any(
        right.name in (SCHEMA, *names.rings, names.ids) or (right.privilege == "SELECT" and looks_raise)
        for right in lacking
    )
    return Lost(missing(lacking, grantee), every)


def _capturer(observed: Observed, management: Management, *, written: bool) -> Grantee | None:
    """As whom the function will run, where that can be told: under Observe somebody else runs the plan."""
    if not written and observed.function is not None:
        role = observed.function.owner
    elif management is Management.MANAGED:
        role = observed.server.role
    else:
        return None
    return next((each for each in observed.capturers if each.role == role), None)
