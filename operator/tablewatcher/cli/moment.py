"""Times on the command line. Pure: now is an argument."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

_SPAN = re.compile(r"(\d{1,9})([smhd])\Z")
# The clock of whoever noted the time may be a little ahead of ours.
_SKEW = timedelta(minutes=1)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def moment(text: str, now: datetime) -> datetime | timedelta:
    """What `text` means: a span (90s, 10m, 2h, 1d), or an ISO 8601 time, local without a zone.

    Raises ValueError with what to write instead.
    """
    if span := _SPAN.match(text.strip()):
        found = timedelta(seconds=int(span[1]) * _UNITS[span[2]])
        if found > now - datetime.min.replace(tzinfo=now.tzinfo):
            raise ValueError(f"{text!r} is before all times")
        return found
    try:
        time = datetime.fromisoformat(text.strip()).astimezone()
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text!r} is neither a span such as 90s, 10m, 2h, 1d nor a time such as 2026-01-31T12:00:00Z"
        ) from None
    if time > now + _SKEW:
        raise ValueError(f"{text!r} is still to come: write Z or an offset behind it if it is not meant as local time")
    return time
