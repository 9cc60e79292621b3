"""Whether what a replay says that it has sent has come. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from .truth import Arrival

_SAID = re.compile(r"(\d+) sent again(?:; (\d+) of them (?:were|was) refused and (?:are|is) put aside)?")


def unsent(requests: Iterable[tuple[int, str]], arrivals: Iterable[Arrival]) -> Iterable[str]:
    """What did not come of replays that are done, in words. requests: the number of each, and what it says.

    What is aside comes later, if at all, as part of another. A successor may send more than the last of them says.
    """
    came: dict[int, set[str]] = defaultdict(set)
    for each in arrivals:
        came[each.replay].add(each.event_id)
    for number, message in requests:
        said = _SAID.match(message)
        if said is None:
            yield f"replay {number} says {message!r}"
        elif len(came[number]) < int(said[1]) - int(said[2] or 0):
            yield f"replay {number} says {message!r}, and {len(came[number])} came"
