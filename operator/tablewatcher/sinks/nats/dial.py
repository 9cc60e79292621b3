"""From the servers of a manifest to one connection, whichever of them says nothing.

The client library takes server after server and address after address, and waits two seconds for each that takes a
connection and says nothing, or whose host is gone. Here the next is tried beside it, and the first that lets us in is
taken.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from urllib.parse import urlsplit

from ...errors import Reason, SinkError
from ..http.look_up import addresses
from ..http.race import Way, first_of
from .connection import CONNECT_SECONDS, Connection
from .faults import fault
from .login import Login

_PORT = 4222
# To sign in takes five round trips: most servers are through before another is troubled.
_STEP_SECONDS = 0.5
# All have begun by then, and the last has as long as that again.
_SPREAD_SECONDS = CONNECT_SECONDS / 2


async def connected(login: Login, stream: str | None, on_lost: Callable[[Connection], None]) -> Connection:
    """A connection to the first server that lets us in; SinkError, after 2.5 s at most.

    on_lost: called once, with it, when it can no longer be used.
    """
    dial = _Dial(login, stream, on_lost)
    # In any order: not every listener at the first server.
    servers = random.sample(login.servers, len(login.servers))
    return await dial.first([partial(dial.by_name, server) for server in servers])


class _Dial:
    """One connect. failures: what every attempt that has ended by itself came to."""

    def __init__(self, login: Login, stream: str | None, on_lost: Callable[[Connection], None]) -> None:
        # Read anew for each connection: a rotated Secret is used at once.
        self._options = login.options()
        self._login = login
        self._stream = stream
        self._on_lost = on_lost
        self._failures: list[SinkError] = []

    async def first(self, ways: Sequence[Way[Connection]]) -> Connection:
        found = await first_of(
            ways,
            step=min(_STEP_SECONDS, _SPREAD_SECONDS / len(ways)),
            seconds=CONNECT_SECONDS,
            fault=SinkError,
            failures=self._failures,
            give_back=Connection.close,
        )
        if found is None:
            raise self._most_telling()
        return found

    async def by_name(self, server: str) -> Connection:
        try:
            parts = urlsplit(server)
            infos = await addresses(parts.hostname or "", parts.port or _PORT)
        except (OSError, ValueError) as error:
            raise self._fault(error) from None
        places = dict.fromkeys(str(info[4][0]) for info in infos)
        return await self.first([partial(self._at, server, address) for address in places])

    async def _at(self, server: str, address: str) -> Connection:
        made = Connection(self._login, self._stream, self._on_lost, server=server, address=address)
        await made.connect(self._options)
        return made

    def _fault(self, error: Exception | None) -> SinkError:
        return fault(error, self._login.servers, encrypted=self._login.encrypted)

    def _most_telling(self) -> SinkError:
        telling = [each for each in self._failures if each.reason is not Reason.SINK_UNREACHABLE]
        return next(iter([*telling, *self._failures]), self._fault(None))
