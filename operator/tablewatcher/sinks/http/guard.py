"""Names to addresses, and addresses to sockets, as far as the address policy allows either."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from errno import EINVAL
from functools import partial
from socket import AF_UNSPEC, AI_NUMERICHOST, AI_NUMERICSERV, AddressFamily, socket

from aiohttp.abc import AbstractResolver, ResolveResult

from ..address import AddressPolicy, service_name
from .fault import AddressRefusedError
from .look_up import AddressInfo, addresses
from .race import first_of

# The system's own patience with a name server that says nothing.
_LOOK_UP_SECONDS = 5.0
CONNECT_SECONDS = 2.0
_NEXT_SECONDS = 0.25
_REFUSAL_SECONDS = 0.05

# Addresses that were dialled for the request of this context; whoever asks puts a list there first.
DIALLED: ContextVar[list[str] | None] = ContextVar("DIALLED", default=None)


class Guard(AbstractResolver):
    """The policy for one host of a watcher of `namespace`: where its name is looked up, and where a socket is made.

    The second place is the one that no spelling of a host gets around; only the first knows which addresses are those
    of a Service of the watcher's own namespace.
    """

    def __init__(self, policy: AddressPolicy, host: str, namespace: str) -> None:
        self._policy = policy
        self.host = host
        self._service = None if policy.private else service_name(host, namespace)
        self._own: frozenset[str] = frozenset()
        self._useless: dict[str, int] = {}
        self._faults = 0

    def check(self, address: str) -> None:
        """AddressRefusedError where `address` (an IP address as text) may not be connected to."""
        why = self._policy.refusal(address, host=self.host, own=address in self._own)
        if why is not None:
            raise AddressRefusedError(f"{address} {why}")

    def make_socket(self, info: AddressInfo) -> socket:
        """A new socket for `info` (as of getaddrinfo), if its address may be connected to."""
        address = str(info[4][0])
        self.check(address)
        dialled = DIALLED.get()
        if dialled is not None:
            dialled.append(address)
        return socket(info[0], info[1], info[2])

    def useless(self, addresses: Iterable[str]) -> None:
        """What was sent to these has got no answer, or one that says they are not well."""
        self._faults += 1
        self._useless.update(dict.fromkeys(addresses, self._faults))

    def best_first(self, found: Sequence[ResolveResult]) -> list[ResolveResult]:
        """`found`, all that the name stands for; last those that were useless, the latest of them at the end."""
        self._useless = {each["host"]: self._useless.get(each["host"], 0) for each in found}
        return sorted(found, key=lambda each: self._useless[each["host"]])

    async def resolve(self, host: str, port: int = 0, family: AddressFamily = AF_UNSPEC) -> list[ResolveResult]:
        """The addresses of `host` that may be connected to. OSError where there is none."""
        fit: list[ResolveResult] = []
        refused: AddressRefusedError | None = None
        for info in await self._look_up(host, port, family):
            address = str(info[4][0])
            try:
                self.check(address)
            except AddressRefusedError as error:
                refused = error
                continue
            flags = AI_NUMERICHOST | AI_NUMERICSERV
            fit.append(ResolveResult(hostname=host, host=address, port=port, family=info[0], proto=0, flags=flags))
        if not fit:
            raise refused or OSError("the name has no address")
        return fit

    async def close(self) -> None:
        """Nothing is held open."""

    async def _look_up(self, host: str, port: int, family: int) -> Sequence[AddressInfo]:
        if self._service is not None and host == self.host:
            # First as a Service and nothing else: a public name must not pass for one.
            try:
                infos = await addresses(self._service, port, family)
            except (OSError, UnicodeError):
                self._own = frozenset()
            else:
                self._own = frozenset(str(info[4][0]) for info in infos)
                return infos
        try:
            return await addresses(host, port, family)
        except UnicodeError:
            raise OSError(EINVAL, "not a name that can be looked up") from None


async def connect_once(host: str, port: int, tls: ssl.SSLContext | None, guard: Guard) -> None:
    """Resolve `host`, connect, shake hands, hang up. OSError or TimeoutError where that fails.

    Where an address says nothing the next one is tried beside it, as a request would: a name may have addresses of a
    family that leads nowhere from here.
    """
    async with asyncio.timeout(_LOOK_UP_SECONDS):
        found_at = [each["host"] for each in await guard.resolve(host, port)]
    failures: list[OSError] = []
    found = await first_of(
        [partial(_connect, address, port, tls, host) for address in found_at],
        step=_NEXT_SECONDS,
        seconds=CONNECT_SECONDS,
        fault=OSError,
        failures=failures,
    )
    if found is None:
        raise failures[0] if len(failures) == len(found_at) else TimeoutError


async def _connect(address: str, port: int, tls: ssl.SSLContext | None, host: str) -> bool:
    # Bounded by the caller, over all addresses.
    clock = asyncio.get_running_loop().time
    begin = clock()
    reader, writer = await asyncio.open_connection(
        address, port, ssl=tls, server_hostname=host.rstrip(".") if tls is not None else None
    )
    try:
        if tls is not None:
            # With TLS 1.3 our handshake is over before the server has looked at our certificate, or missed one: it
            # says so, or hangs up, a round trip later. A server that is content is silent.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(_REFUSAL_SECONDS, clock() - begin)):
                    if not await reader.read(1):
                        raise ssl.SSLEOFError(0, "the endpoint hung up after the handshake")
        return True
    finally:
        writer.transport.abort()
