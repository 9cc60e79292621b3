"""Logs: one JSON object a line, or coloured lines where a person watches."""

from __future__ import annotations

import logging
import sys

import structlog


def configure_logs() -> None:
    """To standard error; libraries' own records from warning level up."""
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
    # It warns whenever a TLS connection ends.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    # nats-py logs every failed attempt to reconnect; the sink says the same once, with a reason.
    logging.getLogger("nats").setLevel(logging.CRITICAL)
