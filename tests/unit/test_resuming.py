"""When capture that stopped at a full ring starts again: not at its bound, where it would stop and start in turns."""

from __future__ import annotations

import pytest

from tablewatcher.postgres.ring.upkeep import Gauge, may_resume

ROOM = 1000


@pytest.mark.parametrize(
    ("stopped_at", "used", "resumes"),
    [(1, ROOM, False), (1, ROOM // 2, False), (1, ROOM // 2 - 1, True), (1, 0, True), (0, 0, False)],
)
def test_half_of_the_room_is_free(stopped_at: int, used: int, resumes: bool) -> None:
    gauge = Gauge(bytes=used, last_id=0, slot=0, stopped_at=stopped_at, gaps=0, skipped=0)
    assert may_resume(gauge, ROOM) is resumes
