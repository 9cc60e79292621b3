"""The NATS sink. The only door through which the NATS client library enters."""

from .sink import NatsSink

__all__ = ["NatsSink"]
