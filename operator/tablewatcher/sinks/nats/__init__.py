"""The NATS sink. The only door through which the NATS client library enters."""

from ...absent import absent

with absent("aiohttp"):
    import nats  # noqa: F401

from .sink import NatsSink

__all__ = ["NatsSink"]
