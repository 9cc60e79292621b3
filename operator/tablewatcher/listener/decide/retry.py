"""How long to wait before the next attempt. Pure: chance is an argument."""

from __future__ import annotations

from ...spec.model import Backoff


def delay(backoff: Backoff, attempt: int, chance: float, retry_after: float | None = None) -> float:
    """Seconds before attempt `attempt + 1`: exponential with full jitter; what the endpoint asked for wins.

    attempt: failed attempts so far, from 1. chance: in [0, 1).
    """
    if retry_after is not None:
        return retry_after
    # Past some doublings the cap has long been reached, and the power would only grow.
    ceiling = min(backoff.initial_milliseconds / 1000 * 2.0 ** min(attempt - 1, 40), backoff.max_seconds)
    return ceiling * chance
