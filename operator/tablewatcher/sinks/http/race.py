"""Several ways to one place, begun one after another: the first that gets there is taken, the others are given up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
F = TypeVar("F", bound=Exception)
Way = Callable[[], Awaitable[T]]


async def first_of(
    ways: Sequence[Way[T]],
    *,
    step: float,
    seconds: float,
    fault: type[F],
    failures: list[F],
    give_back: Callable[[T], Awaitable[None]] | None = None,
) -> T | None:
    """What the first of `ways` to succeed yields; None where none has within `seconds`.

    The next one is begun beside the others after `step` seconds, or as soon as one has failed. failures: is given the
    exceptions of those that failed, each of class `fault`; any other is raised. give_back: called with what a second
    one has yielded by then. Nothing goes on behind the caller's back, however this ends.
    """
    begun: list[asyncio.Future[T]] = []
    try:
        won = await _first(ways, begun, (step, seconds), fault, failures)
        await _abandon([each for each in begun if each is not won], give_back)
    except BaseException:
        await _abandon(begun, give_back)
        raise
    return won.result() if won is not None else None


async def _first(
    ways: Sequence[Way[T]],
    begun: list[asyncio.Future[T]],
    times: tuple[float, float],
    fault: type[F],
    failures: list[F],
) -> asyncio.Future[T] | None:
    step, seconds = times
    clock = asyncio.get_running_loop().time
    deadline = clock() + seconds
    waiting = list(ways)
    trying: set[asyncio.Future[T]] = set()
    while (waiting or trying) and (left := deadline - clock()) > 0:
        if waiting:
            begun.append(asyncio.ensure_future(waiting.pop(0)()))
            trying.add(begun[-1])
        ended, trying = await asyncio.wait(
            trying, timeout=min(step, left) if waiting else left, return_when=asyncio.FIRST_COMPLETED
        )
        for each in ended:
            error = each.exception()
            if error is None:
                return each
            if not isinstance(error, fault):
                raise error
            failures.append(error)
    return None


async def _abandon(begun: Sequence[asyncio.Future[T]], give_back: Callable[[T], Awaitable[None]] | None) -> None:
    for each in begun:
        each.cancel()
    for found in await asyncio.gather(*begun, return_exceptions=True):
        if give_back is not None and not isinstance(found, BaseException):
            await give_back(found)
