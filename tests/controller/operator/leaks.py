"""What a process under `-W error::ResourceWarning` says at its end of what it left open.

One thing is let pass: connections to the API server. kopf (1.45) ends its watch streams in the middle of a response,
so aiohttp (3.14) says goodbye in TLS and forgets the connection; closing the session does not wait for the answer, and
where a busy API server gives it later than the process ends, the socket is open to the end. Nothing is lost by it: the
kernel closes it. A connection to anything else is ours, and so is every file.
"""

from __future__ import annotations

import re

_BLOCK = re.compile(
    r"^Exception ignored in: (?:(?!^Exception ignored in: ).)*?^ResourceWarning: (.*?)$\n?", re.M | re.S
)
_SOCKET = re.compile(r"unclosed <socket\.socket fd=(\d+),.* raddr=\('127\.0\.0\.1', (\d+)\)>")
_TRANSPORT = re.compile(r"unclosed transport <_SelectorSocketTransport (?:closing )?fd=(\d+)\b.*>")
_TLS = re.compile(r"unclosed transport <asyncio\.sslproto\._SSLProtocolTransport object at 0x[0-9a-f]+>")


def without_api_connections(log: str, api_port: int) -> str:
    """`log` without what says that connections to `api_port` were left open: sockets, and asyncio's part of each."""
    sockets = [(found[1], int(found[2])) for found in _SOCKET.finditer(log)]
    ours = {descriptor for descriptor, port in sockets if port != api_port}
    passed = {descriptor for descriptor, port in sockets if port == api_port} - ours

    def judge(block: re.Match[str]) -> str:
        warning = block[1]
        found = _SOCKET.fullmatch(warning) or _TRANSPORT.fullmatch(warning)
        # That of TLS carries no number; it stands for none but the API server's where no other socket was left open.
        passes = found[1] in passed if found else bool(_TLS.fullmatch(warning) and passed and not ours)
        return "" if passes else block[0]

    return _BLOCK.sub(judge, log)
