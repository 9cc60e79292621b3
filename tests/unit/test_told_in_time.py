"""A condition tells of a fault within eight seconds: the waits that lie one behind the other until then, added up."""

from __future__ import annotations

import math

from tablewatcher.controller.poll import POLL_SECONDS, STALE_SECONDS
from tablewatcher.controller.reconcile import PAUSE_SECONDS
from tablewatcher.listener.relay.keeping import RENEW_SECONDS, UPKEEP_SECONDS
from tablewatcher.listener.relay.sending import CHECK_SECONDS
from tablewatcher.postgres.progress import ANSWER_SECONDS
from tablewatcher.sinks.http import channel
from tablewatcher.sinks.http.guard import CONNECT_SECONDS
from tablewatcher.sinks.shared_look import FRESH_SECONDS

WITHIN = 8
# From when the operator knows: what woke it may bring more, and a status may have been written a moment ago.
WRITTEN = PAUSE_SECONDS / 4 + PAUSE_SECONDS
# From when the listener has written it.
READ = POLL_SECONDS + WRITTEN


def test_an_idle_endpoint_that_has_gone() -> None:
    """Until the next look, which may be another's; it says nothing."""
    assert CHECK_SECONDS + FRESH_SECONDS + CONNECT_SECONDS + READ < WITHIN


def test_an_endpoint_that_goes_right_after_an_answer() -> None:
    assert channel.FRESH_SECONDS + CONNECT_SECONDS + READ < WITHIN


def test_a_ring_that_is_full() -> None:
    assert UPKEEP_SECONDS + READ < WITHIN


def test_a_listener_that_has_died() -> None:
    """Its last proof is found at the look after that; some looks later it is too old. Each takes a while itself."""
    looks = math.ceil(STALE_SECONDS / POLL_SECONDS)
    assert (1 + looks) * POLL_SECONDS * 1.05 + WRITTEN < WITHIN
    # One that is alive, and that a busy database keeps waiting, is not taken for dead.
    assert STALE_SECONDS > RENEW_SECONDS + POLL_SECONDS


def test_a_database_that_says_nothing() -> None:
    hung_up = 0.5
    assert POLL_SECONDS + ANSWER_SECONDS + hung_up + WRITTEN < WITHIN
