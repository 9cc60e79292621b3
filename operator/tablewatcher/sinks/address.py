"""Which network addresses a watcher may send to. Pure: addresses in, a refusal or nothing out.

A manifest can name any URL: without this the listener would fetch for its author what only the listener can
reach. The check is made on the address a socket is about to connect to, whatever name or spelling led there.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

# Metadata services outside the link-local ranges: AWS and GCP over IPv6, Azure, Alibaba, Oracle.
_METADATA = frozenset(
    ip_address(text) for text in ("fd00:ec2::254", "fd20:ce::254", "168.63.129.16", "100.100.100.200", "192.0.0.192")
)
_THIS_NETWORK = ip_network("0.0.0.0/8")
_BROADCAST = ip_address("255.255.255.255")
_NAT64 = IPv6Network("64:ff9b::/96")
_NAT64_LOCAL = IPv6Network("64:ff9b:1::/48")
_COMPATIBLE = IPv6Network("::/96")
_SHARED = ip_network("100.64.0.0/10")

Address = IPv4Address | IPv6Address


def refusal(text: str, *, allow_private: bool) -> str | None:
    """Why address `text` may not be connected to, or None where it may.

    Link-local, metadata, unspecified, multicast and broadcast addresses are refused always; loopback and
    private ones unless `allow_private`. An IPv4 address inside an IPv6 one is judged as what it is.
    """
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return "is not an IP address"
    inner = _inner(address)
    if any(_never(each) for each in inner):
        return "is a link-local, metadata, multicast or unspecified address, which is never sent to"
    if not allow_private and any(_private(each) for each in inner):
        return "is a private or loopback address, which this listener does not send to"
    return None


def _inner(address: Address) -> tuple[Address, ...]:
    """The addresses that packets sent to `address` may end at."""
    if isinstance(address, IPv4Address):
        return (address,)
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    if address.sixtofour is not None:
        return (address.sixtofour,)
    if address.teredo is not None:
        return address.teredo
    last = IPv4Address(int(address) & 0xFFFFFFFF)
    if address in _NAT64:
        return (last,)
    if address in _NAT64_LOCAL:
        return (address, last)
    if address in _COMPATIBLE and int(address) > 1:
        return (last,)
    return (address,)


def _never(address: Address) -> bool:
    return (
        address.is_link_local
        or address.is_unspecified
        or address.is_multicast
        or address == _BROADCAST
        or address in _METADATA
        or address in _THIS_NETWORK
    )


def _private(address: Address) -> bool:
    return (
        not address.is_global
        or address in _SHARED
        or address in _NAT64_LOCAL
        or getattr(address, "is_site_local", False)
    )
