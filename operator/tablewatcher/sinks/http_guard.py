"""Connections that only go where the address policy lets them, and what a failed one means."""

from __future__ import annotations

import asyncio
import socket
import ssl

from ..errors import Reason, SinkError
from .address import refusal

_REFUSED = "refused by the address policy"
_CONNECT_SECONDS = 2.0

AddressInfo = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]


class AddressRefusedError(OSError):
    """The address may not be connected to."""


class Guard:
    """The policy at the only place no spelling of a host gets around: where the socket is made."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private

    def check(self, address: str) -> None:
        """AddressRefusedError where `address` (an IP address as text) may not be connected to."""
        why = refusal(address, allow_private=self._allow_private)
        if why is not None:
            raise AddressRefusedError(f"{_REFUSED}: {address} {why}")

    def socket(self, info: AddressInfo) -> socket.socket:
        """A new socket for `info` (as of getaddrinfo), if its address may be connected to."""
        self.check(str(info[4][0]))
        return socket.socket(info[0], info[1], info[2])


async def connect_once(host: str, port: int, tls: ssl.SSLContext | None, guard: Guard) -> None:
    """Resolve `host`, connect, shake hands, hang up. OSError or TimeoutError where that fails."""
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    failure: OSError | None = None
    async with asyncio.timeout(_CONNECT_SECONDS):
        for info in infos:
            address = str(info[4][0])
            try:
                guard.check(address)
                await _connect(address, port, tls, host)
            except OSError as error:
                failure = error if failure is None or isinstance(failure, AddressRefusedError) else failure
            else:
                return
    raise failure or OSError("the name has no address")


async def _connect(address: str, port: int, tls: ssl.SSLContext | None, host: str) -> None:
    # Bounded by the caller, over all addresses.
    _, writer = await asyncio.open_connection(
        address, port, ssl=tls, server_hostname=host.rstrip(".") if tls is not None else None
    )
    writer.transport.abort()


def fault(error: BaseException, where: str) -> SinkError:
    """What a connection that could not be made, or broke, means. `where` is host and port: no secrets."""
    cause: BaseException | None = error
    while cause is not None:
        if _REFUSED in str(cause):
            return SinkError(
                Reason.ADDRESS_REFUSED,
                f"{where} is {_REFUSED}: name a public endpoint, or let whoever runs the listener allow it",
            )
        if isinstance(cause, ssl.SSLError):
            why = getattr(cause, "verify_message", "") or cause.reason or "handshake failed"
            return SinkError(Reason.TLS_FAILED, f"TLS with {where} failed: {why}")
        cause = cause.__cause__ or getattr(cause, "os_error", None)
    if isinstance(error, TimeoutError):
        return SinkError(Reason.SINK_UNREACHABLE, f"{where} did not answer in time")
    kind = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
    return SinkError(Reason.SINK_UNREACHABLE, f"{where} cannot be reached ({kind}): check the URL and that it runs")
