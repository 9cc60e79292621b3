"""Times on the command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tablewatcher.cli.moment import moment

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(("text", "before"), [("90s", 90), ("10m", 600), ("2h", 7200), ("1d", 86_400), (" 0s ", 0)])
def test_spans(text: str, before: int) -> None:
    assert moment(text, NOW) == timedelta(seconds=before)


def test_times() -> None:
    assert moment("2026-01-31T12:00Z", NOW) == NOW
    assert moment("2026-01-31T14:00:00+02:00", NOW) == NOW
    local = moment("2026-01-30 12:00", NOW)
    assert isinstance(local, datetime)
    assert local.tzinfo is not None


@pytest.mark.parametrize("text", ["", "10", "-5m", "10 minutes", "yesterday", "999999999d", "1h30m"])
def test_others_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"span such as|before all times"):
        moment(text, NOW)


def test_what_is_still_to_come_is_refused() -> None:
    """As a time of a person's own zone is on a server whose clock is set to UTC: nothing would be sent, in silence."""
    assert moment("2026-01-31T12:00:30Z", NOW) == NOW + timedelta(seconds=30)
    with pytest.raises(ValueError, match="is still to come"):
        moment("2026-01-31T14:00Z", NOW)
