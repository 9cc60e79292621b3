"""Whether the capture function's owner may do what the function does. Pure.

The function and its ring mostly belong to one role. They need not: another role brings a ring up, or writes a function
that was dropped. The function runs as its owner, so what that one lacks would be every writer's error.
"""

from __future__ import annotations

from ...errors import DatabaseError, Reason
from ...naming import SCHEMA, WatcherNames
from ...spec.model import Management
from .catalog import Observed
from .grants import Grantee, missing, to_capture


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


def lost_rights(observed: Observed, names: WatcherNames) -> str:
    """The GRANT statements for want of which every write to the table fails now; "" where none does."""
    grantee = _capturer(observed, Management.OBSERVE, written=False)
    if grantee is None or not observed.triggers:
        return ""
    of_writes = {SCHEMA, *(set(names.rings) & observed.objects.keys())}
    return missing([right for right in to_capture(names) if right.name in of_writes], grantee)


def _capturer(observed: Observed, management: Management, *, written: bool) -> Grantee | None:
    """As whom the function will run, where that can be told: under Observe somebody else runs the plan."""
    if not written and observed.function is not None:
        role = observed.function.owner
    elif management is Management.MANAGED:
        role = observed.server.role
    else:
        return None
    return next((each for each in observed.capturers if each.role == role), None)
