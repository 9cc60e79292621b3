"""Names to addresses, one question at a time for each name, whoever asks.

A question cannot be taken back. Whoever gives up and asks again must not fill the few threads that everybody's names
are looked up in: a name server that says nothing of one name would keep the sinks of all others waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from socket import AF_UNSPEC, SOCK_STREAM

from ...tasks import heard

AddressInfo = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]
_Question = tuple[asyncio.AbstractEventLoop, str, int, int]

_asked: dict[_Question, asyncio.Task[Sequence[AddressInfo]]] = {}


async def addresses(name: str, port: int, family: int = AF_UNSPEC) -> Sequence[AddressInfo]:
    """As getaddrinfo, for streams. OSError or UnicodeError where there are none."""
    question = asyncio.get_running_loop(), name, port, family
    task = _asked.get(question)
    if task is None:
        task = _asked[question] = asyncio.create_task(_ask(*question))
        task.add_done_callback(lambda ended: _answered(question, ended))
    return await asyncio.shield(task)


async def _ask(loop: asyncio.AbstractEventLoop, name: str, port: int, family: int) -> Sequence[AddressInfo]:
    return await loop.getaddrinfo(name, port, family=family, type=SOCK_STREAM)


def _answered(question: _Question, task: asyncio.Task[Sequence[AddressInfo]]) -> None:
    del _asked[question]
    heard(task)
