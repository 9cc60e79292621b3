"""Tells how far a listener is while it drains a backlog: on a terminal's last line, or else in the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog

from .draining import Backlog, Draining, Figures, line, summed

log = structlog.get_logger("tablewatcher.listener")

SHOW_SECONDS = 0.25
LOOK_SECONDS = 1.0
LOG_SECONDS = 10.0


class Telling:
    """figures: of every watcher that runs now. show: puts a line in place of the one before, "" takes it away."""

    def __init__(self, figures: Callable[[], Iterable[Figures]], show: Callable[[str], None] | None) -> None:
        self._figures = figures
        self._show = show
        self._draining = Draining()
        self._logged: float | None = None

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                found = self._draining.look(self._figures(), loop.time())
                if self._show is None:
                    self._log(found, loop.time())
                else:
                    self._show(line(found))
                await asyncio.sleep(LOOK_SECONDS if self._show is None else SHOW_SECONDS)
        finally:
            if self._show is not None:
                self._show("")

    def _log(self, found: list[Backlog], now: float) -> None:
        """A line for what lasts, every LOG_SECONDS, and one when it is over."""
        lasting = [each for each in found if each.age >= LOG_SECONDS]
        if not lasting:
            if self._logged is not None and not found:
                log.info("drained")
                self._logged = None
            return
        if self._logged is not None and now - self._logged < LOG_SECONDS:
            return
        self._logged = now
        for each in summed(lasting):
            left = {} if each.left is None else {"seconds_left": round(each.left)}
            log.info(
                "draining",
                watcher=each.name,
                waiting=each.waiting,
                delivered=each.delivered,
                per_second=round(each.rate),
                **left,
            )
